/** A dataplane whose tables are watched (table-watch.ts): the watch hears what was compared and checked. */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import type { FamilyChanges, IPFamily, ServicePort } from '../../model/types.js';
import type { ApplyReport, CheckReport, Dataplane } from '../backend.js';
import type { TableWatch } from './table-watch.js';

/** Changes of service ports with more elements than this have a turn of the event loop of their own. */
const largeChange = 2000;
/** So long a notification may be on its way to us. */
const deliveryMs = 100;
const nothing: ApplyReport = {
  transactions: 0,
  elementsAdded: 0,
  elementsDeleted: 0,
  kernelMs: 0,
  failures: [],
};
/** Elements of a service port, where the dataplane does not tell. */
const usualExtent = 10;

/** What can be watched. */
export interface WatchableDataplane extends Dataplane {
  /**
   * About how many elements the service ports of these changes have, now or then: no fewer than will be written.
   * @param enough nobody asks how far beyond that it is
   */
  extentOf?(changes: FamilyChanges, enough: number): number;
}

/** A dataplane that tells the watch what was looked at. */
export class WatchedDataplane implements Dataplane {
  readonly family: IPFamily;

  constructor(
    private readonly inner: WatchableDataplane,
    private readonly watch: TableWatch,
  ) {
    this.family = inner.family;
  }

  async resync(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    const start = performance.now();
    this.watch.checks.begin(this.family);
    try {
      return await this.inner.resync(wanted);
    } finally {
      const milliseconds = performance.now() - start;
      this.watch.compared(milliseconds);
      // Where comparisons take the place of checks, they have to rest as these.
      this.watch.checks.end(this.family, this.inner.verify === undefined ? milliseconds : undefined);
    }
  }

  async apply(changes: FamilyChanges): Promise<ApplyReport> {
    const { upserted, removed } = changes;
    const extent =
      this.inner.extentOf?.(changes, largeChange) ?? usualExtent * (upserted.length + removed.length);
    // What was received and evaluated for it has taken its time already.
    if (extent > largeChange) await nextTurn();
    return await this.inner.apply(changes);
  }

  async verify(): Promise<CheckReport | undefined> {
    const { inner, watch, family } = this;
    if (watch.isAboutToRepair(family)) {
      watch.checks.postpone(family);
      return { ...nothing, reported: true };
    }
    const before = watch.noticedAt(family);
    const start = performance.now();
    const missed = watch.checks.begin(family);
    let report: CheckReport | undefined;
    try {
      report = await inner.verify?.();
    } finally {
      watch.checks.end(family, performance.now() - start);
    }
    if (report === undefined ? !missed || inner.verify === undefined : report.transactions === 0)
      return report;
    await sleep(deliveryMs);
    const reported = watch.noticedAt(family) !== before;
    if (!missed || reported) return report === undefined ? undefined : { ...report, reported };
    watch.foundDamage(family, report);
    return { ...(report ?? nothing), reported: true };
  }

  get deferredDueAt(): number | undefined {
    return this.inner.deferredDueAt;
  }

  deleteDeferred(now: number): Promise<ApplyReport> {
    return this.inner.deleteDeferred(now);
  }

  setServiceCIDRs(...args: Parameters<Dataplane['setServiceCIDRs']>): ApplyReport {
    return this.inner.setServiceCIDRs(...args);
  }

  setLocalAddresses(addresses: readonly string[]): ApplyReport | undefined {
    return this.inner.setLocalAddresses?.(addresses);
  }

  setHealthCheckPort(service: string, port: number | undefined): void {
    this.inner.setHealthCheckPort?.(service, port);
  }

  setNodePortAddresses(...args: Parameters<Dataplane['setNodePortAddresses']>): ApplyReport {
    return this.inner.setNodePortAddresses(...args);
  }

  maintain(): ApplyReport {
    return this.inner.maintain();
  }

  close(): void {
    this.inner.close();
  }
}
