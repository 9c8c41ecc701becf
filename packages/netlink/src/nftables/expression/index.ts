/**
 * Expressions: the instructions a rule consists of. Each is one attribute of the rule's list
 * (enum nft_expr_attributes):
 *
 *     LIST_ELEM(1) nested
 *         NAME(1)  string: which instruction
 *         DATA(2)  nested: its operands, see the file of that name
 */
import { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { NFTA_LIST_ELEM } from '../constants.js';
import type { Verdict } from '../data.js';
import type { Register } from '../register.js';
import { type Bitwise, decodeBitwise, encodeBitwise } from './bitwise.js';
import { type ByteOrderChange, decodeByteOrder, encodeByteOrder } from './byteorder.js';
import { type Compare, type CompareOperator, decodeCompare, encodeCompare } from './cmp.js';
import { type Counter, decodeCounter, encodeCounter } from './counter.js';
import { type CtDirection, type CtKey, type CtLoad, type CtStore, decodeCt, encodeCt } from './ct.js';
import { decodeDynset, type DynamicSet, type DynsetOperator, encodeDynset } from './dynset.js';
import { decodeFib, encodeFib, type Fib, type FibFlag, type FibResult } from './fib.js';
import { decodeHash, encodeJhash, type JenkinsHash } from './hash.js';
import { decodeImmediate, encodeImmediate, type Immediate, type VerdictExpression } from './immediate.js';
import { decodeLookup, encodeLookup, type Lookup } from './lookup.js';
import { decodeMasquerade, encodeMasquerade, type Masquerade } from './masq.js';
import { decodeMeta, encodeMeta, type MetaKey, type MetaLoad, type MetaStore } from './meta.js';
import { decodeNat, encodeNat, type Nat, type NatFlag } from './nat.js';
import { decodeNumgen, encodeNumgen, type NumberGenerator } from './numgen.js';
import {
  decodePayload,
  encodePayload,
  type PayloadBase,
  type PayloadLoad,
  type PayloadStore,
} from './payload.js';
import { decodeRange, encodeRange, type Range } from './range.js';
import { decodeReject, encodeReject, type Reject, type RejectType } from './reject.js';

/** An instruction that this library does not understand, as the kernel sent it. */
export interface UnknownExpression {
  readonly kind: 'unknown';
  readonly name: string;
  /** Contents of DATA, attributes. */
  readonly data: Uint8Array;
}

export type Expression =
  | Bitwise
  | ByteOrderChange
  | Compare
  | Counter
  | CtLoad
  | CtStore
  | DynamicSet
  | Fib
  | Immediate
  | JenkinsHash
  | Lookup
  | Masquerade
  | MetaLoad
  | MetaStore
  | Nat
  | NumberGenerator
  | PayloadLoad
  | PayloadStore
  | Range
  | Reject
  | UnknownExpression
  | VerdictExpression;

const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;

/** The kernel's name for each kind. */
function kernelName(e: Expression): string {
  switch (e.kind) {
    case 'payloadSet':
      return 'payload';
    case 'metaSet':
      return 'meta';
    case 'ctSet':
      return 'ct';
    case 'verdict':
      return 'immediate';
    case 'jhash':
      return 'hash';
    case 'masquerade':
      return 'masq';
    case 'unknown':
      return e.name;
    default:
      return e.kind;
  }
}

function encodeOperands(writer: AttributeWriter, e: Expression): void {
  switch (e.kind) {
    case 'bitwise':
      encodeBitwise(writer, e);
      return;
    case 'byteorder':
      encodeByteOrder(writer, e);
      return;
    case 'cmp':
      encodeCompare(writer, e);
      return;
    case 'counter':
      encodeCounter(writer, e);
      return;
    case 'ct':
    case 'ctSet':
      encodeCt(writer, e);
      return;
    case 'dynset':
      encodeDynset(writer, e);
      return;
    case 'fib':
      encodeFib(writer, e);
      return;
    case 'immediate':
    case 'verdict':
      encodeImmediate(writer, e);
      return;
    case 'jhash':
      encodeJhash(writer, e);
      return;
    case 'lookup':
      encodeLookup(writer, e);
      return;
    case 'masquerade':
      encodeMasquerade(writer, e);
      return;
    case 'meta':
    case 'metaSet':
      encodeMeta(writer, e);
      return;
    case 'nat':
      encodeNat(writer, e);
      return;
    case 'numgen':
      encodeNumgen(writer, e);
      return;
    case 'payload':
    case 'payloadSet':
      encodePayload(writer, e);
      return;
    case 'range':
      encodeRange(writer, e);
      return;
    case 'reject':
      encodeReject(writer, e);
      return;
    case 'unknown':
      writer.raw(e.data);
  }
}

const DECODERS: ReadonlyMap<string, (operands: AttributeDecoder) => Expression | undefined> = new Map<
  string,
  (operands: AttributeDecoder) => Expression | undefined
>([
  ['bitwise', decodeBitwise],
  ['byteorder', decodeByteOrder],
  ['cmp', decodeCompare],
  ['counter', decodeCounter],
  ['ct', decodeCt],
  ['dynset', decodeDynset],
  ['fib', decodeFib],
  ['immediate', decodeImmediate],
  ['hash', decodeHash],
  ['lookup', decodeLookup],
  ['masq', decodeMasquerade],
  ['meta', decodeMeta],
  ['nat', decodeNat],
  ['numgen', decodeNumgen],
  ['payload', decodePayload],
  ['range', decodeRange],
  ['reject', decodeReject],
]);

/** Writes the entries of a rule's expression list. */
export function encodeExpressions(writer: AttributeWriter, expressions: readonly Expression[]): void {
  for (const e of expressions) {
    const element = writer.openNest(NFTA_LIST_ELEM);
    writer.string(NFTA_EXPR_NAME, kernelName(e));
    const operands = writer.openNest(NFTA_EXPR_DATA);
    encodeOperands(writer, e);
    writer.closeNest(operands);
    writer.closeNest(element);
  }
}

function decodeExpression(element: AttributeDecoder): Expression {
  let name = '';
  let operands: AttributeDecoder | undefined;
  let data: Uint8Array = Buffer.alloc(0);
  while (element.next()) {
    if (element.type === NFTA_EXPR_NAME) {
      name = element.string();
    } else if (element.type === NFTA_EXPR_DATA) {
      operands = element.nested();
      data = element.view();
    }
  }
  // Some instructions, masq for one, have no operands at all in their plain form.
  operands ??= new AttributeDecoder(element.buffer, element.end, element.end, element);
  return DECODERS.get(name)?.(operands) ?? { kind: 'unknown', name, data: Buffer.from(data) };
}

/** Reads the entries of a rule's expression list. */
export function decodeExpressions(list: AttributeDecoder): Expression[] {
  const expressions: Expression[] = [];
  while (list.next()) if (list.type === NFTA_LIST_ELEM) expressions.push(decodeExpression(list.nested()));
  return expressions;
}

function encoded(expressions: readonly Expression[]): Buffer {
  const writer = new AttributeWriter(1024);
  encodeExpressions(writer, expressions);
  return writer.bytes();
}

/** The same expressions in the form in which a dump returns them: defaults left out, data as Buffers. */
export function normaliseExpressions(expressions: readonly Expression[]): Expression[] {
  const bytes = encoded(expressions);
  const list = new AttributeDecoder(bytes, 0, bytes.length, 'normalise expressions');
  const result = decodeExpressions(list);
  list.finish();
  return result;
}

/**
 * A string that is equal for two lists exactly if they do the same to packets: counter values and defaults that
 * are spelled out make no difference. Fit for comparing wanted rules with dumped ones, and as a Map key.
 */
export function canonicalExpressions(expressions: readonly Expression[]): string {
  const normal = normaliseExpressions(expressions).map((e): Expression =>
    e.kind === 'counter' ? expr.counter() : e,
  );
  return encoded(normal).toString('latin1');
}

export function sameExpressions(a: readonly Expression[], b: readonly Expression[]): boolean {
  return a.length === b.length && canonicalExpressions(a) === canonicalExpressions(b);
}

interface NatOptions {
  readonly address?: Register;
  readonly addressMax?: Register;
  readonly port?: Register;
  readonly portMax?: Register;
  readonly flags?: readonly NatFlag[];
}

/** Builders, one for each kind of expression. */
export const expr = {
  payload: (base: PayloadBase, offset: number, length: number, dreg: Register): Expression => ({
    kind: 'payload',
    base,
    offset,
    length,
    dreg,
  }),
  payloadSet: (
    base: PayloadBase,
    offset: number,
    length: number,
    sreg: Register,
    options: Pick<PayloadStore, 'checksum' | 'pseudoHeader'> = {},
  ): Expression => ({ kind: 'payloadSet', base, offset, length, sreg, ...options }),
  meta: (key: MetaKey, dreg: Register): Expression => ({ kind: 'meta', key, dreg }),
  metaSet: (key: MetaKey, sreg: Register): Expression => ({ kind: 'metaSet', key, sreg }),
  cmp: (op: CompareOperator, sreg: Register, data: Uint8Array): Expression => ({
    kind: 'cmp',
    op,
    sreg,
    data,
  }),
  range: (op: 'eq' | 'neq', sreg: Register, from: Uint8Array, to: Uint8Array): Expression => ({
    kind: 'range',
    op,
    sreg,
    from,
    to,
  }),
  /** dreg = (sreg & mask) ^ xor */
  bitwise: (sreg: Register, dreg: Register, mask: Uint8Array, xor: Uint8Array): Expression => ({
    kind: 'bitwise',
    sreg,
    dreg,
    mask,
    xor,
  }),
  byteorder: (
    op: 'ntoh' | 'hton',
    sreg: Register,
    dreg: Register,
    length: number,
    size: number,
  ): Expression => ({
    kind: 'byteorder',
    op,
    sreg,
    dreg,
    length,
    size,
  }),
  /** `dreg` makes it a map lookup, 'verdict' a verdict map's. */
  lookup: (
    set: string,
    sreg: Register,
    options: { readonly dreg?: Register | 'verdict'; readonly inverted?: true } = {},
  ): Expression => ({ kind: 'lookup', set, sreg, ...options }),
  immediate: (dreg: Register, data: Uint8Array): Expression => ({ kind: 'immediate', dreg, data }),
  verdict: (verdict: Verdict): Expression => ({ kind: 'verdict', verdict }),
  numgen: (mode: 'inc' | 'random', modulus: number, dreg: Register, offset = 0): Expression => ({
    kind: 'numgen',
    mode,
    modulus,
    offset,
    dreg,
  }),
  jhash: (
    sreg: Register,
    length: number,
    modulus: number,
    dreg: Register,
    options: { readonly seed?: number; readonly offset?: number } = {},
  ): Expression => ({
    kind: 'jhash',
    sreg,
    dreg,
    length,
    modulus,
    offset: options.offset ?? 0,
    ...(options.seed === undefined ? {} : { seed: options.seed }),
  }),
  fib: (result: FibResult, flags: readonly FibFlag[], dreg: Register): Expression => ({
    kind: 'fib',
    result,
    flags,
    dreg,
  }),
  ct: (key: CtKey, dreg: Register, direction?: CtDirection): Expression => ({
    kind: 'ct',
    key,
    dreg,
    ...(direction === undefined ? {} : { direction }),
  }),
  ctSet: (key: CtKey, sreg: Register): Expression => ({ kind: 'ctSet', key, sreg }),
  dynset: (
    op: DynsetOperator,
    set: string,
    key: Register,
    options: { readonly data?: Register; readonly timeoutMs?: number; readonly inverted?: true } = {},
  ): Expression => ({ kind: 'dynset', op, set, key, ...options }),
  dnat: (family: 'ip' | 'ip6', options: NatOptions): Expression => ({
    kind: 'nat',
    type: 'dnat',
    family,
    ...options,
  }),
  snat: (family: 'ip' | 'ip6', options: NatOptions): Expression => ({
    kind: 'nat',
    type: 'snat',
    family,
    ...options,
  }),
  masquerade: (
    options: {
      readonly flags?: readonly NatFlag[];
      readonly port?: Register;
      readonly portMax?: Register;
    } = {},
  ): Expression => ({ kind: 'masquerade', ...options }),
  reject: (type: RejectType, code = 0): Expression => ({ kind: 'reject', type, code }),
  counter: (packets = 0n, bytes = 0n): Expression => ({ kind: 'counter', packets, bytes }),
} as const;
