/**
 * Who may use a load balancer's address: a set of exact keys per prefix length in use, and a rule per set that masks the
 * source before it looks.
 */
import { drop, expr, loadFields, returnToCaller, type SetDefinition } from '@kube-proxy-ts/netlink/nftables';
import type { IPFamily } from '../../model/types.js';
import { packetFields, rule, type RuleDefinition } from './rules.js';
import { prefixMask } from './source-ranges.js';

/** Sources allowed for load balancer addresses: one set per prefix length in use, so that every lookup is exact. */
export function sourceRangeSet(prefixLength: number): string {
  return `source-ranges-${prefixLength}`;
}

export function sourceRangePrefix(set: string): number | undefined {
  const match = /^source-ranges-(\d+)$/.exec(set);
  return match === null ? undefined : Number(match[1]);
}

export function sourceRangeSetDefinition(family: IPFamily, prefixLength: number): SetDefinition {
  const f = packetFields(family);
  return { name: sourceRangeSet(prefixLength), key: [f.saddr, ...f.service] };
}

export function sourceRangeRules(family: IPFamily, prefixLengths: Iterable<number>): RuleDefinition[] {
  const f = packetFields(family);
  const longestFirst = [...prefixLengths].sort((a, b) => b - a);
  return [
    ...longestFirst.map((length) => {
      const mask = prefixMask(f.saddr.length, length);
      const key = loadFields([f.saddr, ...f.service], 0);
      const masked =
        length === f.saddr.length * 8 ? [] : [expr.bitwise(0, 0, mask, Buffer.alloc(mask.length))];
      return rule(
        key.slice(0, 1),
        masked,
        key.slice(1),
        expr.lookup(sourceRangeSet(length), 0),
        expr.verdict(returnToCaller),
      );
    }),
    rule(expr.verdict(drop)),
  ];
}
