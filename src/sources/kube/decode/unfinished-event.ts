import { guarded } from '../../../callbacks/guarded.js';

/** What came while the event loop was held is read before anybody is given up. */
const graceMs = 100;

/**
 * Gives a watch up when an event has begun and does not go on: what it waits for may be the end of a length that is wrong, into
 * which all further events would go.
 */
export class UnfinishedEvent {
  private readonly pauseMs: number;
  private readonly limitMs: number;
  private readonly giveUp: () => void;
  private timer: NodeJS.Timeout | undefined;
  /** When it began, performance.now(). */
  private since: number | undefined;

  /**
   * @param pauseMs its bytes may pause for so long
   * @param limitMs it is complete by then
   */
  constructor(pauseMs: number, limitMs: number, giveUp: () => void) {
    this.pauseMs = pauseMs;
    this.limitMs = limitMs;
    this.giveUp = giveUp;
  }

  /**
   * Bytes came.
   * @param unfinished an event is not complete after them
   * @param completed others are
   */
  bytes(unfinished: boolean, completed: boolean): void {
    clearTimeout(this.timer);
    if (!unfinished || completed) this.since = undefined;
    if (!unfinished) return;
    const now = performance.now();
    this.since ??= now;
    const leftMs = this.since + this.limitMs - now;
    if (leftMs <= 0) this.giveUp();
    else this.timer = setTimeout(this.overdue, Math.min(this.pauseMs, leftMs));
  }

  private readonly overdue = guarded('give an event up', () => {
    this.timer = setTimeout(guarded('give an event up', this.giveUp), Math.min(graceMs, this.pauseMs));
  });

  end(): void {
    clearTimeout(this.timer);
  }
}
