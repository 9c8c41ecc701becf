/**
 * Fields: what keys and values of sets consist of. A field has a data type (nft's number for it, which the kernel
 * stores with the set), a length in registers, and, if it names a concrete selector such as `ip daddr`, the description that nft
 * needs to print `typeof` and the expression that loads it from a packet.
 */
import { writeHostU32 } from '../endian.js';
import { expr, type Expression } from './expression/index.js';
import { type MetaKey, metaKeyNumber } from './expression/meta.js';
import { registerAfter, type Register } from './register.js';
import { userdataEntry } from './objects/userdata.js';

/** nft's data type numbers (enum datatypes of nftables, part of its stored format). */
const TYPE = {
  nf_proto: 2,
  integer: 4,
  ipv4_addr: 7,
  ipv6_addr: 8,
  inet_proto: 12,
  inet_service: 13,
  mark: 19,
  classid: 23,
} as const;

/** A concatenation's type is its fields' types, 6 bits each. */
export const TYPE_BITS = 6;

export type ByteOrder = 'host' | 'network';

/** nft's enum byteorder. A concatenation has none. */
export function byteOrderNumber(order: ByteOrder | undefined): number {
  return order === undefined ? 0 : order === 'host' ? 1 : 2;
}

/** One part of a key or value: its type for nft, its bytes, and the expression that loads it. */
export interface Field {
  /** As nft writes it: 'ipv4_addr', 'ip daddr', 'numgen random mod 2'. */
  readonly name: string;
  readonly datatype: number;
  /** Bytes that carry meaning; in a key each field is padded to a multiple of 4. */
  readonly length: number;
  readonly byteOrder: ByteOrder;
  /** The selector in nft's stored form; absent for a plain type. */
  readonly selector?: Buffer;
  /** Loads the field of the packet at hand into a register; absent for a plain type. */
  readonly load?: (dreg: Register) => Expression;
}

// nft's enum expr_types, proto_desc_id and template numbers, as found in set user data.
const EXPR_VERDICT = 1;
const EXPR_PAYLOAD = 7;
const EXPR_META = 9;
const EXPR_CONCAT = 13;
const EXPR_NUMGEN = 23;
const DESC_TH = 11;
const DESC_IP = 12;
const DESC_IP6 = 13;
const TYPEOF_EXPR = 0;
const TYPEOF_DATA = 1;

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  writeHostU32(bytes, 0, value);
  return bytes;
}

function selector(kind: number, ...values: readonly number[]): Buffer {
  return selectorOf(kind, Buffer.concat(values.map((value, index) => userdataEntry(index, word(value)))));
}

function selectorOf(kind: number, data: Buffer): Buffer {
  return Buffer.concat([userdataEntry(TYPEOF_EXPR, word(kind)), userdataEntry(TYPEOF_DATA, data)]);
}

/** The selector of a verdict: a map's value. */
export const verdictSelector: Buffer = selectorOf(EXPR_VERDICT, Buffer.alloc(0));

/**
 * nft's description of a whole key or value; undefined when there is nothing to say beyond its type. (Of a
 * concatenation of plain types nft says that it is one, with no parts. So do we, that a set which went through
 * nft is still the same.)
 */
export function selectorOfFields(fields: readonly Field[]): Buffer | undefined {
  const parts = fields.flatMap((field) => field.selector ?? []);
  if (fields.length === 1) return parts[0];
  if (parts.length === 0) return selectorOf(EXPR_CONCAT, Buffer.alloc(0));
  if (parts.length < fields.length) return undefined;
  return selectorOf(EXPR_CONCAT, Buffer.concat(parts.map((part, index) => userdataEntry(index, part))));
}

function plain(name: keyof typeof TYPE, length: number, byteOrder: ByteOrder): Field {
  return { name, datatype: TYPE[name], length, byteOrder };
}

function payload(
  name: string,
  type: keyof typeof TYPE,
  base: 'network' | 'transport',
  offset: number,
  length: number,
  desc: number,
  template: number,
): Field {
  return {
    name,
    datatype: TYPE[type],
    length,
    byteOrder: 'network',
    selector: selector(EXPR_PAYLOAD, desc, template),
    load: (dreg) => expr.payload(base, offset, length, dreg),
  };
}

function meta(key: MetaKey, type: keyof typeof TYPE, length: number, byteOrder: ByteOrder): Field {
  return {
    name: `meta ${key}`,
    datatype: TYPE[type],
    length,
    byteOrder,
    selector: selector(EXPR_META, metaKeyNumber(key)),
    load: (dreg) => expr.meta(key, dreg),
  };
}

/** Plain types, as in `type ipv4_addr . inet_service`. */
export const types = {
  ipv4Addr: plain('ipv4_addr', 4, 'network'),
  ipv6Addr: plain('ipv6_addr', 16, 'network'),
  inetProto: plain('inet_proto', 1, 'network'),
  inetService: plain('inet_service', 2, 'network'),
  mark: plain('mark', 4, 'host'),
  /** A traffic control class id: `1:3` is 0x00010003. */
  classid: plain('classid', 4, 'host'),
} as const;

/** Selectors, as in `typeof ip daddr . th dport`. */
export const selectors = {
  ipSaddr: payload('ip saddr', 'ipv4_addr', 'network', 12, 4, DESC_IP, 11),
  ipDaddr: payload('ip daddr', 'ipv4_addr', 'network', 16, 4, DESC_IP, 12),
  ip6Saddr: payload('ip6 saddr', 'ipv6_addr', 'network', 8, 16, DESC_IP6, 8),
  ip6Daddr: payload('ip6 daddr', 'ipv6_addr', 'network', 24, 16, DESC_IP6, 9),
  /** TCP, UDP, SCTP and DCCP have their ports in the same place. */
  thSport: payload('th sport', 'inet_service', 'transport', 0, 2, DESC_TH, 1),
  thDport: payload('th dport', 'inet_service', 'transport', 2, 2, DESC_TH, 2),
  l4proto: meta('l4proto', 'inet_proto', 1, 'network'),
  nfproto: meta('nfproto', 'nf_proto', 1, 'host'),
  mark: meta('mark', 'mark', 4, 'host'),
  priority: meta('priority', 'classid', 4, 'host'),
  /** A number from 0 to modulus - 1, drawn anew for every packet; host byte order. */
  numgenRandom: (modulus: number): Field => ({
    name: `numgen random mod ${modulus}`,
    datatype: TYPE.integer,
    length: 4,
    byteOrder: 'host',
    selector: selector(EXPR_NUMGEN, 1, modulus, 0),
    load: (dreg) => expr.numgen('random', modulus, dreg),
  }),
} as const;

/** Bytes of a key or value in registers: every field padded to a multiple of 4, except a single one. */
export function fieldsLength(fields: readonly Field[]): number {
  const [only] = fields;
  if (fields.length === 1 && only !== undefined) return only.length;
  return fields.reduce((sum, field) => sum + ((field.length + 3) & ~3), 0);
}

/** nft's number for the type of a whole key or value. */
export function fieldsType(fields: readonly Field[]): number {
  return fields.reduce((type, field) => type * 2 ** TYPE_BITS + field.datatype, 0);
}

/**
 * Expressions that put a whole key into consecutive registers, for a lookup with `sreg`.
 * @throws RangeError when a field is a plain type, or the key is longer than the registers
 */
export function loadFields(fields: readonly Field[], sreg: Register): Expression[] {
  let register: Register | undefined = sreg;
  return fields.map((field, index) => {
    if (field.load === undefined) throw new RangeError(`${field.name} is a type, not a selector`);
    if (register === undefined) throw new RangeError('the key is longer than the registers');
    const expression = field.load(register);
    register = index + 1 < fields.length ? registerAfter(register, field.length) : undefined;
    return expression;
  });
}
