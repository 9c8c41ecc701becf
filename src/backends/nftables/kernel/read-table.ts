/** Reads our table of one family from the kernel. */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import {
  isVerdict,
  type NftablesConnection,
  type OnElement,
  sameSetDefinition,
} from '@kube-proxy-ts/netlink/nftables';
import type { DataplaneOptions } from '../../backend.js';
import { KernelTable, slotMaps } from './kernel-table.js';
import { readHostUint32 } from '../../nft/keys.js';
import { nftFamily } from '../../nft/rules.js';
import { sourceRangePrefix, sourceRangeSetDefinition } from '../../nft/source-range-rules.js';
import { baseObjects } from '../layout/layout.js';
import { maps, sets } from '../layout/names.js';

/** A dump is right unless the kernel was just rearranging the hash table (rhashtable): then it is taken again. */
const dumpAttempts = 20;
const dumpPauseMs = 25;

/**
 * The kernel needs time in proportion to the square of a map's size to dump it (12 ms for 20,000 elements, 6 s for
 * 500,000), and 1.6 µs for an element that is asked for by its key.
 */
export const defaultDumpLimit = 50_000;

export interface ReadOptions {
  /** Maps of endpoints with more elements than this are read by key (KernelTable.readSlots). Infinity: none. */
  readonly dumpLimit: number;
}

const affinityTargets: readonly string[] = [maps.affinityEndpoints, maps.affinityEndpointsLocal];

/** A set as the kernel lists it. */
export type ObservedSet = ReturnType<NftablesConnection['listSets']>[number];

export interface Layout {
  /** Without elements, but for those that are handled as a whole. */
  readonly table: KernelTable;
  readonly sets: readonly ObservedSet[];
}

/** Small sets that belong to the layout. */
const layoutSets: readonly string[] = [maps.classes, maps.pickClasses, sets.nodePortIPs, sets.serviceCIDRs];

/** Chains, rules and sets, and the elements of those sets that belong to them, all in one turn of the event loop. */
export function readLayout(
  connection: NftablesConnection,
  options: DataplaneOptions,
  tableName: string,
): Layout | 'absent' | 'foreign' {
  const layout = readChainsAndSets(connection, options, tableName);
  if (typeof layout === 'string') return layout;
  for (const { name } of layout.sets) {
    if (layoutSets.includes(name)) {
      const { onElement, onRestart } = elementsInto(layout.table, name);
      connection.listElements(nftFamily(options.family), tableName, name, onElement, { onRestart });
    } else {
      layout.table.addSet(name);
    }
  }
  return layout;
}

function readChainsAndSets(
  connection: NftablesConnection,
  options: DataplaneOptions,
  tableName: string,
): Layout | 'absent' | 'foreign' {
  const family = nftFamily(options.family);
  const there = connection.listTables().find((one) => one.family === family && one.name === tableName);
  if (there === undefined) return 'absent';

  const found = connection.listSets(family, tableName);
  const base = baseObjects(options, []);
  const wantedSets = new Map(base.sets.map((definition) => [definition.name, definition]));
  for (const set of found) {
    const length = sourceRangePrefix(set.name);
    const wanted =
      length === undefined ? wantedSets.get(set.name) : sourceRangeSetDefinition(options.family, length);
    if (wanted === undefined || !sameSetDefinition(wanted, set)) return 'foreign';
  }
  const desiredChains = new Map(base.chains.map((chain) => [chain.name, chain]));
  const table = new KernelTable();
  table.exists = true;
  table.dormant = there.dormant;
  for (const chain of connection.listChains(family, tableName)) {
    const wanted = desiredChains.get(chain.name)?.base;
    const same =
      wanted?.hook === chain.base?.hook &&
      wanted?.priority === chain.base?.priority &&
      wanted?.type === chain.base?.type;
    if (!same || chain.base?.policy === 'drop') return 'foreign';
    // Upstream's chains of Services have a slash in their names, ours never.
    if (chain.name.includes('/')) return 'foreign';
    table.addChain(chain.name);
  }
  for (const rule of connection.listRules(family, tableName)) table.addRule(rule.chain, rule.expressions);
  return { table, sets: found };
}

/**
 * Reads what the kernel holds. Each datagram of a set is a turn of the event loop; nobody else is to use the connection meanwhile.
 * @returns 'absent', or 'foreign' when a table of our name is there that is laid out otherwise (upstream's, or one
 * that was changed beyond repair).
 */
export async function readTable(
  connection: NftablesConnection,
  options: DataplaneOptions,
  tableName: string,
  { dumpLimit }: ReadOptions,
): Promise<KernelTable | 'absent' | 'foreign'> {
  const family = nftFamily(options.family);
  const layout = readChainsAndSets(connection, options, tableName);
  if (typeof layout === 'string') return layout;
  const { table, sets: found } = layout;
  // Which of two numbers of an endpoint is in use is known from the slots (KernelTable.addElement).
  const late = (name: string): number => (affinityTargets.includes(name) ? 1 : 0);
  const dumped = found
    .filter(({ name }) => !slotMaps.includes(name))
    .sort((a, b) => late(a.name) - late(b.name));
  for (const { name } of dumped) {
    if (name === maps.affinity) table.addSet(name);
    else await readElements(connection, family, tableName, table, name);
    await nextTurn();
  }
  for (const { name, count } of found) {
    if (!slotMaps.includes(name)) continue;
    const expected = table.slotCount(name);
    // Where the kernel tells how many there are, and it is not as many as something leads to, all have to be seen.
    if (expected > dumpLimit && (count === undefined || count === expected)) {
      table.readInParts(name, (set, keys, onElement) => {
        connection.getElements(family, tableName, set, keys, (key, value) => {
          if (Buffer.isBuffer(value)) onElement(key, value);
        });
      });
    } else {
      await readElements(connection, family, tableName, table, name);
      await nextTurn();
    }
  }
  return table;
}

/**
 * Shortly after many additions the kernel moves a hash set to a larger table, and a dump may show some elements twice
 * and others not at all. The first is a sign of the second.
 */
async function readElements(
  connection: NftablesConnection,
  family: 'ip' | 'ip6',
  tableName: string,
  table: KernelTable,
  set: string,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const before = connection.getSet(family, tableName, set)?.count;
    const elements = elementsInto(table, set);
    try {
      await connection.listElementsAsync(family, tableName, set, elements.onElement, elements);
    } catch (error) {
      if (!(error instanceof NetlinkError && error.code === 'EINTR')) throw error;
      // Somebody changes rules all the time: in one turn there is less time for it.
      elements.onRestart();
      connection.listElements(family, tableName, set, elements.onElement, elements);
    }
    const distinct = table.elementCount(set);
    if (set === sets.serviceCIDRs || distinct === undefined) return;
    if (distinct === elements.delivered && (before === undefined || before <= distinct)) return;
    if (attempt === dumpAttempts) return;
    await sleep(dumpPauseMs);
  }
}

interface ReceivedElements {
  /** How many elements came. */
  delivered: number;
  readonly onElement: OnElement;
  readonly onRestart: () => void;
}

/** Begins a set of the table, and receives its elements. */
function elementsInto(table: KernelTable, set: string): ReceivedElements {
  table.addSet(set);
  const elements: ReceivedElements = {
    delivered: 0,
    onElement: (key, value, info) => {
      elements.delivered++;
      if (value !== undefined && isVerdict(value)) {
        const chain = 'chain' in value && value.verdict === 'goto' ? value.chain : '';
        table.addClass(set, readHostUint32(key.toString('latin1')), chain);
        return;
      }
      table.addElement(set, key, value, info.intervalEnd, info.comment);
    },
    onRestart: () => {
      elements.delivered = 0;
      table.addSet(set);
    },
  };
  return elements;
}
