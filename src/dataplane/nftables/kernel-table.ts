/**
 * Our table as the kernel has it, read once when the dataplane takes over: what is right is taken off, and what
 * remains at the end is nobody's and has to go.
 */
import {
  isVerdict,
  sameExpressions,
  sameSetDefinition,
  type Expression,
  type NftablesConnection,
} from '../../netlink/nftables/index.js';
import type { Endpoint, ServicePort } from '../../model/types.js';
import type { DataplaneOptions } from '../dataplane.js';
import type { AffinityNumbers } from './footprint.js';
import type { IntervalElement } from './intervals.js';
import { addressText, hostUint32, nodePortKey, readHostUint32, serviceKey, targetBytes } from './keys.js';
import { baseObjects, nftFamily, sourceRangeSetDefinition, type RuleDefinition } from './layout.js';
import { chains, maps, sets, sourceRangePrefix, tableName } from './names.js';
import { endpointKey } from './slots.js';

/** Maps whose key ends in a slot, by the map. */
const slotMaps: readonly string[] = [
  maps.endpoints,
  maps.endpointsLocal,
  maps.nodePortEndpoints,
  maps.nodePortEndpointsLocal,
  maps.affinitySlots,
  maps.affinitySlotsLocal,
];

/** Sets and maps without leftovers: the kernel fills one, the others are handled as a whole. */
const notOurs = new Set<string>([maps.affinity, maps.classes, maps.pickClasses, sets.serviceCIDRs]);

const noElements: ReadonlyMap<string, string> = new Map();

export class KernelTable {
  exists = false;
  private readonly chainNames = new Set<string>();
  private readonly rules = new Map<string, (readonly Expression[])[]>();
  /** Elements not yet taken, by set; the value is '' in sets. */
  private readonly elements = new Map<string, Map<string, string>>();
  /** Elements of the verdict maps not yet taken. */
  private classElements: { map: string; id: number; chain: string }[] = [];
  private readonly intervals: IntervalElement[] = [];
  /** Values by slot, by `set + '\0' + prefix`. */
  private readonly slots = new Map<string, string[]>();
  /** Endpoint numbers by affinity service number: value → number. */
  private readonly affinityEndpoints = new Map<number, Map<string, number>>();

  addChain(name: string): void {
    this.chainNames.add(name);
  }

  addRule(chain: string, expressions: readonly Expression[]): void {
    const list = this.rules.get(chain);
    if (list === undefined) this.rules.set(chain, [expressions]);
    else list.push(expressions);
  }

  /** Begins a set, or begins it anew. */
  addSet(name: string): void {
    this.elements.set(name, new Map());
    this.classElements = this.classElements.filter(({ map }) => map !== name);
    if (name === sets.serviceCIDRs) this.intervals.length = 0;
  }

  /** Elements read so far; undefined for verdict maps. */
  elementCount(set: string): number | undefined {
    return set === maps.classes || set === maps.pickClasses ? undefined : this.elements.get(set)?.size;
  }

  addElement(set: string, key: string, value: string | undefined, end: boolean): void {
    if (set === sets.serviceCIDRs) {
      this.intervals.push({ key, end });
      return;
    }
    this.elements.get(set)?.set(key, value ?? '');
    if (slotMaps.includes(set) && value !== undefined) {
      const prefix = `${set}\0${key.slice(0, -4)}`;
      const list = this.slots.get(prefix) ?? [];
      list[readHostUint32(key, key.length - 4)] = value;
      this.slots.set(prefix, list);
    }
    if ((set === maps.affinityEndpoints || set === maps.affinityEndpointsLocal) && value !== undefined) {
      const number = readHostUint32(key);
      const byValue = this.affinityEndpoints.get(number >>> 16) ?? new Map<string, number>();
      byValue.set(value, number & 0xffff);
      this.affinityEndpoints.set(number >>> 16, byValue);
    }
  }

  addClass(map: string, id: number, chain: string): void {
    this.classElements.push({ map, id, chain });
  }

  hasSet(name: string): boolean {
    return this.elements.has(name);
  }

  hasChain(name: string): boolean {
    return this.chainNames.has(name);
  }

  /** The chain is there with exactly these rules. */
  hasRules(chain: string, wanted: readonly RuleDefinition[]): boolean {
    if (!this.chainNames.has(chain)) return wanted.length === 0;
    const found = this.rules.get(chain) ?? [];
    return (
      found.length === wanted.length &&
      wanted.every(({ expressions }, i) => sameExpressions(expressions, found[i] ?? []))
    );
  }

  sourceRangeLengths(): number[] {
    return [...this.elements.keys()].map(sourceRangePrefix).filter((length) => length !== undefined);
  }

  /** Takes a fixed class off. @returns false when it is missing or leads elsewhere. */
  takeClass(id: number, chain: string): boolean {
    const rest = this.classElements.filter((element) => element.id !== id || element.chain !== chain);
    if (rest.length === this.classElements.length) return false;
    this.classElements = rest;
    return true;
  }

  classes(): readonly { readonly map: string; readonly id: number; readonly chain: string }[] {
    return this.classElements;
  }

  /** Chains that neither the layout nor a class accounts for. */
  unknownChains(adopted: readonly string[]): string[] {
    const known = new Set<string>([...Object.values(chains), ...adopted]);
    return [...this.chainNames].filter((name) => !known.has(name));
  }

  takeIntervals(set: string, wanted: readonly IntervalElement[]): boolean {
    if (!this.hasSet(set)) return wanted.length === 0;
    const text = (list: readonly IntervalElement[]): string =>
      list
        .map(({ key, end }) => `${key}${end}`)
        .sort()
        .join();
    return text(wanted) === text(this.intervals);
  }

  /** Takes an element off. 'different': the key is there with another value. */
  take(set: string, key: string, value: string | undefined): 'same' | 'absent' | 'different' {
    const elements = this.elements.get(set);
    const found = elements?.get(key);
    if (elements === undefined || found === undefined) return 'absent';
    elements.delete(key);
    return found === (value ?? '') ? 'same' : 'different';
  }

  /** Undoes take(), for a transaction that failed. */
  giveBack(set: string, key: string, value: string): void {
    this.elements.get(set)?.set(key, value);
  }

  found(set: string, key: string): string | undefined {
    return (this.elements.get(set) ?? noElements).get(key);
  }

  *leftovers(): Iterable<{ key: string; set: string; element: string }> {
    for (const [set, elements] of this.elements) {
      if (notOurs.has(set)) continue;
      for (const element of elements.keys())
        yield { key: `${set} ${Buffer.from(element, 'latin1').toString('hex')}`, set, element };
    }
  }

  /** Some slot of this address is in the map. */
  hasSlots(set: string, prefix: string): boolean {
    return this.slots.has(`${set}\0${prefix}`);
  }

  /** Endpoints by slot of the list that an address of this service port draws from. */
  slotsOf(
    port: ServicePort,
    list: 'cluster' | 'local',
    affinity: AffinityNumbers | undefined,
  ): readonly Endpoint[] {
    const wanted = list === 'cluster' ? port.clusterEndpoints : port.localEndpoints;
    if (wanted.length === 0) return [];
    const values =
      affinity === undefined ? this.addressSlots(port, list) : this.affinitySlots(affinity.service, list);
    if (values === undefined) return [];
    const byValue = new Map(
      wanted.map((endpoint) => [
        affinity === undefined
          ? targetBytes(endpoint)
          : hostUint32(
              ((affinity.service << 16) | (affinity.endpoints.get(endpointKey(endpoint)) ?? 0)) >>> 0,
            ),
        endpoint,
      ]),
    );
    // A slot of an endpoint that is gone is a hole, which assignSlots fills as it fills the holes of removed ones.
    return Array.from(values, (value) => byValue.get(value) ?? hole);
  }

  private addressSlots(port: ServicePort, list: 'cluster' | 'local'): readonly string[] | undefined {
    for (const address of port.addresses) {
      const onNode = address.kind === 'NodePort';
      const key = onNode
        ? nodePortKey(port.protocol, address.port)
        : serviceKey(address.ip, port.protocol, address.port);
      const set = onNode
        ? list === 'cluster'
          ? maps.nodePortEndpoints
          : maps.nodePortEndpointsLocal
        : list === 'cluster'
          ? maps.endpoints
          : maps.endpointsLocal;
      const found = this.slots.get(`${set}\0${key}`);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  private affinitySlots(service: number, list: 'cluster' | 'local'): readonly string[] | undefined {
    const set = list === 'cluster' ? maps.affinitySlots : maps.affinitySlotsLocal;
    return this.slots.get(`${set}\0${hostUint32((service << 16) >>> 0)}`);
  }

  /** The numbers under which clients are remembered for this service port. */
  affinityOf(port: ServicePort): AffinityNumbers | undefined {
    for (const address of port.addresses) {
      const onNode = address.kind === 'NodePort';
      const key = onNode
        ? nodePortKey(port.protocol, address.port)
        : serviceKey(address.ip, port.protocol, address.port);
      const value = this.found(onNode ? maps.affinityNodePorts : maps.affinityIPs, key);
      if (value === undefined) continue;
      const service = readHostUint32(value) >>> 16;
      const endpoints = new Map<string, number>();
      for (const [target, number] of this.affinityEndpoints.get(service) ?? []) {
        const addressBytes = target.length - 4;
        const portNumber = (target.charCodeAt(addressBytes) << 8) | target.charCodeAt(addressBytes + 1);
        endpoints.set(`${addressText(target.slice(0, addressBytes))}:${portNumber}`, number);
      }
      return { service, endpoints };
    }
    return undefined;
  }
}

/** Stands for an endpoint that is no longer wanted; equal to none. */
const hole: Endpoint = { ip: '', port: 0, local: false, nodeUnknown: false };

/** A dump is right unless the kernel was just rearranging the hash table (rhashtable): then it is taken again. */
const dumpAttempts = 20;
const dumpPauseMs = 25;

function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/**
 * Reads our table of one family.
 * @returns 'absent', or 'foreign' when a table of our name is there that is laid out otherwise (upstream's, or one
 * that was changed beyond repair).
 */
export function readTable(
  connection: NftablesConnection,
  options: DataplaneOptions,
): KernelTable | 'absent' | 'foreign' {
  const family = nftFamily(options.family);
  if (!connection.listTables().some((table) => table.family === family && table.name === tableName))
    return 'absent';

  const found = connection.listSets(family, tableName);
  const base = baseObjects(options, []);
  const wantedSets = new Map(base.sets.map((definition) => [definition.name, definition]));
  for (const set of found) {
    const length = sourceRangePrefix(set.name);
    const wanted =
      length === undefined ? wantedSets.get(set.name) : sourceRangeSetDefinition(options.family, length);
    if (wanted === undefined || !sameSetDefinition(wanted, set)) return 'foreign';
  }
  const wantedChains = new Map(base.chains.map((chain) => [chain.name, chain]));
  const table = new KernelTable();
  table.exists = true;
  for (const chain of connection.listChains(family, tableName)) {
    const wanted = wantedChains.get(chain.name)?.base;
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
  for (const set of found) {
    if (set.name === maps.affinity) table.addSet(set.name);
    else readElements(connection, family, table, set.name);
  }
  return table;
}

/**
 * Shortly after many additions the kernel moves a hash set to a larger table, and a dump may show some elements twice
 * and others not at all. The first is a sign of the second.
 */
function readElements(
  connection: NftablesConnection,
  family: 'ip' | 'ip6',
  table: KernelTable,
  set: string,
): void {
  for (let attempt = 1; ; attempt++) {
    table.addSet(set);
    let delivered = 0;
    const before = connection.getSet(family, tableName, set)?.count;
    connection.listElements(
      family,
      tableName,
      set,
      (key, value, info) => {
        delivered++;
        const keyText = key.toString('latin1');
        if (value !== undefined && isVerdict(value)) {
          if ('chain' in value) table.addClass(set, readHostUint32(keyText), value.chain);
          return;
        }
        table.addElement(set, keyText, value?.toString('latin1'), info.intervalEnd);
      },
      {
        onRestart: () => {
          delivered = 0;
          table.addSet(set);
        },
      },
    );
    const distinct = table.elementCount(set);
    if (set === sets.serviceCIDRs || distinct === undefined) return;
    if (distinct === delivered && (before === undefined || before <= distinct)) return;
    if (attempt === dumpAttempts) return;
    pause(dumpPauseMs);
  }
}
