/**
 * One kernel transaction in the making, together with how to take back what it assumes in our own memory should the
 * kernel refuse it.
 */
import type { Batch } from '../../netlink/nftables/index.js';
import type { Element } from './footprint.js';

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
      Buffer.from(key, 'latin1'),
      value === undefined ? undefined : Buffer.from(value, 'latin1'),
      comment === undefined ? undefined : { comment },
    );
  }

  delete(set: string, key: string): void {
    this.deleted++;
    this.batch.deleteElement(set, Buffer.from(key, 'latin1'));
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
