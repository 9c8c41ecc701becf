/**
 * Brings what the model wants into the kernel: at once when quiet, coalesced when busy, again after a failure.
 * Both families go through one loop; trouble in one does not hold up the other.
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
import { longestName, printable } from '../sources/printable.js';
import type { Logger } from '../log/logger.js';
import type { Metrics } from '../metrics/metrics.js';
import type { ServiceModel } from '../model/model.js';
import type { FamilyChanges, IPFamily, ModelChanges, ReleasedAddress, ServicePort } from '../model/types.js';
import { ChangeList, namedAtMost } from './change-list.js';
import { LocalPolicyGaps } from './local-policy.js';
import { Pace } from './pacing.js';

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
  /** Called once per sync with what the model said beside the service ports. */
  readonly onChanges: (changes: ModelChanges) => void;
  /** Puts service ports in the order in which they are to be programmed when everything is compared. */
  readonly arrange?: (family: IPFamily, ports: readonly ServicePort[]) => readonly ServicePort[];
  /** Called when it changed what the kernel refuses of this family: by key, why. */
  readonly onRefusals?: (family: IPFamily, refused: ReadonlyMap<string, Refusal>) => void;
}

/** A service port that the kernel refused. */
export interface Refusal {
  /** As printed for people. */
  readonly servicePort: string;
  readonly message: string;
}

interface FamilyRun {
  readonly dataplane: Dataplane;
  /** The kernel has to be read and compared: at the start, and after a failure. */
  needsAdoption: boolean;
  /** Service ports that the kernel refused, by key. */
  readonly failed: Map<string, Refusal>;
  /** Keys of service ports that are gone from the model, until the kernel has let go of them, too. */
  readonly gone: Set<string>;
  /** Since when it is known that somebody else changed the kernel (performance.now()): the next adoption is a repair. */
  damagedSince: number | undefined;
  /** The next adoption should have nothing to write. */
  checks: boolean;
  /** A check is under way. */
  verifying: boolean;
  /** When the changes happened that the kernel does not have yet (ModelChanges.triggerTimes). */
  triggers: number[];
  readonly localPolicyGaps: LocalPolicyGaps;
  readonly changes: ChangeList;
  /** What failed is left alone until then (performance.now()); undefined: nothing has failed. */
  retryAt: number | undefined;
  retryMs: number;
  /** ApplyReport.restMs of the sync that is running. */
  restMs: number;
}

const firstRetryMs = 100;
/** Services that the model evaluates in one turn of the event loop at the start: some 3 ms. */
const servicesPerTurn = 500;
/** Refused service ports of one sync that have a line of the log each: a Service may have thousands of ports. */
const maxToldAtOnce = 50;
/** Of a service port's name. */
const maxPrinted = 3 * longestName;
/** Of a family that can't be programmed for long; what comes on top is not observed. */
const maxTriggers = 10_000;

export class SyncLoop {
  private readonly runs: readonly FamilyRun[];
  private timer: NodeJS.Timeout | undefined;
  /** When the timer will go off (performance.now()); Infinity: it is not set. */
  private timerDue = Infinity;
  private running: Promise<void> | undefined;
  private readonly checksUnderWay = new Set<Promise<void>>();
  private requested = false;
  private stopped = false;
  private readonly pace: Pace;
  /** All that the model had at the start was taken. */
  private started = false;

  constructor(private readonly options: SyncLoopOptions) {
    this.pace = new Pace(options.minSyncPeriodMs);
    this.runs = options.dataplanes.map((dataplane) => ({
      dataplane,
      needsAdoption: true,
      failed: new Map(),
      gone: new Set(),
      damagedSince: undefined,
      checks: false,
      verifying: false,
      triggers: [],
      localPolicyGaps: new LocalPolicyGaps(),
      changes: new ChangeList(),
      retryAt: undefined,
      retryMs: firstRetryMs,
      restMs: 0,
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
    this.pace.requested(performance.now());
    this.schedule();
  }

  /** Something was deferred outside a sync. */
  requestDeferred(): void {
    this.schedule();
  }

  /** The kernel no longer holds what it should: compare everything. */
  requestAdoption(family: IPFamily): void {
    for (const run of this.runs) {
      if (run.dataplane.family !== family) continue;
      run.needsAdoption = true;
      run.damagedSince ??= performance.now();
      run.retryAt = undefined;
    }
    this.request();
  }

  /** Look whether the kernel holds what it should, although nothing speaks for damage. */
  requestCheck(family: IPFamily): void {
    for (const run of this.runs) {
      if (run.dataplane.family !== family || run.verifying || this.stopped) continue;
      const check = this.check(run)
        .catch((error: unknown) => {
          this.options.log.error('What a look at the kernel found could not be told', error, { family });
        })
        .finally(() => this.checksUnderWay.delete(check));
      this.checksUnderWay.add(check);
    }
  }

  private async check(run: FamilyRun): Promise<void> {
    const { metrics, log } = this.options;
    const { family } = run.dataplane;
    const start = performance.now();
    run.verifying = true;
    let report: CheckReport | undefined;
    try {
      report = await run.dataplane.verify?.();
    } catch (error) {
      if (!this.isStopped())
        log.error('Looking at what the kernel holds failed; all of it is compared', error, { family });
    } finally {
      run.verifying = false;
    }
    if (this.isStopped()) return;
    if (report === undefined) {
      run.needsAdoption = run.checks = true;
      this.requested = true;
      this.schedule();
      return;
    }
    metrics.checkDuration.observe({ ip_family: family }, (performance.now() - start) / 1000);
    log.debug(1, 'The kernel was looked at', { family, totalMs: round(performance.now() - start) });
    if (report.transactions === 0) return;
    metrics.elementsWritten.inc({ ip_family: family }, report.elementsAdded + report.elementsDeleted);
    metrics.transactions.inc({ ip_family: family }, report.transactions);
    metrics.repairs.inc({ ip_family: family });
    if (!report.told) this.silentDifference(family, report);
    this.options.afterSync(family, [], [], report.elementsAdded > 0);
  }

  /** A check found what no notification had told of. */
  private silentDifference(
    family: IPFamily,
    { elementsAdded: added, elementsDeleted: deleted }: ApplyReport,
  ): void {
    this.options.metrics.silentDifferences.inc({ ip_family: family });
    this.options.log.warn('The kernel did not hold what it should, and nobody had told; it does now', {
      family,
      added,
      deleted,
    });
  }

  /** Ends after the sync and the checks that are running, if any: then nobody uses the dataplanes. */
  async stop(): Promise<void> {
    this.stopped = true;
    clearTimeout(this.timer);
    await Promise.all([this.running, ...this.checksUnderWay]);
  }

  /** It may be told to stop while something else is waited for. */
  private isStopped(): boolean {
    return this.stopped;
  }

  private schedule(): void {
    if (this.stopped || this.running !== undefined) return;
    const now = performance.now();
    const { earliest } = this.pace;
    const due = this.requested
      ? earliest
      : Math.min(Math.max(earliest, this.retryAt()), this.deferredDueAt());
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
    const now = performance.now();
    const onlyDeferred = !this.requested && this.retryAt() > now;
    this.requested = false;
    if (!onlyDeferred) this.pace.began();
    this.running = (onlyDeferred ? this.deleteDeferred() : this.sync())
      .catch((error: unknown) => {
        this.failed(error);
      })
      .finally(() => {
        this.running = undefined;
        // What changes next does not wait for these.
        if (!onlyDeferred) this.pace.ended(performance.now(), this.takeRest());
        this.schedule();
      });
  }

  /** What all families' writes together have kept from others. */
  private takeRest(): number {
    let sum = 0;
    for (const run of this.runs) {
      sum += run.restMs;
      run.restMs = 0;
    }
    return sum;
  }

  private retryAt(): number {
    return Math.min(...this.runs.map((run) => run.retryAt ?? Infinity));
  }

  /** When the first deletion that had to wait is due. A comparison of everything finds them itself. */
  private deferredDueAt(): number {
    return Math.min(
      ...this.runs.map((run) => (run.needsAdoption ? Infinity : (run.dataplane.deferredDueAt ?? Infinity))),
    );
  }

  private async deleteDeferred(): Promise<void> {
    const { metrics, log } = this.options;
    for (const run of this.runs) {
      const { family } = run.dataplane;
      const now = performance.now();
      if (run.needsAdoption || (run.dataplane.deferredDueAt ?? Infinity) > now) continue;
      try {
        const report = await run.dataplane.deleteDeferred?.(now);
        if (report === undefined || report.transactions === 0) continue;
        metrics.elementsWritten.inc({ ip_family: family }, report.elementsAdded + report.elementsDeleted);
        metrics.transactions.inc({ ip_family: family }, report.transactions);
        log.debug(4, 'Deferred deletions complete', { family, deleted: report.elementsDeleted });
      } catch (error) {
        run.needsAdoption = true;
        if (error instanceof TableDamagedError) run.damagedSince ??= performance.now();
        run.retryAt = performance.now() + run.retryMs;
        metrics.syncFailures.inc({ ip_family: family });
        log.warn('Failed to delete what had to wait; the kernel is compared', {
          family,
          error: error instanceof Error ? error.message : String(error),
        });
      }
    }
  }

  /** Something failed that is nobody's in particular: what was taken from the model may not have reached the kernel. */
  private failed(error: unknown): void {
    this.options.log.error('A sync failed; everything is compared', error);
    for (const run of this.runs) {
      run.needsAdoption = true;
      run.retryAt = performance.now() + run.retryMs;
      run.retryMs = Math.min(run.retryMs * 2, this.options.syncPeriodMs);
    }
  }

  private async sync(): Promise<void> {
    const { log, metrics } = this.options;
    let changes = this.takeChanges();
    // At the start, when all Services are new.
    for (; !this.started && this.options.model.hasChanges; changes = this.takeChanges()) {
      await nextTurn();
      if (this.isStopped()) return;
    }
    this.started = true;
    for (const run of this.runs) {
      const { family } = run.dataplane;
      const own = changes.families.find((candidate) => candidate.family === family);
      const waits = run.retryAt !== undefined && performance.now() < run.retryAt;
      // What came in between will be seen when everything is compared.
      if (run.needsAdoption && waits) continue;
      let done = false;
      try {
        done = await this.syncFamily(run, own, !waits);
      } catch (error) {
        run.needsAdoption = true;
        if (error instanceof TableDamagedError) run.damagedSince ??= performance.now();
        metrics.syncFailures.inc({ ip_family: family });
        const again = { family, retryMs: run.retryMs };
        if (error instanceof TableDamagedError) log.warn(error.message, again);
        else log.error('Failed to program the kernel; the rules in force stay', error, again);
      }
      if (done) {
        run.retryAt = undefined;
        run.retryMs = firstRetryMs;
      } else if (!waits) {
        run.retryAt = performance.now() + run.retryMs;
        run.retryMs = Math.min(run.retryMs * 2, this.options.syncPeriodMs);
      }
    }
    await this.deleteDeferred();
  }

  /** What the model has to say; at the start, when everything is compared afterwards, as much as one turn has time for. */
  private takeChanges(): ModelChanges {
    const changes = this.options.model.takeChanges(this.started ? Infinity : servicesPerTurn);
    try {
      this.options.onChanges(changes);
    } catch (error) {
      this.options.log.error('What changed beside the service ports could not be taken over', error);
    }
    for (const run of this.runs) this.noteChanges(run, changes);
    return changes;
  }

  private noteChanges(run: FamilyRun, changes: ModelChanges): void {
    const { family } = run.dataplane;
    const own = changes.families.find((candidate) => candidate.family === family);
    for (const key of own?.removed ?? []) run.gone.add(key);
    if (run.gone.size > 0) for (const { key } of own?.upserted ?? []) run.gone.delete(key);
    for (const time of changes.triggerTimes[family]) {
      if (run.triggers.length < maxTriggers) run.triggers.push(time);
    }
  }

  /**
   * @param withRefused try again what the kernel refused
   * @returns false when something waits to be tried again
   */
  private async syncFamily(
    run: FamilyRun,
    changes: FamilyChanges | undefined,
    withRefused: boolean,
  ): Promise<boolean> {
    const { metrics, log } = this.options;
    const { dataplane } = run;
    const { family } = dataplane;
    const labels = { ip_family: family };
    const start = performance.now();
    const upserted = changes?.upserted ?? [];
    const adopted = run.needsAdoption;
    const { damagedSince, checks } = run;
    // Before anything is awaited: it may be asked for again meanwhile.
    run.needsAdoption = run.checks = false;
    run.damagedSince = undefined;
    const ports = adopted ? this.arranged(family) : withRefused ? this.withRefused(run, upserted) : upserted;
    const quiet = upserted.length === 0 && run.gone.size === 0 && run.failed.size === 0;
    const fresh = new Set(changes?.removed);
    const removed = [...run.gone].filter((key) => withRefused || fresh.has(key) || !run.failed.has(key));
    if (!adopted && ports.length === 0 && removed.length === 0) {
      this.updated(run);
      return run.failed.size === 0;
    }
    // Each time all service ports are gone through is a turn of its own.
    const inTurns = adopted && ports.length > servicesPerTurn;
    if (inTurns) await nextTurn();
    let report: ApplyReport;
    try {
      report = adopted
        ? await dataplane.adopt(ports)
        : await dataplane.apply({ family, upserted: ports, removed });
    } catch (error) {
      if (!adopted) metrics.iptables.partialRestoreFailures.inc(labels);
      run.damagedSince ??= damagedSince;
      throw error;
    } finally {
      const seconds = (performance.now() - start) / 1000;
      metrics.syncDuration.observe(labels, seconds);
      (adopted ? metrics.fullSyncDuration : metrics.partialSyncDuration).observe(labels, seconds);
    }
    if (inTurns) await nextTurn();
    this.noteFailures(
      run,
      adopted ? run.failed.keys() : [...ports.map(({ key }) => key), ...removed],
      report,
    );
    for (const key of removed) if (!run.failed.has(key)) run.gone.delete(key);

    run.restMs = report.restMs ?? 0;
    metrics.elementsWritten.inc(labels, report.elementsAdded + report.elementsDeleted);
    metrics.transactions.inc(labels, report.transactions);
    if (checks) metrics.checkDuration.observe(labels, (performance.now() - start) / 1000);
    metrics.servicePortsRefused.set(labels, run.failed.size);
    if (report.failures.length > 0) metrics.syncFailures.inc(labels);
    if (adopted) run.localPolicyGaps.replace(ports);
    else run.localPolicyGaps.update(ports, removed);
    this.observeLocalPolicy(run);
    if (report.transactions > 0 && (damagedSince !== undefined || (checks && quiet))) {
      metrics.repairs.inc(labels);
      metrics.repairDuration.observe(labels, (performance.now() - (damagedSince ?? start)) / 1000);
      if (damagedSince === undefined) this.silentDifference(family, report);
    }
    this.updated(run);
    if (adopted) run.changes.replace(ports);
    const changed = adopted ? undefined : run.changes.update(ports, removed);
    log.debug(adopted ? 0 : 2, adopted ? 'Kernel state compared and completed' : 'Sync complete', {
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
    if (inTurns) await nextTurn();
    const accepted = run.failed.size === 0 ? ports : ports.filter(({ key }) => !run.failed.has(key));
    this.options.afterSync(
      family,
      accepted,
      removed.filter((key) => !run.gone.has(key)),
      adopted && report.elementsAdded > 0,
    );
    if (report.released !== undefined && report.released.length > 0)
      this.options.onReleased?.(family, report.released);
    return run.failed.size === 0;
  }

  /** The kernel has everything that was taken, but for what it refused. */
  private updated(run: FamilyRun): void {
    const { health, metrics } = this.options;
    const { family } = run.dataplane;
    const labels = { ip_family: family };
    const now = Date.now();
    metrics.lastSync.set(labels, now / 1000);
    for (const time of run.triggers) metrics.programmingDuration.observe(labels, (now - time) / 1000);
    run.triggers = [];
    health.updated(family);
    // Changes that came during the sync have not reached the kernel: their time runs on.
    if (this.requested) health.queued(family);
  }

  private observeLocalPolicy({ dataplane, localPolicyGaps }: FamilyRun): void {
    for (const policy of ['internal', 'external'] as const) {
      this.options.metrics.noLocalEndpoints.set(
        { traffic_policy: policy, ip_family: dataplane.family },
        localPolicyGaps[policy],
      );
    }
  }

  private arranged(family: IPFamily): readonly ServicePort[] {
    const ports = [...this.options.model.servicePorts(family)];
    return this.options.arrange?.(family, ports) ?? ports;
  }

  /** What changed, and what the kernel refused last time and is still wanted. */
  private withRefused(run: FamilyRun, upserted: readonly ServicePort[]): readonly ServicePort[] {
    if (run.failed.size === 0) return upserted;
    const fresh = new Set(upserted.map((port) => port.key));
    const again: ServicePort[] = [];
    for (const port of this.options.model.servicePorts(run.dataplane.family)) {
      if (run.failed.has(port.key) && !fresh.has(port.key)) again.push(port);
    }
    return [...upserted, ...again];
  }

  /** Each refused service port is reported once, by name, until it succeeds or its error changes. */
  private noteFailures(run: FamilyRun, tried: Iterable<string>, report: ApplyReport): void {
    if (run.failed.size === 0 && report.failures.length === 0) return;
    const { log } = this.options;
    const family = run.dataplane.family;
    const before = new Map(run.failed);
    for (const key of tried) run.failed.delete(key);
    let told = 0;
    let changed = false;
    for (const { key, servicePort, error } of report.failures) {
      run.failed.set(key, { servicePort, message: error.message });
      if (before.get(key)?.message === error.message) continue;
      changed = true;
      if (++told > maxToldAtOnce) continue;
      log.error('The kernel refused a service port; all others are served, this one is tried again', error, {
        servicePort: printable(servicePort, maxPrinted),
        family,
      });
    }
    if (told > maxToldAtOnce)
      log.error('The kernel refused more service ports than are named here', undefined, {
        family,
        notNamed: told - maxToldAtOnce,
      });
    for (const [key, { servicePort }] of before) {
      if (run.failed.has(key)) continue;
      changed = true;
      if (!run.gone.has(key))
        log.info('The kernel accepts a service port now', {
          servicePort: printable(servicePort, maxPrinted),
          family,
        });
    }
    if (changed) this.options.onRefusals?.(family, run.failed);
  }
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}
