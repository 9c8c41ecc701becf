/**
 * One kernel transaction in the making, together with how to take back what it assumes in our own memory should the
 * kernel refuse it.
 */
import type { Endpoint } from '../../model/types.js';
import { encodeIPv4, encodeIPv6 } from '../../netlink/address.js';
import type { Batch } from '../../netlink/nftables/index.js';
import type { Element, SlotBlock } from './footprint.js';
import { slotKey } from './footprint.js';
import { writeHostUint32 } from './keys.js';

/**
 * Endpoints are by far the most of what is written, so their elements are put together in place: no strings, no
 * garbage. The batch copies what it is given.
 */
const scratch = Buffer.alloc(64);
const scratchViews = new Map<string, { readonly key: Buffer; readonly value: Buffer }>();

function viewsOf(keyBytes: number, valueBytes: number): { readonly key: Buffer; readonly value: Buffer } {
  const id = `${keyBytes} ${valueBytes}`;
  let views = scratchViews.get(id);
  if (views === undefined) {
    views = { key: scratch.subarray(0, keyBytes), value: scratch.subarray(keyBytes, keyBytes + valueBytes) };
    scratchViews.set(id, views);
  }
  return views;
}

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

  /** The element of one slot. */
  addSlot(block: SlotBlock, slot: number, endpoint: Endpoint): void {
    if (block.valueOf !== undefined) {
      this.addRaw(block.set, slotKey(block.prefix, slot), block.valueOf(endpoint));
      return;
    }
    const v6 = endpoint.ip.includes(':');
    const addressBytes = v6 ? 16 : 4;
    const { key, value } = viewsOf(block.prefix.length + 4, addressBytes + 4);
    key.write(block.prefix, 0, 'latin1');
    writeHostUint32(key, slot, block.prefix.length);
    if (v6) encodeIPv6(endpoint.ip, value, 0);
    else encodeIPv4(endpoint.ip, value, 0);
    value.writeUInt16BE(endpoint.port, addressBytes);
    value.writeUInt16BE(0, addressBytes + 2);
    this.added++;
    this.batch.addElement(block.set, key, value);
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
