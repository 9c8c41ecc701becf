/** How long to wait before the next attempt: doubling, with jitter, and forgotten after a quiet time. */

export interface BackoffOptions {
  /** First wait, milliseconds. */
  readonly firstMs: number;
  readonly maxMs: number;
  /** An attempt that lasted this long without trouble counts as success. */
  readonly resetMs: number;
}

/** As client-go's reflector waits. */
export const defaultBackoff: BackoffOptions = { firstMs: 800, maxMs: 30_000, resetMs: 120_000 };

export class Backoff {
  readonly #options: BackoffOptions;
  readonly #random: () => number;
  readonly #now: () => number;
  #step = 0;
  #lastAt = -Infinity;

  constructor(options: BackoffOptions, random = Math.random, now: () => number = () => performance.now()) {
    this.#options = options;
    this.#random = random;
    this.#now = now;
  }

  /**
   * Milliseconds to wait, between one and two times the step, so that thousands of nodes do not come back together.
   * @param atLeastMs what the server asked for (Retry-After); 0: nothing
   */
  next(atLeastMs = 0): number {
    const { firstMs, maxMs, resetMs } = this.#options;
    const now = this.#now();
    if (now - this.#lastAt > resetMs) this.#step = 0;
    const base = Math.min(firstMs * 2 ** this.#step, maxMs);
    if (base < maxMs) this.#step++;
    this.#lastAt = now;
    return Math.max(base, atLeastMs) * (1 + this.#random());
  }
}
