/**
 * Brings what the model wants into the kernel: at once when quiet, coalesced when busy, again after a failure.
 * Both families go through one loop; trouble in one does not hold up the other.
 */
import { performance } from 'node:perf_hooks';
import { TableDamagedError, type ApplyReport, type Dataplane } from '../dataplane/dataplane.js';
import type { Health } from '../health/health.js';
import type { Logger } from '../log/logger.js';
import type { Metrics } from '../metrics/metrics.js';
import type { ServiceModel } from '../model/model.js';
import type { FamilyChanges, IPFamily, ModelChanges, ServicePort } from '../model/types.js';

export interface SyncLoopOptions {
  readonly model: ServiceModel;
  readonly dataplanes: readonly Dataplane[];
  readonly health: Health;
  readonly metrics: Metrics;
  readonly log: Logger;
  /** Least milliseconds between the end of one sync and the start of the next. */
  readonly minSyncPeriodMs: number;
  /** A failed sync is tried again after at most this many milliseconds. */
  readonly syncPeriodMs: number;
  /** Called after every sync of a family that reached the kernel, with what was new or changed and what is gone. */
  readonly afterSync: (family: IPFamily, ports: Iterable<ServicePort>, removed: readonly string[]) => void;
  /** Called once per sync with what the model said beside the service ports. */
  readonly onChanges: (changes: ModelChanges) => void;
}

interface FamilyRun {
  readonly dataplane: Dataplane;
  /** The kernel has to be read and compared: at the start, and after a failure. */
  needsAdoption: boolean;
  /** Service ports that the kernel refused, by key, with the message last reported. */
  readonly failed: Map<string, string>;
}

const firstRetryMs = 100;

export class SyncLoop {
  private readonly runs: readonly FamilyRun[];
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> | undefined;
  private requested = false;
  private stopped = false;
  private lastEnd = -Infinity;
  private retryMs = firstRetryMs;
  private readonly startedAt = Date.now();
  private retryAt: number | undefined;

  constructor(private readonly options: SyncLoopOptions) {
    this.runs = options.dataplanes.map((dataplane) => ({
      dataplane,
      needsAdoption: true,
      failed: new Map(),
    }));
  }

  /** Something changed. */
  request(): void {
    const { health, metrics } = this.options;
    for (const { dataplane } of this.runs) {
      health.queued(dataplane.family);
      metrics.lastQueued.set({ ip_family: dataplane.family }, Date.now() / 1000);
    }
    this.requested = true;
    this.schedule();
  }

  /** The kernel no longer holds what it should: compare everything. */
  requestAdoption(family: IPFamily): void {
    for (const run of this.runs) if (run.dataplane.family === family) run.needsAdoption = true;
    this.request();
  }

  /** Ends after the transaction that is running, if any. */
  async stop(): Promise<void> {
    this.stopped = true;
    clearTimeout(this.timer);
    await this.running;
  }

  private schedule(): void {
    if (this.stopped || this.running !== undefined) return;
    const now = performance.now();
    const earliest = this.lastEnd + this.options.minSyncPeriodMs;
    const due = this.requested
      ? earliest
      : this.retryAt === undefined
        ? undefined
        : Math.max(earliest, this.retryAt);
    if (due === undefined) return;
    clearTimeout(this.timer);
    if (due <= now && this.requested) {
      this.start();
      return;
    }
    this.timer = setTimeout(
      () => {
        this.start();
      },
      Math.max(0, due - now),
    );
  }

  private start(): void {
    if (this.stopped || this.running !== undefined) return;
    this.requested = false;
    this.retryAt = undefined;
    this.running = this.sync().finally(() => {
      this.running = undefined;
      this.lastEnd = performance.now();
      this.schedule();
    });
  }

  private async sync(): Promise<void> {
    const { model, log, metrics } = this.options;
    const changes = model.takeChanges();
    this.options.onChanges(changes);
    let failed = false;
    for (const run of this.runs) {
      const { family } = run.dataplane;
      const own = changes.families.find((candidate) => candidate.family === family);
      try {
        if (!(await this.syncFamily(run, own))) failed = true;
      } catch (error) {
        failed = true;
        run.needsAdoption = true;
        metrics.syncFailures.inc({ ip_family: family });
        const again = { family, retryMs: this.retryMs };
        if (error instanceof TableDamagedError) log.warn(error.message, again);
        else log.error('Failed to program the kernel; the rules in force stay', error, again);
      }
    }
    this.observeLatency(changes);
    if (failed) {
      this.retryAt = performance.now() + this.retryMs;
      this.retryMs = Math.min(this.retryMs * 2, this.options.syncPeriodMs);
    } else {
      this.retryMs = firstRetryMs;
    }
  }

  /** From the change of an endpoint to now; changes older than this process tell nothing. */
  private observeLatency({ triggerTimes, families }: ModelChanges): void {
    for (const time of triggerTimes) {
      if (time < this.startedAt) continue;
      for (const { family, upserted } of families) {
        if (upserted.length === 0) continue;
        this.options.metrics.programmingDuration.observe({ ip_family: family }, (Date.now() - time) / 1000);
      }
    }
  }

  /** @returns false when something waits to be tried again. */
  private async syncFamily(run: FamilyRun, changes: FamilyChanges | undefined): Promise<boolean> {
    const { model, health, metrics, log } = this.options;
    const { dataplane } = run;
    const { family } = dataplane;
    const start = performance.now();
    const adopted = run.needsAdoption;
    const ports = adopted ? [...model.servicePorts(family)] : this.withFailed(run, changes);
    const removed = changes?.removed ?? [];
    if (!adopted && ports.length === 0 && removed.length === 0) {
      health.updated(family);
      return true;
    }
    const report = adopted
      ? await dataplane.adopt(ports)
      : await dataplane.apply({ family, upserted: ports, removed });
    run.needsAdoption = false;
    for (const key of removed) run.failed.delete(key);
    this.noteFailures(run, ports, report);

    const labels = { ip_family: family };
    metrics.syncDuration.observe(labels, (performance.now() - start) / 1000);
    metrics.lastSync.set(labels, Date.now() / 1000);
    metrics.elementsWritten.inc(labels, report.elementsAdded + report.elementsDeleted);
    metrics.servicePortsFailed.set(labels, run.failed.size);
    health.updated(family);
    log.debug(adopted ? 0 : 2, adopted ? 'Kernel state compared and completed' : 'Kernel follows a change', {
      family,
      servicePorts: ports.length,
      removed: removed.length,
      transactions: report.transactions,
      added: report.elementsAdded,
      deleted: report.elementsDeleted,
      kernelMs: round(report.kernelMs),
      totalMs: round(performance.now() - start),
    });
    this.options.afterSync(family, ports, removed);
    return run.failed.size === 0;
  }

  /** What changed, and what the kernel refused last time and is still wanted. */
  private withFailed(run: FamilyRun, changes: FamilyChanges | undefined): readonly ServicePort[] {
    const upserted = changes?.upserted ?? [];
    if (run.failed.size === 0) return upserted;
    const fresh = new Set(upserted.map((port) => port.key));
    const again: ServicePort[] = [];
    for (const port of this.options.model.servicePorts(run.dataplane.family)) {
      if (run.failed.has(port.key) && !fresh.has(port.key)) again.push(port);
    }
    return [...upserted, ...again];
  }

  /** Each refused service port is reported once, by name, until it succeeds or its error changes. */
  private noteFailures(run: FamilyRun, tried: readonly ServicePort[], report: ApplyReport): void {
    const { log, metrics } = this.options;
    const family = run.dataplane.family;
    const before = new Map(run.failed);
    for (const port of tried) run.failed.delete(port.key);
    for (const { key, servicePort, error } of report.failures) {
      run.failed.set(key, error.message);
      if (before.get(key) === error.message) continue;
      metrics.syncFailures.inc({ ip_family: family });
      log.error('The kernel refused a service port; all others are served, this one is tried again', error, {
        servicePort,
        family,
      });
    }
    for (const key of before.keys()) {
      if (!run.failed.has(key))
        log.info('A refused service port is in the kernel now', { servicePort: key, family });
    }
  }
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}
