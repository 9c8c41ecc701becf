/**
 * When our tables are checked because notifications of other programs' transactions were missed: soon, but checks take a small
 * share of the time, and none begins while the family is compared or checked already.
 */
import { performance } from 'node:perf_hooks';
import { guarded } from '../../callbacks/guarded.js';
import type { IPFamily } from '../../model/types.js';

/** What made notifications get lost may go on for a moment. */
const firstDelayMs = 5;
/** A check comes no sooner than this after the end of the last one, … */
const restMs = 1000;
/** … nor than so many times what that one took. */
const restFactor = 20;

interface FamilyChecks {
  /** Notifications were missed since the table was last looked at. */
  missed: boolean;
  /** Comparisons and checks under way. */
  running: number;
  timer: NodeJS.Timeout | undefined;
  /** performance.now() */
  earliest: number;
}

export class QuietChecks {
  private readonly families: ReadonlyMap<IPFamily, FamilyChecks>;
  private closed = false;

  /** @param check is to call begin() and end(), or postpone() */
  constructor(
    families: readonly IPFamily[],
    private readonly check: (family: IPFamily) => void,
  ) {
    this.families = new Map(
      families.map((family) => [
        family,
        { missed: false, running: 0, timer: undefined, earliest: -Infinity },
      ]),
    );
  }

  /** Something was missed, of whichever family. */
  request(): void {
    for (const [family, checks] of this.families) {
      checks.missed = true;
      this.schedule(family, checks);
    }
  }

  /** The family is compared or checked from now on. @returns whether something was missed before */
  begin(family: IPFamily): boolean {
    const checks = this.families.get(family);
    if (checks === undefined) return false;
    const { missed } = checks;
    clearTimeout(checks.timer);
    checks.timer = undefined;
    checks.missed = false;
    checks.running++;
    return missed;
  }

  /** @param checkMs how long a check took; undefined: it was a comparison */
  end(family: IPFamily, checkMs?: number): void {
    const checks = this.families.get(family);
    if (checks === undefined) return;
    checks.running--;
    if (checkMs !== undefined) checks.earliest = performance.now() + Math.max(restMs, restFactor * checkMs);
    this.schedule(family, checks);
  }

  /** It is no time for a check. */
  postpone(family: IPFamily): void {
    const checks = this.families.get(family);
    if (checks === undefined) return;
    checks.earliest = performance.now() + restMs;
    this.schedule(family, checks);
  }

  close(): void {
    this.closed = true;
    for (const { timer } of this.families.values()) clearTimeout(timer);
  }

  private schedule(family: IPFamily, checks: FamilyChecks): void {
    if (this.closed || !checks.missed || checks.running > 0 || checks.timer !== undefined) return;
    checks.timer = setTimeout(
      guarded('check a table', () => {
        checks.timer = undefined;
        this.check(family);
      }),
      Math.max(firstDelayMs, checks.earliest - performance.now()),
    ).unref();
  }
}
