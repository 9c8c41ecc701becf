/**
 * Chains (enum nft_chain_attributes):
 *
 *     TABLE(1) string | HANDLE(2) be64 | NAME(3) string
 *     HOOK(4) nested, base chains only
 *         HOOKNUM(1) be32, enum nf_inet_hooks | PRIORITY(2) be32, signed
 *     POLICY(5) be32, NF_ACCEPT or NF_DROP | USE(6) be32: rules | TYPE(7) string | USERDATA(12)
 */
import type { AttributeDecoder, AttributeNames, AttributeWriter } from '../../attribute.js';
import { Enumeration } from '../enumeration.js';
import { commentEntry, findComment, UDATA_COMMENT } from './userdata.js';

const NFTA_CHAIN = {
  TABLE: 1,
  HANDLE: 2,
  NAME: 3,
  HOOK: 4,
  POLICY: 5,
  USE: 6,
  TYPE: 7,
  USERDATA: 12,
} as const;
const NFTA_HOOK = { HOOKNUM: 1, PRIORITY: 2 } as const;

export const CHAIN_NAMES: AttributeNames = {
  1: 'table',
  2: 'handle',
  3: 'name',
  4: ['hook', { 1: 'hooknum', 2: 'priority' }],
  5: 'policy',
  7: 'type',
  12: 'userdata',
};

/** Where a base chain meets packets (linux/netfilter.h, enum nf_inet_hooks). */
export type Hook = 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';
/** What base chains are for. */
export type ChainType = 'filter' | 'nat' | 'route';
/** The verdict on packets that reach the end of a base chain. */
export type Policy = 'accept' | 'drop';

const HOOKS = new Enumeration<Hook>({ prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 });
const POLICIES = new Enumeration<Policy>({ drop: 0, accept: 1 });

/** What makes a chain a base chain: where packets enter it. */
export interface BaseChain {
  readonly type: ChainType;
  readonly hook: Hook;
  /** Lower runs first. nft prints some by name: dstnat -100, filter 0, srcnat 100. */
  readonly priority: number;
  /** What becomes of packets that reach the end. Default accept. */
  readonly policy?: Policy;
}

/** A chain as a dump returns it. */
export interface ChainInfo {
  readonly name: string;
  readonly handle: bigint;
  readonly base:
    | {
        readonly type: string;
        readonly hook: Hook | undefined;
        readonly priority: number;
        readonly policy: Policy;
      }
    | undefined;
  /** Number of rules and references. */
  readonly use: number;
  readonly comment: string | undefined;
}

/** Also for requests that only name a chain. */
export function encodeChain(
  writer: AttributeWriter,
  table: string,
  name: string,
  options: { readonly base?: BaseChain; readonly comment?: string } = {},
): void {
  const { base, comment } = options;
  writer.string(NFTA_CHAIN.TABLE, table).string(NFTA_CHAIN.NAME, name);
  if (base !== undefined) {
    const hook = writer.openNest(NFTA_CHAIN.HOOK);
    writer.u32(NFTA_HOOK.HOOKNUM, HOOKS.value(base.hook)).u32(NFTA_HOOK.PRIORITY, base.priority);
    writer.closeNest(hook);
    writer.u32(NFTA_CHAIN.POLICY, POLICIES.value(base.policy ?? 'accept')).string(NFTA_CHAIN.TYPE, base.type);
  }
  if (comment !== undefined) writer.data(NFTA_CHAIN.USERDATA, commentEntry(UDATA_COMMENT, comment));
}

export interface NamedInTable {
  readonly table: string;
}

export function decodeChain(d: AttributeDecoder): ChainInfo & NamedInTable {
  let [table, name, type] = ['', '', ''];
  let handle = 0n;
  let hooked = false;
  let hook: Hook | undefined;
  let [priority, use] = [0, 0];
  let policy: Policy = 'accept';
  let comment: string | undefined;
  while (d.next()) {
    if (d.type === NFTA_CHAIN.TABLE) table = d.string();
    else if (d.type === NFTA_CHAIN.HANDLE) handle = d.u64();
    else if (d.type === NFTA_CHAIN.NAME) name = d.string();
    else if (d.type === NFTA_CHAIN.POLICY) policy = POLICIES.name(d.u32()) ?? 'accept';
    else if (d.type === NFTA_CHAIN.USE) use = d.u32();
    else if (d.type === NFTA_CHAIN.TYPE) type = d.string();
    else if (d.type === NFTA_CHAIN.USERDATA) comment = findComment(d.view(), UDATA_COMMENT);
    else if (d.type === NFTA_CHAIN.HOOK) {
      hooked = true;
      const inner = d.nested();
      while (inner.next()) {
        if (inner.type === NFTA_HOOK.HOOKNUM) hook = HOOKS.name(inner.u32());
        else if (inner.type === NFTA_HOOK.PRIORITY) priority = inner.i32();
      }
    }
  }
  return { table, name, handle, base: hooked ? { type, hook, priority, policy } : undefined, use, comment };
}
