/** What a file of this folder says about one of the kernel's expressions. */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';

/** @typeParam E the union of the kinds that this codec knows */
export interface ExpressionCodec<E extends { readonly kind: string }> {
  /** NFTA_EXPR_NAME: the kernel's name. */
  readonly name: string;
  /** The values of `kind` that are encoded by it; a load and a store are two kinds of one kernel expression. */
  readonly kinds: readonly E['kind'][];
  /** Writes the attributes of NFTA_EXPR_DATA. */
  encode(writer: AttributeWriter, expression: E): void;
  /** @returns undefined for a form that E can't hold: it is kept as an UnknownExpression */
  decode(operands: AttributeDecoder): E | undefined;
  /** The operands, as `nft --debug=netlink` prints them. */
  describe(expression: E): string;
  /** Functions that make the expression, as they stand in `expr`. */
  readonly builders: Readonly<Record<string, (...args: never[]) => E>>;
}
