/**
 * counter (enum nft_counter_attributes): counts what passes it.
 *
 *     BYTES(1) be64 | PACKETS(2) be64
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';

export interface Counter {
  readonly kind: 'counter';
  readonly packets: bigint;
  readonly bytes: bigint;
}

export function encodeCounter(writer: AttributeWriter, e: Counter): void {
  writer.u64(1, e.bytes).u64(2, e.packets);
}

export function decodeCounter(d: AttributeDecoder): Counter {
  let [packets, bytes] = [0n, 0n];
  while (d.next()) {
    if (d.type === 1) bytes = d.u64();
    else if (d.type === 2) packets = d.u64();
  }
  return { kind: 'counter', packets, bytes };
}
