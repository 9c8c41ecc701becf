/**
 * Watches for changes of our rules by others, where iptables is of the nf_tables kind and the kernel tells: somebody flushed
 * a table, deleted a chain, took out the rule that leads to ours. (The legacy kind tells nothing: legacy-look.ts.)
 */
import { NetlinkError } from '@kube-proxy-ts/netlink';
import {
  type ChangeNotification,
  type Notification,
  subscribeNftables,
} from '@kube-proxy-ts/netlink/nftables';
import { guarded } from '../../../callbacks/guarded.js';
import type { Logger } from '../../../log/logger.js';
import type { IPFamily } from '../../../model/types.js';
import type { ApplyReport } from '../../backend.js';
import { QuietChecks } from '../../engine/quiet-checks.js';
import { programName } from '../../engine/program-name.js';
import type { ForeignChanges } from './foreign-changes.js';
import type { IptablesFamily } from '../family.js';
import { canaryTables } from '../rules/layout.js';
import { chains, isOwnVolatileChain, type TableName } from '../rules/names.js';
import { Throttle } from './throttle.js';

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

/** Hundreds of thousands of rules are written in less. */
const longestDeafMs = 5_000;

export interface RuleWatchOptions {
  readonly families: readonly IptablesFamily[];
  /** Where it is told. */
  readonly foreign: ForeignChanges;
  /** Nothing speaks for damage, but notifications were missed: everything is to be compared. */
  readonly onMissed: (family: IPFamily) => void;
  readonly log: Logger;
}

/** What others did to chains that are not ours, in the commit whose notifications are arriving. */
interface Place {
  readonly family: IptablesFamily;
  readonly table: TableName;
  readonly chain: string;
  /** Rules are gone: one of them may be the one that leads to ours. */
  deleted: boolean;
  /** Rules came: iptables may be unable to read one of them. */
  added: boolean;
}

export class RuleWatch {
  private readonly subscription: ReturnType<typeof subscribeNftables>;
  private readonly looks = new Throttle();
  private readonly touched = new Set<IPFamily>();
  private readonly places = new Map<string, Place>();
  /** Large changes of our own that are under way, and not for long. */
  private deaf = 0;
  /** What is to be compared because notifications were missed. */
  readonly checks: QuietChecks;

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
    const { families } = options;
    this.checks = new QuietChecks(
      families.map(({ family }) => family),
      options.onMissed,
    );
    this.subscription = subscribeNftables(
      {
        onNotification: (notification) => {
          this.take(notification);
        },
        // Most of what others do is about tables of their own.
        onOverrun: () => {
          this.checks.request();
          for (const family of families) family.checkJumps('unknown, notifications were lost');
        },
        onError: (error) => {
          options.log.error('Rule watch failed, changes by other programs are seen within the hour', error);
        },
      },
      { tables: canaryTables },
    );
  }

  async close(): Promise<void> {
    this.looks.close();
    this.checks.close();
    await this.subscription.close();
  }

  /** What others do meanwhile is not told: afterwards the places are looked at where it would hurt most. */
  async unwatched(family: IptablesFamily, work: () => Promise<ApplyReport>): Promise<ApplyReport> {
    if (this.deaf++ === 0) this.subscription.pause();
    let over = false;
    const listen = guarded('watch the rules again', () => {
      if (over) return;
      over = true;
      if (--this.deaf === 0) this.subscription.resume();
    });
    // A tool that hangs must not make it deaf to what happens to the other family.
    const timer = setTimeout(listen, longestDeafMs).unref();
    try {
      return await work();
    } finally {
      clearTimeout(timer);
      listen();
      family.checkJumps('unknown, it happened during a large change of ours');
    }
  }

  private take(notification: Notification): void {
    const { families, foreign } = this.options;
    if (families.some((family) => family.isOwnChange(notification.portId))) return;
    if (notification.kind === 'generation') {
      if (this.touched.size === 0 && this.places.size === 0) return;
      const { processName } = notification.generation;
      const by = programName(notification.generation);
      if (this.touched.size > 0) foreign.noticed([...this.touched], by);
      for (const place of this.places.values()) this.look(place, processName, by);
      this.touched.clear();
      this.places.clear();
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
    if (kind === 'table' ? action === 'delete' : own.has(name) || isOwnVolatileChain(name)) {
      this.touched.add(family.family);
      return;
    }
    if (kind !== 'rule') return;
    const id = `${family.family} ${table} ${name}`;
    const place = this.places.get(id) ?? { family, table: known, chain: name, deleted: false, added: false };
    if (action === 'delete') place.deleted = true;
    else place.added = true;
    this.places.set(id, place);
  }

  private look({ family, table, chain, deleted, added }: Place, processName: string, by: string): void {
    // What is about to be repaired is looked at then.
    if (deleted && !this.touched.has(family.family))
      this.looks.request(`${family.family} jumps`, () => {
        family.checkJumps(by);
      });
    // What it writes itself it can read.
    if (added && !processName.includes('tables'))
      this.looks.request(`${family.family} ${table} ${chain}`, () => {
        family.checkReadable(table, chain, by);
      });
  }
}
