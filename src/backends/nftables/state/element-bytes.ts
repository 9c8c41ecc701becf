/**
 * Elements as the batch and the kernel's dumps have them: bytes. A cold start writes, and a restart compares, half a
 * million of them; so they are put together in place: no strings, no garbage. What is returned is good until the next
 * call of the same function.
 */
import type { Endpoint } from '../../../model/types.js';
import { encodeIPv4, encodeIPv6 } from '@kube-proxy-ts/netlink';
import { slotValue, type SlotBlock } from './elements.js';
import { writeHostUint32 } from '../../nft/keys.js';

export interface ElementBytes {
  readonly key: Buffer;
  readonly value: Buffer;
}

/** Space for one item whose length varies: views of it, made once per length. */
class Scratch {
  private readonly views: Buffer[] = [];

  view(length: number): Buffer {
    return (this.views[length] ??= Buffer.alloc(length));
  }
}

const [slotKeys, slotValues, keys, values] = [new Scratch(), new Scratch(), new Scratch(), new Scratch()];

/** @param text latin1, one character a byte */
function write(text: string, target: Buffer): void {
  for (let i = 0; i < text.length; i++) target[i] = text.charCodeAt(i);
}

/** Bytes of a key given as latin1 text. */
export function keyBytes(text: string): Buffer {
  const bytes = keys.view(text.length);
  write(text, bytes);
  return bytes;
}

/** Bytes of a value given as latin1 text. */
export function valueBytes(text: string): Buffer {
  const bytes = values.view(text.length);
  write(text, bytes);
  return bytes;
}

/** Key of the element of one slot. @param prefix latin1 */
export function slotKeyBytes(prefix: string, slot: number): Buffer {
  const key = slotKeys.view(prefix.length + 4);
  write(prefix, key);
  writeHostUint32(key, slot, prefix.length);
  return key;
}

/** `ip daddr . th dport` of an endpoint. */
export function targetValueBytes(endpoint: Endpoint): Buffer {
  const v6 = endpoint.ip.includes(':');
  const length = v6 ? 16 : 4;
  const value = slotValues.view(length + 4);
  if (v6) encodeIPv6(endpoint.ip, value, 0);
  else encodeIPv4(endpoint.ip, value, 0);
  value[length] = endpoint.port >>> 8;
  value[length + 1] = endpoint.port & 0xff;
  return value;
}

/** The element of one slot. @param at index in block.slots of what stands there */
export function slotElement(block: SlotBlock, slot: number, at = slot): ElementBytes {
  const key = slotKeyBytes(block.prefix, slot);
  const endpoint = block.slots[at];
  const value =
    block.numbers === undefined && endpoint !== undefined
      ? targetValueBytes(endpoint)
      : valueBytes(slotValue(block, at));
  return { key, value };
}
