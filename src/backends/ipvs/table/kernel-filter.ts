/**
 * Our table as the kernel has it, read once when the dataplane takes over: what is right is taken off, and what remains
 * at the end is nobody's and has to go.
 */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import {
  type Expression,
  type NftablesConnection,
  type OnElement,
  sameExpressions,
  sameSetDefinition,
} from '@kube-proxy-ts/netlink/nftables';
import type { DataplaneOptions } from '../../backend.js';
import { ElementTable } from '../../nft/element-table.js';
import { sameIntervals, type IntervalElement } from '../../nft/intervals.js';
import { KernelSets, noValue } from '../../nft/kernel-sets.js';
import { readHostUint32 } from '../../nft/keys.js';
import { nftFamily, type ChainDefinition } from '../../nft/rules.js';
import { sourceRangePrefix, sourceRangeSetDefinition } from '../../nft/source-range-rules.js';
import { chainDefinitions, setDefinitions } from './layout.js';
import { leaseSets } from './leases.js';
import { maps, sets, tableName } from './names.js';
import { bytes } from './transaction.js';

/** A dump is right unless the kernel was just rearranging the hash table (rhashtable): then it is taken again. */
const dumpAttempts = 20;
const dumpPauseMs = 25;

export class KernelFilter extends KernelSets {
  exists = false;
  private readonly chainNames = new Set<string>();
  private readonly rules = new Map<string, (readonly Expression[])[]>();
  private intervals: IntervalElement[] = [];
  hasChain(name: string): boolean {
    return this.chainNames.has(name);
  }

  /** The chain is there with exactly these rules. */
  hasRules({ name, rules }: ChainDefinition): boolean {
    const found = this.rules.get(name) ?? [];
    return (
      this.chainNames.has(name) &&
      found.length === rules.length &&
      rules.every(({ expressions }, i) => sameExpressions(expressions, found[i] ?? []))
    );
  }

  hasIntervals(wanted: readonly IntervalElement[]): boolean {
    return sameIntervals(wanted, this.intervals);
  }

  /** The mark that an address leads to, if it is this service port's. @param key latin1 @param comment see commentOf() */
  markOf(key: string, comment: string): number | undefined {
    const [owners, marks] = [this.elements.get(sets.serviceIPs), this.elements.get(maps.shortCircuits)];
    const owner = owners?.recordOf(bytes(key)) ?? -1;
    const record = marks?.recordOf(bytes(key)) ?? -1;
    if (owners === undefined || marks === undefined || owner < 0 || record < 0) return undefined;
    return owners.hasComment(owner, comment)
      ? readHostUint32(marks.value(record).toString('latin1'))
      : undefined;
  }

  /** Whether this key, latin1, was in the set when it was read. */
  had(set: string, key: string): boolean {
    return (this.elements.get(set)?.recordOf(bytes(key)) ?? -1) >= 0;
  }

  *leftovers(): Iterable<{ readonly set: string; readonly key: string }> {
    for (const [set, table] of this.elements) {
      if (set === sets.serviceCIDRs || leaseSets.includes(set)) continue;
      for (const record of table.rest()) yield { set, key: table.key(record).toString('latin1') };
    }
  }

  /**
   * Reads what the kernel holds.
   * @returns 'absent', or 'foreign' when a table of our name is there that is laid out otherwise: by another version, or by
   * somebody else
   */
  static async read(
    connection: NftablesConnection,
    options: DataplaneOptions,
  ): Promise<KernelFilter | 'absent' | 'foreign'> {
    const family = nftFamily(options.family);
    if (!connection.listTables(family).some(({ name }) => name === tableName)) return 'absent';
    const definitions = new Map(setDefinitions(options).map((definition) => [definition.name, definition]));
    const found = connection.listSets(family, tableName);
    for (const set of found) {
      const length = sourceRangePrefix(set.name);
      const wanted =
        length === undefined ? definitions.get(set.name) : sourceRangeSetDefinition(options.family, length);
      if (wanted === undefined || !sameSetDefinition(wanted, set)) return 'foreign';
    }
    const desiredChains = new Map(chainDefinitions(options, []).map((chain) => [chain.name, chain]));
    const filter = new KernelFilter();
    filter.exists = true;
    for (const { name, base } of connection.listChains(family, tableName)) {
      const wanted = desiredChains.get(name);
      if (
        wanted === undefined ||
        wanted.base?.hook !== base?.hook ||
        wanted.base?.priority !== base?.priority ||
        wanted.base?.type !== base?.type ||
        base?.policy === 'drop'
      ) {
        return 'foreign';
      }
      filter.chainNames.add(name);
    }
    for (const { chain, expressions } of connection.listRules(family, tableName)) {
      const list = filter.rules.get(chain) ?? [];
      list.push(expressions);
      filter.rules.set(chain, list);
    }
    for (const { name } of found) {
      await filter.readSet(connection, family, name);
      await nextTurn();
    }
    return filter;
  }

  /**
   * Shortly after many additions the kernel moves a hash set to a larger table, and a dump may show some elements twice
   * and others not at all. The first is a sign of the second.
   */
  private async readSet(connection: NftablesConnection, family: 'ip' | 'ip6', set: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      let table = new ElementTable();
      let delivered = 0;
      const intervals: IntervalElement[] = [];
      const onElement: OnElement = (key, value, info) => {
        delivered++;
        if (set === sets.serviceCIDRs) intervals.push({ key: key.toString('latin1'), end: info.intervalEnd });
        else table.set(key, Buffer.isBuffer(value) ? value : noValue, info.comment);
      };
      const onRestart = (): void => {
        delivered = 0;
        intervals.length = 0;
        table = new ElementTable();
      };
      try {
        await connection.listElementsAsync(family, tableName, set, onElement, { onRestart });
      } catch (error) {
        if (!(error instanceof NetlinkError && error.code === 'EINTR')) throw error;
        // Others change their tables all the time: not while this is listed in one go.
        onRestart();
        connection.listElements(family, tableName, set, onElement, { onRestart });
      }
      this.elements.set(set, table);
      if (set === sets.serviceCIDRs) this.intervals = intervals;
      if (set === sets.serviceCIDRs || table.size === delivered || attempt === dumpAttempts) return;
      await sleep(dumpPauseMs);
    }
  }
}
