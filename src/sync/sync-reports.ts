/** What health, metrics and the log hear of the syncs of one family. */
import { performance } from 'node:perf_hooks';
import { TableDamagedError, type ApplyReport, type CheckReport } from '../backends/backend.js';
import type { Health } from '../health/health.js';
import type { Logger } from '../log/logger.js';
import type { Metrics } from '../metrics/metrics.js';
import type { IPFamily, ServicePort } from '../model/types.js';
import { ChangeList, namedAtMost } from './change-list.js';
import { LocalPolicyGaps } from './local-policy.js';

export interface SyncReportsOptions {
  readonly health: Health;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** About a sync that has written. */
export interface Occasion {
  /** It compared everything without a reason to think that anything was wrong. */
  readonly checks: boolean;
  /** Since when it is known that somebody else changed the kernel (performance.now()); undefined: nobody did. */
  readonly damagedSince: number | undefined;
  /** The model had changed nothing. */
  readonly quiet: boolean;
  /** Service ports that the kernel rejects. */
  readonly rejected: number;
}

export class SyncReports {
  private readonly labels: { readonly ip_family: IPFamily };
  private readonly localPolicyGaps = new LocalPolicyGaps();
  private readonly changes = new ChangeList();

  constructor(
    private readonly family: IPFamily,
    private readonly options: SyncReportsOptions,
  ) {
    this.labels = { ip_family: family };
  }

  /** A sync was requested. */
  queued(): void {
    this.options.health.queued(this.family);
    this.options.metrics.lastQueued.set(this.labels, Date.now() / 1000);
  }

  /**
   * The kernel has what a sync took, but for what it rejected.
   * @param triggers when that changed, milliseconds since the epoch
   * @param more something changed meanwhile
   */
  updated(triggers: readonly number[], more: boolean): void {
    const { health, metrics } = this.options;
    const now = Date.now();
    metrics.lastSync.set(this.labels, now / 1000);
    for (const time of triggers) metrics.programmingDuration.observe(this.labels, (now - time) / 1000);
    health.updated(this.family);
    if (more) health.queued(this.family);
  }

  /** A sync ended, well or not. @param start performance.now() @param full it compared everything */
  took(start: number, full: boolean): void {
    const { metrics } = this.options;
    const seconds = (performance.now() - start) / 1000;
    metrics.syncDuration.observe(this.labels, seconds);
    (full ? metrics.fullSyncDuration : metrics.partialSyncDuration).observe(this.labels, seconds);
  }

  /** @param start performance.now() */
  wrote(report: ApplyReport, start: number, { checks, damagedSince, quiet, rejected }: Occasion): void {
    const { metrics } = this.options;
    const { labels } = this;
    this.count(report);
    if (checks) metrics.checkDuration.observe(labels, (performance.now() - start) / 1000);
    metrics.servicePortsRejected.set(labels, rejected);
    if (report.failures.length > 0) metrics.syncFailures.inc(labels);
    if (report.transactions === 0 || (damagedSince === undefined && !(checks && quiet))) return;
    metrics.repairs.inc(labels);
    metrics.repairDuration.observe(labels, (performance.now() - (damagedSince ?? start)) / 1000);
    if (damagedSince === undefined) this.silentDifference(report);
  }

  /** @param start performance.now() */
  complete(
    full: boolean,
    ports: readonly ServicePort[],
    removed: readonly string[],
    report: ApplyReport,
    start: number,
  ): void {
    const { log } = this.options;
    const { family, changes } = this;
    if (full) this.localPolicyGaps.replace(ports);
    else this.localPolicyGaps.update(ports, removed);
    this.observeLocalPolicy();
    if (full) changes.replace(ports);
    const changed = full ? undefined : changes.update(ports, removed);
    log.debug(full ? 0 : 2, full ? 'Resync complete' : 'Sync complete', {
      family,
      servicePorts: ports.length,
      removed: removed.length,
      transactions: report.transactions,
      added: report.elementsAdded,
      deleted: report.elementsDeleted,
      kernelMs: round(report.kernelMs),
      totalMs: round(performance.now() - start),
      ...(changed === undefined ? {} : { changed: () => changed.list(namedAtMost) }),
      ...(changed !== undefined && changed.count > namedAtMost
        ? { notNamed: changed.count - namedAtMost }
        : {}),
    });
    if (changed !== undefined && changed.count > namedAtMost) {
      log.debug(4, 'All service ports of this sync', { family, changed: () => changed.list() });
    }
  }

  failed(error: unknown, retryMs: number): void {
    const { log, metrics } = this.options;
    metrics.syncFailures.inc(this.labels);
    const again = { family: this.family, retryMs };
    if (error instanceof TableDamagedError) log.warn(error.message, again);
    else log.error('Failed to program the kernel, rules in force stay', error, again);
  }

  /** A sync of what changed failed as a whole: everything is compared next. */
  partialSyncFailed(): void {
    this.options.metrics.iptables.partialRestoreFailures.inc(this.labels);
  }

  /** A check looked at everything. @param start performance.now() */
  checked(report: CheckReport, start: number): void {
    const { log, metrics } = this.options;
    const { family, labels } = this;
    metrics.checkDuration.observe(labels, (performance.now() - start) / 1000);
    log.debug(1, 'Consistency check complete', { family, totalMs: round(performance.now() - start) });
    if (report.transactions === 0) return;
    this.count(report);
    metrics.repairs.inc(labels);
    if (!report.reported) this.silentDifference(report);
  }

  deferredDeleted(report: ApplyReport): void {
    if (report.transactions === 0) return;
    this.count(report);
    this.options.log.debug(4, 'Deferred deletions complete', {
      family: this.family,
      deleted: report.elementsDeleted,
    });
  }

  deferredFailed(error: unknown): void {
    const { log, metrics } = this.options;
    metrics.syncFailures.inc(this.labels);
    log.warn('Failed to run deferred deletions, resyncing', {
      family: this.family,
      error: error instanceof Error ? error.message : String(error),
    });
  }

  private count(report: ApplyReport): void {
    const { metrics } = this.options;
    metrics.elementsWritten.inc(this.labels, report.elementsAdded + report.elementsDeleted);
    metrics.transactions.inc(this.labels, report.transactions);
  }

  /** A check found what no notification had reported. */
  private silentDifference({ elementsAdded: added, elementsDeleted: deleted }: ApplyReport): void {
    this.options.metrics.silentDifferences.inc(this.labels);
    this.options.log.warn('Consistency check repaired drift', {
      family: this.family,
      added,
      deleted,
    });
  }

  private observeLocalPolicy(): void {
    for (const policy of ['internal', 'external'] as const) {
      this.options.metrics.noLocalEndpoints.set(
        { traffic_policy: policy, ip_family: this.family },
        this.localPolicyGaps[policy],
      );
    }
  }
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}
