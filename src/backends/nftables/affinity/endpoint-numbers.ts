/**
 * Numbers of the endpoints of one service port with affinity ("minors", see affinity-numbers.ts). An endpoint keeps its number while it is in one of
 * the service port's lists. Endpoints are told apart by their text here, but only those that come or go are looked up: which number the
 * endpoint in a slot has is kept by slot, beside the slots (NumberedSlots).
 */
import type { Endpoint } from '../../../model/types.js';
import { endpointKey, type Difference } from '../state/slots.js';
import type { Transaction } from '../transaction/transaction.js';

const lastMinor = 0xffff;

/** Endpoints by slot, and the number of each; 0: it has none, since there are no more. */
export interface NumberedSlots {
  readonly slots: readonly Endpoint[];
  readonly minors: Uint16Array;
}

export const noMinors: Uint16Array = new Uint16Array(0);

const nothing: NumberedSlots = { slots: [], minors: noMinors };

/** With so many endpoints that are gone it pays to look at those that are left. */
const manyGone = 1024;

const noneRetired: ReadonlyMap<number, unknown> = new Map();

/** Known endpoints: number, and in how many lists the endpoint is. */
const pack = (minor: number, lists: number): number => lists * 0x10000 + minor;
const minorOf = (packed: number): number => packed & 0xffff;
const listsOf = (packed: number): number => packed >>> 16;

export class EndpointNumbers {
  /** By endpointKey(). */
  private known = new Map<string, number>();
  private used = new Set<number>();
  /** The number that an endpoint got last: the next one gets the next, so that numbers are reused late. */
  private last = 0;
  /** Some were learned, of endpoints that may be in no list. */
  private hasLearned = false;
  /** What the change under way has altered in `known`, as it was. */
  private before: (readonly [key: string, packed: number | undefined])[] = [];
  /** Endpoints without a number. */
  private without = 0;

  /** A number that was found in the kernel. */
  learn(key: string, minor: number): void {
    this.known.set(key, pack(minor, 0));
    this.used.add(minor);
    this.last = Math.max(this.last, minor);
    this.hasLearned = true;
  }

  /** One whose number was found in the kernel is in a list there. */
  enlist(key: string): void {
    const packed = this.known.get(key);
    if (packed !== undefined) this.known.set(key, packed + pack(0, 1));
  }

  /** The next endpoint gets a random number: nobody knows which ones are remembered. */
  startAnywhere(): void {
    this.last = Math.floor(Math.random() * lastMinor);
  }

  /** An endpoint has this number. */
  isUsed(minor: number): boolean {
    return this.used.has(minor);
  }

  /** 0: none. */
  of(endpoint: Endpoint): number {
    return minorOf(this.known.get(endpointKey(endpoint)) ?? 0);
  }

  /**
   * Endpoints come into lists and leave them.
   * @param difference an endpoint once for each list; undefined: there were none
   * @param lists what is in them now
   * @param retired numbers that are given away only when no others are left, the first one first
   * @returns the numbers of endpoints that are in no list any more
   */
  change(
    tx: Transaction,
    difference: Difference | undefined,
    lists: readonly (readonly Endpoint[])[],
    retired: ReadonlyMap<number, unknown> = noneRetired,
  ): number[] {
    const { gone, come } = difference ?? { gone: [], come: lists.flat() };
    if (gone.length === 0 && come.length === 0 && !this.hasLearned) return [];
    const { last, without } = this;
    const freed: number[] = [];
    const length = lists.reduce((sum, list) => sum + list.length, 0);
    const unknown =
      gone.length > Math.max(length, manyGone)
        ? this.beginAnew(tx, lists, freed)
        : this.follow(gone, come, freed);
    const taken = this.number(unknown, retired, freed);
    const { known, used, before: changed } = this;
    this.before = [];
    tx.onFailure(() => {
      for (let at = changed.length - 1; at >= 0; at--) {
        const [key = '', packed] = changed[at] ?? [];
        if (packed === undefined) known.delete(key);
        else known.set(key, packed);
      }
      for (const minor of taken) used.delete(minor);
      for (const minor of freed) used.add(minor);
      this.last = last;
      this.without = without;
    });
    return freed;
  }

  /** @param freed gets numbers that became free; @returns keys of endpoints that have none yet */
  private follow(gone: readonly Endpoint[], come: readonly Endpoint[], freed: number[]): string[] {
    const unknown: string[] = [];
    for (const endpoint of come) {
      const key = endpointKey(endpoint);
      const packed = this.known.get(key);
      if (packed === undefined) unknown.push(key);
      this.set(key, packed, pack(minorOf(packed ?? 0), listsOf(packed ?? 0) + 1));
    }
    for (const endpoint of gone) this.leave(endpointKey(endpoint), freed);
    if (this.hasLearned) this.dropUnlisted(freed);
    return unknown;
  }

  /** The same for what is left when most are gone: without looking for each of those. */
  private beginAnew(tx: Transaction, lists: readonly (readonly Endpoint[])[], freed: number[]): string[] {
    const { known, used } = this;
    this.known = new Map();
    this.used = new Set();
    this.hasLearned = false;
    this.without = 0;
    tx.onFailure(() => {
      this.known = known;
      this.used = used;
    });
    const unknown: string[] = [];
    for (const endpoint of lists.flat()) {
      const key = endpointKey(endpoint);
      const packed = this.known.get(key);
      const minor = minorOf(packed ?? known.get(key) ?? 0);
      if (minor !== 0) this.used.add(minor);
      else if (packed === undefined) unknown.push(key);
      this.known.set(key, pack(minor, listsOf(packed ?? 0) + 1));
    }
    for (const minor of used) if (!this.used.has(minor)) freed.push(minor);
    return unknown;
  }

  /** @param before what stood in the slots, as far as its numbers hold; @returns the numbers of those that stand there now */
  bySlot(slots: readonly Endpoint[], before: NumberedSlots = nothing): Uint16Array {
    if (slots === before.slots && this.without === 0) return before.minors;
    const minors = new Uint16Array(slots.length);
    for (let slot = 0; slot < slots.length; slot++) {
      const endpoint = slots[slot];
      if (endpoint === undefined) continue;
      const minor = before.slots[slot] === endpoint ? (before.minors[slot] ?? 0) : 0;
      minors[slot] = minor === 0 ? this.of(endpoint) : minor;
    }
    return minors;
  }

  private set(key: string, before: number | undefined, packed: number | undefined): void {
    this.before.push([key, before]);
    if (packed === undefined) this.known.delete(key);
    else this.known.set(key, packed);
  }

  /** @param freed gets its number, should it be in no list any more */
  private leave(key: string, freed: number[]): void {
    const packed = this.known.get(key);
    if (packed === undefined) return;
    if (listsOf(packed) > 1) {
      this.set(key, packed, packed - pack(0, 1));
      return;
    }
    this.set(key, packed, undefined);
    const minor = minorOf(packed);
    if (minor === 0) {
      this.without--;
    } else {
      this.used.delete(minor);
      freed.push(minor);
    }
  }

  private dropUnlisted(freed: number[]): void {
    this.hasLearned = false;
    for (const [key, packed] of this.known) if (listsOf(packed) === 0) this.leave(key, freed);
  }

  /** @returns the numbers that were given away */
  private number(
    unknown: readonly string[],
    retired: ReadonlyMap<number, unknown>,
    freed: readonly number[],
  ): number[] {
    let keys = unknown;
    if (this.without > 0)
      keys = [...this.known].filter(([, packed]) => minorOf(packed) === 0).map(([key]) => key);
    const taken: number[] = [];
    if (keys.length === 0) return taken;
    const free = this.free(retired, new Set(freed));
    this.without = 0;
    for (const key of keys) {
      const packed = this.known.get(key) ?? 0;
      const minor = free.next().value;
      if (minor === undefined) {
        this.without++;
        continue;
      }
      this.set(key, packed, packed + minor);
      this.used.add(minor);
      taken.push(minor);
    }
    return taken;
  }

  /** Free numbers, in the order in which they are to be given away. @param leaving those that have just become free */
  private *free(
    retired: ReadonlyMap<number, unknown>,
    leaving: ReadonlySet<number>,
  ): Generator<number, undefined, undefined> {
    for (let looked = 0; looked < lastMinor; looked++) {
      const minor = this.last >= lastMinor ? 1 : this.last + 1;
      this.last = minor;
      if (!this.used.has(minor) && !leaving.has(minor) && !retired.has(minor)) yield minor;
    }
    for (const late of [retired.keys(), leaving])
      for (const minor of late) if (!this.used.has(minor)) yield minor;
    return undefined;
  }
}
