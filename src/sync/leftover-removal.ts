/**
 * Removes what other modes left, once this one's rules are in the kernel. What fails is tried again with growing pauses: the lock
 * of iptables is somebody else's for a while, a chain is in use until a second program lets go of it. Connections that
 * mode ipvs left are waited for.
 */
import type { Drain } from '../backends/removal-report.js';
import { Report, type Outcome } from '../backends/removal-report.js';
import { guarded } from '../callbacks/guarded.js';
import type { Logger } from '../log/logger.js';

/** Pauses before the second and later attempts; after the last one it is left to `--cleanup`. */
const retryAfterMs: readonly number[] = [5_000, 20_000, 80_000, 320_000, 1_280_000];

export type Removal = Pick<Report, 'outcomes' | 'drains'>;

export interface LeftoverRemovalOptions {
  /** removeLeftovers(). */
  readonly remove: () => Promise<Removal>;
  readonly log: Logger;
  /** For tests. */
  readonly retryAfterMs?: readonly number[];
}

export class LeftoverRemoval {
  private drains: readonly Drain[] = [];
  private timer: NodeJS.Timeout | undefined;
  private attempts = 0;
  private stopped = false;
  /** What was said already: another attempt meets most of it again. */
  private readonly reported = new Set<string>();

  private readonly tryNow = guarded('remove leftovers', () => this.attempt());

  constructor(private readonly options: LeftoverRemovalOptions) {}

  start(): void {
    if (!this.stopped) this.tryNow();
  }

  /** Now and then: connections that mode ipvs left end one after the other. */
  async continueDraining(): Promise<void> {
    for (const drain of this.drains) {
      if (this.stopped) return;
      const report = new Report();
      const left = await drain.step(report);
      // Another attempt may have begun new ones meanwhile.
      if (left === undefined) this.drains = this.drains.filter((other) => other !== drain);
      this.logOutcomes(report.outcomes);
    }
  }

  /** No further attempt. One that is under way is not waited for: it may be waiting for others itself. */
  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  private async attempt(): Promise<void> {
    const { log } = this.options;
    const report = await this.options.remove();
    this.drains = report.drains;
    this.logOutcomes(report.outcomes);
    for (const { kind, what } of report.outcomes) {
      if (kind === 'draining')
        log.info('Draining connections of another mode before removing its rules', {
          what,
        });
    }
    if (this.stopped || !report.outcomes.some(({ kind }) => kind === 'failed')) return;
    const pauses = this.options.retryAfterMs ?? retryAfterMs;
    const pause = pauses[this.attempts++];
    if (pause === undefined) {
      log.warn('Giving up on leftovers, run kube-proxy --cleanup to see why', {
        attempts: this.attempts,
      });
      return;
    }
    log.info('Retrying removal of leftovers', { seconds: pause / 1000 });
    this.timer = setTimeout(this.tryNow, pause).unref();
  }

  private logOutcomes(outcomes: readonly Outcome[]): void {
    const { log } = this.options;
    this.reportDenied(outcomes);
    for (const outcome of outcomes) {
      const { kind, what } = outcome;
      if (kind === 'removed') log.info('Removed leftovers of another mode', { what });
      if (kind === 'kept' && this.isNews(what, outcome.why))
        log.warn('Leftover rules kept, still in use', { what, why: outcome.why });
      if (kind === 'failed' && this.isNews(what, outcome.why))
        log.error('Failed to remove leftovers of another mode', outcome.error, { what });
    }
  }

  /** One line for each capability that is missing, whatever it is needed for. */
  private reportDenied(outcomes: readonly Outcome[]): void {
    const denied = new Map<string, { what: string[]; why: string }>();
    for (const outcome of outcomes) {
      if (outcome.kind !== 'denied') continue;
      const { capability, what, why } = outcome;
      const entry = denied.get(capability) ?? { what: [], why };
      denied.set(capability, entry);
      entry.what.push(what);
    }
    for (const [capability, { what, why }] of denied) {
      if (!this.isNews('capability', capability)) continue;
      this.options.log.warn('Not permitted to look for leftovers of other modes, they stay', {
        what,
        capability,
        why,
        see: 'kube-proxy --cleanup as root removes them',
      });
    }
  }

  private isNews(what: string, why: string): boolean {
    const text = `${what}: ${why}`;
    if (this.reported.has(text)) return false;
    this.reported.add(text);
    return true;
  }
}
