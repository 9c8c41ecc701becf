/**
 * Watches our tables for changes that are not ours: somebody flushed the ruleset, deleted an element, added a chain. When
 * only elements were touched, these are put right at once; else the whole table is compared (Dataplane.adopt). Soon at
 * first, later and later when it is undone again and again: two programs that fight must not take the node with them.
 *
 * Most transactions of other programs are about tables of their own. One whose notifications were missed (generations.ts) says
 * nothing about ours: the table is checked quietly (quiet-checks.ts), and only what is found wrong there counts.
 */
import { performance } from 'node:perf_hooks';
import { guarded } from '../../callbacks/guarded.js';
import {
  subscribeNftables,
  type Batch,
  type NftablesConnection,
  type Notification,
  type NotificationHandlers,
} from '@kube-proxy-ts/netlink/nftables';
import type { Logger } from '../../log/logger.js';
import { programName } from './program-name.js';
import type { IPFamily } from '../../model/types.js';
import type { ApplyReport } from '../backend.js';
import { Generations } from './generations.js';
import { QuietChecks } from './quiet-checks.js';
import { nftFamily } from '../nft/rules.js';

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
/**
 * Transactions of ours with more bytes than this, some 400 elements, are made unwatched: with a listener the kernel takes 20 µs
 * more for each element.
 */
const largeTransaction = 32 << 10;
const lost = 'unknown, notifications were lost';

export interface TableWatchOptions {
  /** Name of the tables, one for each family. */
  readonly table: string;
  /** A set in which the kernel itself keeps what it learns: changes there are nobody's. */
  readonly learnedSet?: string;
  readonly families: readonly IPFamily[];
  /** All connections by which we change our tables. */
  readonly connections: readonly NftablesConnection[];
  /** Number that grows by one with each transaction of anybody (NftablesConnection.getGeneration). */
  readonly generation: () => number;
  /** Puts elements right; undefined when only comparing everything helps, which is so for all when this is absent. */
  readonly repair?: (family: IPFamily, touched: TouchedElements) => ApplyReport | undefined;
  /** Repaired map elements, so many seconds after it was noticed. */
  readonly onRepaired: (family: IPFamily, report: ApplyReport, seconds: number) => void;
  /** Nothing speaks for damage, but notifications were missed: WatchedDataplane.verify() is to be called. */
  readonly onMissed: (family: IPFamily) => void;
  /** Everything has to be compared. */
  readonly onForeignChange: (family: IPFamily) => void;
  /** What another program, named `by`, changed will be put right after so many milliseconds. */
  readonly onBackoff?: (by: string, delayMs: number) => void;
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
  private readonly generations: Generations;
  /** What is to be checked because notifications were missed. */
  readonly checks: QuietChecks;

  constructor(private readonly options: TableWatchOptions) {
    const handlers: NotificationHandlers = {
      onNotification: (notification) => {
        this.take(notification);
      },
      onOverrun: () => {
        this.overrun();
      },
      onError: (error) => {
        options.log.error('Table watch failed, changes by other programs are seen at the next sync', error);
      },
    };
    const { connections } = options;
    this.subscription = subscribeNftables(handlers, {
      tables: [options.table],
      ignoredPorts: connections.map(({ portId }) => portId),
    });
    this.checks = new QuietChecks(options.families, options.onMissed);
    this.generations = new Generations({
      current: options.generation,
      own: () => connections.reduce((sum, { transactions }) => sum + transactions, 0),
      onMissed: () => {
        this.checks.request();
      },
    });
    for (const connection of connections) {
      connection.wrapCommits((batch, commit) => {
        this.commit(batch, commit);
      });
    }
  }

  async close(): Promise<void> {
    for (const connection of this.options.connections) connection.wrapCommits(undefined);
    for (const { timer } of this.pending.values()) clearTimeout(timer);
    this.checks.close();
    this.generations.close();
    await this.subscription.close();
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

  /** A check for the sake of missed notifications found damage. @param repaired undefined: everything has to be compared */
  foundDamage(family: IPFamily, repaired: ApplyReport | undefined): void {
    if (repaired === undefined) {
      this.foreignChange(new Map([[family, { touched: undefined, count: 0 }]]), lost);
      return;
    }
    this.options.log.warn('Map elements modified by another program, repaired', {
      families: [family],
      by: lost,
      elements: repaired.elementsAdded + repaired.elementsDeleted,
    });
    this.options.onBackoff?.(lost, this.backOff());
  }

  private commit(batch: Batch, commit: () => void): void {
    if (batch.byteLength <= largeTransaction && !batch.isWholesale) {
      commit();
      return;
    }
    this.generations.during(
      () => {
        this.subscription.pause();
      },
      commit,
      () => {
        this.subscription.resume();
      },
    );
  }

  private overrun(): void {
    // The end of this one may be among what was lost.
    if (this.arriving.size > 0) this.foreignChange(this.arriving, lost);
    this.arriving.clear();
    this.generations.forget();
    this.checks.request();
  }

  private take(notification: Notification): void {
    if (notification.kind === 'generation') {
      const { id } = notification.generation;
      this.generations.heard(id);
      if (this.arriving.size > 0) this.foreignChange(this.arriving, programName(notification.generation));
      this.arriving.clear();
      return;
    }
    const { learnedSet } = this.options;
    // What is missing among the learned is learned again.
    if (learnedSet !== undefined && notification.name === learnedSet) return;
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

  private foreignChange(damages: ReadonlyMap<IPFamily, Damage>, by: string): void {
    for (const family of damages.keys()) this.noticed.set(family, performance.now());
    const fresh = [...damages].filter(([family, damage]) => !this.joins(family, damage));
    if (fresh.length === 0) return;
    const now = performance.now();
    const delayMs = this.backOff();
    this.options.log.warn('Rules modified by another program, repairing', {
      families: fresh.map(([family]) => family),
      by,
      elements: fresh.every(([, { touched }]) => touched !== undefined)
        ? fresh.reduce((sum, [, { count }]) => sum + count, 0)
        : 'unknown',
      inMs: delayMs,
    });
    this.options.onBackoff?.(by, delayMs);
    for (const [family, damage] of fresh) {
      const timer = setTimeout(
        guarded('repair rules', () => {
          this.cure(family);
        }),
        delayMs,
      );
      this.pending.set(family, { ...damage, timer, noticed: now });
    }
  }

  /** @returns for how long a repair is put off */
  private backOff(): number {
    const rest = Math.max(restMs, restFactor * (this.delayMs + this.lastRepairMs));
    const isFight = performance.now() - this.lastRepairEnd < rest;
    this.delayMs = isFight ? Math.min(this.delayMs * 2, maxDelayMs) : firstDelayMs;
    return this.delayMs;
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
      this.options.log.info('Repaired map elements', {
        family,
        added: report.elementsAdded,
        deleted: report.elementsDeleted,
        ms: Math.round(end - noticed),
      });
      this.options.onRepaired(family, report, (end - noticed) / 1000);
      return true;
    } catch (error) {
      this.options.log.error('Failed to repair map elements, resyncing', error, { family });
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
