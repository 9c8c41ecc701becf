/**
 * Expressions: the instructions a rule consists of. Each is one attribute of the rule's list
 * (linux/netfilter/nf_tables.h, enum nft_expr_attributes):
 *
 *     LIST_ELEM(1) nested
 *         NAME(1)  string: which expression
 *         DATA(2)  nested: its operands, see the file of that name
 */
import { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { NFTA_LIST_ELEM } from '../constants.js';
import type { ExpressionCodec } from './codec.js';
import * as codecs from './codecs.js';

/** An expression that no codec knows, or knows not in this form, as the kernel sent it. */
export interface UnknownExpression {
  readonly kind: 'unknown';
  readonly name: string;
  /** Contents of DATA, attributes. */
  readonly data: Uint8Array;
}

type Codec = (typeof codecs)[keyof typeof codecs];
type ExpressionOf<C> = C extends { decode(operands: AttributeDecoder): infer E }
  ? Exclude<E, undefined>
  : never;
/** The intersection of a union's members. */
type Merged<U> = (U extends unknown ? (each: U) => void : never) extends (all: infer All) => void
  ? All
  : never;

/** Any of the expressions in codecs.ts, or one that is unknown; `kind` says which. */
export type Expression = ExpressionOf<Codec> | UnknownExpression;

const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;

const table: readonly ExpressionCodec<Expression>[] = Object.values(codecs);
const byName = new Map(table.map((codec) => [codec.name, codec]));
const byKind = new Map(table.flatMap((codec) => codec.kinds.map((kind) => [kind, codec] as const)));

/** Functions that make expressions, a few words for each: `expr.cmp('eq', r0, bytes)`. */
export const expr = Object.freeze(Object.assign({}, ...table.map(({ builders }) => builders))) as Merged<
  Codec['builders']
>;

function nameOf(e: Expression): string {
  return e.kind === 'unknown' ? e.name : (byKind.get(e.kind)?.name ?? e.kind);
}

/** Writes the entries of a rule's expression list. */
export function encodeExpressions(writer: AttributeWriter, expressions: readonly Expression[]): void {
  for (const e of expressions) {
    const element = writer.openNest(NFTA_LIST_ELEM);
    writer.string(NFTA_EXPR_NAME, nameOf(e));
    const operands = writer.openNest(NFTA_EXPR_DATA);
    if (e.kind === 'unknown') writer.raw(e.data);
    else byKind.get(e.kind)?.encode(writer, e);
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
  // Some expressions, masq for one, have no operands at all in their plain form.
  operands ??= new AttributeDecoder(element.buffer, element.end, element.end, element);
  return byName.get(name)?.decode(operands) ?? { kind: 'unknown', name, data: Buffer.from(data) };
}

/** Reads the entries of a rule's expression list. */
export function decodeExpressions(list: AttributeDecoder): Expression[] {
  const expressions: Expression[] = [];
  while (list.next()) if (list.type === NFTA_LIST_ELEM) expressions.push(decodeExpression(list.nested()));
  return expressions;
}

/** One line, as `nft --debug=netlink` prints it: '[ payload load 4b @ network header + 16 => reg 1 ]'. */
export function describeExpression(e: Expression): string {
  const operands =
    e.kind === 'unknown' ? Buffer.from(e.data).toString('hex') : (byKind.get(e.kind)?.describe(e) ?? '');
  return `[ ${nameOf(e)} ${operands}${operands === '' ? '' : ' '}]`;
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
 * are spelled out make no difference. Fit for comparing desired rules with dumped ones, and as a Map key.
 */
export function canonicalExpressions(expressions: readonly Expression[]): string {
  const normal = normaliseExpressions(expressions).map((e): Expression =>
    e.kind === 'counter' ? expr.counter() : e,
  );
  return encoded(normal).toString('latin1');
}

/** Do both lists do the same to packets? Counter values and spelled-out defaults don't count. */
export function sameExpressions(a: readonly Expression[], b: readonly Expression[]): boolean {
  return a.length === b.length && canonicalExpressions(a) === canonicalExpressions(b);
}
