/** One nftables transaction in the making. Deletions are sent before additions, whatever their order here. */
import type { Batch } from '@kube-proxy-ts/netlink/nftables';
import type { Element } from '../desired-state.js';

export class Transaction {
  added = 0;
  deleted = 0;

  constructor(readonly batch: Batch) {}

  add({ set, key, value, comment }: Element): void {
    this.added++;
    this.batch.addElementLast(
      set,
      bytes(key),
      value === undefined ? undefined : bytes(value),
      comment === undefined ? undefined : { comment },
    );
  }

  delete(set: string, key: string): void {
    this.deleted++;
    this.batch.deleteElement(set, bytes(key));
  }

  /** The kernel has no "replace": an add with another value for a key that exists is refused. */
  replace(element: Element): void {
    this.delete(element.set, element.key);
    this.add(element);
  }
}

/** @param text latin1, one character a byte */
export function bytes(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}
