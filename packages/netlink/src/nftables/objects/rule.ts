/**
 * Rules (enum nft_rule_attributes):
 *
 *     TABLE(1) string | CHAIN(2) string | HANDLE(3) be64
 *     EXPRESSIONS(4) nested list, see expression/
 *     POSITION(6) be64: handle of the rule before | USERDATA(7)
 */
import type { AttributeDecoder, AttributeNames, AttributeWriter } from '../../attribute.js';
import { decodeExpressions, encodeExpressions, type Expression } from '../expression/index.js';
import { commentEntry, findComment, UDATA_COMMENT } from './userdata.js';

const NFTA_RULE = { TABLE: 1, CHAIN: 2, HANDLE: 3, EXPRESSIONS: 4, USERDATA: 7 } as const;

export const RULE_NAMES: AttributeNames = {
  1: 'table',
  2: 'chain',
  3: 'handle',
  4: ['expressions', { list: { 1: 'name', 2: 'data' } }],
  7: 'userdata',
};

/** A rule as a dump returns it. */
export interface RuleInfo {
  readonly chain: string;
  /** Unique within the table; what deleteRule() takes. */
  readonly handle: bigint;
  readonly expressions: readonly Expression[];
  readonly comment: string | undefined;
}

/** Also for requests that name a rule, the rules of a chain, or those of a table. */
export function encodeRule(
  writer: AttributeWriter,
  table: string,
  rule: {
    readonly chain?: string;
    readonly handle?: bigint;
    readonly expressions?: readonly Expression[];
    readonly comment?: string;
  },
): void {
  writer.string(NFTA_RULE.TABLE, table);
  if (rule.chain !== undefined) writer.string(NFTA_RULE.CHAIN, rule.chain);
  if (rule.handle !== undefined) writer.u64(NFTA_RULE.HANDLE, rule.handle);
  if (rule.expressions !== undefined) {
    const list = writer.openNest(NFTA_RULE.EXPRESSIONS);
    encodeExpressions(writer, rule.expressions);
    writer.closeNest(list);
  }
  if (rule.comment !== undefined) writer.data(NFTA_RULE.USERDATA, commentEntry(UDATA_COMMENT, rule.comment));
}

export function decodeRule(d: AttributeDecoder): RuleInfo & { readonly table: string } {
  let [table, chain] = ['', ''];
  let handle = 0n;
  let expressions: Expression[] = [];
  let comment: string | undefined;
  while (d.next()) {
    if (d.type === NFTA_RULE.TABLE) table = d.string();
    else if (d.type === NFTA_RULE.CHAIN) chain = d.string();
    else if (d.type === NFTA_RULE.HANDLE) handle = d.u64();
    else if (d.type === NFTA_RULE.EXPRESSIONS) expressions = decodeExpressions(d.nested());
    else if (d.type === NFTA_RULE.USERDATA) comment = findComment(d.view(), UDATA_COMMENT);
  }
  return { table, chain, handle, expressions, comment };
}
