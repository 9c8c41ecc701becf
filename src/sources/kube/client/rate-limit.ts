/**
 * A limit on how often the API server is asked, as clientConnection.qps and .burst set it: a bucket of `burst` tokens
 * that fills up again with `qps` tokens a second. Who finds it empty waits, in the order of arrival.
 */
import { guarded } from '../../../callbacks/guarded.js';
import { KubeError } from '../errors.js';

export interface RateLimit {
  /** Requests per second in the long run; 0 and less: no limit. */
  readonly qps: number;
  /** Requests that may come at once; at least 1 where there is a limit. */
  readonly burst: number;
}

/** The defaults of KubeProxyConfiguration (config.md section 5). */
export const defaultRateLimit: RateLimit = { qps: 5, burst: 10 };

export const noRateLimit: RateLimit = { qps: -1, burst: 0 };

export class RateLimiter {
  private readonly perMs: number;
  private readonly burst: number;
  private readonly now: () => number;
  /** Below zero: so many requests wait already, each for its own token. */
  private tokens: number;
  private filledAt: number;

  /**
   * @param now milliseconds that never go back
   * @throws RangeError for a limit that would let nothing through
   */
  constructor({ qps, burst }: RateLimit, now: () => number = () => performance.now()) {
    if (qps > 0 && !(burst >= 1)) {
      throw new RangeError(`a burst of ${burst} lets no request through: it must be at least 1`);
    }
    this.perMs = qps > 0 ? qps / 1000 : 0;
    this.burst = burst;
    this.tokens = burst;
    this.now = now;
    this.filledAt = now();
  }

  /**
   * Takes a token, and waits for it where there is none.
   * @returns milliseconds waited for; undefined where there is no limit
   * @throws KubeError when the caller gives up; its token goes back
   */
  async take(signal: AbortSignal): Promise<number | undefined> {
    if (this.perMs === 0) return undefined;
    const now = this.now();
    this.tokens = Math.min(this.burst, this.tokens + (now - this.filledAt) * this.perMs);
    this.filledAt = now;
    this.tokens -= 1;
    if (this.tokens >= 0) return 0;
    const waitMs = -this.tokens / this.perMs;
    await new Promise<void>((resolve, reject) => {
      const abort = (): void => {
        clearTimeout(timer);
        this.tokens += 1;
        reject(new KubeError('KUBE_CONNECTION_LOST', 'the request was cancelled'));
      };
      const timer = setTimeout(
        guarded('begin a request', () => {
          signal.removeEventListener('abort', abort);
          resolve();
        }),
        waitMs,
      );
      if (signal.aborted) abort();
      else signal.addEventListener('abort', abort, { once: true });
    });
    return waitMs;
  }
}
