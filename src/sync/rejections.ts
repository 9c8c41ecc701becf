/** Service ports that the kernel rejected: each is reported once, by name, until it is accepted or its error changes. */
import type { ProgrammingFailure } from '../backends/backend.js';
import type { Logger } from '../log/logger.js';
import type { IPFamily } from '../model/types.js';
import { longestName, printable } from '../sources/printable.js';

/** Rejected service ports of one sync that have a line of the log each: a Service may have thousands of ports. */
const maxReportedAtOnce = 50;
/** Of a service port's name. */
const maxPrinted = 3 * longestName;

/** A service port that the kernel rejected. */
export interface Rejection {
  /** As printed for people. */
  readonly servicePort: string;
  readonly message: string;
}

export class Rejections {
  private readonly byKey = new Map<string, Rejection>();

  constructor(
    private readonly family: IPFamily,
    private readonly log: Logger,
  ) {}

  get size(): number {
    return this.byKey.size;
  }

  /** By key, why. */
  get all(): ReadonlyMap<string, Rejection> {
    return this.byKey;
  }

  has(key: string): boolean {
    return this.byKey.has(key);
  }

  /**
   * Takes over what a sync says.
   * @param tried keys of what it wrote, or tried to; undefined: everything
   * @param isGone whether a key's service port is gone from the model
   * @returns whether something is rejected, or accepted, that was not before
   */
  update(
    tried: Iterable<string> | undefined,
    failures: readonly ProgrammingFailure[],
    isGone: (key: string) => boolean,
  ): boolean {
    if (this.byKey.size === 0 && failures.length === 0) return false;
    const { family, log } = this;
    const before = new Map(this.byKey);
    if (tried === undefined) this.byKey.clear();
    else for (const key of tried) this.byKey.delete(key);
    let reported = 0;
    let changed = false;
    for (const { key, servicePort, error } of failures) {
      this.byKey.set(key, { servicePort, message: error.message });
      if (before.get(key)?.message === error.message) continue;
      changed = true;
      if (++reported > maxReportedAtOnce) continue;
      log.error('Service port rejected by the kernel, retrying it', error, {
        servicePort: printable(servicePort, maxPrinted),
        family,
      });
    }
    if (reported > maxReportedAtOnce)
      log.error('More service ports rejected by the kernel than are named here', undefined, {
        family,
        notNamed: reported - maxReportedAtOnce,
      });
    for (const [key, { servicePort }] of before) {
      if (this.byKey.has(key)) continue;
      changed = true;
      if (!isGone(key))
        log.info('Service port accepted by the kernel again', {
          servicePort: printable(servicePort, maxPrinted),
          family,
        });
    }
    return changed;
  }
}
