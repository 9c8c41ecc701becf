/**
 * byteorder (linux/netfilter/nf_tables.h, enum nft_byteorder_attributes): turns numbers between host and network order.
 *
 *     SREG(1) be32 | DREG(2) be32 | OP(3) be32 | LEN(4) be32: bytes in all | SIZE(5) be32: bytes per number
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { Enumeration } from '../enumeration.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

const OPERATORS = new Enumeration<'ntoh' | 'hton'>({ ntoh: 0, hton: 1 });

export interface ByteOrderChange {
  readonly kind: 'byteorder';
  readonly op: 'ntoh' | 'hton';
  readonly sreg: Register;
  readonly dreg: Register;
  readonly length: number;
  readonly size: number;
}

function encode(writer: AttributeWriter, e: ByteOrderChange): void {
  encodeRegister(writer, 1, e.sreg);
  encodeRegister(writer, 2, e.dreg);
  writer.u32(3, OPERATORS.value(e.op)).u32(4, e.length).u32(5, e.size);
}

function decode(d: AttributeDecoder): ByteOrderChange | undefined {
  let [sreg, dreg]: (Register | undefined)[] = [];
  let op: 'ntoh' | 'hton' | undefined;
  let [length, size] = [0, 0];
  while (d.next()) {
    if (d.type === 1) sreg = decodeRegister(d);
    else if (d.type === 2) dreg = decodeRegister(d);
    else if (d.type === 3) op = OPERATORS.name(d.u32());
    else if (d.type === 4) length = d.u32();
    else if (d.type === 5) size = d.u32();
  }
  if (sreg === undefined || dreg === undefined || op === undefined) return undefined;
  return { kind: 'byteorder', op, sreg, dreg, length, size };
}

function describe({ op, sreg, dreg, length, size }: ByteOrderChange): string {
  return `reg ${registerNumber(dreg)} = ${op}(reg ${registerNumber(sreg)}, ${size}, ${length})`;
}

export const byteorder = {
  name: 'byteorder',
  kinds: ['byteorder'],
  encode,
  decode,
  describe,
  builders: {
    /** @param length bytes in all @param size bytes of each number: 2, 4 or 8 */
    byteorder: (
      op: 'ntoh' | 'hton',
      sreg: Register,
      dreg: Register,
      length: number,
      size: number,
    ): ByteOrderChange => ({ kind: 'byteorder', op, sreg, dreg, length, size }),
  },
} satisfies ExpressionCodec<ByteOrderChange>;
