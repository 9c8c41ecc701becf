/**
 * Our table as the kernel has it, read once when the dataplane takes over (read-table.ts): what is right is taken off,
 * and what remains at the end is nobody's and has to go.
 *
 * The maps that hold endpoints can be too large to be read whole. They follow from the small maps, though: the class of
 * an address says which of them it draws from, and how many slots it has there. So they are read slot by slot, for
 * some service ports at a time (readSlots).
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { sameExpressions, type Expression } from '@kube-proxy-ts/netlink/nftables';
import type { Endpoint, ServicePort } from '../../../model/types.js';
import type { Affinity } from '../affinity/affinity-numbers.js';
import { EndpointNumbers, type NumberedSlots } from '../affinity/endpoint-numbers.js';
import { classWithoutAffinity, slotMap } from '../layout/classes.js';
import { keyBytes, slotKeyBytes, targetValueBytes } from '../state/element-bytes.js';
import { ElementTable } from '../../nft/element-table.js';
import { elementComment, slotKey } from '../state/elements.js';
import { sameIntervals, type IntervalElement } from '../../nft/intervals.js';
import { KernelSets, noValue } from '../../nft/kernel-sets.js';
import { classId, hostUint32, hostUint32At, targetBytes } from '../../nft/keys.js';
import type { RuleDefinition } from '../../nft/rules.js';
import { maps, sets } from '../layout/names.js';
import { endpointKey } from '../state/slots.js';
import { addressKey } from '../state/elements.js';

/** Sets and maps without leftovers: the kernel fills one, the others are handled as a whole. */
const notOurs = new Set<string>([
  maps.affinity,
  maps.classes,
  maps.pickClasses,
  sets.serviceCIDRs,
  sets.nodePortIPs,
]);

/** The maps of slots without affinity, and the maps whose classes lead to them. */
const classMapsOf: Readonly<Record<string, readonly string[]>> = {
  [maps.endpoints]: [maps.serviceIPs, maps.shortCircuitIPs],
  [maps.endpointsLocal]: [maps.serviceIPs, maps.localIPs],
  [maps.nodePortEndpoints]: [maps.serviceNodePorts, maps.shortCircuitNodePorts],
  [maps.nodePortEndpointsLocal]: [maps.localNodePorts],
};
export const slotMaps: readonly string[] = Object.keys(classMapsOf);

/** Most slots, and most service ports, whose elements are held at a time, and read in one turn of the event loop. */
const partSlots = 2_048;
const partPorts = 512;

/** Endpoints of one service port that one turn of the event loop deals with. */
const restAfter = 4096;

/** Reads elements of a set by their keys; those that are not there are passed over. */
export type ReadElements = (
  set: string,
  keys: Iterable<Buffer>,
  onElement: (key: Buffer, value: Buffer) => void,
) => void;

export class KernelTable extends KernelSets {
  exists = false;
  /** Somebody has put the table to sleep: the kernel asks none of its base chains. */
  dormant = false;
  /** Slot maps that are read in parts, and those of their elements that nobody took, in the parts gone by. */
  private readonly inParts = new Map<string, Set<string>>();
  private readElements: ReadElements = () => undefined;
  private readonly chainNames = new Set<string>();
  private readonly rules = new Map<string, (readonly Expression[])[]>();
  /** Elements of the verdict maps not yet taken. */
  private classElements: { map: string; id: number; chain: string }[] = [];
  private readonly intervals: IntervalElement[] = [];
  /** Endpoint numbers by affinity service number: value → number. */
  private readonly affinityEndpoints = new Map<number, Map<string, number>>();
  /** Numbers of endpoints that slots lead to. */
  private readonly affinitySlotNumbers = new Set<number>();
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
      this.affinityServices.add(hostUint32At(value) >>> 16);
    if ((set === maps.affinitySlots || set === maps.affinitySlotsLocal) && value !== undefined)
      this.affinitySlotNumbers.add(hostUint32At(value));
    if ((set === maps.affinityEndpoints || set === maps.affinityEndpointsLocal) && value !== undefined) {
      const number = hostUint32At(key);
      const byValue = this.affinityEndpoints.get(number >>> 16) ?? new Map<string, number>();
      // Numbers of endpoints that are gone may lead to living ones for a while (applied-state.ts); slots never lead to them.
      const target = value.toString('latin1');
      const known = byValue.get(target);
      if (known === undefined || !this.affinitySlotNumbers.has(((number & 0xffff0000) | known) >>> 0))
        byValue.set(target, number & 0xffff);
      this.affinityEndpoints.set(number >>> 16, byValue);
    }
  }

  /** @param chain '' for a verdict that is no goto */
  addClass(map: string, id: number, chain: string): void {
    this.classElements.push({ map, id, chain });
  }

  hasChain(name: string): boolean {
    return this.chainNames.has(name);
  }

  /** The element is there, whoever took it. @param key latin1 */
  holds(set: string, key: string): boolean {
    return (this.elements.get(set)?.recordOf(keyBytes(key)) ?? -1) >= 0;
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
    return sameIntervals(wanted, this.intervals);
  }

  *leftovers(): Iterable<{ key: string; set: string; element: string }> {
    for (const set of this.elements.keys()) {
      if (notOurs.has(set)) continue;
      for (const element of this.inParts.has(set) ? this.leftoversInParts(set) : this.leftoversOf(set)) {
        yield { key: `${set} ${Buffer.from(element, 'latin1').toString('hex')}`, set, element };
      }
    }
  }

  /** What the parts left, and the slots of addresses that nobody asked for. */
  private leftoversInParts(set: string): Iterable<string> {
    this.endPart(set);
    const left = this.inParts.get(set) ?? new Set<string>();
    const [services = ''] = classMapsOf[set] ?? [];
    for (const { key, slots } of this.slotsOfClasses(set)) {
      // An address that belongs to a service port was in that one's part.
      const table = this.elements.get(services);
      const record = table?.recordOf(key) ?? -1;
      if (table !== undefined && record >= 0 && table.isTaken(record)) continue;
      const prefix = key.toString('latin1');
      for (let slot = 0; slot < slots; slot++) left.add(slotKey(prefix, slot));
    }
    return left;
  }

  /**
   * Slots that nobody took, by slot map.
   * @param isWanted of which keys; latin1
   */
  leftSlots(set: string, isWanted: (key: string) => boolean): Map<string, string> {
    const found = new Map<string, string>();
    if (this.inParts.has(set)) {
      const keys = [...this.leftoversInParts(set)].filter(isWanted).map((key) => Buffer.from(key, 'latin1'));
      if (keys.length === 0) return found;
      this.readElements(set, keys, (key, value) => {
        found.set(key.toString('latin1'), value.toString('latin1'));
      });
      return found;
    }
    const elements = this.elements.get(set);
    if (elements === undefined) return found;
    for (const record of elements.rest()) {
      const key = elements.key(record).toString('latin1');
      if (isWanted(key)) found.set(key, elements.value(record).toString('latin1'));
    }
    return found;
  }

  /**
   * Addresses with affinity that nobody took, and the endpoints to which they led.
   * @param isWanted of which keys; latin1
   */
  *leftAffinity(
    set: string,
    isWanted: (key: string) => boolean,
  ): Iterable<readonly [key: string, targets: Iterable<string>]> {
    const elements = this.elements.get(set);
    if (elements === undefined) return;
    for (const record of elements.rest()) {
      const key = elements.key(record).toString('latin1');
      if (!isWanted(key)) continue;
      const service = hostUint32At(elements.value(record)) >>> 16;
      yield [key, this.affinityEndpoints.get(service)?.keys() ?? []];
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

  // ---- slot maps in parts

  /** How many elements a slot map has, going by the classes of the addresses. */
  slotCount(set: string): number {
    let count = 0;
    for (const { slots } of this.slotsOfClasses(set)) count += slots;
    return count;
  }

  /** The slot map is not dumped; its elements are had from `read`. */
  readInParts(set: string, read: ReadElements): void {
    this.addSet(set);
    this.inParts.set(set, new Set());
    this.readElements = read;
  }

  /** Some of what was read was read by key: what nothing leads to was not looked for. */
  get isPartial(): boolean {
    return this.inParts.size > 0;
  }

  /** Divides service ports so that the slots of each part can be held at once. */
  *parts(ports: readonly ServicePort[]): Generator<readonly ServicePort[], void, undefined> {
    if (!this.isPartial) {
      yield ports;
      return;
    }
    for (let from = 0, to = 0; to < ports.length; from = to) {
      for (let slots = 0; to < ports.length && to - from < partPorts && slots < partSlots; to++) {
        const port = ports[to];
        if (port !== undefined)
          slots += port.addresses.length * (port.clusterEndpoints.length + port.localEndpoints.length);
      }
      yield ports.slice(from, to);
    }
  }

  /**
   * Reads the slots of these service ports' addresses in place of those of the ports before. A single service port may have very many:
   * then in several turns of the event loop.
   */
  async readSlots(ports: readonly ServicePort[]): Promise<void> {
    for (const set of this.inParts.keys()) {
      this.endPart(set);
      const table = new ElementTable();
      this.elements.set(set, table);
      const keys = this.slotKeys(set, ports);
      const onElement = (key: Buffer, value: Buffer): void => {
        table.set(key, value);
      };
      for (let read = partSlots; read === partSlots;) {
        read = 0;
        this.readElements(
          set,
          some(keys, partSlots, () => read++),
          onElement,
        );
        if (read === partSlots) await nextTurn();
      }
    }
  }

  /** Keys of the slots that the kernel has for these service ports. */
  private *slotKeys(set: string, ports: readonly ServicePort[]): Generator<Buffer, void, undefined> {
    const onNode = set === maps.nodePortEndpoints || set === maps.nodePortEndpointsLocal;
    for (const port of ports) {
      for (const address of port.addresses) {
        if (onNode !== (address.kind === 'NodePort')) continue;
        const prefix = addressKey(port, address);
        const slots = this.slotsAt(set, keyBytes(prefix));
        for (let slot = 0; slot < slots; slot++) yield slotKeyBytes(prefix, slot);
      }
    }
  }

  private endPart(set: string): void {
    const left = this.inParts.get(set);
    for (const key of this.leftoversOf(set)) left?.add(key);
  }

  /** Slots that the address has in a slot map, by its class. */
  private slotsAt(set: string, key: Buffer): number {
    for (const name of classMapsOf[set] ?? []) {
      const table = this.elements.get(name);
      const record = table?.recordOf(key) ?? -1;
      const slots = table === undefined || record < 0 ? 0 : slotsIn(set, table, record);
      if (slots > 0) return slots;
    }
    return 0;
  }

  /** By address that nobody took: its slots in a slot map. */
  private *slotsOfClasses(set: string): Generator<{ readonly key: Buffer; readonly slots: number }> {
    for (const name of classMapsOf[set] ?? []) {
      const table = this.elements.get(name);
      if (table === undefined) continue;
      for (const record of table.rest()) {
        const slots = slotsIn(set, table, record);
        if (slots > 0) yield { key: table.key(record), slots };
      }
    }
  }

  // ---- what a service port has in the kernel

  /** Endpoints by slot of the list that an address of this service port draws from. Rests now and then. */
  *slotsOf(
    port: ServicePort,
    list: 'cluster' | 'local',
  ): Generator<undefined, readonly Endpoint[], undefined> {
    const wanted = list === 'cluster' ? port.clusterEndpoints : port.localEndpoints;
    if (wanted.length === 0) return [];
    const block = this.addressBlock(port, list);
    if (block === undefined) return [];
    if (yield* holds(block, wanted)) return wanted;
    const byValue = new Map<string, Endpoint>();
    for (const endpoint of wanted) {
      byValue.set(targetBytes(endpoint), endpoint);
      if (byValue.size % restAfter === 0) yield;
    }
    const { elements, prefix } = block;
    // A slot of an endpoint that is gone is a hole, which assignSlots fills as it fills the holes of removed ones.
    const found: Endpoint[] = [];
    for (;;) {
      const record = elements.find(slotKeyBytes(prefix, found.length));
      if (record < 0) return found;
      found.push(byValue.get(elements.value(record).toString('latin1')) ?? hole);
      if (found.length % restAfter === 0) yield;
    }
  }

  private addressBlock(port: ServicePort, list: 'cluster' | 'local'): ObservedBlock | undefined {
    for (const address of port.addresses) {
      const onNode = address.kind === 'NodePort';
      const prefix = addressKey(port, address);
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

  /**
   * Numbers of endpoints that one of the two maps has for a service port, nobody took, and where they lead; undefined
   * for each that was taken.
   */
  *leftNumbers(
    set: string,
    service: number,
  ): Generator<{ readonly key: string; readonly target: string } | undefined, void, undefined> {
    const elements = this.elements.get(set);
    for (const [target, number] of this.affinityEndpoints.get(service) ?? []) {
      const key = hostUint32(classId(service, number));
      const record = elements?.recordOf(keyBytes(key)) ?? -1;
      const isLeft =
        elements !== undefined &&
        record >= 0 &&
        !elements.isTaken(record) &&
        elements.value(record).toString('latin1') === target;
      yield isLeft ? { key, target } : undefined;
    }
  }

  /** undefined when slot 0 is not there. */
  private block(set: string, prefix: string): ObservedBlock | undefined {
    const elements = this.elements.get(set);
    return elements === undefined || elements.find(slotKeyBytes(prefix, 0)) < 0
      ? undefined
      : { elements, prefix };
  }

  /** The numbers under which clients are remembered for this service port, and its endpoints by slot. Rests now and then. */
  *affinityOf(port: ServicePort): Generator<undefined, AffinityInKernel | undefined, undefined> {
    const service = this.affinityServiceOf(port);
    if (service === undefined) return undefined;
    const numbers = new EndpointNumbers();
    const left = new Map(this.affinityEndpoints.get(service));
    const byMinor = { cluster: new Map<number, Endpoint>(), local: new Map<number, Endpoint>() };
    let count = 0;
    for (const [list, endpoints] of [
      ['cluster', port.clusterEndpoints],
      ['local', port.localEndpoints],
    ] as const) {
      for (const endpoint of endpoints) {
        if (++count % restAfter === 0) yield;
        const target = targetBytes(endpoint);
        const minor = this.affinityEndpoints.get(service)?.get(target);
        if (minor === undefined) continue;
        byMinor[list].set(minor, endpoint);
        if (left.delete(target)) numbers.learn(endpointKey(endpoint), minor);
      }
    }
    // Those of endpoints that are gone.
    for (const minor of left.values()) numbers.learn(`gone ${minor}`, minor);
    const cluster = yield* this.numberedSlotsOf(maps.affinitySlots, service, byMinor.cluster, numbers);
    const local = yield* this.numberedSlotsOf(maps.affinitySlotsLocal, service, byMinor.local, numbers);
    const affinity = { service, numbers, clusterMinors: cluster.minors, localMinors: local.minors };
    return { affinity, clusterSlots: cluster.slots, localSlots: local.slots };
  }

  /**
   * Only addresses that were its own tell: another one that takes over an address would lead all others of the former owner's
   * to its endpoints.
   */
  private affinityServiceOf(port: ServicePort): number | undefined {
    const comment = elementComment(port.name);
    for (const address of port.addresses) {
      const onNode = address.kind === 'NodePort';
      const elements = this.elements.get(onNode ? maps.affinityNodePorts : maps.affinityIPs);
      const record = elements?.find(keyBytes(addressKey(port, address))) ?? -1;
      if (elements !== undefined && record >= 0 && elements.hasComment(record, comment))
        return hostUint32At(elements.value(record)) >>> 16;
    }
    return undefined;
  }

  /** @param numbers learns which endpoints are in the list */
  private *numberedSlotsOf(
    set: string,
    service: number,
    byMinor: ReadonlyMap<number, Endpoint>,
    numbers: EndpointNumbers,
  ): Generator<undefined, NumberedSlots, undefined> {
    const slots: Endpoint[] = [];
    const minors: number[] = [];
    const listed = new Set<Endpoint>();
    const block = byMinor.size === 0 ? undefined : this.block(set, hostUint32(classId(service, 0)));
    while (block !== undefined) {
      const record = block.elements.find(slotKeyBytes(block.prefix, slots.length));
      if (record < 0) break;
      const number = hostUint32At(block.elements.value(record));
      const endpoint = number >>> 16 === service ? byMinor.get(number & 0xffff) : undefined;
      // In two slots only when somebody else has been there.
      const isFirst = endpoint !== undefined && !listed.has(endpoint);
      if (isFirst) {
        listed.add(endpoint);
        numbers.enlist(endpointKey(endpoint));
      }
      slots.push(isFirst ? endpoint : hole);
      minors.push(isFirst ? number & 0xffff : 0);
      if (slots.length % restAfter === 0) yield;
    }
    return { slots, minors: Uint16Array.from(minors) };
  }
}

/** A service port's slots as the kernel has them. */
export interface AffinityInKernel {
  readonly affinity: Affinity;
  readonly clusterSlots: readonly Endpoint[];
  readonly localSlots: readonly Endpoint[];
}

/** The next items, and no more of them: the others can be had later. */
function* some<T>(items: Iterator<T>, most: number, onItem: () => void): Generator<T, void, undefined> {
  for (let taken = 0; taken < most; taken++) {
    const next = items.next();
    if (next.done === true) return;
    onItem();
    yield next.value;
  }
}

/** Slots in a slot map that the class in the element's value draws from. */
function slotsIn(set: string, table: ElementTable, record: number): number {
  const of = classWithoutAffinity(hostUint32At(table.value(record)));
  return of !== undefined && slotMap(of.kind) === set ? of.endpoints : 0;
}

/** The slots of one list of one address. */
interface ObservedBlock {
  readonly elements: ElementTable;
  /** latin1 */
  readonly prefix: string;
}

/** The slots hold exactly these endpoints, in this order: the rule for services that never changed. */
function* holds(
  { elements, prefix }: ObservedBlock,
  endpoints: readonly Endpoint[],
): Generator<undefined, boolean, undefined> {
  for (const [slot, endpoint] of endpoints.entries()) {
    const record = elements.find(slotKeyBytes(prefix, slot));
    if (record < 0 || !elements.hasValue(record, targetValueBytes(endpoint))) return false;
    if ((slot + 1) % restAfter === 0) yield;
  }
  return elements.find(slotKeyBytes(prefix, endpoints.length)) < 0;
}

/** Stands for an endpoint that is no longer wanted; equal to none. */
const hole: Endpoint = { ip: '', port: 0, local: false, nodeUnknown: false };
