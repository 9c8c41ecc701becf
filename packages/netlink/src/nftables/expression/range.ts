/**
 * range (linux/netfilter/nf_tables.h, enum nft_range_attributes): is the register within [from, to]?
 *
 *     SREG(1) be32 | OP(2) be32, enum nft_range_ops | FROM_DATA(3) nested data | TO_DATA(4) nested data
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { decodeValue, describeValue, encodeData } from '../data.js';
import { Enumeration } from '../enumeration.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

const OPERATORS = new Enumeration<'eq' | 'neq'>({ eq: 0, neq: 1 });

export interface Range {
  readonly kind: 'range';
  readonly op: 'eq' | 'neq';
  readonly sreg: Register;
  /** Both inclusive, compared byte by byte (so: network byte order). */
  readonly from: Uint8Array;
  readonly to: Uint8Array;
}

function encode(writer: AttributeWriter, e: Range): void {
  encodeRegister(writer, 1, e.sreg);
  writer.u32(2, OPERATORS.value(e.op));
  encodeData(writer, 3, e.from);
  encodeData(writer, 4, e.to);
}

function decode(d: AttributeDecoder): Range | undefined {
  let sreg: Register | undefined;
  let op: 'eq' | 'neq' | undefined;
  let [from, to]: (Buffer | undefined)[] = [];
  while (d.next()) {
    if (d.type === 1) sreg = decodeRegister(d);
    else if (d.type === 2) op = OPERATORS.name(d.u32());
    else if (d.type === 3) from = decodeValue(d);
    else if (d.type === 4) to = decodeValue(d);
  }
  if (sreg === undefined || op === undefined || from === undefined || to === undefined) return undefined;
  return { kind: 'range', op, sreg, from, to };
}

function describe({ op, sreg, from, to }: Range): string {
  return `${op} reg ${registerNumber(sreg)} ${describeValue(from)} ${describeValue(to)}`;
}

export const range = {
  name: 'range',
  kinds: ['range'],
  encode,
  decode,
  describe,
  builders: {
    range: (op: 'eq' | 'neq', sreg: Register, from: Uint8Array, to: Uint8Array): Range => ({
      kind: 'range',
      op,
      sreg,
      from,
      to,
    }),
  },
} satisfies ExpressionCodec<Range>;
