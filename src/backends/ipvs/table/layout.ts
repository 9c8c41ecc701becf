/**
 * The layout of the tables `ip kube-proxy-ipvs` and `ip6 kube-proxy-ipvs`: what IPVS can't do by itself. docs/ipvs.md
 * shows them as `nft list ruleset` prints them.
 *
 * A packet to a service address is for this host, since the address is on kube-ipvs0. IPVS waits at the end of the
 * input hook (priorities 98 and 99), and for processes of this host in the output hook (-98, behind nat). So all is
 * decided in front of that: who may use the address, who is refused, whose source is replaced on the way out. IPVS
 * then sends the packet through the output hook, from its beginning, with the endpoint as its destination.
 *
 * An address with externalTrafficPolicy Local has two lists of endpoints. Outsiders meet the virtual server of the
 * address; packets of pods and of this host get a mark that names another one (marks.ts). IPVS wants the whole mark for
 * itself, so the packet's own spends the time in `meta priority`, and is put back wherever a packet can come out:
 * at the beginning of the output hook, or behind IPVS when the endpoint is a process of this host.
 */
import {
  drop,
  expr,
  goTo,
  jumpTo,
  loadFields,
  PORT_UNREACHABLE,
  returnToCaller,
  selectors,
  type Expression,
  type SetDefinition,
} from '@kube-proxy-ts/netlink/nftables';
import type { DataplaneOptions } from '../../backend.js';
import {
  baseChain,
  chain,
  ctStateNew,
  fibTypeLocal,
  loopbackGuard,
  masquerade,
  masqueradeMarked,
  nftFamily,
  packetFields,
  rule,
  setMark,
  sourceIsPod,
  word,
  zero,
  type ChainDefinition,
  type RuleDefinition,
} from '../../nft/rules.js';
import { sourceRangeRules } from '../../nft/source-range-rules.js';
import { markPrefix, markPrefixMask } from '../servers/marks.js';
import { leaseSets } from './leases.js';
import { chains, maps, sets } from './names.js';

export const tableComment = 'rules for kube-proxy beside IPVS';

export function setDefinitions(options: DataplaneOptions): SetDefinition[] {
  const f = packetFields(options.family);
  return [
    { name: sets.boundIPs, key: [f.daddr] },
    { name: sets.serviceIPs, key: f.service },
    { name: sets.externalIPs, key: f.service },
    { name: sets.localIPs, key: f.service },
    { name: sets.firewallIPs, key: f.service },
    { name: sets.rejectedIPs, key: f.service },
    { name: sets.droppedIPs, key: f.service },
    { name: sets.droppedLocalIPs, key: f.service },
    { name: sets.serviceCIDRs, key: [f.daddr], interval: true },
    { name: sets.hairpin, key: [f.saddr, ...f.service] },
    { name: maps.shortCircuits, key: f.service, value: [selectors.mark] },
    ...leaseSets.map((name) => ({ name, key: [selectors.nfproto], timeout: true })),
  ];
}

/** Priorities around those of IPVS (ip_vs_ops4 of net/netfilter/ipvs/ip_vs_core.c). */
const priority = {
  filter: 0,
  inputBeforeIpvs: 97,
  inputBehindIpvs: 101,
  /** Behind nat (-100): what another mode translates there is none of our business. */
  outputBeforeIpvs: -99,
  outputBehindIpvs: -97,
  /** Before anybody else. */
  outputFirst: -310,
  srcnat: 100,
} as const;

const jumpIfNew = (to: string): RuleDefinition => rule(ctStateNew, expr.verdict(jumpTo(to)));
const hasLease = (set: string): readonly Expression[] => [expr.meta('nfproto', 0), expr.lookup(set, 0)];
const mayRefuse = hasLease(sets.refusalLease);

export function chainDefinitions(
  options: DataplaneOptions,
  sourceRangeLengths: Iterable<number>,
): ChainDefinition[] {
  const { family, detector, masqueradeMark: mark } = options;
  const f = packetFields(family);
  const reject = expr.reject('icmp', PORT_UNREACHABLE[nftFamily(family)]);
  const isIn = (set: string) => [...loadFields(f.service, 0), expr.lookup(set, 0)];
  const addressIsIn = (field: typeof f.daddr, set: string) => [
    ...loadFields([field], 0),
    expr.lookup(set, 0),
  ];
  const dropUnallocated = rule(
    ctStateNew,
    addressIsIn(f.daddr, sets.serviceCIDRs),
    mayRefuse,
    expr.verdict(drop),
  );
  const markForMasquerading = setMark(mark);

  return [
    chain(
      chains.filterInput,
      [...loopbackGuard(options), jumpIfNew(chains.services)],
      baseChain('input', priority.filter),
    ),
    chain(
      chains.filterOutput,
      [jumpIfNew(chains.services), dropUnallocatedUnlessBound(options), jumpIfNew(chains.shortCircuit)],
      baseChain('output', priority.outputBeforeIpvs),
    ),
    chain(chains.filterForward, [dropUnallocated], baseChain('forward', priority.filter)),
    chain(
      chains.natPostrouting,
      [
        masqueradeMarked(mark),
        rule(loadFields([f.saddr, ...f.service], 0), expr.lookup(sets.hairpin, 0), masquerade),
      ],
      baseChain('postrouting', priority.srcnat, 'nat'),
    ),
    chain(chains.services, [
      rule(isIn(sets.serviceIPs), expr.verdict(goTo(chains.service))),
      // What else is at a service address is a process of this host that listens everywhere.
      rule(addressIsIn(f.daddr, sets.boundIPs), mayRefuse, reject),
    ]),
    chain(chains.service, [
      rule(isIn(sets.firewallIPs), expr.verdict(jumpTo(chains.sourceRanges))),
      rule(isIn(sets.rejectedIPs), mayRefuse, reject),
      rule(isIn(sets.localIPs), expr.verdict(goTo(chains.localService))),
      rule(isIn(sets.droppedIPs), mayRefuse, expr.verdict(drop)),
      rule(isIn(sets.externalIPs), markForMasquerading, expr.verdict(returnToCaller)),
      ...clusterIPMasquerading(options),
    ]),
    chain(chains.localService, [
      ...(detector === undefined
        ? []
        : [rule(sourceIsPod(detector, f.saddr, 'eq'), expr.verdict(returnToCaller))]),
      rule(fibTypeLocal('saddr'), markForMasquerading, expr.verdict(returnToCaller)),
      rule(isIn(sets.droppedLocalIPs), mayRefuse, expr.verdict(drop)),
    ]),
    chain(chains.sourceRanges, sourceRangeRules(family, sourceRangeLengths)),
    ...shortCircuitChains(options),
  ];
}

/** Cluster IPs: the source stays if it is a pod's, or if nobody can tell. */
function clusterIPMasquerading(options: DataplaneOptions): RuleDefinition[] {
  const { family, detector, masqueradeAll, masqueradeMark } = options;
  const f = packetFields(family);
  if (masqueradeAll) return [rule(setMark(masqueradeMark))];
  if (detector !== undefined) return [rule(sourceIsPod(detector, f.saddr, 'neq'), setMark(masqueradeMark))];
  // A process of this host comes from the service address itself, to which no answer would find its way.
  return [rule(loadFields([f.saddr], 0), expr.lookup(sets.boundIPs, 0), setMark(masqueradeMark))];
}

/** Service addresses that nobody has, as seen by processes of this host. Those that somebody has are in the range, too. */
function dropUnallocatedUnlessBound({ family }: DataplaneOptions): RuleDefinition {
  const { daddr } = packetFields(family);
  return rule(
    ctStateNew,
    loadFields([daddr], 0),
    expr.lookup(sets.serviceCIDRs, 0),
    loadFields([daddr], 0),
    expr.lookup(sets.boundIPs, 0, { inverted: true }),
    mayRefuse,
    expr.verdict(drop),
  );
}

function shortCircuitChains({ family, detector }: DataplaneOptions): ChainDefinition[] {
  const f = packetFields(family);
  const toMark = expr.verdict(goTo(chains.shortCircuitMark));
  const restore = rule(
    expr.meta('mark', 0),
    expr.bitwise(0, 0, word(markPrefixMask), zero),
    expr.cmp('eq', 0, word(markPrefix)),
    [expr.meta('priority', 0), expr.metaSet('mark', 0)],
    [expr.immediate(0, zero), expr.metaSet('priority', 0)],
  );
  return [
    chain(
      chains.inputShortCircuit,
      [jumpIfNew(chains.shortCircuit)],
      baseChain('input', priority.inputBeforeIpvs),
    ),
    chain(chains.inputRestore, [restore], baseChain('input', priority.inputBehindIpvs)),
    chain(chains.outputRestore, [restore], baseChain('output', priority.outputBehindIpvs)),
    chain(chains.outputRestoreFirst, [restore], baseChain('output', priority.outputFirst)),
    chain(chains.shortCircuit, [
      ...(detector === undefined ? [] : [rule(sourceIsPod(detector, f.saddr, 'eq'), toMark)]),
      rule(fibTypeLocal('saddr'), toMark),
    ]),
    chain(chains.shortCircuitMark, [
      rule(
        hasLease(sets.markLease),
        loadFields(f.service, 0),
        expr.lookup(maps.shortCircuits, 0, { dreg: 8 }),
        [expr.meta('mark', 12), expr.metaSet('priority', 12)],
        expr.metaSet('mark', 8),
      ),
    ]),
  ];
}
