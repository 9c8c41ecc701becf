/**
 * One kernel transaction in the making, together with how to take back what it assumes in our own memory should the
 * kernel refuse it.
 */
import type { Endpoint } from '../../model/types.js';
import type { Batch } from '../../netlink/nftables/index.js';
import { keyBytes, slotElement, valueBytes, type ElementBytes } from './element-bytes.js';
import type { Element, SlotBlock } from './footprint.js';

export class Transaction {
  added = 0;
  deleted = 0;
  private readonly undoSteps: (() => void)[] = [];

  constructor(readonly batch: Batch) {}

  add(element: Element): void {
    this.addRaw(element.set, element.key, element.value, element.comment);
  }

  addRaw(set: string, key: string, value: string | undefined, comment?: string): void {
    this.added++;
    this.batch.addElement(
      set,
      keyBytes(key),
      value === undefined ? undefined : valueBytes(value),
      comment === undefined ? undefined : { comment },
    );
  }

  /** The element of one slot. */
  addSlot(block: SlotBlock, slot: number, endpoint: Endpoint): void {
    this.addBytes(block.set, slotElement(block, slot, endpoint));
  }

  addBytes(set: string, { key, value }: ElementBytes): void {
    this.added++;
    this.batch.addElement(set, key, value);
  }

  /** The same key with another value. */
  replaceBytes(set: string, element: ElementBytes): void {
    this.deleted++;
    this.batch.deleteElement(set, element.key);
    this.addBytes(set, element);
  }

  delete(set: string, key: string): void {
    this.deleted++;
    this.batch.deleteElement(set, keyBytes(key));
  }

  /** The kernel has no "replace": an add with another value for a key that exists is refused. */
  replace(set: string, key: string, value: string | undefined, comment?: string): void {
    this.delete(set, key);
    this.addRaw(set, key, value, comment);
  }

  /** Remembers how to take back a change of our own memory. */
  onFailure(undo: () => void): void {
    this.undoSteps.push(undo);
  }

  rollBack(): void {
    while (this.undoSteps.length > 0) this.undoSteps.pop()?.();
  }
}
