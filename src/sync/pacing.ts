/** How soon one sync may follow another. Pure: times are those of performance.now(). */

/** After so many syncs without a pause changes are steady, and the period grows: a sync costs the same for two of them. */
const steadyAfter = 8;
const steadyStretch = 1.5;

export class Pace {
  private lastEnd = -Infinity;
  private restMs = 0;
  /** Syncs in a row that began within two periods of the end of the one before. */
  private inARow = 0;

  /** @param periodMs least milliseconds from the end of a sync to the start of the next */
  constructor(private readonly periodMs: number) {}

  began(now: number): void {
    this.inARow = now - this.lastEnd > 2 * Math.max(this.periodMs, this.restMs) ? 0 : this.inARow + 1;
  }

  /** @param restMs what others need after this sync, if that is more than the period */
  ended(now: number, restMs = 0): void {
    this.lastEnd = now;
    this.restMs = restMs;
  }

  /** When the next sync may begin. */
  get earliest(): number {
    const periodMs = this.periodMs * (this.inARow < steadyAfter ? 1 : steadyStretch);
    return this.lastEnd + Math.max(periodMs, this.restMs);
  }
}
