/**
 * cmp (linux/netfilter/nf_tables.h, enum nft_cmp_attributes): goes on with the rule only if the register compares so, byte by byte.
 *
 *     SREG(1) be32 | OP(2) be32, enum nft_cmp_ops | DATA(3) nested data
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { decodeValue, describeValue, encodeData } from '../data.js';
import { Enumeration } from '../enumeration.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

export type CompareOperator = 'eq' | 'neq' | 'lt' | 'lte' | 'gt' | 'gte';

const OPERATORS = new Enumeration<CompareOperator>({ eq: 0, neq: 1, lt: 2, lte: 3, gt: 4, gte: 5 });

export interface Compare {
  readonly kind: 'cmp';
  readonly op: CompareOperator;
  readonly sreg: Register;
  readonly data: Uint8Array;
}

function encode(writer: AttributeWriter, e: Compare): void {
  encodeRegister(writer, 1, e.sreg);
  writer.u32(2, OPERATORS.value(e.op));
  encodeData(writer, 3, e.data);
}

function decode(d: AttributeDecoder): Compare | undefined {
  let sreg: Register | undefined;
  let op: CompareOperator | undefined;
  let data: Buffer | undefined;
  while (d.next()) {
    if (d.type === 1) sreg = decodeRegister(d);
    else if (d.type === 2) op = OPERATORS.name(d.u32());
    else if (d.type === 3) data = decodeValue(d);
  }
  return sreg === undefined || op === undefined || data === undefined
    ? undefined
    : { kind: 'cmp', op, sreg, data };
}

function describe({ op, sreg, data }: Compare): string {
  return `${op} reg ${registerNumber(sreg)} ${describeValue(data)}`;
}

export const cmp = {
  name: 'cmp',
  kinds: ['cmp'],
  encode,
  decode,
  describe,
  builders: {
    cmp: (op: CompareOperator, sreg: Register, data: Uint8Array): Compare => ({
      kind: 'cmp',
      op,
      sreg,
      data,
    }),
  },
} satisfies ExpressionCodec<Compare>;
