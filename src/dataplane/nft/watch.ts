/**
 * Watches our tables for changes that are not ours: somebody flushed the ruleset, deleted an element, added a chain. When
 * only elements were touched, these are put right at once; else the whole table is compared (Dataplane.adopt). Soon at
 * first, later and later when it is undone again and again: two programs that fight must not take the node with them.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import {
  subscribeNftables,
  type Notification,
  type NotificationHandlers,
} from '../../netlink/nftables/index.js';
import type { Logger } from '../../log/logger.js';
import type { FamilyChanges, IPFamily, ServicePort } from '../../model/types.js';
import type { ApplyReport, CheckReport, Dataplane } from '../dataplane.js';
import { nftFamily } from './rules.js';

/** Elements that somebody else touched, by set: keys as latin1. */
export type TouchedElements = ReadonlyMap<string, ReadonlySet<string>>;

/** Others may need several transactions for what they do. */
const firstDelayMs = 5;
const maxDelayMs = 60_000;
/** A change is a fight when it comes sooner than this after the last repair, … */
const restMs = 1000;
/** … or than so many times what that one took and was put off: repairing never takes more than a small share of time. */
const restFactor = 20;
/** When more elements than this are touched, the whole table is compared. */
const maxTouched = 4096;

export interface TableWatchOptions {
  /** Name of the tables, one for each family. */
  readonly table: string;
  /** A set in which the kernel itself keeps what it learns: changes there are nobody's. */
  readonly learnedSet?: string;
  readonly families: readonly IPFamily[];
  /** Port ids of our own connections (NftablesConnection.portId). */
  readonly ownPortIds: readonly number[];
  /** Number that grows by one with each transaction of anybody (NftablesConnection.getGeneration). */
  readonly generation: () => number;
  /** Puts elements right; undefined when only comparing everything helps, which is so for all when this is absent. */
  readonly repair?: (family: IPFamily, touched: TouchedElements) => ApplyReport | undefined;
  /** Elements were put right, so many seconds after it was noticed. */
  readonly onRepaired: (family: IPFamily, report: ApplyReport, seconds: number) => void;
  /** Everything has to be compared. */
  readonly onForeignChange: (family: IPFamily) => void;
  /** What another program, named `by`, changed will be put right after so many milliseconds. */
  readonly onPutOff?: (by: string, delayMs: number) => void;
  readonly log: Logger;
}

/** What others did to one family's table. */
interface Damage {
  /** undefined: more than elements, or nobody knows. */
  touched: Map<string, Set<string>> | undefined;
  /** Number of elements touched. */
  count: number;
}

interface Pending extends Damage {
  readonly timer: NodeJS.Timeout;
  /** performance.now() */
  readonly noticed: number;
}

export class TableWatch {
  private readonly subscription: ReturnType<typeof subscribeNftables>;
  /** Noticed and about to be repaired. */
  private readonly pending = new Map<IPFamily, Pending>();
  /** Of the commit whose notifications are arriving. */
  private readonly arriving = new Map<IPFamily, Damage>();
  private readonly noticed = new Map<IPFamily, number>();
  private delayMs = firstDelayMs;
  private lastRepairEnd = -Infinity;
  private lastRepairMs = 0;

  constructor(private readonly options: TableWatchOptions) {
    const handlers: NotificationHandlers = {
      onNotification: (notification) => {
        this.take(notification);
      },
      onOverrun: () => {
        this.changedSomehow('unknown, notifications were lost');
      },
      onError: (error) => {
        options.log.error(
          'Watching the tables failed; changes by others are seen at the next change of ours',
          error,
        );
      },
    };
    this.subscription = subscribeNftables(handlers, { ignoredPorts: options.ownPortIds });
  }

  async close(): Promise<void> {
    for (const { timer } of this.pending.values()) clearTimeout(timer);
    await this.subscription.close();
  }

  /**
   * For large changes of our own: with a listener the kernel takes 15 times as long. What others do meanwhile
   * shows in the generation.
   */
  async unwatched(work: () => Promise<ApplyReport>): Promise<ApplyReport> {
    this.subscription.pause();
    const before = this.options.generation();
    try {
      const report = await work();
      const own = report.rulesetTransactions ?? report.transactions;
      const foreign = this.options.generation() - before - own;
      if (foreign > 0) this.changedSomehow('unknown, it happened during a large change of ours');
      return report;
    } finally {
      this.subscription.resume();
    }
  }

  /** The kernel told of changes by others, and they will be repaired. */
  isAboutToRepair(family: IPFamily): boolean {
    return this.pending.has(family);
  }

  /** When the kernel last told of changes by others, performance.now(); undefined: never. */
  noticedAt(family: IPFamily): number | undefined {
    return this.noticed.get(family);
  }

  /** The whole table was compared, for whatever reason. */
  compared(milliseconds: number): void {
    this.repaired(milliseconds);
  }

  private take(notification: Notification): void {
    if (notification.kind === 'generation') {
      const { processName } = notification.generation;
      if (this.arriving.size > 0) this.foreignChange(this.arriving, processName);
      this.arriving.clear();
      return;
    }
    const { table, learnedSet } = this.options;
    // What is missing among the learned is learned again.
    if (notification.table !== table || (learnedSet !== undefined && notification.name === learnedSet))
      return;
    for (const family of this.options.families) {
      if (nftFamily(family) === notification.family) this.note(family, notification);
    }
  }

  private note(family: IPFamily, { kind, name, keys }: Exclude<Notification, { kind: 'generation' }>): void {
    let damage = this.arriving.get(family);
    if (damage === undefined) this.arriving.set(family, (damage = { touched: new Map(), count: 0 }));
    if (damage.touched === undefined) return;
    if (kind !== 'elements' || keys === undefined) {
      damage.touched = undefined;
      return;
    }
    addKeys(
      damage,
      name,
      keys().map((key) => key.toString('latin1')),
    );
  }

  private changedSomehow(by: string): void {
    const unknown = this.options.families.map(
      (family) => [family, { touched: undefined, count: 0 }] as const,
    );
    this.foreignChange(new Map(unknown), by);
  }

  private foreignChange(damages: ReadonlyMap<IPFamily, Damage>, by: string): void {
    for (const family of damages.keys()) this.noticed.set(family, performance.now());
    const fresh = [...damages].filter(([family, damage]) => !this.joins(family, damage));
    if (fresh.length === 0) return;
    const now = performance.now();
    const rest = Math.max(restMs, restFactor * (this.delayMs + this.lastRepairMs));
    this.delayMs = now - this.lastRepairEnd < rest ? Math.min(this.delayMs * 2, maxDelayMs) : firstDelayMs;
    this.options.log.warn('Another program changed our table; it is compared and completed', {
      families: fresh.map(([family]) => family),
      by,
      elements: fresh.every(([, { touched }]) => touched !== undefined)
        ? fresh.reduce((sum, [, { count }]) => sum + count, 0)
        : 'unknown',
      inMs: this.delayMs,
    });
    this.options.onPutOff?.(by, this.delayMs);
    for (const [family, damage] of fresh) {
      const timer = setTimeout(() => {
        this.cure(family);
      }, this.delayMs);
      this.pending.set(family, { ...damage, timer, noticed: now });
    }
  }

  /** Whether the family's repair is to come; then it is for this, too. */
  private joins(family: IPFamily, damage: Damage): boolean {
    const pending = this.pending.get(family);
    if (pending === undefined) return false;
    if (damage.touched === undefined) pending.touched = undefined;
    else for (const [set, keys] of damage.touched) addKeys(pending, set, keys);
    return true;
  }

  private cure(family: IPFamily): void {
    const pending = this.pending.get(family);
    this.pending.delete(family);
    if (pending === undefined) return;
    if (pending.touched !== undefined && this.repair(family, pending.touched, pending.noticed)) return;
    this.options.onForeignChange(family);
  }

  private repair(family: IPFamily, touched: TouchedElements, noticed: number): boolean {
    const start = performance.now();
    try {
      const report = this.options.repair?.(family, touched);
      if (report === undefined) return false;
      const end = performance.now();
      this.repaired(end - start);
      this.options.log.info('Elements were put right', {
        family,
        added: report.elementsAdded,
        deleted: report.elementsDeleted,
        ms: Math.round(end - noticed),
      });
      this.options.onRepaired(family, report, (end - noticed) / 1000);
      return true;
    } catch (error) {
      this.options.log.error('Putting elements right failed; the whole table is compared', error, { family });
      return false;
    }
  }

  private repaired(milliseconds: number): void {
    this.lastRepairEnd = performance.now();
    this.lastRepairMs = milliseconds;
  }
}

function addKeys(damage: Damage, set: string, keys: Iterable<string>): void {
  if (damage.touched === undefined) return;
  let known = damage.touched.get(set);
  if (known === undefined) damage.touched.set(set, (known = new Set()));
  for (const key of keys) {
    if (known.has(key)) continue;
    known.add(key);
    damage.count++;
  }
  if (damage.count > maxTouched) damage.touched = undefined;
}

/** Changes of service ports with more elements than this are made unwatched. */
const largeChange = 2000;
/** Deletions that wait for nobody. */
const largeDeletion = 500;
/** So long a notification may be on its way to us. */
const tellingMs = 100;
const nothing: ApplyReport = {
  transactions: 0,
  elementsAdded: 0,
  elementsDeleted: 0,
  kernelMs: 0,
  failures: [],
};
/** Elements of a service port, where the dataplane does not tell. */
const usualExtent = 10;

/** What can be watched over. */
export interface WatchableDataplane extends Dataplane {
  /**
   * About how many elements the service ports of these changes have, now or then: no fewer than will be written.
   * @param enough nobody asks how far beyond that it is
   */
  extentOf?(changes: FamilyChanges, enough: number): number;
  /** How many elements deleteDeferred() is about to delete, in all its calls. */
  deferredExtent?(now: number, enough: number): number;
}

/** A dataplane whose large changes the watch does not have to see. */
export class WatchedDataplane implements Dataplane {
  readonly family: IPFamily;

  constructor(
    private readonly inner: WatchableDataplane,
    private readonly watch: TableWatch,
  ) {
    this.family = inner.family;
  }

  async adopt(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    const start = performance.now();
    try {
      return await this.watch.unwatched(() => this.inner.adopt(wanted));
    } finally {
      this.watch.compared(performance.now() - start);
    }
  }

  apply(changes: FamilyChanges): Promise<ApplyReport> {
    const { upserted, removed } = changes;
    const extent =
      this.inner.extentOf?.(changes, largeChange) ?? usualExtent * (upserted.length + removed.length);
    if (extent <= largeChange) return this.inner.apply(changes);
    return this.watch.unwatched(async () => {
      // What was received and evaluated for it has taken its time already.
      await nextTurn();
      return await this.inner.apply(changes);
    });
  }

  async verify(): Promise<CheckReport | undefined> {
    if (this.watch.isAboutToRepair(this.family)) return { ...nothing, told: true };
    const before = this.watch.noticedAt(this.family);
    const report = await this.inner.verify?.();
    if (report === undefined || report.transactions === 0) return report;
    await sleep(tellingMs);
    return { ...report, told: this.watch.noticedAt(this.family) !== before };
  }

  get deferredDueAt(): number | undefined {
    return this.inner.deferredDueAt;
  }

  async deleteDeferred(now: number): Promise<ApplyReport> {
    const work = async (): Promise<ApplyReport> => (await this.inner.deleteDeferred?.(now)) ?? nothing;
    const extent = this.inner.deferredExtent?.(now, largeDeletion) ?? 0;
    return extent <= largeDeletion ? await work() : await this.watch.unwatched(work);
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
