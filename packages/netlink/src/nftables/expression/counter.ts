/**
 * counter (linux/netfilter/nf_tables.h, enum nft_counter_attributes): counts what passes it.
 *
 *     BYTES(1) be64 | PACKETS(2) be64
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import type { ExpressionCodec } from './codec.js';

export interface Counter {
  readonly kind: 'counter';
  readonly packets: bigint;
  readonly bytes: bigint;
}

function encode(writer: AttributeWriter, e: Counter): void {
  writer.u64(1, e.bytes).u64(2, e.packets);
}

function decode(d: AttributeDecoder): Counter {
  let [packets, bytes] = [0n, 0n];
  while (d.next()) {
    if (d.type === 1) bytes = d.u64();
    else if (d.type === 2) packets = d.u64();
  }
  return { kind: 'counter', packets, bytes };
}

function describe({ packets, bytes }: Counter): string {
  return `pkts ${packets.toString()} bytes ${bytes.toString()}`;
}

export const counter = {
  name: 'counter',
  kinds: ['counter'],
  encode,
  decode,
  describe,
  builders: {
    /** Both begin at 0 unless given. */
    counter: (packets = 0n, bytes = 0n): Counter => ({ kind: 'counter', packets, bytes }),
  },
} satisfies ExpressionCodec<Counter>;
