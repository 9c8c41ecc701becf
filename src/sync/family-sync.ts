/**
 * Brings the changes of one family into the kernel: at once when quiet, coalesced when busy, again after a failure. What others did
 * to the rules, or may have done, ends here too: in a full comparison, or in a check.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  TableDamagedError,
  type ApplyReport,
  type CheckReport,
  type Dataplane,
} from '../backends/backend.js';
import { guarded } from '../callbacks/guarded.js';
import type { Health } from '../health/health.js';
import type { Logger } from '../log/logger.js';
import type { Metrics } from '../metrics/metrics.js';
import type { ServiceModel } from '../model/model.js';
import type { IPFamily, ModelChanges, ReleasedAddress, ServicePort } from '../model/types.js';
import { Pace } from './pacing.js';
import { PendingChanges } from './pending-changes.js';
import { Rejections, type Rejection } from './rejections.js';
import { SyncReports } from './sync-reports.js';

export interface FamilySyncOptions {
  readonly dataplane: Dataplane;
  readonly model: ServiceModel;
  /** Has the changes of the model handed to take(), of all families; a promise when that takes several turns. */
  readonly takeChanges: () => Promise<void> | undefined;
  readonly health: Health;
  readonly metrics: Metrics;
  readonly log: Logger;
  /** Least milliseconds between the end of one sync and the start of the next. */
  readonly minSyncPeriodMs: number;
  /** A failed sync is tried again after at most this many milliseconds. */
  readonly syncPeriodMs: number;
  /**
   * Called after every sync of a family that reached the kernel, with what it took over: new or changed, and gone.
   * @param repaired the kernel lacked something: packets may have passed the rules by
   */
  readonly afterSync: (
    family: IPFamily,
    ports: readonly ServicePort[],
    removed: readonly string[],
    repaired: boolean,
  ) => void;
  /** Called after afterSync with what the kernel led somewhere that is no service port's. */
  readonly onReleased?: (family: IPFamily, released: readonly ReleasedAddress[]) => void;
  /** Puts service ports in the order in which they are to be programmed when everything is compared. */
  readonly arrange?: (family: IPFamily, ports: readonly ServicePort[]) => readonly ServicePort[];
  /** Called when it changed what the kernel rejects of this family: by key, why. */
  readonly onRejections?: (family: IPFamily, rejected: ReadonlyMap<string, Rejection>) => void;
}

const firstRetryMs = 100;
/** A comparison of more service ports goes through them in turns of its own. */
const servicePortsPerTurn = 500;
/** Of a family that can't be programmed for long; what comes on top is not observed. */
const maxTriggers = 10_000;

export class FamilySync {
  readonly family: IPFamily;
  private readonly dataplane: Dataplane;
  private readonly reports: SyncReports;
  private readonly pending = new PendingChanges();
  private readonly rejections: Rejections;
  /** Keys of service ports that are gone from the model, until the kernel has let go of them, too. */
  private readonly gone = new Set<string>();
  private readonly pace: Pace;
  private timer: NodeJS.Timeout | undefined;
  /** When the timer will go off (performance.now()); Infinity: it is not set. */
  private timerDue = Infinity;
  private running: Promise<void> | undefined;
  private checking: Promise<void> | undefined;
  private requested = false;
  private stopped = false;
  /** The kernel has to be read and compared: at the start, and after a failure. */
  private needsResync = true;
  /** Since when it is known that somebody else changed the kernel (performance.now()): the next adoption is a repair. */
  private damagedSince: number | undefined;
  /** The next adoption should have nothing to write. */
  private resyncChecks = false;
  /** When the changes happened that the kernel does not have yet (ModelChanges.triggerTimes). */
  private triggers: number[] = [];
  /** What failed is left alone until then (performance.now()); undefined: nothing has failed. */
  private retryAt: number | undefined;
  private retryMs = firstRetryMs;
  /** ApplyReport.restMs of the sync that is running. */
  private restMs = 0;

  constructor(private readonly options: FamilySyncOptions) {
    this.dataplane = options.dataplane;
    this.family = options.dataplane.family;
    this.reports = new SyncReports(this.family, options);
    this.pace = new Pace(options.minSyncPeriodMs);
    this.rejections = new Rejections(this.family, options.log);
  }

  /** Something changed. */
  request(): void {
    this.reports.queued();
    this.requested = true;
    this.pace.requested(performance.now());
    this.schedule();
  }

  /** Something was deferred outside a sync. */
  requestDeferred(): void {
    this.schedule();
  }

  /** The kernel no longer holds what it should: compare everything. */
  requestResync(): void {
    this.needsResync = true;
    this.damagedSince ??= performance.now();
    this.retryAt = undefined;
    this.request();
  }

  /** Changes may be lost: the next sync compares everything. */
  compareNext(): void {
    this.needsResync = true;
  }

  /** Look whether the kernel holds what it should, although nothing speaks for damage. */
  requestCheck(): void {
    if (this.checking !== undefined || this.stopped) return;
    this.checking = this.check()
      .catch((error: unknown) => {
        this.options.log.error('Failed to report the result of a consistency check', error, {
          family: this.family,
        });
      })
      .finally(() => {
        this.checking = undefined;
      });
  }

  /** Takes over what the model says, for the next sync. */
  take(changes: ModelChanges): void {
    const own = changes.families.find(({ family }) => family === this.family);
    if (own !== undefined) {
      for (const key of own.removed) this.gone.add(key);
      if (this.gone.size > 0) for (const { key } of own.upserted) this.gone.delete(key);
      this.pending.add(own);
    }
    for (const time of changes.triggerTimes[this.family]) {
      if (this.triggers.length < maxTriggers) this.triggers.push(time);
    }
  }

  /** Ends after the sync and the check that are running, if any: then nobody uses the dataplane. */
  async stop(): Promise<void> {
    this.stopped = true;
    clearTimeout(this.timer);
    await Promise.all([this.running, this.checking]);
  }

  /** It may be stopped while something else is waited for. */
  private isStopped(): boolean {
    return this.stopped;
  }

  private async check(): Promise<void> {
    const { log } = this.options;
    const { family } = this;
    const start = performance.now();
    let report: CheckReport | undefined;
    try {
      report = await this.dataplane.verify?.();
    } catch (error) {
      if (!this.isStopped()) log.error('Consistency check failed, resyncing', error, { family });
    }
    if (this.isStopped()) return;
    if (report === undefined) {
      this.needsResync = this.resyncChecks = true;
      this.requested = true;
      this.schedule();
      return;
    }
    this.reports.checked(report, start);
    if (report.transactions === 0) return;
    this.options.afterSync(family, [], [], report.elementsAdded > 0);
  }

  private schedule(): void {
    if (this.stopped || this.running !== undefined) return;
    const now = performance.now();
    const { earliest } = this.pace;
    const due = this.requested
      ? earliest
      : Math.min(Math.max(earliest, this.retryAt ?? Infinity), this.deferredDueAt());
    // Asked for again by every event until the time has come.
    if (due === this.timerDue) return;
    clearTimeout(this.timer);
    this.timerDue = Infinity;
    if (due === Infinity) return;
    if (due <= now && this.requested) {
      this.start();
      return;
    }
    this.timerDue = due;
    this.timer = setTimeout(
      guarded('start a sync', () => {
        this.start();
      }),
      Math.max(0, due - now),
    );
  }

  private start(): void {
    if (this.stopped || this.running !== undefined) return;
    clearTimeout(this.timer);
    this.timerDue = Infinity;
    const onlyDeferred = !this.requested && (this.retryAt ?? Infinity) > performance.now();
    this.requested = false;
    if (!onlyDeferred) this.pace.began();
    this.running = (onlyDeferred ? this.deleteDeferred() : this.sync())
      .catch((error: unknown) => {
        this.failed(error);
      })
      .finally(() => {
        this.running = undefined;
        // What changes next does not wait for deferred deletions.
        if (!onlyDeferred) this.pace.ended(performance.now(), this.restMs);
        this.restMs = 0;
        this.schedule();
      });
  }

  /** When the first deletion that had to wait is due. A comparison of everything finds them itself. */
  private deferredDueAt(): number {
    return this.needsResync ? Infinity : (this.dataplane.deferredDueAt ?? Infinity);
  }

  private async deleteDeferred(): Promise<void> {
    const now = performance.now();
    if (this.deferredDueAt() > now) return;
    try {
      const report = await this.dataplane.deleteDeferred(now);
      this.reports.deferredDeleted(report);
    } catch (error) {
      this.needsResync = true;
      if (error instanceof TableDamagedError) this.damagedSince ??= performance.now();
      this.retryAt = performance.now() + this.retryMs;
      this.reports.deferredFailed(error);
    }
  }

  /** Something failed that is nobody's in particular: what was taken from the model may not have reached the kernel. */
  private failed(error: unknown): void {
    this.options.log.error('Sync failed, resyncing', error, { family: this.family });
    this.needsResync = true;
    this.retryLater();
  }

  private retryLater(): void {
    this.retryAt = performance.now() + this.retryMs;
    this.retryMs = Math.min(this.retryMs * 2, this.options.syncPeriodMs);
  }

  private async sync(): Promise<void> {
    const taking = this.options.takeChanges();
    if (taking !== undefined) await taking;
    if (this.isStopped()) return;
    const waits = this.retryAt !== undefined && performance.now() < this.retryAt;
    // What came in between will be seen when everything is compared.
    if (!(this.needsResync && waits)) {
      let done = false;
      try {
        done = await this.syncDataplane(!waits);
      } catch (error) {
        this.needsResync = true;
        if (error instanceof TableDamagedError) this.damagedSince ??= performance.now();
        this.reports.failed(error, this.retryMs);
      }
      if (done) {
        this.retryAt = undefined;
        this.retryMs = firstRetryMs;
      } else if (!waits) this.retryLater();
    }
    await this.deleteDeferred();
  }

  /**
   * @param withRejected try again what the kernel rejected
   * @returns false when something waits to be tried again
   */
  private async syncDataplane(withRejected: boolean): Promise<boolean> {
    const { dataplane, family, damagedSince, rejections, gone, reports } = this;
    const { resyncChecks: checks, needsResync: resynced } = this;
    const start = performance.now();
    const { upserted, removed: fresh } = this.pending.take();
    const triggers = this.triggers.splice(0);
    // Before anything is awaited: it may be requested again meanwhile.
    this.needsResync = this.resyncChecks = false;
    this.damagedSince = undefined;
    const ports = resynced ? this.arranged() : withRejected ? this.withRejected(upserted) : upserted;
    const quiet = upserted.length === 0 && gone.size === 0 && rejections.size === 0;
    const removed = [...gone].filter((key) => withRejected || fresh.has(key) || !rejections.has(key));
    if (!resynced && ports.length === 0 && removed.length === 0) {
      this.updated(triggers);
      return rejections.size === 0;
    }
    // Each time all service ports are gone through is a turn of its own.
    const inTurns = resynced && ports.length > servicePortsPerTurn;
    if (inTurns) await nextTurn();
    let report: ApplyReport;
    try {
      report = resynced
        ? await dataplane.resync(ports)
        : await dataplane.apply({ family, upserted: ports, removed });
    } catch (error) {
      if (!resynced) reports.partialSyncFailed();
      this.damagedSince ??= damagedSince;
      this.triggers.unshift(...triggers);
      throw error;
    } finally {
      reports.took(start, resynced);
    }
    if (inTurns) await nextTurn();
    const tried = resynced ? undefined : [...ports.map(({ key }) => key), ...removed];
    if (rejections.update(tried, report.failures, (key) => gone.has(key)))
      this.options.onRejections?.(family, rejections.all);
    for (const key of removed) if (!rejections.has(key)) gone.delete(key);

    this.restMs = report.restMs ?? 0;
    reports.wrote(report, start, {
      checks,
      damagedSince,
      quiet,
      rejected: rejections.size,
    });
    this.updated(triggers);
    reports.complete(resynced, ports, removed, report, start);
    if (inTurns) await nextTurn();
    const accepted = rejections.size === 0 ? ports : ports.filter(({ key }) => !rejections.has(key));
    this.options.afterSync(
      family,
      accepted,
      removed.filter((key) => !gone.has(key)),
      resynced && report.elementsAdded > 0,
    );
    if (report.released !== undefined && report.released.length > 0)
      this.options.onReleased?.(family, report.released);
    return rejections.size === 0;
  }

  /** The kernel has everything that was taken, but for what it rejected. */
  private updated(triggers: readonly number[]): void {
    // Changes that came during the sync have not reached the kernel: their time runs on.
    this.reports.updated(triggers, this.requested);
  }

  private arranged(): readonly ServicePort[] {
    const ports = [...this.options.model.servicePorts(this.family)];
    return this.options.arrange?.(this.family, ports) ?? ports;
  }

  /** What changed, and what the kernel rejected last time and is still wanted. */
  private withRejected(upserted: readonly ServicePort[]): readonly ServicePort[] {
    if (this.rejections.size === 0) return upserted;
    const fresh = new Set(upserted.map((port) => port.key));
    const again: ServicePort[] = [];
    for (const port of this.options.model.servicePorts(this.family)) {
      if (this.rejections.has(port.key) && !fresh.has(port.key)) again.push(port);
    }
    return [...upserted, ...again];
  }
}
