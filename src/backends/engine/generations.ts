/**
 * Which transactions of other programs the kernel has not reported. Each transaction makes the generation of the rules one larger, and
 * its notifications end with that number. So what is neither ours nor was reported was missed: it happened while the subscription
 * was paused for a large transaction of ours, or in part before and in part after.
 */
import { guarded } from '../../callbacks/guarded.js';

/** Notifications of a transaction are read so long after it, milliseconds. */
const deliveryMs = 100;

/** Transactions of others after one generation, up to another, that are still to be reported. */
interface Outstanding {
  readonly after: number;
  readonly upTo: number;
  count: number;
}

export interface GenerationsOptions {
  /** The generation as it is now, which is a number of 32 bits that wraps around. */
  readonly current: () => number;
  /** Transactions of our own so far. */
  readonly own: () => number;
  /** A transaction of another program was missed. */
  readonly onMissed: () => void;
  /** For tests. */
  readonly deliveryMs?: number;
}

export class Generations {
  /** All transactions up to here are accounted for, or outstanding. */
  private settled: number;
  private ownAtSettled: number;
  /** Transactions of others after `settled` that were reported. */
  private reported = 0;
  private readonly outstanding: Outstanding[] = [];
  private readonly timers = new Set<NodeJS.Timeout>();

  constructor(private readonly options: GenerationsOptions) {
    this.settled = options.current();
    this.ownAtSettled = options.own();
  }

  /** All notifications of this transaction of another program have come. */
  heard(generation: number): void {
    if (isAfter(generation, this.settled)) {
      this.reported++;
      return;
    }
    const waiting = this.outstanding.find(
      ({ after, upTo }) => isAfter(generation, after) && !isAfter(generation, upTo),
    );
    // Else it is one of those that happened during a pause. Of these some notifications may be missing.
    if (waiting !== undefined) waiting.count--;
  }

  /** Does something while nobody listens: between `pause` and `resume`. */
  during(pause: () => void, work: () => void, resume: () => void): void {
    const before = this.read();
    const ownBefore = this.options.own();
    pause();
    try {
      work();
    } finally {
      resume();
      this.account(before, ownBefore);
    }
  }

  /** Everything will be looked at: what was missed until now does not matter. */
  forget(): void {
    this.outstanding.length = 0;
    const now = this.read();
    if (now !== undefined) this.settle(now);
  }

  close(): void {
    for (const timer of this.timers) clearTimeout(timer);
  }

  private account(before: number | undefined, ownBefore: number): void {
    const after = this.read();
    if (before === undefined || after === undefined) {
      this.options.onMissed();
      return;
    }
    const missed = distance(before, after) - (this.options.own() - ownBefore);
    const count = distance(this.settled, before) - (ownBefore - this.ownAtSettled) - this.reported;
    if (count > 0) this.await({ after: this.settled, upTo: before, count });
    this.settle(after);
    if (missed > 0) this.options.onMissed();
  }

  /** undefined: the kernel does not answer. What was asked for has to be done all the same. */
  private read(): number | undefined {
    try {
      return this.options.current();
    } catch {
      return undefined;
    }
  }

  private settle(generation: number): void {
    this.settled = generation;
    this.ownAtSettled = this.options.own();
    this.reported = 0;
  }

  private await(some: Outstanding): void {
    this.outstanding.push(some);
    const timer = setTimeout(
      guarded('count the transactions of others', () => {
        this.timers.delete(timer);
        const at = this.outstanding.indexOf(some);
        if (at < 0) return;
        this.outstanding.splice(at, 1);
        if (some.count > 0) this.options.onMissed();
      }),
      this.options.deliveryMs ?? deliveryMs,
    );
    this.timers.add(timer);
  }
}

/** How many transactions lie between two generations. */
function distance(from: number, to: number): number {
  return (to - from) | 0;
}

function isAfter(one: number, other: number): boolean {
  return distance(other, one) > 0;
}
