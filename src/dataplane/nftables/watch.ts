/**
 * Watches our tables for changes that are not ours: somebody flushed the ruleset, deleted an element, added a chain. The
 * answer is always the same, comparing the whole table (Dataplane.adopt), soon at first, later and later when it
 * happens again and again: two programs that fight must not take the node with them.
 */
import { subscribeNftables, type Notification } from '../../netlink/nftables/index.js';
import type { Logger } from '../../log/logger.js';
import type { FamilyChanges, IPFamily, ServicePort } from '../../model/types.js';
import type { ApplyReport, Dataplane } from '../dataplane.js';
import { nftFamily } from '../nft/rules.js';
import { tableName } from './names.js';

const firstDelayMs = 20;
const maxDelayMs = 60_000;
/** Without a foreign change for this long, the next one is answered at once again. */
const quietMs = 60_000;

export interface TableWatchOptions {
  readonly families: readonly IPFamily[];
  /** Port ids of our own connections (NftablesConnection.portId). */
  readonly ownPortIds: ReadonlySet<number>;
  /** Number that grows by one with each transaction of anybody (NftablesConnection.getGeneration). */
  readonly generation: () => number;
  readonly onForeignChange: (family: IPFamily) => void;
  readonly log: Logger;
}

export class TableWatch {
  private readonly subscription: ReturnType<typeof subscribeNftables>;
  private readonly pending = new Map<IPFamily, NodeJS.Timeout>();
  /** Families that the commit whose notifications are arriving has touched. */
  private readonly touched = new Set<IPFamily>();
  private delayMs = firstDelayMs;
  private lastChange = -Infinity;

  constructor(private readonly options: TableWatchOptions) {
    this.subscription = subscribeNftables({
      onNotification: (notification) => {
        this.take(notification);
      },
      onOverrun: () => {
        this.foreignChange(options.families, 'unknown, notifications were lost');
      },
      onError: (error) => {
        options.log.error(
          'Watching the tables failed; changes by others are seen at the next change of ours',
          error,
        );
      },
    });
  }

  async close(): Promise<void> {
    for (const timer of this.pending.values()) clearTimeout(timer);
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
      const foreign = this.options.generation() - before - report.transactions;
      if (foreign > 0)
        this.foreignChange(this.options.families, 'unknown, it happened during a large change of ours');
      return report;
    } finally {
      this.subscription.resume();
    }
  }

  private take(notification: Notification): void {
    if (this.options.ownPortIds.has(notification.portId)) return;
    if (notification.kind === 'generation') {
      const { processName } = notification.generation;
      if (this.touched.size > 0) this.foreignChange([...this.touched], processName);
      this.touched.clear();
      return;
    }
    if (notification.table !== tableName) return;
    for (const family of this.options.families) {
      if (nftFamily(family) === notification.family) this.touched.add(family);
    }
  }

  private foreignChange(families: readonly IPFamily[], by: string): void {
    const now = Date.now();
    const again = now - this.lastChange < quietMs;
    this.lastChange = now;
    const fresh = families.filter((family) => !this.pending.has(family));
    if (fresh.length === 0) return;
    this.delayMs = again ? Math.min(this.delayMs * 2, maxDelayMs) : firstDelayMs;
    this.options.log.warn('Another program changed our table; it is compared and completed', {
      families: fresh,
      by,
      inMs: this.delayMs,
    });
    for (const family of fresh) {
      const timer = setTimeout(() => {
        this.pending.delete(family);
        this.options.onForeignChange(family);
      }, this.delayMs);
      this.pending.set(family, timer);
    }
  }
}

/** Changes of more service ports than this are made unwatched. */
const largeChange = 200;

/** A dataplane whose large changes the watch does not have to see. */
export class WatchedDataplane implements Dataplane {
  readonly family: IPFamily;

  constructor(
    private readonly inner: Dataplane,
    private readonly watch: TableWatch,
  ) {
    this.family = inner.family;
  }

  adopt(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    return this.watch.unwatched(() => this.inner.adopt(wanted));
  }

  apply(changes: FamilyChanges): Promise<ApplyReport> {
    if (changes.upserted.length + changes.removed.length <= largeChange) return this.inner.apply(changes);
    return this.watch.unwatched(() => this.inner.apply(changes));
  }

  setServiceCIDRs(...args: Parameters<Dataplane['setServiceCIDRs']>): ApplyReport {
    return this.inner.setServiceCIDRs(...args);
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
