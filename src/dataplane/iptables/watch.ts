/**
 * Watches for changes of our rules by others, where iptables is of the nf_tables kind and the kernel tells: somebody flushed
 * a table, deleted a chain, took out the rule that leads to ours. (The legacy kind leaves no trace of a change; there the
 * canary is looked at now and then.)
 */
import {
  subscribeNftables,
  type ChangeNotification,
  type Notification,
} from '../../netlink/nftables/index.js';
import { NetlinkError } from '../../netlink/index.js';
import type { Logger } from '../../log/logger.js';
import type { FamilyChanges, IPFamily, ServicePort } from '../../model/types.js';
import type { ApplyReport, Dataplane } from '../dataplane.js';
import { ForeignChanges } from './foreign-changes.js';
import type { IptablesFamily } from './family.js';
import { canaryTables } from './layout.js';
import { chains, isOwnVolatileChain, type TableName } from './names.js';

/** Somebody who changes the kernel's own chains often makes us look at them this often. */
const lookMs = 1000;

/** Chains that nobody else has a reason to change. KUBE-FIREWALL and KUBE-MARK-MASQ are the kubelet's, too. */
const own: ReadonlySet<string> = new Set([
  chains.services,
  chains.externalServices,
  chains.nodePorts,
  chains.postrouting,
  chains.markMasquerade,
  chains.forward,
  chains.proxyFirewall,
  chains.canary,
]);

export interface RuleWatchOptions {
  readonly families: readonly IptablesFamily[];
  readonly onForeignChange: (family: IPFamily) => void;
  /** What another program, named `by`, changed will be put right after so many milliseconds. */
  readonly onPutOff?: (by: string, delayMs: number) => void;
  readonly log: Logger;
}

export class RuleWatch {
  private readonly subscription: ReturnType<typeof subscribeNftables>;
  private readonly foreign: ForeignChanges;
  private readonly looks = new Map<string, NodeJS.Timeout>();
  private readonly touched = new Set<IPFamily>();
  /** Large changes of our own that are under way. */
  private deaf = 0;

  /** undefined: the kernel has no nf_tables, so there is nothing to watch. */
  static open(options: RuleWatchOptions): RuleWatch | undefined {
    try {
      return new RuleWatch(options);
    } catch (error) {
      if (error instanceof NetlinkError) return undefined;
      throw error;
    }
  }

  private constructor(private readonly options: RuleWatchOptions) {
    this.foreign = new ForeignChanges(options.onForeignChange, options.log, options.onPutOff);
    this.subscription = subscribeNftables({
      onNotification: (notification) => {
        this.take(notification);
      },
      onOverrun: () => {
        this.foreign.noticed(
          options.families.map(({ family }) => family),
          'unknown, notifications were lost',
        );
      },
      onError: (error) => {
        options.log.error('Watching the rules failed; changes by others are seen within the hour', error);
      },
    });
  }

  async close(): Promise<void> {
    this.foreign.close();
    for (const timer of this.looks.values()) clearTimeout(timer);
    await this.subscription.close();
  }

  /** What others do meanwhile is not told: afterwards the places are looked at where it would hurt most. */
  async unwatched(family: IptablesFamily, work: () => Promise<ApplyReport>): Promise<ApplyReport> {
    if (this.deaf++ === 0) this.subscription.pause();
    try {
      return await work();
    } finally {
      if (--this.deaf === 0) this.subscription.resume();
      family.checkJumps();
    }
  }

  private take(notification: Notification): void {
    const { families } = this.options;
    if (families.some(({ tool }) => tool?.isOwnRun(notification.portId) === true)) return;
    if (notification.kind === 'generation') {
      const { processName } = notification.generation;
      if (this.touched.size > 0) this.foreign.noticed([...this.touched], processName);
      this.touched.clear();
      return;
    }
    for (const family of families) {
      if ((family.family === 'IPv4' ? 'ip' : 'ip6') === notification.family)
        this.consider(family, notification);
    }
  }

  private consider(family: IptablesFamily, { kind, action, table, name }: ChangeNotification): void {
    const known = canaryTables.find((candidate) => candidate === table);
    if (known === undefined || family.tool?.kind !== 'nf_tables') return;
    if (kind === 'table' ? action === 'delete' : own.has(name) || isOwnVolatileChain(name))
      this.touched.add(family.family);
    // A rule that is gone may be the one that leads to ours.
    else if (kind === 'rule' && action === 'delete') this.look(family, known, name);
  }

  private look(family: IptablesFamily, table: TableName, chain: string): void {
    const id = `${family.family} ${table} ${chain}`;
    if (this.looks.has(id)) return;
    const timer = setTimeout(() => {
      this.looks.delete(id);
      family.checkChain(table, chain);
    }, lookMs);
    this.looks.set(id, timer);
  }
}

/** Changes of more service ports than this are made unwatched. */
const largeChange = 200;

/** A dataplane whose large changes the watch does not have to see: the kernel writes a notification for every rule. */
export class WatchedFamily implements Dataplane {
  readonly family: IPFamily;

  constructor(
    private readonly inner: IptablesFamily,
    private readonly watch: RuleWatch,
  ) {
    this.family = inner.family;
  }

  adopt(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    return this.watch.unwatched(this.inner, () => this.inner.adopt(wanted));
  }

  apply(changes: FamilyChanges): Promise<ApplyReport> {
    if (changes.upserted.length + changes.removed.length <= largeChange) return this.inner.apply(changes);
    return this.watch.unwatched(this.inner, () => this.inner.apply(changes));
  }

  get deferredDueAt(): number | undefined {
    return this.inner.deferredDueAt;
  }

  deleteDeferred(now: number): Promise<ApplyReport> {
    return this.inner.deleteDeferred(now);
  }

  setServiceCIDRs(): ApplyReport {
    return this.inner.setServiceCIDRs();
  }

  setNodePortAddresses(...args: Parameters<Dataplane['setNodePortAddresses']>): ApplyReport {
    return this.inner.setNodePortAddresses(...args);
  }

  setHealthCheckPort(service: string, port: number | undefined): void {
    this.inner.setHealthCheckPort(service, port);
  }

  maintain(): ApplyReport {
    return this.inner.maintain();
  }

  close(): void {
    this.inner.close();
  }
}
