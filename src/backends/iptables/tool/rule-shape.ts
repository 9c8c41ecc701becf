/**
 * What a rule of the nf_tables kind is made of, as far as netlink tells without knowing how each match of iptables lays out
 * its data: enough to tell whether a rule is the one that we have written.
 */
import { AttributeDecoder } from '@kube-proxy-ts/netlink';
import type { Expression, RuleInfo } from '@kube-proxy-ts/netlink/nftables';
import { tokens } from './saved.js';

/** Attribute of the expressions `match` and `target`, which hold an extension of iptables (linux/netfilter/nf_tables_compat.h). */
const NFTA_EXTENSION_NAME = 1;

/** What stands for `-s` and `-d`, which are compares of the packet's bytes. */
const address = 'address';

/** Names of the matches and of the target, in one order: equal for a rule and for what the kernel has made of it. */
export function shapeOfText(rule: string): string {
  const matches = new Set<string>();
  let target = '';
  const words = tokens(rule);
  for (const [at, word] of words.entries()) {
    const next = words[at + 1] ?? '';
    if (word === '-m' && next !== 'comment') matches.add(next);
    if (word === '-s' || word === '-d') matches.add(address);
    if (word === '-j' || word === '-g') target = next;
  }
  return shape(matches, target);
}

export function shapeOfRule({ expressions }: RuleInfo): string {
  const matches = new Set<string>();
  let target = '';
  for (const e of expressions) {
    switch (e.kind) {
      case 'verdict':
        target = 'chain' in e.verdict ? e.verdict.chain : e.verdict.verdict.toUpperCase();
        break;
      case 'payload':
        matches.add(address);
        break;
      // Later versions may write some matches in the words of nftables.
      case 'ct':
        matches.add('conntrack');
        break;
      // They tell what is wanted of what was loaded before them.
      case 'bitwise':
      case 'cmp':
      case 'counter':
        break;
      case 'unknown': {
        const extension = extensionOf(e);
        if (e.name === 'target') target = extension ?? '';
        else if (extension !== 'comment') matches.add(extension ?? e.name);
        break;
      }
      default:
        matches.add(e.kind);
    }
  }
  return shape(matches, target);
}

function shape(matches: ReadonlySet<string>, target: string): string {
  return [...[...matches].sort(), target].join(' ');
}

/** The chain to which a rule leads. */
export function chainBehind({ expressions }: RuleInfo): string | undefined {
  for (const e of expressions) if (e.kind === 'verdict' && 'chain' in e.verdict) return e.verdict.chain;
  return undefined;
}

/** Name of the match or target of iptables that an expression holds. */
function extensionOf(e: Expression): string | undefined {
  if (e.kind !== 'unknown' || (e.name !== 'match' && e.name !== 'target')) return undefined;
  const data = Buffer.from(e.data);
  const attributes = new AttributeDecoder(data, 0, data.length, 'read an extension of iptables');
  while (attributes.next()) if (attributes.type === NFTA_EXTENSION_NAME) return attributes.string();
  return undefined;
}
