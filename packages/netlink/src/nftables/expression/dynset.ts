/**
 * dynset (linux/netfilter/nf_tables.h, enum nft_dynset_attributes): changes a set from the packet path.
 *
 *     SET_NAME(1) string | SET_ID(2) be32 | OP(3) be32, enum nft_dynset_ops | SREG_KEY(4) be32
 *     SREG_DATA(5) be32 | TIMEOUT(6) be64: milliseconds | EXPR(7) nested | FLAGS(9) be32, 1: inverted | EXPRESSIONS(10)
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { Enumeration } from '../enumeration.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

export type DynsetOperator = 'add' | 'update' | 'delete';

const OPERATORS = new Enumeration<DynsetOperator>({ add: 0, update: 1, delete: 2 });
const NFT_DYNSET_F_INV = 1;

export interface DynamicSet {
  readonly kind: 'dynset';
  /** 'add' leaves an existing element alone; 'update' restarts its timeout (but keeps its data). */
  readonly op: DynsetOperator;
  readonly set: string;
  readonly key: Register;
  /** The map's value. The kernel wants it for every operation on a map, delete included. */
  readonly data?: Register;
  /** Absent: the set's own timeout. */
  readonly timeoutMs?: number;
  readonly inverted?: true;
}

function encode(writer: AttributeWriter, e: DynamicSet): void {
  writer.string(1, e.set).u32(3, OPERATORS.value(e.op));
  encodeRegister(writer, 4, e.key);
  if (e.data !== undefined) encodeRegister(writer, 5, e.data);
  if (e.timeoutMs !== undefined) writer.u64(6, BigInt(e.timeoutMs));
  if (e.inverted === true) writer.u32(9, NFT_DYNSET_F_INV);
}

function decode(d: AttributeDecoder): DynamicSet | undefined {
  let set: string | undefined;
  let op: DynsetOperator | undefined;
  let [key, data]: (Register | undefined)[] = [];
  let timeoutMs = 0;
  let flags = 0;
  while (d.next()) {
    if (d.type === 1) set = d.string();
    else if (d.type === 3) op = OPERATORS.name(d.u32());
    else if (d.type === 4) key = decodeRegister(d);
    else if (d.type === 5) data = decodeRegister(d);
    else if (d.type === 6) timeoutMs = Number(d.u64());
    // Expressions attached to the new elements are not ours.
    else if (d.type === 7 || d.type === 10) return undefined;
    else if (d.type === 9) flags = d.u32();
  }
  if (set === undefined || op === undefined || key === undefined) return undefined;
  if ((flags & ~NFT_DYNSET_F_INV) !== 0) return undefined;
  return {
    kind: 'dynset',
    op,
    set,
    key,
    ...(data === undefined ? {} : { data }),
    ...(timeoutMs === 0 ? {} : { timeoutMs }),
    ...(flags === 0 ? {} : { inverted: true }),
  };
}

function describe({ op, set, key, data, timeoutMs = 0, inverted }: DynamicSet): string {
  const value = data === undefined ? '' : ` sreg_data ${registerNumber(data)}`;
  const flags = inverted === true ? ` flags 0x${NFT_DYNSET_F_INV}` : '';
  return `${op} reg_key ${registerNumber(key)} set ${set}${value} timeout ${timeoutMs}ms${flags}`;
}

export const dynset = {
  name: 'dynset',
  kinds: ['dynset'],
  encode,
  decode,
  describe,
  builders: {
    dynset: (
      op: DynsetOperator,
      set: string,
      key: Register,
      options: { readonly data?: Register; readonly timeoutMs?: number; readonly inverted?: true } = {},
    ): DynamicSet => ({ kind: 'dynset', op, set, key, ...options }),
  },
} satisfies ExpressionCodec<DynamicSet>;
