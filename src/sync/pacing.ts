/** How soon one sync may follow another. Pure: times are those of performance.now(). */

/** After so many syncs without a pause changes are steady: then they are gathered, since a sync costs the same for two of them. */
const steadyAfter = 8;
/** Periods for which the first of steady changes waits for others: 12 ms, in which two of 100 a second come. */
const gatherPeriods = 1.2;
/** A change that comes so many periods after a sync comes after a pause. */
const pausePeriods = 2;

export class Pace {
  private lastEnd = -Infinity;
  private restMs = 0;
  /** When the first change was requested that no sync has taken yet. */
  private requestedAt: number | undefined;
  /** Syncs since the last pause. */
  private inARow = 0;

  /** @param periodMs least milliseconds from the end of a sync to the start of the next */
  constructor(private readonly periodMs: number) {}

  /** There is a change. */
  requested(now: number): void {
    if (this.requestedAt !== undefined) return;
    this.requestedAt = now;
    if (now - this.lastEnd > pausePeriods * Math.max(this.periodMs, this.restMs)) this.inARow = 0;
  }

  began(): void {
    this.requestedAt = undefined;
    this.inARow++;
  }

  /** @param restMs what others need after this sync, if that is more than the period */
  ended(now: number, restMs = 0): void {
    this.lastEnd = now;
    this.restMs = restMs;
  }

  /** When the next sync may begin. */
  get earliest(): number {
    const rested = this.lastEnd + Math.max(this.periodMs, this.restMs);
    if (this.inARow < steadyAfter || this.requestedAt === undefined) return rested;
    return Math.max(rested, this.requestedAt + gatherPeriods * this.periodMs);
  }
}
