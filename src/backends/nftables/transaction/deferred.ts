/**
 * Elements that are in the kernel and wanted by nobody, but to which a packet in flight may still be led (in-flight-lookups.ts):
 * they are deleted when no packet can be that slow any more, in transactions of their own. Until then
 * they may be wanted again, which costs nothing when the value is the same.
 *
 * Slots without an owner are always the tail of their block: the wanted ones are 0..n-1.
 */
import { sets } from '../layout/names.js';
import { performance } from 'node:perf_hooks';
import type { Endpoint } from '../../../model/types.js';
import type { ElementTable } from '../../nft/element-table.js';
import { readHostUint32, targetBytes } from '../../nft/keys.js';
import { keyBytes } from '../state/element-bytes.js';
import { DeferredNumbers } from './deferred-numbers.js';
import { slotKey, type NumberedEndpoints, type SlotBlock } from '../state/elements.js';
import { elementId } from '../kernel/touched-elements.js';
import type { Transaction } from './transaction.js';

/** So long a packet may be on its way from one lookup to the next. */
const graceMs = 100;
/** Endpoints go together: under steady changes each sync defers some, and a transaction costs more than an element. */
const togetherMs = 250;

/** What refuses packets is not gathered: it would refuse so much longer what is not the Service's any more. */
const refusals: ReadonlySet<string> = new Set([
  sets.rejectedIPs,
  sets.droppedIPs,
  sets.rejectedNodePorts,
  sets.droppedNodePorts,
]);

/** When endpoints that are deferred now may go, performance.now(). */
function dueFrom(now: number): number {
  return Math.ceil((now + graceMs) / togetherMs) * togetherMs;
}

/** One time for all that a transaction defers: what another element leads to must not go before that one. */
const dueOfTransaction = new WeakMap<Transaction, number>();

function dueOf(tx: Transaction): number {
  let due = dueOfTransaction.get(tx);
  if (due === undefined) dueOfTransaction.set(tx, (due = dueFrom(performance.now())));
  return due;
}

const slotLength = 4;

/** Value of a deferred element; 'unknown': of one that was found in the kernel. */
export type DeferredValue = { readonly text: string | undefined } | { readonly target: Endpoint } | 'unknown';

interface DeferredElement {
  readonly value: DeferredValue;
  readonly comment: string | undefined;
  readonly dueAt: number;
}

/** Slots `from`..`to`-1 of a block, as they were deferred together: slot s holds block.slots[s - base]. */
interface Segment {
  readonly block: SlotBlock;
  readonly base: number;
  readonly from: number;
  readonly to: number;
  readonly dueAt: number;
}

/** Ascending, without gaps. */
interface DeferredBlock {
  readonly set: string;
  readonly prefix: string;
  readonly segments: readonly Segment[];
}

export interface DeferredSlot {
  readonly block: SlotBlock;
  /** Index in block.slots. */
  readonly at: number;
}

/** The slots of one block in ascending order, while it grows over them. */
export class DeferredSlots {
  private at = 0;

  constructor(private readonly segments: readonly Segment[]) {}

  get from(): number {
    return this.segments[0]?.from ?? 0;
  }

  get to(): number {
    return this.segments.at(-1)?.to ?? 0;
  }

  /** @param slot no lower than that of the call before */
  get(slot: number): DeferredSlot | undefined {
    for (; this.at < this.segments.length; this.at++) {
      const segment = this.segments[this.at];
      if (segment === undefined || slot < segment.from) return undefined;
      if (slot >= segment.to) continue;
      const at = slot - segment.base;
      return at < segment.block.slots.length ? { block: segment.block, at } : undefined;
    }
    return undefined;
  }
}

export class DeferredDeletions {
  /** By set and key. */
  private readonly elements = new Map<string, Map<string, DeferredElement>>();
  private readonly blocks = new Map<string, DeferredBlock>();
  /** The first to be due first. */
  private readonly numbers = new Set<DeferredNumbers>();

  clear(): void {
    this.elements.clear();
    this.blocks.clear();
    this.numbers.clear();
  }

  get isEmpty(): boolean {
    if (this.blocks.size > 0 || this.numbers.size > 0) return false;
    for (const elements of this.elements.values()) if (elements.size > 0) return false;
    return true;
  }

  /** performance.now(); undefined: nothing waits. */
  get dueAt(): number | undefined {
    let due = Infinity;
    for (const elements of this.elements.values()) {
      for (const { dueAt } of elements.values()) {
        due = Math.min(due, dueAt);
        break;
      }
    }
    for (const { segments } of this.blocks.values()) {
      due = Math.min(due, segments.at(-1)?.dueAt ?? Infinity);
      break;
    }
    for (const { dueAt } of this.numbers) {
      due = Math.min(due, dueAt);
      break;
    }
    return due === Infinity ? undefined : due;
  }

  /** Elements of which the time has come. @param enough nobody asks how many more there are */
  countDue(now: number, enough: number): number {
    let count = 0;
    for (const elements of this.elements.values()) {
      if (count > enough) return count;
      count += elements.size;
    }
    for (const { segments } of this.blocks.values()) {
      const last = segments.at(-1);
      if (count > enough) return count;
      if (last === undefined || last.dueAt > now) break;
      count += last.to - last.from;
    }
    for (const { size, dueAt } of this.numbers) {
      if (count > enough || dueAt > now) return count;
      count += size;
    }
    return count;
  }

  // ---- elements

  add(tx: Transaction, set: string, key: string, value: DeferredValue, comment?: string): void {
    let elements = this.elements.get(set);
    if (elements === undefined) this.elements.set(set, (elements = new Map<string, DeferredElement>()));
    const dueAt = refusals.has(set) ? performance.now() + graceMs : dueOf(tx);
    tx.note(elements, key, { value, comment, dueAt });
  }

  /** What waits leads to another endpoint now, for as long as it would have waited anyway. */
  redirect(tx: Transaction, set: string, key: string, target: Endpoint): void {
    const elements = this.elements.get(set);
    const found = elements?.get(key);
    if (elements !== undefined && found !== undefined)
      tx.note(elements, key, { ...found, value: { target } });
  }

  /** It is wanted again: takes it off the list. @returns undefined when it was not on it */
  take(tx: Transaction, set: string, key: string): DeferredElement | undefined {
    const elements = this.elements.get(set);
    const found = elements?.get(key);
    if (elements !== undefined && found !== undefined) tx.note(elements, key, undefined);
    return found ?? this.takeNumber(tx, set, key);
  }

  private takeNumber(tx: Transaction, set: string, key: string): DeferredElement | undefined {
    for (const numbers of this.numbers) {
      const target = numbers.set === set ? numbers.target(key) : undefined;
      if (target === undefined) continue;
      tx.onFailure(numbers.take(key));
      return { value: { target }, comment: undefined, dueAt: numbers.dueAt };
    }
    return undefined;
  }

  /** Numbers of endpoints that went, each leading to its endpoint. */
  addNumbers(tx: Transaction, list: NumberedEndpoints): void {
    const numbers = new DeferredNumbers(list, dueOf(tx));
    this.numbers.add(numbers);
    tx.onFailure(() => this.numbers.delete(numbers));
  }

  /** Elements of a set were deferred one by one. */
  hasElements(set: string): boolean {
    return (this.elements.get(set)?.size ?? 0) > 0;
  }

  /** Keys of the sets that pass. */
  *keys(passes: (set: string) => boolean): Generator<readonly [set: string, key: string]> {
    for (const [set, elements] of this.elements) {
      if (passes(set)) for (const key of elements.keys()) yield [set, key];
    }
  }

  /** What waits in a set of endpoints, with the endpoint that it leads to; as of now, so that some may be deferred again meanwhile. */
  targetsOf(set: string): readonly { readonly key: string; readonly target: Endpoint }[] {
    const found: { key: string; target: Endpoint }[] = [];
    for (const [key, { value }] of this.elements.get(set) ?? []) {
      if (value !== 'unknown' && 'target' in value) found.push({ key, target: value.target });
    }
    return found;
  }

  // ---- slots

  slotsOf(set: string, prefix: string): DeferredSlots | undefined {
    const block = this.blocks.get(elementId(set, prefix));
    return block === undefined ? undefined : new DeferredSlots(block.segments);
  }

  /** Slots `from`..`to`-1 of a block, in which block.slots stand from `base` on. They stand below those already deferred. */
  addSlots(tx: Transaction, block: SlotBlock, from: number, to: number, base = 0): void {
    if (from >= to) return;
    const id = elementId(block.set, block.prefix);
    const segment: Segment = { block, base, from, to, dueAt: dueOf(tx) };
    const above = this.blocks.get(id)?.segments ?? [];
    tx.note(this.blocks, id, { set: block.set, prefix: block.prefix, segments: [segment, ...above] });
  }

  /** Slots above those that are already deferred. */
  addSlotsAbove(tx: Transaction, block: SlotBlock, from: number, to: number, base: number): void {
    if (from >= to) return;
    const id = elementId(block.set, block.prefix);
    const below = this.blocks.get(id)?.segments ?? [];
    const segment: Segment = { block, base, from, to, dueAt: dueOf(tx) };
    tx.note(this.blocks, id, { set: block.set, prefix: block.prefix, segments: [...below, segment] });
  }

  /** The block has grown: slots below `from` are wanted again. */
  takeSlots(tx: Transaction, set: string, prefix: string, from: number): void {
    const id = elementId(set, prefix);
    const block = this.blocks.get(id);
    if (block === undefined) return;
    const segments = block.segments
      .filter(({ to }) => to > from)
      .map((segment) => (segment.from < from ? { ...segment, from } : segment));
    tx.note(this.blocks, id, segments.length === 0 ? undefined : { ...block, segments });
  }

  // ---- the end

  /** Deletes what is due, `limit` elements at most. */
  deleteDue(tx: Transaction, now: number, limit: number): void {
    let left = limit;
    for (const [set, elements] of this.elements) {
      for (const [key, { dueAt }] of elements) {
        if (left === 0) return;
        if (dueAt > now) break;
        tx.delete(set, key);
        tx.note(elements, key, undefined);
        left--;
      }
    }
    for (const numbers of this.numbers) {
      if (left === 0) return;
      if (numbers.dueAt > now) break;
      const undo = numbers.takeLast(left, (key) => {
        tx.delete(numbers.set, key);
        left--;
      });
      if (numbers.size === 0) this.numbers.delete(numbers);
      tx.onFailure(() => {
        undo();
        this.numbers.add(numbers);
      });
    }
    for (const [id, block] of this.blocks) {
      let { segments } = block;
      for (;;) {
        const last = segments.at(-1);
        if (last === undefined || last.dueAt > now || left === 0) break;
        const from = Math.max(last.from, last.to - left);
        for (let slot = last.to - 1; slot >= from; slot--) tx.delete(block.set, slotKey(block.prefix, slot));
        left -= last.to - from;
        segments =
          from === last.from ? segments.slice(0, -1) : [...segments.slice(0, -1), { ...last, to: from }];
      }
      if (segments !== block.segments)
        tx.note(this.blocks, id, segments.length === 0 ? undefined : { ...block, segments });
      if (left === 0) return;
    }
  }

  // ---- what others see and do

  has(set: string, key: string): boolean {
    if (this.elements.get(set)?.has(key) === true) return true;
    for (const numbers of this.numbers)
      if (numbers.set === set && numbers.target(key) !== undefined) return true;
    return this.blockOf(set, key) !== undefined;
  }

  /** Somebody else has deleted it. */
  forget(set: string, key: string): void {
    this.elements.get(set)?.delete(key);
    for (const numbers of this.numbers) if (numbers.set === set) numbers.take(key);
    const found = this.blockOf(set, key);
    if (found === undefined) return;
    // What remains of the block is no tail any more.
    this.blocks.delete(elementId(found.set, found.prefix));
    let elements = this.elements.get(set);
    if (elements === undefined) this.elements.set(set, (elements = new Map<string, DeferredElement>()));
    for (const { from, to, dueAt } of found.segments) {
      for (let slot = from; slot < to; slot++) {
        const other = slotKey(found.prefix, slot);
        if (other !== key) elements.set(other, { value: 'unknown', comment: undefined, dueAt });
      }
    }
  }

  /** Takes them off dumps: nobody wants them, and all the same they are no damage. */
  takeOff(dumped: ReadonlyMap<string, ElementTable>): void {
    const take = (table: ElementTable, key: string): void => {
      const record = table.find(keyBytes(key));
      if (record >= 0) table.take(record);
    };
    for (const [set, elements] of this.elements) {
      const table = dumped.get(set);
      if (table !== undefined) for (const key of elements.keys()) take(table, key);
    }
    for (const numbers of this.numbers) {
      const table = dumped.get(numbers.set);
      if (table !== undefined) for (const key of numbers.keys()) take(table, key);
    }
    for (const { set, prefix, segments } of this.blocks.values()) {
      const table = dumped.get(set);
      if (table === undefined) continue;
      for (const { from, to } of segments)
        for (let slot = from; slot < to; slot++) take(table, slotKey(prefix, slot));
    }
  }

  private blockOf(set: string, key: string): DeferredBlock | undefined {
    if (this.blocks.size === 0 || key.length < slotLength) return undefined;
    const block = this.blocks.get(elementId(set, key.slice(0, -slotLength)));
    const [first, last] = [block?.segments[0], block?.segments.at(-1)];
    if (block === undefined || first === undefined || last === undefined) return undefined;
    const slot = readHostUint32(key, key.length - slotLength);
    return slot >= first.from && slot < last.to ? block : undefined;
  }
}

/** Whether what is deferred has the value that is wanted. */
export function holdsValue(deferred: DeferredElement, value: string | undefined, comment?: string): boolean {
  if (deferred.value === 'unknown' || deferred.comment !== comment) return false;
  const held = 'target' in deferred.value ? targetBytes(deferred.value.target) : deferred.value.text;
  return held === value;
}
