/**
 * What this process has written into the table, or taken over from an earlier one, as far as it has to remember it; and how that
 * becomes something else. Sends nothing: every change goes into a Transaction, which takes it back should the kernel refuse.
 */
import { goTo } from '../../netlink/nftables/index.js';
import type { ServicePort } from '../../model/types.js';
import type { DataplaneOptions } from '../dataplane.js';
import { AffinityServiceNumbers, numberEndpoints } from './affinity.js';
import { classMap, className, ClassNumbers, parseClassName, type ServiceClass } from './classes.js';
import {
  emptyFootprint,
  footprintOf,
  slotKey,
  slotValue,
  type Element,
  type Footprint,
  type ServicePortState,
  type SlotBlock,
} from './footprint.js';
import { hostUint32 } from '../nft/keys.js';
import { sourceRangePrefix, sourceRangeRules, sourceRangeSetDefinition } from '../nft/source-range-rules.js';
import { classRules } from './layout.js';
import { chains, sets } from './names.js';
import { assignSlots } from './slots.js';
import { elementId } from './touched.js';
import type { Transaction } from './transaction.js';

export class Written {
  /** By key of the service port. */
  readonly states = new Map<string, ServicePortState>();
  /** By set and key: how many service ports want the element. */
  readonly sharedCounts: Readonly<Record<string, Map<string, number>>> = {
    [sets.clusterIPs]: new Map(),
    [sets.hairpin]: new Map(),
  };
  /** Class chains in the kernel, with the number of map elements that lead to each. */
  readonly classUse = new Map<string, number>();
  readonly sourceRangeLengths = new Set<number>();
  numbers = new ClassNumbers();
  affinityNumbers = new AffinityServiceNumbers();

  constructor(private readonly options: DataplaneOptions) {}

  forget(): void {
    this.states.clear();
    for (const counts of Object.values(this.sharedCounts)) counts.clear();
    this.classUse.clear();
    this.sourceRangeLengths.clear();
    this.numbers = new ClassNumbers();
    this.affinityNumbers = new AffinityServiceNumbers();
  }

  change(tx: Transaction, key: string, next: ServicePort | undefined): void {
    const before = this.states.get(key);
    const old = before === undefined ? emptyFootprint : footprintOf(before, this.numbers);
    const state = next === undefined ? undefined : this.nextState(tx, before, next);
    const now = state === undefined ? emptyFootprint : footprintOf(state, this.numbers);
    if (before?.affinity !== undefined && state?.affinity?.service !== before.affinity.service) {
      const number = before.affinity.service;
      this.affinityNumbers.release(number);
      tx.onFailure(() => this.affinityNumbers.claim(number));
    }
    this.writeDifference(tx, old, now);
    tx.note(this.states, key, state);
  }

  nextState(tx: Transaction, before: ServicePortState | undefined, port: ServicePort): ServicePortState {
    const clusterSlots = assignSlots(before?.clusterSlots ?? [], port.clusterEndpoints);
    const localSlots = assignSlots(before?.localSlots ?? [], port.localEndpoints);
    if (port.affinitySeconds === 0) return { port, clusterSlots, localSlots, affinity: undefined };
    let service = before?.affinity?.service;
    if (service === undefined) {
      const taken = this.affinityNumbers.take();
      tx.onFailure(() => {
        this.affinityNumbers.release(taken);
      });
      service = taken;
    }
    const endpoints = numberEndpoints(before?.affinity?.endpoints ?? new Map<string, number>(), [
      ...clusterSlots,
      ...localSlots,
    ]);
    return { port, clusterSlots, localSlots, affinity: { service, endpoints } };
  }

  private writeDifference(tx: Transaction, old: Footprint, now: Footprint): void {
    if (old === emptyFootprint) {
      this.writeNew(tx, now);
      return;
    }
    for (const of of now.classes) this.acquireClass(tx, of);
    const oldElements = new Map(
      old.elements.map((element) => [elementId(element.set, element.key), element]),
    );
    for (const element of now.elements) {
      const id = elementId(element.set, element.key);
      const previous = oldElements.get(id);
      oldElements.delete(id);
      if (previous === undefined) {
        this.ensureSourceRangeSet(tx, element.set);
        tx.add(element);
      } else if (previous.value !== element.value) {
        tx.replace(element.set, element.key, element.value, element.comment);
      }
    }
    for (const element of oldElements.values()) tx.delete(element.set, element.key);

    const oldBlocks = new Map(old.blocks.map((block) => [elementId(block.set, block.prefix), block]));
    for (const block of now.blocks) {
      const id = elementId(block.set, block.prefix);
      this.writeSlots(tx, oldBlocks.get(id), block);
      oldBlocks.delete(id);
    }
    for (const block of oldBlocks.values()) this.writeSlots(tx, block, undefined);

    this.writeShared(tx, old.shared, now.shared);
    for (const of of old.classes) this.useClass(tx, className(of), -1);
  }

  private writeNew(tx: Transaction, { classes, elements, blocks, shared }: Footprint): void {
    for (const of of classes) this.acquireClass(tx, of);
    for (const element of elements) {
      this.ensureSourceRangeSet(tx, element.set);
      tx.add(element);
    }
    for (const block of blocks) this.writeSlots(tx, undefined, block);
    for (const element of shared) if (this.countShared(tx, element, 1) === 1) tx.add(element);
  }

  private writeSlots(tx: Transaction, old: SlotBlock | undefined, now: SlotBlock | undefined): void {
    if (old !== undefined) {
      for (let slot = now?.slots.length ?? 0; slot < old.slots.length; slot++)
        tx.delete(old.set, slotKey(old.prefix, slot));
    }
    if (now === undefined) return;
    now.slots.forEach((endpoint, slot) => {
      const held = old?.slots[slot];
      if (old === undefined || held === undefined) {
        tx.addSlot(now, slot, endpoint);
      } else if (held !== endpoint && slotValue(old, held) !== slotValue(now, endpoint)) {
        tx.delete(now.set, slotKey(now.prefix, slot));
        tx.addSlot(now, slot, endpoint);
      }
    });
  }

  private writeShared(tx: Transaction, old: readonly Element[], now: readonly Element[]): void {
    // Most of it is as it was, and endpoints keep their slots: so what is different stands near the end.
    let same = 0;
    while (same < old.length && same < now.length && isSame(old[same], now[same])) same++;
    const gone = new Map(old.slice(same).map((element) => [elementId(element.set, element.key), element]));
    for (const element of same === 0 ? now : now.slice(same)) {
      if (gone.delete(elementId(element.set, element.key))) continue;
      if (this.countShared(tx, element, 1) === 1) tx.add(element);
    }
    for (const element of gone.values()) {
      if (this.countShared(tx, element, -1) === 0) tx.delete(element.set, element.key);
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
      tx.batch.addChain(name);
      for (const rule of classRules(this.options, of)) tx.batch.addRule(name, rule.expressions);
      tx.batch.addElement(
        classMap(of.kind),
        Buffer.from(hostUint32(this.numbers.idOf(of)), 'latin1'),
        goTo(name),
      );
      tx.note(this.classUse, name, 0);
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
  }

  ensureSourceRangeSet(tx: Transaction, set: string): void {
    const length = sourceRangePrefix(set);
    if (length === undefined || this.sourceRangeLengths.has(length)) return;
    tx.batch.addSet(sourceRangeSetDefinition(this.options.family, length));
    this.sourceRangeLengths.add(length);
    tx.onFailure(() => this.sourceRangeLengths.delete(length));
    this.writeSourceRangeRules(tx);
  }

  private writeSourceRangeRules(tx: Transaction): void {
    tx.batch.flushChain(chains.sourceRanges);
    for (const rule of sourceRangeRules(this.options.family, this.sourceRangeLengths)) {
      tx.batch.addRule(chains.sourceRanges, rule.expressions);
    }
  }
}

function isSame(a: Element | undefined, b: Element | undefined): boolean {
  return a?.set === b?.set && a?.key === b?.key;
}
