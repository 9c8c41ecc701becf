/**
 * The layout of the tables `ip kube-proxy` and `ip6 kube-proxy`: a fixed, small number of chains, and maps that hold
 * all state of the cluster. docs/nftables.md shows the result as `nft list ruleset` prints it, line by line.
 *
 * Two things shape it:
 *  - The kernel walks all verdict maps of a table whenever an element with a `goto` is added, so addresses lead to a
 *    class number, not to a chain (classes.ts).
 *  - nft (1.0.6) aborts on listing a rule that feeds the result of one map lookup into another. Results are therefore
 *    staged through `meta priority`, which the kernel sets anew or ignores behind us and which we set back.
 */
import {
  drop,
  expr,
  goTo,
  jumpTo,
  loadFields,
  PORT_UNREACHABLE,
  registerAfter,
  selectors,
  type Expression,
  type Field,
  type Register,
  type SetDefinition,
} from '@kube-proxy-ts/netlink/nftables';
import type { Cidr } from '../../../model/types.js';
import type { DataplaneOptions } from '../../backend.js';
import { addressBytes } from '../../nft/keys.js';
import {
  addressMatch,
  baseChain,
  chain,
  ctStateNew,
  ctStatusDnat,
  fibTypeLocal,
  fromElsewhere,
  loopbackGuard,
  masquerade,
  masqueradeMarked,
  nftFamily,
  rule,
  setMark,
  sourceIsPod,
  word,
  zero,
  type ChainDefinition,
  type RuleDefinition,
} from '../../nft/rules.js';
import { sourceRangeRules } from '../../nft/source-range-rules.js';
import {
  externalLocalClass,
  nodePortLocalClass,
  slotMap,
  type ClassKind,
  type ServiceClass,
} from './classes.js';
import { chains, maps, sets } from './names.js';
import { fieldsOf, setDefinitions } from './sets.js';

export interface BaseObjects {
  readonly comment: string;
  readonly sets: readonly SetDefinition[];
  readonly chains: readonly ChainDefinition[];
  readonly classes: readonly { readonly id: number; readonly chain: string }[];
}

// ---- pieces of rules

const setPriority = expr.metaSet('priority', 0);
const resetPriority: Expression[] = [expr.immediate(0, zero), setPriority];
/** Leads to the chain of the class in `meta priority`. */
const toChainOf = (map: string): Expression[] => [
  expr.meta('priority', 0),
  expr.lookup(map, 0, { dreg: 'verdict' }),
];
const toClass = toChainOf(maps.classes);
const toPick = toChainOf(maps.pickClasses);

/** Writes what a map says about the packet's address into `meta priority`. No element: the rule ends. */
function stage(map: string, key: readonly Field[]): Expression[] {
  return [...loadFields(key, 0), expr.lookup(map, 0, { dreg: 0 }), setPriority];
}

/** The packet is for one of the node's addresses that serve node ports. */
function toNodePortAddress(options: DataplaneOptions, afterRouting: boolean): Expression[] {
  const { daddr } = fieldsOf(options.family);
  if (options.nodePortAddresses !== 'all')
    return [...loadFields([daddr], 0), expr.lookup(sets.nodePortIPs, 0)];
  const loopback: Cidr =
    options.family === 'IPv4' ? { ip: '127.0.0.0', prefixLength: 8 } : { ip: '::1', prefixLength: 128 };
  return [...(afterRouting ? [] : fibTypeLocal('daddr')), ...addressMatch(daddr, 'neq', loopback)];
}

/** Node ports on loopback addresses: hooked to packets that start here, never to those that come in. */
function localhostNodePortRules(options: DataplaneOptions): RuleDefinition[] {
  const { daddr, nodePort } = fieldsOf(options.family);
  return (options.localhostNodePorts?.ranges ?? []).map((range) =>
    rule(addressMatch(daddr, 'eq', range), stage(maps.serviceNodePorts, nodePort), toClass),
  );
}

/**
 * The way of ::1. A translated connection may not leave with source ::1, and the kernel routes no reply to ::1 that
 * comes in elsewhere. So the source becomes an address of this node before connection tracking looks, and the
 * destination of replies becomes ::1 again behind everything, when the packet has already been routed to this host. A
 * packet that comes in from elsewhere with source ::1 can only be such a reply: the kernel drops all others at the door.
 */
function loopbackStandIn(options: DataplaneOptions): ChainDefinition[] {
  const standIn = options.localhostNodePorts?.standIn;
  if (standIn === undefined || options.family !== 'IPv6') return [];
  const { saddr, daddr, nodePort } = fieldsOf(options.family);
  const loopback: Cidr = { ip: '::1', prefixLength: 128 };
  const bytes = (ip: string): Buffer => Buffer.from(addressBytes(ip), 'latin1');
  const write = (offset: number, ip: string): Expression[] => [
    expr.immediate(0, bytes(ip)),
    expr.payloadSet('network', offset, 16, 0, { pseudoHeader: true }),
  ];
  return [
    {
      name: chains.rawOutputLoopback,
      base: baseChain('output', -300),
      rules: [
        rule(
          addressMatch(saddr, 'eq', loopback),
          addressMatch(daddr, 'eq', loopback),
          stage(maps.serviceNodePorts, nodePort),
          resetPriority,
          write(8, standIn),
        ),
      ],
    },
    {
      name: chains.filterInputLoopback,
      base: baseChain('input', 110),
      rules: [rule(fromElsewhere, addressMatch(saddr, 'eq', loopback), write(24, '::1'))],
    },
  ];
}

// ---- fixed chains

export function baseObjects(options: DataplaneOptions, sourceRangeLengths: Iterable<number>): BaseObjects {
  const { family, detector, masqueradeMark: mark } = options;
  const f = fieldsOf(family);
  const nft = nftFamily(family);
  const jump = (to: string): RuleDefinition => rule(expr.verdict(jumpTo(to)));
  const jumpIfNew = (to: string): RuleDefinition => rule(ctStateNew, expr.verdict(jumpTo(to)));
  const reject = expr.reject('icmp', PORT_UNREACHABLE[nft]);

  const pods = (to: string): RuleDefinition[] =>
    detector === undefined ? [] : [rule(sourceIsPod(detector, f.saddr, 'eq'), expr.verdict(goTo(to)))];

  const externalLocal = (
    key: readonly Field[],
    names: { main: string; pod: string; host: string; local: string; shortCircuit: string },
  ): ChainDefinition[] => [
    chain(names.main, [
      ...pods(names.pod),
      rule(fibTypeLocal('saddr'), expr.verdict(goTo(names.host))),
      rule(stage(names.local, key), toPick),
      rule(resetPriority),
    ]),
    chain(names.pod, [rule(stage(names.shortCircuit, key), toPick)]),
    chain(names.host, [rule(setMark(mark)), rule(stage(names.shortCircuit, key), toPick)]),
  ];

  return {
    comment: 'rules for kube-proxy',
    sets: setDefinitions(options),
    classes: [externalLocalClass, nodePortLocalClass],
    chains: [
      chain(chains.firewallCheck, [
        rule(
          loadFields(f.service, 0),
          expr.lookup(sets.firewallIPs, 0),
          expr.verdict(goTo(chains.sourceRanges)),
        ),
      ]),
      chain(chains.sourceRanges, sourceRangeRules(family, sourceRangeLengths)),
      chain(chains.services, [
        rule(stage(maps.serviceIPs, f.service), toClass),
        rule(toNodePortAddress(options, false), stage(maps.serviceNodePorts, f.nodePort), toClass),
      ]),
      chain(chains.servicesCheck, [
        rule(loadFields(f.service, 0), expr.lookup(sets.droppedIPs, 0), expr.verdict(drop)),
        rule(loadFields(f.service, 0), expr.lookup(sets.rejectedIPs, 0), reject),
      ]),
      chain(chains.nodePortsCheck, [
        rule(
          toNodePortAddress(options, true),
          loadFields(f.nodePort, 0),
          expr.lookup(sets.droppedNodePorts, 0),
          expr.verdict(drop),
        ),
        rule(
          toNodePortAddress(options, true),
          loadFields(f.nodePort, 0),
          expr.lookup(sets.rejectedNodePorts, 0),
          reject,
        ),
      ]),
      chain(chains.clusterIPsCheck, [
        rule(loadFields([f.daddr], 0), expr.lookup(sets.clusterIPs, 0), reject),
        rule(loadFields([f.daddr], 0), expr.lookup(sets.serviceCIDRs, 0), expr.verdict(drop)),
      ]),
      chain(chains.masquerading, [
        // The number of an affinity decision has done its work: nothing may reach the queueing disciplines.
        rule(
          ctStatusDnat,
          expr.meta('priority', 0),
          expr.bitwise(0, 0, word(0x80000000), zero),
          expr.cmp('neq', 0, zero),
          resetPriority,
        ),
        masqueradeMarked(mark),
        rule(ctStatusDnat, loadFields([f.saddr, ...f.service], 0), expr.lookup(sets.hairpin, 0), masquerade),
      ]),
      ...externalLocal(f.service, {
        main: chains.externalLocal,
        pod: chains.externalLocalPod,
        host: chains.externalLocalHost,
        local: maps.localIPs,
        shortCircuit: maps.shortCircuitIPs,
      }),
      ...externalLocal(f.nodePort, {
        main: chains.nodePortLocal,
        pod: chains.nodePortLocalPod,
        host: chains.nodePortLocalHost,
        local: maps.localNodePorts,
        shortCircuit: maps.shortCircuitNodePorts,
      }),
      chain(chains.filterPreroutingPreDnat, [jumpIfNew(chains.firewallCheck)], baseChain('prerouting', -110)),
      chain(chains.filterOutputPreDnat, [jumpIfNew(chains.firewallCheck)], baseChain('output', -110)),
      chain(
        chains.filterInput,
        [...loopbackGuard(options), jumpIfNew(chains.nodePortsCheck), jumpIfNew(chains.servicesCheck)],
        baseChain('input', 0),
      ),
      chain(
        chains.filterForward,
        [jumpIfNew(chains.servicesCheck), jumpIfNew(chains.clusterIPsCheck)],
        baseChain('forward', 0),
      ),
      chain(
        chains.filterOutput,
        [jumpIfNew(chains.servicesCheck), jumpIfNew(chains.clusterIPsCheck)],
        baseChain('output', 0),
      ),
      chain(chains.natPrerouting, [jump(chains.services)], baseChain('prerouting', -100, 'nat')),
      chain(
        chains.natOutput,
        [jump(chains.services), ...localhostNodePortRules(options)],
        baseChain('output', -100, 'nat'),
      ),
      chain(chains.natPostrouting, [jump(chains.masquerading)], baseChain('postrouting', 100, 'nat')),
      ...loopbackStandIn(options),
    ],
  };
}

// ---- class chains

interface ClassTraits {
  readonly nodePort: boolean;
  readonly local: boolean;
  readonly masquerade: 'always' | 'non-pods' | 'never';
}

const traits: Readonly<Record<ClassKind, ClassTraits>> = {
  cluster: { nodePort: false, local: false, masquerade: 'non-pods' },
  'cluster-local': { nodePort: false, local: true, masquerade: 'non-pods' },
  external: { nodePort: false, local: false, masquerade: 'always' },
  pick: { nodePort: false, local: false, masquerade: 'never' },
  'pick-local': { nodePort: false, local: true, masquerade: 'never' },
  nodeport: { nodePort: true, local: false, masquerade: 'always' },
  'nodeport-pick': { nodePort: true, local: false, masquerade: 'never' },
  'nodeport-pick-local': { nodePort: true, local: true, masquerade: 'never' },
};

export function classRules(options: DataplaneOptions, of: ServiceClass): RuleDefinition[] {
  const trait = traits[of.kind];
  return [
    ...masqueradeRules(options, trait.masquerade),
    ...(of.affinitySeconds === 0 ? draw(options, of, trait) : stick(options, of, trait)),
  ];
}

function masqueradeRules(options: DataplaneOptions, when: ClassTraits['masquerade']): RuleDefinition[] {
  const mark = setMark(options.masqueradeMark);
  const { saddr } = fieldsOf(options.family);
  if (when === 'never') return [];
  if (when === 'always' || options.masqueradeAll) return [rule(mark)];
  return options.detector === undefined ? [] : [rule(sourceIsPod(options.detector, saddr, 'neq'), mark)];
}

/** `dnat to` the address and port that a map lookup has left in the registers from r0. */
function dnatTo(options: DataplaneOptions): Expression {
  const { daddr } = fieldsOf(options.family);
  return expr.dnat(nftFamily(options.family), { address: 0, port: registerAfter(0, daddr.length) });
}

/** Without affinity: one lookup with a random slot. */
function draw(options: DataplaneOptions, of: ServiceClass, trait: ClassTraits): RuleDefinition[] {
  const f = fieldsOf(options.family);
  const key = [...(trait.nodePort ? f.nodePort : f.service), selectors.numgenRandom(of.endpoints)];
  const map = slotMap(of.kind);
  return [rule(resetPriority, loadFields(key, 0), expr.lookup(map, 0, { dreg: 0 }), dnatTo(options))];
}

/**
 * With affinity, all over `meta priority`: the number of the service port, then the remembered endpoint of this
 * client, then, if that one is gone or none is remembered, a new one, which is remembered.
 */
function stick(options: DataplaneOptions, of: ServiceClass, trait: ClassTraits): RuleDefinition[] {
  const f = fieldsOf(options.family);
  const slots = trait.local ? maps.affinitySlotsLocal : maps.affinitySlots;
  const endpoints = trait.local ? maps.affinityEndpointsLocal : maps.affinityEndpoints;
  const serviceOnly = word(0xffff0000);
  const afterAddress = registerAfter(0, f.saddr.length);
  const afterKey = registerAfter(afterAddress, f.priority.length);

  /** `{ ip saddr . meta priority & ffff:0 : meta priority }` */
  const remembered: Expression[] = [
    ...loadFields([f.saddr, f.priority], 0),
    expr.bitwise(afterAddress, afterAddress, serviceOnly, zero),
    ...loadFields([f.priority], afterKey),
  ];
  const update = expr.dynset('update', maps.affinity, 0, {
    data: afterKey,
    timeoutMs: of.affinitySeconds * 1000,
  });
  const forget = expr.dynset('delete', maps.affinity, 0, { data: afterKey });
  const first: Register = 0;
  const dnat = rule(
    loadFields([f.priority], first),
    expr.lookup(endpoints, first, { dreg: first }),
    dnatTo(options),
  );

  return [
    rule(
      stage(
        trait.nodePort ? maps.affinityNodePorts : maps.affinityIPs,
        trait.nodePort ? f.nodePort : f.service,
      ),
    ),
    rule(stage(maps.affinity, [f.saddr, f.priority]), remembered, update),
    dnat,
    rule(
      expr.meta('priority', 0),
      expr.bitwise(0, 0, serviceOnly, zero),
      expr.numgen('random', of.endpoints, 1),
      expr.lookup(slots, 0, { dreg: 0 }),
      setPriority,
    ),
    // "update" leaves the data of an element that exists: a stale one has to go first.
    rule(remembered, forget, remembered, update),
    dnat,
  ];
}
