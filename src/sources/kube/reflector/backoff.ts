/**
 * How long to wait before the next attempt: in proportion to how long there has been no success. Like doubling, with
 * jitter, but the wait never exceeds a known part of the outage, so that neither does the delay after its end.
 */

export interface BackoffOptions {
  /** First wait, milliseconds. */
  readonly firstMs: number;
  readonly maxMs: number;
}

/** Begins as client-go's reflector does, and ends a little above it: there are 30 to 60 s between two attempts of a kind. */
export const defaultBackoff: BackoffOptions = { firstMs: 800, maxMs: 32_000 };

/** Of the beginning of an outage; the pauses of one that a user waits for stay below 5 s, … */
const beginMs = 8000;
const beginShare = 0.3;
/** … and of what goes beyond that: there 5,000 nodes that come back together matter more. */
const longMs = 30_000;
const longShare = 0.8;

export class OutageBackoff {
  private readonly options: BackoffOptions;
  private readonly random: () => number;
  private readonly now: () => number;
  private since: number | undefined;

  constructor(options: BackoffOptions, random = Math.random, now: () => number = () => performance.now()) {
    this.options = options;
    this.random = random;
    this.now = now;
  }

  /** Milliseconds since the first failure after a success; 0 when there was none. */
  get failingForMs(): number {
    return this.since === undefined ? 0 : this.now() - this.since;
  }

  /** An attempt failed. @returns milliseconds to wait: between one and two times the step, so that nodes spread */
  next(): number {
    const { firstMs, maxMs } = this.options;
    this.since ??= this.now();
    const lasted = this.failingForMs;
    const share = Math.min(lasted, beginMs) * beginShare + Math.max(0, lasted - longMs) * longShare;
    return Math.min(Math.max(firstMs, share), maxMs) * (1 + this.random());
  }

  succeeded(): void {
    this.since = undefined;
  }
}
