/**
 * What this process has written into the table, or taken over from an earlier one, as far as it has to remember it; and how that
 * becomes something else. Sends nothing: every change goes into a Transaction, which takes it back should the kernel refuse.
 */
import { performance } from 'node:perf_hooks';
import { goTo } from '@kube-proxy-ts/netlink/nftables';
import type { Endpoint, ServicePort } from '../../../model/types.js';
import type { DataplaneOptions } from '../../backend.js';
import { AffinityChanges, AffinityServiceNumbers, type Affinity } from '../affinity/affinity-numbers.js';
import {
  classMap,
  className,
  ClassNumbers,
  externalLocalClass,
  nodePortLocalClass,
  parseClassName,
  type ServiceClass,
} from '../layout/classes.js';
import {
  noElements,
  desiredElements,
  hairpinsOf,
  isNearby,
  type DesiredElements,
  type ServicePortState,
} from './desired-elements.js';
import {
  numberKey,
  slotKey,
  slotValue,
  type Element,
  type NumberedEndpoints,
  type SlotBlock,
} from './elements.js';
import { hostUint32, nodePortKey, readHostUint32, serviceKey, targetBytes } from '../../nft/keys.js';
import {
  sourceRangePrefix,
  sourceRangeRules,
  sourceRangeSetDefinition,
} from '../../nft/source-range-rules.js';
import { classRules } from '../layout/layout.js';
import { EndpointNumbers } from '../affinity/endpoint-numbers.js';
import { DeferredDeletions, holdsValue } from '../transaction/deferred.js';
import { slotElement } from './element-bytes.js';
import { isLed } from '../transaction/in-flight-lookups.js';
import { chains, maps, sets } from '../layout/names.js';
import { assignFew, assignSlots, endpointKey, slotDifference, type Difference } from './slots.js';
import { ServicePortStates } from './programmed-service-ports.js';
import type { Step } from '../transaction/change-steps.js';
import { elementId } from '../kernel/touched-elements.js';
import { addressKey } from './elements.js';
import type { Transaction } from '../transaction/transaction.js';

/** Of more endpoints than these that are gone at once, packets in flight go to where they would have gone before. */
export const maxRedirected = 256;

/** Classes that ask who sends, and where it goes on from there. */
const askingClasses: readonly {
  readonly services: string;
  readonly value: string;
  readonly maps: readonly string[];
}[] = [
  {
    services: maps.serviceIPs,
    value: hostUint32(externalLocalClass.id),
    maps: [maps.shortCircuitIPs, maps.localIPs],
  },
  {
    services: maps.serviceNodePorts,
    value: hostUint32(nodePortLocalClass.id),
    maps: [maps.shortCircuitNodePorts, maps.localNodePorts],
  },
];

/** With more endpoints it pays to look for those that came and went. */
const fewEndpoints = 64;

type Lists = Pick<ServicePortState, 'clusterSlots' | 'localSlots'>;

/** Slots of a former owner's that a new owner covers. */
const maxCovered = 8192;

export class AppliedState {
  /** By key of the service port. */
  readonly states = new ServicePortStates();
  /** By set and key: how many service ports want the element. */
  readonly sharedCounts: Readonly<Record<string, Map<string, number>>> = {
    [sets.clusterIPs]: new Map(),
    [sets.hairpin]: new Map(),
  };
  /** While a table is made anew, cluster IPs are only counted: they refuse the ports that are not written yet. */
  withholdsClusterIPs = false;
  /** Class chains in the kernel, with the number of map elements that lead to each. */
  readonly classUse = new Map<string, number>();
  readonly sourceRangeLengths = new Set<number>();
  /** What is in the kernel besides, until it may go. */
  readonly deferred = new DeferredDeletions();
  numbers = new ClassNumbers();
  affinityNumbers = new AffinityServiceNumbers();
  /** For the sweep of clients that are remembered (affinity-sweep.ts). */
  readonly affinityChanges = new AffinityChanges();
  /** All numbers under which clients were remembered when the table was taken over are retired or claimed. */
  affinityIsKnown = true;

  constructor(private readonly options: DataplaneOptions) {}

  forget(): void {
    this.states.clear();
    this.deferred.clear();
    for (const counts of Object.values(this.sharedCounts)) counts.clear();
    this.classUse.clear();
    this.sourceRangeLengths.clear();
    this.numbers = new ClassNumbers();
    this.affinityNumbers = new AffinityServiceNumbers();
    this.affinityChanges.clear();
    this.affinityIsKnown = true;
    this.withholdsClusterIPs = false;
  }

  /** One step: releases what it claims in the same breath, so that an address is never nobody's. */
  run(tx: Transaction, step: Step): void {
    if (step.claims === undefined && step.keeps === undefined) {
      this.change(tx, step.key, step.next);
      return;
    }
    const before = this.states.get(step.key);
    const former = step.next === undefined ? [] : this.release(tx, step);
    const kept = (before?.port.addresses ?? []).filter(
      (address) => before !== undefined && step.keeps?.has(addressKey(before.port, address)) === true,
    );
    if (step.next === undefined || kept.length === 0) {
      this.change(tx, step.key, step.next);
    } else {
      const { next } = step;
      const empty = next.clusterEndpoints.length === 0;
      const addresses = kept.map((address) =>
        empty ? { ...address, fallback: 'reject' as const } : address,
      );
      this.change(tx, step.key, { ...next, addresses: [...next.addresses, ...addresses] });
      if (before !== undefined && !sameLists(before.port, next))
        for (const address of kept) tx.unsettled.add(addressKey(before.port, address));
    }
    for (const state of former) this.coverSlots(tx, state, step.key);
  }

  /** The step writes elements a second time that the transaction has written: the kernel takes only one change of each. */
  collides(tx: Transaction, { key, claims }: Step): boolean {
    if (tx.unsettled.size === 0) return false;
    for (const address of claims?.keys() ?? []) if (tx.unsettled.has(address)) return true;
    const port = this.states.get(key)?.port;
    return port?.addresses.some((address) => tx.unsettled.has(addressKey(port, address))) ?? false;
  }

  /** Takes the claimed addresses away from those that have them. @returns their states before */
  private release(tx: Transaction, { claims }: Step): readonly ServicePortState[] {
    const addresses = new Map<string, Set<string>>();
    for (const [address, owner] of claims ?? []) {
      const claimed = addresses.get(owner);
      if (claimed === undefined) addresses.set(owner, new Set([address]));
      else claimed.add(address);
    }
    const released: ServicePortState[] = [];
    for (const [owner, claimed] of addresses) {
      const state = this.states.get(owner);
      if (state === undefined) continue;
      const { port } = state;
      const rest = port.addresses.filter((address) => !claimed.has(addressKey(port, address)));
      if (rest.length === port.addresses.length) continue;
      this.change(tx, owner, { ...port, addresses: rest });
      released.push(state);
    }
    return released;
  }

  /**
   * A packet that was led by a former owner's class may come to the new owner's slots: as far as that class
   * draws, there have to be some.
   */
  private coverSlots(tx: Transaction, former: ServicePortState, key: string): void {
    const state = this.states.get(key);
    if (former.affinity === undefined || state?.affinity === undefined) return;
    const now = desiredElements(state, this.numbers);
    for (const { set, slots } of desiredElements(former, this.numbers).blocks) {
      // Of a list that the new owner does not have, its other one will do.
      const own = now.blocks.find((block) => block.set === set);
      const other = own ?? now.blocks.find((block) => isAffinitySlots(block.set));
      if (other?.numbers === undefined || !isAffinitySlots(set)) continue;
      const { slots: there, numbers } = other;
      const from = Math.max(own?.slots.length ?? 0, this.deferred.slotsOf(set, other.prefix)?.to ?? 0);
      const cover = Array.from(
        { length: Math.min(slots.length - from, maxCovered) },
        (_, i) => i % there.length,
      );
      const block: SlotBlock = {
        ...other,
        set,
        slots: cover.map((at) => there[at]).filter((endpoint) => endpoint !== undefined),
        numbers: { ...numbers, minors: Uint16Array.from(cover, (at) => numbers.minors[at] ?? 0) },
      };
      for (const at of cover.keys()) tx.addSlot(block, from + at, at);
      this.deferred.addSlotsAbove(tx, block, from, from + cover.length, from);
      if (own !== undefined) continue;
      const targets = set === maps.affinitySlots ? maps.affinityEndpoints : maps.affinityEndpointsLocal;
      for (const [at, endpoint] of block.slots.slice(0, there.length).entries()) {
        const number = slotValue(block, at);
        this.put(tx, { set: targets, key: number, value: targetBytes(endpoint), comment: undefined });
        this.deferred.add(tx, targets, number, { target: endpoint });
      }
    }
  }

  change(tx: Transaction, key: string, next: ServicePort | undefined): void {
    const before = this.states.get(key);
    const old = before === undefined ? noElements : desiredElements(before, this.numbers);
    const state = next === undefined ? undefined : this.nextState(tx, before, next);
    const now = state === undefined ? noElements : desiredElements(state, this.numbers);
    if (before?.affinity !== undefined) this.noteAffinity(tx, before, before.affinity.service, state);
    this.writeDifference(tx, old, now, state);
    tx.note(this.states, key, state);
  }

  nextState(tx: Transaction, before: ServicePortState | undefined, port: ServicePort): ServicePortState {
    const clusterSlots = slotsFor(before?.clusterSlots, before?.port.clusterEndpoints, port.clusterEndpoints);
    const localSlots = slotsFor(before?.localSlots, before?.port.localEndpoints, port.localEndpoints);
    const next = { port, clusterSlots, localSlots };
    // Nearly always there are few endpoints, and what is different need not be known.
    const isLong = port.affinitySeconds > 0 || clusterSlots.length + localSlots.length > fewEndpoints;
    const difference = before !== undefined && isLong ? differenceBetween(before, next) : undefined;
    const hairpins =
      before !== undefined &&
      difference !== undefined &&
      before.port.protocol === port.protocol &&
      !difference.gone.some(isNearby) &&
      !difference.come.some(isNearby)
        ? before.hairpins
        : hairpinsOf(port.protocol, clusterSlots, localSlots);
    const affinity = port.affinitySeconds === 0 ? undefined : this.nextAffinity(tx, before, next, difference);
    return { port, clusterSlots, localSlots, affinity, hairpins };
  }

  /** @param difference between the two; undefined: there was nothing */
  private nextAffinity(
    tx: Transaction,
    before: ServicePortState | undefined,
    { clusterSlots, localSlots }: Lists,
    difference: Difference | undefined,
  ): Affinity {
    const former = before?.affinity;
    const { service, numbers } = former ?? this.newAffinity(tx);
    const freed = numbers.change(
      tx,
      former === undefined ? undefined : difference,
      [clusterSlots, localSlots],
      this.affinityChanges.endpoints.get(service),
    );
    if (freed.length > 0) tx.onFailure(this.affinityChanges.retire(service, freed, performance.now()));
    const minorsOf = (
      slots: readonly Endpoint[],
      there: readonly Endpoint[] | undefined,
      minors: Uint16Array | undefined,
    ): Uint16Array =>
      numbers.bySlot(
        slots,
        there === undefined || minors === undefined ? undefined : { slots: there, minors },
      );
    return {
      service,
      numbers,
      clusterMinors: minorsOf(clusterSlots, before?.clusterSlots, former?.clusterMinors),
      localMinors: minorsOf(localSlots, before?.localSlots, former?.localMinors),
    };
  }

  private newAffinity(tx: Transaction): Pick<Affinity, 'service' | 'numbers'> {
    const service = this.affinityNumbers.take();
    tx.onFailure(() => {
      this.affinityNumbers.release(service, performance.now());
    });
    return { service, numbers: new EndpointNumbers() };
  }

  /** What clients that are remembered under this number have to be told. */
  private noteAffinity(
    tx: Transaction,
    before: ServicePortState,
    service: number,
    state: ServicePortState | undefined,
  ): void {
    const now = performance.now();
    const former = before.port.affinitySeconds;
    if (state?.affinity?.service !== service) {
      this.affinityNumbers.release(service, now);
      tx.onFailure(() => this.affinityNumbers.claim(service));
    } else if (state.port.affinitySeconds < former) {
      tx.onFailure(this.affinityChanges.lower(service, former * 1000, now));
    }
  }

  private writeDifference(
    tx: Transaction,
    old: DesiredElements,
    now: DesiredElements,
    state: ServicePortState | undefined,
  ): void {
    if (old === noElements) {
      this.writeNew(tx, now);
      return;
    }
    for (const of of now.classes) this.acquireClass(tx, of);
    const oldElements = new Map(
      old.elements.map((element) => [elementId(element.set, element.key), element]),
    );
    const wanted = new Map<string, string | undefined>();
    for (const element of now.elements) {
      const id = elementId(element.set, element.key);
      wanted.set(id, element.value);
      const previous = oldElements.get(id);
      oldElements.delete(id);
      if (previous === undefined) {
        this.ensureSourceRangeSet(tx, element.set);
        this.put(tx, element);
      } else if (previous.value !== element.value) {
        tx.replace(element.set, element.key, element.value, element.comment);
      }
    }
    for (const element of oldElements.values()) {
      if (isLed(element.set) && mayOutlive(element, wanted, state)) this.defer(tx, element);
      else tx.delete(element.set, element.key);
    }

    const oldBlocks = new Map(old.blocks.map((block) => [elementId(block.set, block.prefix), block]));
    for (const block of now.blocks) {
      const id = elementId(block.set, block.prefix);
      this.writeSlots(tx, oldBlocks.get(id), block);
      oldBlocks.delete(id);
    }
    for (const block of oldBlocks.values()) this.deferred.addSlots(tx, block, 0, block.slots.length);

    for (const list of now.numbered)
      this.writeNumbered(
        tx,
        old.numbered.find((other) => other.set === list.set),
        list,
      );
    for (const list of old.numbered) {
      if (!now.numbered.some((other) => other.set === list.set)) this.writeNumbered(tx, list, undefined);
    }
    this.leadOn(tx, old, now);

    this.writeShared(tx, old.shared, now.shared);
    this.endExposed(tx, now);
    for (const of of old.classes) this.useClass(tx, className(of), -1);
  }

  private writeNew(tx: Transaction, now: DesiredElements): void {
    for (const of of now.classes) this.acquireClass(tx, of);
    for (const element of now.elements) {
      this.ensureSourceRangeSet(tx, element.set);
      this.put(tx, element);
    }
    for (const block of now.blocks) this.writeSlots(tx, undefined, block);
    for (const list of now.numbered) this.writeNumbered(tx, undefined, list);
    for (const element of now.shared) {
      const isFirst = this.countShared(tx, element, 1) === 1;
      if (isFirst && !(this.withholdsClusterIPs && element.set === sets.clusterIPs)) this.put(tx, element);
    }
    this.endExposed(tx, now);
  }

  /** Adds an element, unless it is there and waits to be deleted. */
  private put(tx: Transaction, element: Element): void {
    const { set, key, value, comment } = element;
    const found = this.deferred.take(tx, set, key);
    if (found === undefined) tx.add(element);
    else if (!holdsValue(found, value, comment)) tx.replace(set, key, value, comment);
  }

  private defer(tx: Transaction, { set, key, value, comment }: Element): void {
    this.deferred.add(tx, set, key, { text: value }, comment);
  }

  /**
   * What waits from the address's former state, and packets that come now would be led to again: sources that it allowed
   * then, and, when it is asked again who sends, the endpoints that it had for them.
   */
  private endExposed(tx: Transaction, now: DesiredElements): void {
    if (this.deferred.isEmpty) return;
    for (const { set, key, value } of now.elements) {
      if (set === sets.firewallIPs) {
        for (const [ranges, element] of [
          ...this.deferred.keys((name) => sourceRangePrefix(name) !== undefined),
        ])
          if (element.endsWith(key)) this.deleteDeferred(tx, ranges, element);
        continue;
      }
      const asking = askingClasses.find((one) => one.services === set);
      if (asking === undefined || value !== asking.value) continue;
      for (const map of asking.maps) this.deleteDeferred(tx, map, key);
    }
  }

  private deleteDeferred(tx: Transaction, set: string, key: string): void {
    if (this.deferred.take(tx, set, key) !== undefined) tx.delete(set, key);
  }

  private writeSlots(tx: Transaction, old: SlotBlock | undefined, now: SlotBlock): void {
    const { set, prefix, slots } = now;
    const waiting = this.deferred.slotsOf(set, prefix);
    const single = this.deferred.hasElements(set);
    /** Endpoints that came to another slot, or came anew. */
    const moved: Endpoint[] = [];
    for (let slot = 0; slot < slots.length; slot++) {
      const endpoint = slots[slot];
      if (endpoint === undefined) continue;
      const held = old?.slots[slot];
      if (old !== undefined && held !== undefined) {
        if (held === endpoint) continue;
        moved.push(endpoint);
        if (slotValue(old, slot) !== slotValue(now, slot)) tx.replaceBytes(set, slotElement(now, slot));
        continue;
      }
      const found = waiting?.get(slot);
      if (found !== undefined) {
        if (slotValue(found.block, found.at) !== slotValue(now, slot))
          tx.replaceBytes(set, slotElement(now, slot));
      } else if (single && this.deferred.take(tx, set, slotKey(prefix, slot)) !== undefined) {
        tx.replaceBytes(set, slotElement(now, slot));
      } else {
        tx.addSlot(now, slot);
      }
    }
    if (waiting !== undefined) this.deferred.takeSlots(tx, set, prefix, slots.length);
    if (old !== undefined && old.slots.length > slots.length) this.deferSurplus(tx, old, now, moved);
  }

  /** Packets in flight may still draw the slots above the new length: they find a living endpoint there. */
  private deferSurplus(tx: Transaction, old: SlotBlock, now: SlotBlock, moved: readonly Endpoint[]): void {
    const [from, to] = [now.slots.length, old.slots.length];
    if (to - from > maxRedirected) {
      this.deferred.addSlots(tx, old, from, to);
      return;
    }
    // What lives on has come to a lower slot.
    const alive = new Set(moved.map(endpointKey));
    const minors = old.numbers?.minors.slice(from);
    const slots = old.slots.slice(from).map((endpoint, i) => {
      const other = alive.has(endpointKey(endpoint)) ? undefined : now.slots[i % from];
      if (other === undefined) return endpoint;
      tx.replaceBytes(now.set, slotElement(now, from + i, i % from));
      if (minors !== undefined) minors[i] = now.numbers?.minors[i % from] ?? 0;
      return other;
    });
    const numbers =
      minors === undefined || old.numbers === undefined ? undefined : { ...old.numbers, minors };
    this.deferred.addSlots(tx, { ...now, slots, numbers }, from, to, from);
  }

  private writeNumbered(
    tx: Transaction,
    old: NumberedEndpoints | undefined,
    now: NumberedEndpoints | undefined,
  ): void {
    const same = old !== undefined && now !== undefined && old.service === now.service;
    // Most are as they were and where they were. By minor number: index of what comes.
    const came = new Map<number, number>();
    if (now !== undefined)
      for (const at of differing(now, same ? old : undefined)) came.set(now.minors[at] ?? 0, at);
    /** Indices. */
    const left: number[] = [];
    if (old !== undefined) {
      for (const at of differing(old, same ? now : undefined)) {
        const minor = old.minors[at] ?? 0;
        const next = same ? now.endpoints[came.get(minor) ?? -1] : undefined;
        const endpoint = old.endpoints[at];
        if (endpoint === undefined) continue;
        if (next === undefined) left.push(at);
        else came.delete(minor);
        if (next !== undefined && targetBytes(next) !== targetBytes(endpoint))
          tx.replace(old.set, numberKey(old, at), targetBytes(next));
      }
    }
    for (const at of came.values()) {
      const endpoint = now?.endpoints[at];
      if (now !== undefined && endpoint !== undefined)
        this.put(tx, {
          set: now.set,
          key: numberKey(now, at),
          value: targetBytes(endpoint),
          comment: undefined,
        });
    }
    if (old === undefined) return;
    if (left.length > maxRedirected) {
      this.deferred.addNumbers(tx, {
        ...old,
        endpoints: left.map((at) => old.endpoints[at]).filter((endpoint) => endpoint !== undefined),
        minors: Uint16Array.from(left, (at) => old.minors[at] ?? 0),
      });
      return;
    }
    const gone = left.flatMap((at) => {
      const endpoint = old.endpoints[at];
      return endpoint === undefined ? [] : [{ key: numberKey(old, at), endpoint }];
    });
    const living = same ? now.endpoints : [];
    for (const [i, { key, endpoint }] of gone.entries()) {
      const other = living.length === 0 ? undefined : living[i % living.length];
      if (other !== undefined) tx.replace(old.set, key, targetBytes(other));
      this.deferred.add(tx, old.set, key, { target: other ?? endpoint });
    }
  }

  /**
   * Numbers that wait may lead to endpoints that go now, or that went when there was no other. Clients that are
   * remembered with such a number come to living endpoints.
   */
  private leadOn(tx: Transaction, old: DesiredElements, now: DesiredElements): void {
    for (const { set, service, endpoints: living } of now.numbered) {
      const waiting = this.deferred
        .targetsOf(set)
        .filter(({ key }) => readHostUint32(key) >>> 16 === service);
      if (waiting.length === 0 || isSameNumbered(old, now)) continue;
      const alive = new Set(living);
      const dead = waiting.filter(({ target }) => !alive.has(target));
      if (dead.length > maxRedirected) continue;
      for (const [i, { key }] of dead.entries()) {
        const other = living[i % living.length];
        if (other === undefined) continue;
        tx.replace(set, key, targetBytes(other));
        this.deferred.redirect(tx, set, key, other);
      }
    }
  }

  private writeShared(tx: Transaction, old: readonly Element[], now: readonly Element[]): void {
    // Most of it is as it was, and endpoints keep their slots: so what is different stands near the end.
    let same = 0;
    while (same < old.length && same < now.length && isSame(old[same], now[same])) same++;
    const gone = new Map(old.slice(same).map((element) => [elementId(element.set, element.key), element]));
    for (const element of same === 0 ? now : now.slice(same)) {
      if (gone.delete(elementId(element.set, element.key))) continue;
      if (this.countShared(tx, element, 1) === 1) this.put(tx, element);
    }
    for (const element of gone.values()) {
      if (this.countShared(tx, element, -1) > 0) continue;
      if (isLed(element.set)) this.defer(tx, element);
      else tx.delete(element.set, element.key);
    }
  }

  countShared(tx: Transaction, { set, key }: Element, by: 1 | -1): number {
    const counts = this.sharedCounts[set];
    if (counts === undefined) throw new RangeError(`set ${set} is not shared`);
    const after = (counts.get(key) ?? 0) + by;
    tx.note(counts, key, after === 0 ? undefined : after);
    return after;
  }

  // ---- classes and source range sets, made when first needed

  acquireClass(tx: Transaction, of: ServiceClass): void {
    const name = className(of);
    if (!this.classUse.has(name)) {
      const id = this.numbers.idOf(of);
      tx.ahead.addChain(name);
      for (const rule of classRules(this.options, of)) tx.ahead.addRule(name, rule.expressions);
      tx.ahead.addElement(classMap(of.kind), Buffer.from(hostUint32(id), 'latin1'), goTo(name));
      tx.note(this.classUse, name, 0);
      tx.onFailure(this.numbers.chainAdded(of));
      tx.lasts(() => {
        this.classUse.set(name, 0);
        this.numbers.learn(id, of);
        this.numbers.chainAdded(of);
      });
    }
    this.useClass(tx, name, 1);
  }

  private useClass(tx: Transaction, name: string, by: 1 | -1): void {
    tx.note(this.classUse, name, (this.classUse.get(name) ?? 0) + by);
  }

  deleteClass(tx: Transaction, name: string): void {
    const of = parseClassName(name);
    if (of === undefined) return;
    tx.delete(classMap(of.kind), hostUint32(this.numbers.idOf(of)));
    tx.batch.flushChain(name);
    tx.batch.deleteChain(name);
    tx.note(this.classUse, name, undefined);
    tx.onFailure(this.numbers.chainDeleted(of));
  }

  ensureSourceRangeSet(tx: Transaction, set: string): void {
    const length = sourceRangePrefix(set);
    if (length === undefined || this.sourceRangeLengths.has(length)) return;
    tx.ahead.addSet(sourceRangeSetDefinition(this.options.family, length));
    this.sourceRangeLengths.add(length);
    tx.onFailure(() => this.sourceRangeLengths.delete(length));
    tx.lasts(() => this.sourceRangeLengths.add(length));
    this.writeSourceRangeRules(tx);
  }

  private writeSourceRangeRules(tx: Transaction): void {
    tx.ahead.flushChain(chains.sourceRanges);
    for (const rule of sourceRangeRules(this.options.family, this.sourceRangeLengths)) {
      tx.ahead.addRule(chains.sourceRanges, rule.expressions);
    }
  }
}

/**
 * Whether an element that a packet may still be led to can stay for a while without harm to packets that come now.
 * @param wanted values of the service port as it is now, by elementId()
 */
function mayOutlive(
  { set, key }: Element,
  wanted: ReadonlyMap<string, string | undefined>,
  state: ServicePortState | undefined,
): boolean {
  // Which ranges hold is decided where the packet is: as long as the address has some, no others.
  if (sourceRangePrefix(set) !== undefined)
    return !wanted.has(elementId(sets.firewallIPs, key.slice(key.length / 2 - 4)));
  // It is still asked who sends: what was there for some of them is led to by nobody else.
  const asking = askingClasses.find(({ maps: led }) => led.includes(set));
  if (asking !== undefined) return wanted.get(elementId(asking.services, key)) !== asking.value;
  const onNode = set === sets.droppedNodePorts || set === sets.rejectedNodePorts;
  if (!onNode && set !== sets.droppedIPs && set !== sets.rejectedIPs) return true;
  // To drop comes before to reject.
  if (set === sets.droppedIPs && wanted.has(elementId(sets.rejectedIPs, key))) return false;
  if (set === sets.droppedNodePorts && wanted.has(elementId(sets.rejectedNodePorts, key))) return false;
  // Nobody's address is refused by nobody.
  if (state === undefined) return false;
  // A pod on the host's network may listen at the very address that it serves.
  const { protocol } = state.port;
  const isAtAddress = (endpoint: Endpoint): boolean =>
    onNode
      ? nodePortKey(protocol, endpoint.port) === key
      : serviceKey(endpoint.ip, protocol, endpoint.port) === key;
  return !state.clusterSlots.some(isAtAddress) && !state.localSlots.some(isAtAddress);
}

function slotsFor(
  current: readonly Endpoint[] = [],
  before: readonly Endpoint[] = [],
  wanted: readonly Endpoint[],
): readonly Endpoint[] {
  // As for each service port of a cold start.
  if (current.length === 0) return wanted;
  if (before === wanted) return assignSlots(current, wanted);
  return assignFew(current, before, wanted) ?? assignSlots(current, wanted);
}

/** Indices of endpoints, but of those that stand there in the other list, too. */
function differing({ endpoints }: NumberedEndpoints, other: NumberedEndpoints | undefined): number[] {
  const found: number[] = [];
  for (let at = 0; at < endpoints.length; at++)
    if (other === undefined || other.endpoints[at] !== endpoints[at]) found.push(at);
  return found;
}

/** In both lists: an endpoint once for each. */
function differenceBetween(before: Lists, next: Lists): Difference {
  const cluster = slotDifference(before.clusterSlots, next.clusterSlots);
  const local = slotDifference(before.localSlots, next.localSlots);
  return { gone: cluster.gone.concat(local.gone), come: cluster.come.concat(local.come) };
}

/** The endpoints that have numbers are the same objects as before. */
function isSameNumbered(old: DesiredElements, now: DesiredElements): boolean {
  return (
    old.numbered.length === now.numbered.length &&
    now.numbered.every((list, i) => {
      const other = old.numbered[i];
      return (
        other?.set === list.set &&
        other.service === list.service &&
        sameEndpoints(other.endpoints, list.endpoints)
      );
    })
  );
}

function sameEndpoints(x: readonly Endpoint[], y: readonly Endpoint[]): boolean {
  return x === y || (x.length === y.length && x.every((endpoint, i) => endpoint === y[i]));
}

function isAffinitySlots(set: string): boolean {
  return set === maps.affinitySlots || set === maps.affinitySlotsLocal;
}

/** What stands at the addresses of the one is what stands at those of the other. */
function sameLists(a: ServicePort, b: ServicePort): boolean {
  return (
    a.affinitySeconds === b.affinitySeconds &&
    a.name === b.name &&
    sameEndpoints(a.clusterEndpoints, b.clusterEndpoints) &&
    sameEndpoints(a.localEndpoints, b.localEndpoints)
  );
}

function isSame(a: Element | undefined, b: Element | undefined): boolean {
  return a?.set === b?.set && a?.key === b?.key;
}
