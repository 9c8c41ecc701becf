/** The table of leads against the rules: whatever a packet looks up later than something else is known to be led to. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Expression } from '@kube-proxy-ts/netlink/nftables';
import type { DataplaneOptions } from '../../backend.js';
import { isByService } from '../kernel/consistency-check.js';
import type { ClassKind } from '../layout/classes.js';
import { baseObjects, classRules } from '../layout/layout.js';
import { isLed, leads, sourceRanges } from './in-flight-lookups.js';
import { chains, maps, sets } from '../layout/names.js';

const options: DataplaneOptions = {
  family: 'IPv4',
  masqueradeMark: 0x4000,
  masqueradeAll: false,
  detector: { kind: 'cidr', cidr: { ip: '10.61.0.0', prefixLength: 16 } },
  nodePortAddresses: [],
};
const kinds: readonly ClassKind[] = [
  'cluster',
  'cluster-local',
  'external',
  'pick',
  'pick-local',
  'nodeport',
  'nodeport-pick',
  'nodeport-pick-local',
];

/** Names of sets and chains that an expression mentions. */
function names(expression: Expression): string[] {
  const found: string[] = [];
  const visit = (value: unknown): void => {
    if (typeof value === 'string') found.push(value);
    else if (typeof value === 'object' && value !== null && !ArrayBuffer.isView(value))
      Object.values(value).forEach(visit);
  };
  visit(expression);
  return found;
}

const base = baseObjects(options, [24]);
const rulesOf = new Map<string, readonly Expression[]>(
  base.chains.map(({ name, rules }) => [name, rules.flatMap(({ expressions }) => expressions)]),
);
for (const kind of kinds) {
  for (const affinitySeconds of [0, 600]) {
    const rules = classRules(options, { kind, endpoints: 3, affinitySeconds });
    rulesOf.set(
      `${kind} ${affinitySeconds}`,
      rules.flatMap(({ expressions }) => expressions),
    );
  }
}
const mapNames = new Set<string>([...base.sets.map(({ name }) => name), 'source-ranges-24']);

/** Chains that a verdict map may lead to. */
function chainsOf(map: string): string[] {
  const picks = map === maps.pickClasses;
  if (!picks && map !== maps.classes) return [];
  const own = [...rulesOf.keys()].filter((name) => name.includes(' ') && name.includes('pick') === picks);
  return picks ? own : [...own, chains.externalLocal, chains.nodePortLocal];
}

/** Sets in the order in which the rules of a chain, and those that they lead to, look them up. */
function lookups(chain: string, before: readonly string[], found: Set<string>): void {
  let path = [...before];
  for (const expression of rulesOf.get(chain) ?? []) {
    for (const name of names(expression)) {
      if (mapNames.has(name)) {
        for (const earlier of path) found.add(`${earlier} > ${name}`);
        path = [...path, name];
        for (const next of chainsOf(name)) lookups(next, path, found);
      } else if (rulesOf.has(name) && name !== chain) {
        lookups(name, path, found);
      }
    }
  }
}

const plain = (set: string): string => (set.startsWith('source-ranges-') ? sourceRanges : set);

test('every lookup behind another one is in the table, and nothing else', () => {
  const found = new Set<string>();
  for (const { name, base: hook } of base.chains) if (hook !== undefined) lookups(name, [], found);
  const later = new Set(
    [...found].map((pair) => pair.split(' > ')[1] ?? '').filter((set) => isByService(set)),
  );
  // Across hooks: what nat did not find is refused behind it, what it translated to itself is masqueraded.
  for (const set of [
    sets.droppedIPs,
    sets.rejectedIPs,
    sets.droppedNodePorts,
    sets.rejectedNodePorts,
    sets.hairpin,
  ])
    later.add(set);
  // A node port is looked for where there is no such address: the packet is not led there by it. Cluster IPs are the
  // last word on what nobody serves.
  for (const set of [maps.serviceIPs, maps.serviceNodePorts, sets.clusterIPs]) {
    later.delete(set);
    assert.equal(isLed(set), false, set);
  }
  for (const set of later) assert.ok(isLed(set), set);
  const known = Object.entries(leads).flatMap(([set, led]) => led.map((to) => `${set} > ${to}`));
  const pairs = new Set([...found].map((pair) => pair.split(' > ').map(plain).join(' > ')));
  const acrossHooks = new Set<string>([
    sets.droppedIPs,
    sets.rejectedIPs,
    sets.droppedNodePorts,
    sets.rejectedNodePorts,
    sets.hairpin,
  ]);
  for (const pair of known) {
    if (!acrossHooks.has(pair.split(' > ')[1] ?? '')) assert.ok(pairs.has(pair), `${pair} is in no rule`);
  }
});
