/**
 * What to do when another program changed our rules: compare all of them (Dataplane.adopt), soon at first, later and later
 * when it happens again and again. Two programs that fight must not take the node with them.
 */
import type { Logger } from '../../log/logger.js';
import type { IPFamily } from '../../model/types.js';

const firstDelayMs = 20;
const maxDelayMs = 60_000;
/** Without a foreign change for this long, the next one is answered at once again. */
const quietMs = 60_000;

export class ForeignChanges {
  private readonly pending = new Map<IPFamily, NodeJS.Timeout>();
  private delayMs = firstDelayMs;
  private lastChange = -Infinity;

  constructor(
    private readonly onForeignChange: (family: IPFamily) => void,
    private readonly log: Logger,
    /** What another program, named `by`, changed will be put right after so many milliseconds. */
    private readonly onPutOff: (by: string, delayMs: number) => void = () => undefined,
  ) {}

  /** @param by name of the program, for the log */
  noticed(families: readonly IPFamily[], by: string): void {
    const now = Date.now();
    const again = now - this.lastChange < quietMs;
    this.lastChange = now;
    const fresh = families.filter((family) => !this.pending.has(family));
    if (fresh.length === 0) return;
    this.delayMs = again ? Math.min(this.delayMs * 2, maxDelayMs) : firstDelayMs;
    this.log.warn('Another program changed our rules; they are compared and completed', {
      families: fresh,
      by,
      inMs: this.delayMs,
    });
    this.onPutOff(by, this.delayMs);
    for (const family of fresh) {
      const timer = setTimeout(() => {
        this.pending.delete(family);
        this.onForeignChange(family);
      }, this.delayMs);
      this.pending.set(family, timer);
    }
  }

  close(): void {
    for (const timer of this.pending.values()) clearTimeout(timer);
    this.pending.clear();
  }
}
