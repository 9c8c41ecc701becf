/**
 * One kernel transaction in the making, together with how to take back what it assumes in our own memory should the
 * kernel refuse it.
 *
 * Deletions are sent before additions, whatever their order here: so a key may be deleted and added, never the other
 * way round.
 */
import type { Batch } from '@kube-proxy-ts/netlink/nftables';
import { keyBytes, slotElement, valueBytes, type ElementBytes } from '../state/element-bytes.js';
import type { Element, SlotBlock } from '../state/elements.js';

export class Transaction {
  added = 0;
  deleted = 0;
  /** Addresses (addressKey) of which elements were written that another service port is about to take over. */
  readonly unsettled = new Set<string>();
  private readonly growth = new Map<string, number>();
  /** The set that was last added to or deleted from, and by how much it grew in a row. */
  private growing = '';
  private grown = 0;
  private readonly undoSteps: (() => void)[] = [];
  /** Map, key, what it held: three entries each. A cold start changes hundreds of thousands, too many for closures. */
  private readonly before: unknown[] = [];

  /** Takes effect whatever becomes of the rest, once what goes ahead is in the kernel. */
  private readonly lasting: (() => void)[] = [];
  private isPrepared = false;

  /** @param preparation see ahead; absent: there is nothing before this transaction */
  constructor(
    readonly batch: Batch,
    readonly preparation?: Batch,
  ) {}

  /**
   * For chains and sets that elements of this transaction lead to: a transaction before it. A packet goes by the rules that
   * there were when it entered its base chain (nft_do_chain), but finds elements that come meanwhile: a chain that
   * comes with them has no rules for it yet.
   */
  get ahead(): Batch {
    return this.preparation ?? this.batch;
  }

  /** What goes ahead is in the kernel. */
  prepared(): void {
    this.isPrepared = true;
  }

  /** Changes our own memory back when all but what went ahead has failed. */
  lasts(change: () => void): void {
    this.lasting.push(change);
  }

  add(element: Element): void {
    this.addRaw(element.set, element.key, element.value, element.comment);
  }

  addRaw(set: string, key: string, value: string | undefined, comment?: string): void {
    this.added++;
    this.grow(set, 1);
    this.batch.addElementLast(
      set,
      keyBytes(key),
      value === undefined ? undefined : valueBytes(value),
      comment === undefined ? undefined : { comment },
    );
  }

  /** The element of one slot. @param at index in block.slots of what stands there */
  addSlot(block: SlotBlock, slot: number, at = slot): void {
    this.addBytes(block.set, slotElement(block, slot, at));
  }

  addBytes(set: string, { key, value }: ElementBytes): void {
    this.added++;
    this.grow(set, 1);
    this.batch.addElementLast(set, key, value);
  }

  /** The same key with another value. */
  replaceBytes(set: string, element: ElementBytes): void {
    this.deleted++;
    this.grow(set, -1);
    this.batch.deleteElement(set, element.key);
    this.addBytes(set, element);
  }

  delete(set: string, key: string): void {
    this.deleted++;
    this.grow(set, -1);
    this.batch.deleteElement(set, keyBytes(key));
  }

  /** The kernel has no "replace": an add with another value for a key that exists is refused. */
  replace(set: string, key: string, value: string | undefined, comment?: string): void {
    this.delete(set, key);
    this.addRaw(set, key, value, comment);
  }

  private grow(set: string, by: 1 | -1): void {
    if (set !== this.growing) this.endOfRow(set);
    this.grown += by;
  }

  private endOfRow(next: string): void {
    if (this.grown !== 0) this.growth.set(this.growing, (this.growth.get(this.growing) ?? 0) + this.grown);
    this.growing = next;
    this.grown = 0;
  }

  /** By set: how many elements more it has afterwards. */
  growthBySet(): ReadonlyMap<string, number> {
    this.endOfRow('');
    return this.growth;
  }

  /** Sets an entry of a map in our own memory, or deletes it, until the transaction fails. */
  note<T>(map: Map<string, T>, key: string, value: T | undefined): void {
    this.before.push(map, key, map.get(key));
    if (value === undefined) map.delete(key);
    else map.set(key, value);
  }

  /** Remembers how to take back another change of our own memory. */
  onFailure(undo: () => void): void {
    this.undoSteps.push(undo);
  }

  rollBack(): void {
    for (let at = this.before.length - 3; at >= 0; at -= 3) {
      const map = this.before[at] as Map<string, unknown>;
      const key = this.before[at + 1] as string;
      const value = this.before[at + 2];
      if (value === undefined) map.delete(key);
      else map.set(key, value);
    }
    this.before.length = 0;
    while (this.undoSteps.length > 0) this.undoSteps.pop()?.();
    if (this.isPrepared) for (const change of this.lasting) change();
    this.lasting.length = 0;
  }
}
