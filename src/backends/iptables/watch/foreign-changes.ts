/**
 * What to do when another program changed our rules: compare all of them (Dataplane.adopt), soon at first, later and later
 * when it happens again and again. Two programs that fight must not take the node with them. Whoever notices such a change,
 * and however, comes this way.
 */
import { performance } from 'node:perf_hooks';
import { guarded } from '../../../callbacks/guarded.js';
import type { Logger } from '../../../log/logger.js';
import type { IPFamily } from '../../../model/types.js';

/** Others may need several transactions for what they do. */
const firstDelayMs = 20;
/** Where a repair costs little it is never put off for longer. */
const maxDelayMs = 1_000;
const longestDelayMs = 60_000;
/** A change is a fight when it comes sooner than this after the last repair, … */
const restMs = 1_000;
/** … or than so many times what that one took and was put off: repairing never takes more than a small share of time. */
const restFactor = 20;

export interface ForeignChangesOptions {
  readonly onForeignChange: (family: IPFamily) => void;
  /** What another program, named `by`, changed will be put right after so many milliseconds. */
  readonly onBackoff?: (by: string, delayMs: number) => void;
  readonly log: Logger;
}

export class ForeignChanges {
  private readonly pending = new Map<IPFamily, NodeJS.Timeout>();
  private delayMs = firstDelayMs;
  private lastRepairEnd = -Infinity;
  private lastRepairMs = 0;

  constructor(private readonly options: ForeignChangesOptions) {}

  /** @param by the program, for people */
  noticed(families: readonly IPFamily[], by: string): void {
    const fresh = families.filter((family) => !this.pending.has(family));
    if (fresh.length === 0) return;
    const rest = Math.max(restMs, restFactor * (this.delayMs + this.lastRepairMs));
    const longest = Math.min(Math.max(maxDelayMs, restFactor * this.lastRepairMs), longestDelayMs);
    const isFight = performance.now() - this.lastRepairEnd < rest;
    this.delayMs = isFight ? Math.min(this.delayMs * 2, longest) : firstDelayMs;
    this.options.log.warn('Rules modified by another program, repairing', {
      families: fresh,
      by,
      inMs: this.delayMs,
    });
    this.options.onBackoff?.(by, this.delayMs);
    for (const family of fresh) {
      const timer = setTimeout(
        guarded('repair rules', () => {
          this.pending.delete(family);
          this.options.onForeignChange(family);
        }),
        this.delayMs,
      );
      this.pending.set(family, timer);
    }
  }

  /** Everything was compared, for whatever reason. */
  compared(milliseconds: number): void {
    this.lastRepairEnd = performance.now();
    this.lastRepairMs = milliseconds;
  }

  close(): void {
    for (const timer of this.pending.values()) clearTimeout(timer);
    this.pending.clear();
  }
}
