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
import { keyBytes, slotKeyBytes, targetValueBytes } from './element-bytes.js';
import { ElementTable } from './element-table.js';
import type { AffinityNumbers } from './footprint.js';
import type { IntervalElement } from './intervals.js';
import { addressText, hostUint32, nodePortKey, readHostUint32, serviceKey, targetBytes } from './keys.js';
import { baseObjects, nftFamily, sourceRangeSetDefinition, type RuleDefinition } from './layout.js';
import { maps, sets, sourceRangePrefix, tableName } from './names.js';
import { endpointKey } from './slots.js';

/** Sets and maps without leftovers: the kernel fills one, the others are handled as a whole. */
const notOurs = new Set<string>([
  maps.affinity,
  maps.classes,
  maps.pickClasses,
  sets.serviceCIDRs,
  sets.nodePortIPs,
]);

const noValue = Buffer.alloc(0);

export class KernelTable {
  exists = false;
  private readonly chainNames = new Set<string>();
  private readonly rules = new Map<string, (readonly Expression[])[]>();
  /** By set. What is wanted is taken off. */
  private readonly elements = new Map<string, ElementTable>();
  /** What was taken since checkpoint(): tables, and records in them. */
  private readonly takenFrom: ElementTable[] = [];
  private readonly takenRecords: number[] = [];
  /** Elements of the verdict maps not yet taken. */
  private classElements: { map: string; id: number; chain: string }[] = [];
  private readonly intervals: IntervalElement[] = [];
  /** Endpoint numbers by affinity service number: value → number. */
  private readonly affinityEndpoints = new Map<number, Map<string, number>>();
  /** Numbers that addresses lead to. */
  private readonly affinityServices = new Set<number>();

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
    this.elements.set(name, new ElementTable());
    this.classElements = this.classElements.filter(({ map }) => map !== name);
    if (name === sets.serviceCIDRs) this.intervals.length = 0;
  }

  /** Elements read so far; undefined for verdict maps. */
  elementCount(set: string): number | undefined {
    return set === maps.classes || set === maps.pickClasses ? undefined : this.elements.get(set)?.size;
  }

  /** @param key and value: views will do */
  addElement(set: string, key: Buffer, value: Buffer | undefined, end: boolean, comment?: string): void {
    if (set === sets.serviceCIDRs) {
      this.intervals.push({ key: key.toString('latin1'), end });
      return;
    }
    this.elements.get(set)?.set(key, value ?? noValue, comment);
    if ((set === maps.affinityIPs || set === maps.affinityNodePorts) && value !== undefined)
      this.affinityServices.add(readHostUint32(value.toString('latin1')) >>> 16);
    if ((set === maps.affinityEndpoints || set === maps.affinityEndpointsLocal) && value !== undefined) {
      const number = readHostUint32(key.toString('latin1'));
      const byValue = this.affinityEndpoints.get(number >>> 16) ?? new Map<string, number>();
      byValue.set(value.toString('latin1'), number & 0xffff);
      this.affinityEndpoints.set(number >>> 16, byValue);
    }
  }

  /** @param chain '' for a verdict that is no goto */
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

  /** Takes a fixed class off. 'different': it leads elsewhere. */
  takeClass(map: string, id: number, chain: string): 'same' | 'absent' | 'different' {
    const at = this.classElements.findIndex((element) => element.map === map && element.id === id);
    if (at < 0) return 'absent';
    const [found] = this.classElements.splice(at, 1);
    return found?.chain === chain ? 'same' : 'different';
  }

  classes(): readonly { readonly map: string; readonly id: number; readonly chain: string }[] {
    return this.classElements;
  }

  /** Chains that neither the layout nor a class accounts for. */
  unknownChains(known: ReadonlySet<string>): string[] {
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

  /** Takes an element off. 'different': the key is there with another value or comment. */
  take(
    set: string,
    key: Buffer,
    value: Buffer | undefined,
    comment?: string,
  ): 'same' | 'absent' | 'different' {
    const elements = this.elements.get(set);
    const record = elements?.find(key) ?? -1;
    if (elements === undefined || record < 0) return 'absent';
    elements.take(record);
    this.takenFrom.push(elements);
    this.takenRecords.push(record);
    return elements.hasValue(record, value ?? noValue) && elements.hasComment(record, comment)
      ? 'same'
      : 'different';
  }

  /** What has been taken so far stays so. */
  checkpoint(): void {
    this.takenFrom.length = 0;
    this.takenRecords.length = 0;
  }

  /** Undoes every take() since checkpoint(), for a transaction that failed. */
  rollBack(): void {
    this.takenFrom.forEach((elements, i) => {
      elements.giveBack(this.takenRecords[i] ?? 0);
    });
    this.checkpoint();
  }

  *leftovers(): Iterable<{ key: string; set: string; element: string }> {
    for (const set of this.elements.keys()) {
      if (notOurs.has(set)) continue;
      for (const element of this.leftoversOf(set)) {
        yield { key: `${set} ${Buffer.from(element, 'latin1').toString('hex')}`, set, element };
      }
    }
  }

  /** Keys of one set that nobody took. */
  *leftoversOf(set: string): Iterable<string> {
    const elements = this.elements.get(set);
    if (elements === undefined) return;
    for (const record of elements.rest()) yield elements.key(record).toString('latin1');
  }

  /** Numbers of service ports with affinity that are in use. */
  affinityServiceNumbers(): Iterable<number> {
    return this.affinityServices;
  }

  /** Endpoints by slot of the list that an address of this service port draws from. */
  slotsOf(
    port: ServicePort,
    list: 'cluster' | 'local',
    affinity: AffinityNumbers | undefined,
  ): readonly Endpoint[] {
    const wanted = list === 'cluster' ? port.clusterEndpoints : port.localEndpoints;
    if (wanted.length === 0) return [];
    const block =
      affinity === undefined ? this.addressBlock(port, list) : this.affinityBlock(affinity.service, list);
    if (block === undefined) return [];
    const { elements, prefix } = block;
    if (affinity === undefined && holds(block, wanted)) return wanted;
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
    const found: Endpoint[] = [];
    for (;;) {
      const record = elements.find(slotKeyBytes(prefix, found.length));
      if (record < 0) return found;
      found.push(byValue.get(elements.value(record).toString('latin1')) ?? hole);
    }
  }

  private addressBlock(port: ServicePort, list: 'cluster' | 'local'): FoundBlock | undefined {
    for (const address of port.addresses) {
      const onNode = address.kind === 'NodePort';
      const prefix = onNode
        ? nodePortKey(port.protocol, address.port)
        : serviceKey(address.ip, port.protocol, address.port);
      const set = onNode
        ? list === 'cluster'
          ? maps.nodePortEndpoints
          : maps.nodePortEndpointsLocal
        : list === 'cluster'
          ? maps.endpoints
          : maps.endpointsLocal;
      const found = this.block(set, prefix);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  private affinityBlock(service: number, list: 'cluster' | 'local'): FoundBlock | undefined {
    const set = list === 'cluster' ? maps.affinitySlots : maps.affinitySlotsLocal;
    return this.block(set, hostUint32((service << 16) >>> 0));
  }

  /** undefined when slot 0 is not there. */
  private block(set: string, prefix: string): FoundBlock | undefined {
    const elements = this.elements.get(set);
    return elements === undefined || elements.find(slotKeyBytes(prefix, 0)) < 0
      ? undefined
      : { elements, prefix };
  }

  /** The numbers under which clients are remembered for this service port. */
  affinityOf(port: ServicePort): AffinityNumbers | undefined {
    for (const address of port.addresses) {
      const onNode = address.kind === 'NodePort';
      const key = onNode
        ? nodePortKey(port.protocol, address.port)
        : serviceKey(address.ip, port.protocol, address.port);
      const elements = this.elements.get(onNode ? maps.affinityNodePorts : maps.affinityIPs);
      const record = elements?.find(keyBytes(key)) ?? -1;
      if (elements === undefined || record < 0) continue;
      const service = readHostUint32(elements.value(record).toString('latin1')) >>> 16;
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

/** The slots of one list of one address. */
interface FoundBlock {
  readonly elements: ElementTable;
  /** latin1 */
  readonly prefix: string;
}

/** The slots hold exactly these endpoints, in this order: the rule for services that never changed. */
function holds({ elements, prefix }: FoundBlock, endpoints: readonly Endpoint[]): boolean {
  for (const [slot, endpoint] of endpoints.entries()) {
    const record = elements.find(slotKeyBytes(prefix, slot));
    if (record < 0 || !elements.hasValue(record, targetValueBytes(endpoint))) return false;
  }
  return elements.find(slotKeyBytes(prefix, endpoints.length)) < 0;
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
        if (value !== undefined && isVerdict(value)) {
          const chain = 'chain' in value && value.verdict === 'goto' ? value.chain : '';
          table.addClass(set, readHostUint32(key.toString('latin1')), chain);
          return;
        }
        table.addElement(set, key, value, info.intervalEnd, info.comment);
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
