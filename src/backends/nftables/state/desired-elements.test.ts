/** What a service port puts into the kernel, as a table: the service port in shorthand, its elements as nft names them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Cidr, Endpoint, Fallback, ServicePort, VirtualAddress } from '../../../model/types.js';
import { ClassNumbers } from '../layout/classes.js';
import { numberedElements } from '../kernel/consistency-check.js';
import { EndpointNumbers } from '../affinity/endpoint-numbers.js';
import { desiredElements, hairpinsOf, type ServicePortState } from './desired-elements.js';
import { elementComment, slotValue } from './elements.js';
import { addressText, readHostUint32 } from '../../nft/keys.js';

const pods: Readonly<Record<string, Endpoint>> = {
  L1: { ip: '10.61.1.31', port: 9000, local: true, nodeUnknown: false },
  L2: { ip: '10.61.1.32', port: 9000, local: true, nodeUnknown: false },
  R1: { ip: '10.61.2.41', port: 9000, local: false, nodeUnknown: false },
  U1: { ip: '10.61.9.51', port: 9000, local: false, nodeUnknown: true },
};

function list(names: string): Endpoint[] {
  return names.split(' ').flatMap((name) => pods[name] ?? []);
}

const ip: Readonly<Record<string, string>> = {
  ClusterIP: '10.177.0.50',
  ExternalIP: '203.0.113.50',
  LoadBalancerIP: '192.0.2.50',
  NodePort: '',
};

/** 'ClusterIP', 'NodePort/Local/drop', 'LoadBalancerIP from 198.51.100.7/24'. */
function address(text: string): VirtualAddress {
  const [what = '', ranges] = text.split(' from ');
  const [kind = '', policy = 'Cluster', fallback = 'serve'] = what.split('/');
  const sourceRanges = ranges?.split(',').map((cidr): Cidr => {
    const [network = '', length] = cidr.split('/');
    return { ip: network, prefixLength: Number(length) };
  });
  return {
    kind: kind as VirtualAddress['kind'],
    ip: ip[kind] ?? '',
    port: kind === 'NodePort' ? 31_050 : 80,
    scope: kind === 'ClusterIP' ? 'internal' : 'external',
    policy: policy as 'Cluster' | 'Local',
    fallback: fallback as Fallback,
    sourceRanges: ranges === '' ? [] : sourceRanges,
  };
}

interface Given {
  readonly addresses: readonly string[];
  readonly cluster?: string;
  readonly local?: string;
  readonly affinity?: number;
}

function state({ addresses, cluster = '', local = '', affinity = 0 }: Given): ServicePortState {
  const port: ServicePort = {
    key: 'default/pear:http/TCP',
    name: 'default/pear:http',
    namespace: 'default',
    serviceName: 'pear',
    family: 'IPv4',
    protocol: 'TCP',
    clusterIP: '10.177.0.50',
    port: 80,
    addresses: addresses.map(address),
    clusterEndpoints: list(cluster),
    localEndpoints: list(local),
    affinitySeconds: affinity,
    servingEndpoints: [],
  };
  const all = [...new Set([...list(cluster), ...list(local)])];
  const minors = (endpoints: readonly Endpoint[]): Uint16Array =>
    Uint16Array.from(endpoints, (endpoint) => all.indexOf(endpoint) + 1);
  const { clusterEndpoints: clusterSlots, localEndpoints: localSlots } = port;
  return {
    port,
    clusterSlots,
    localSlots,
    affinity:
      affinity === 0
        ? undefined
        : {
            service: 0x8005,
            numbers: new EndpointNumbers(),
            clusterMinors: minors(clusterSlots),
            localMinors: minors(localSlots),
          },
    hairpins: hairpinsOf('TCP', clusterSlots, localSlots),
  };
}

const text16 = (n: number): string => n.toString(16);
const number = (bytes: string): string => {
  const value = readHostUint32(bytes);
  return `${text16(value >>> 16)}:${text16(value & 0xffff)}`;
};
const portText = (bytes: string): string => String((bytes.charCodeAt(0) << 8) | bytes.charCodeAt(1));

/** Fields of four bytes, as nft prints them. */
function keyText(set: string, key: string): string {
  const at = (field: number): string => key.slice(4 * field, 4 * field + 4);
  const service = (field: number): string =>
    `${addressText(at(field))} . ${at(field + 1).charCodeAt(0) === 6 ? 'tcp' : '?'} . ${portText(at(field + 2))}`;
  if (set === 'cluster-ips') return addressText(key);
  if (set === 'hairpin-connections' || set.startsWith('source-ranges'))
    return `${addressText(at(0))} . ${service(1)}`;
  if (/^affinity-(slots|endpoints)/.test(set)) return number(key);
  if (set.includes('nodeport')) return `tcp . ${portText(at(1))}`;
  return service(0);
}

function valueText(value: string | undefined): string {
  if (value === undefined) return '';
  return ` : ${value.length === 4 ? number(value) : `${addressText(value.slice(0, 4))} . ${portText(value.slice(4))}`}`;
}

function print(given: Given): string[] {
  const { elements, blocks, numbered, shared } = desiredElements(state(given), new ClassNumbers());
  const lines: string[] = [];
  for (const { set, key, value, comment } of [
    ...elements,
    ...numbered.flatMap((list) => [...numberedElements(list)]),
    ...shared,
  ]) {
    lines.push(
      `${set}: ${keyText(set, key)}${comment === undefined ? '' : ` (${comment})`}${valueText(value)}`,
    );
  }
  for (const block of blocks.values()) {
    block.slots.forEach((_, slot) => {
      lines.push(
        `${block.set}: ${keyText(block.set, block.prefix)} . ${slot}${valueText(slotValue(block, slot))}`,
      );
    });
  }
  return lines.sort();
}

const common = ['cluster-ips: 10.177.0.50'];
const L1 = '10.61.1.31 . 9000';
const R1 = '10.61.2.41 . 9000';
const hairpinL1 = 'hairpin-connections: 10.61.1.31 . 10.61.1.31 . tcp . 9000';
const whose = '(default/pear:http)';
const cases: [what: string, given: Given, elements: string[]][] = [
  [
    'a cluster IP',
    { addresses: ['ClusterIP'], cluster: 'L1 R1' },
    [
      `service-ips: 10.177.0.50 . tcp . 80 ${whose} : 1:2`,
      `endpoints: 10.177.0.50 . tcp . 80 . 0 : ${L1}`,
      `endpoints: 10.177.0.50 . tcp . 80 . 1 : ${R1}`,
      hairpinL1,
    ],
  ],
  [
    'no endpoints: rejected',
    { addresses: ['ClusterIP/Cluster/reject'] },
    [`rejected-ips: 10.177.0.50 . tcp . 80 ${whose}`],
  ],
  [
    'internal policy Local',
    { addresses: ['ClusterIP/Local'], cluster: 'L1 R1', local: 'L1' },
    [
      `service-ips: 10.177.0.50 . tcp . 80 ${whose} : 2:1`,
      `endpoints-local: 10.177.0.50 . tcp . 80 . 0 : ${L1}`,
      hairpinL1,
    ],
  ],
  [
    'internal policy Local, none here: dropped',
    { addresses: ['ClusterIP/Local/drop'], cluster: 'R1' },
    [`dropped-ips: 10.177.0.50 . tcp . 80 ${whose}`],
  ],
  [
    'an external IP',
    { addresses: ['ExternalIP'], cluster: 'R1' },
    [`service-ips: 203.0.113.50 . tcp . 80 ${whose} : 3:1`, `endpoints: 203.0.113.50 . tcp . 80 . 0 : ${R1}`],
  ],
  [
    'external policy Local: who is asking?',
    { addresses: ['LoadBalancerIP/Local'], cluster: 'L1 R1', local: 'L1' },
    [
      `service-ips: 192.0.2.50 . tcp . 80 ${whose} : f00:1`,
      'short-circuit-ips: 192.0.2.50 . tcp . 80 : 4:2',
      'local-ips: 192.0.2.50 . tcp . 80 : 5:1',
      `endpoints: 192.0.2.50 . tcp . 80 . 0 : ${L1}`,
      `endpoints: 192.0.2.50 . tcp . 80 . 1 : ${R1}`,
      `endpoints-local: 192.0.2.50 . tcp . 80 . 0 : ${L1}`,
      hairpinL1,
    ],
  ],
  [
    'external policy Local, none here: pods may, others are dropped',
    { addresses: ['LoadBalancerIP/Local/drop'], cluster: 'R1' },
    [
      `service-ips: 192.0.2.50 . tcp . 80 ${whose} : f00:1`,
      'short-circuit-ips: 192.0.2.50 . tcp . 80 : 4:1',
      `endpoints: 192.0.2.50 . tcp . 80 . 0 : ${R1}`,
      `dropped-ips: 192.0.2.50 . tcp . 80 ${whose}`,
    ],
  ],
  [
    'external policy Local, none anywhere: rejected',
    { addresses: ['LoadBalancerIP/Local/reject'] },
    [`rejected-ips: 192.0.2.50 . tcp . 80 ${whose}`],
  ],
  [
    'a node port',
    { addresses: ['NodePort'], cluster: 'R1' },
    [`service-nodeports: tcp . 31050 ${whose} : 6:1`, `nodeport-endpoints: tcp . 31050 . 0 : ${R1}`],
  ],
  [
    'a node port with policy Local',
    { addresses: ['NodePort/Local'], cluster: 'L1 R1', local: 'L1' },
    [
      `service-nodeports: tcp . 31050 ${whose} : f00:2`,
      'short-circuit-nodeports: tcp . 31050 : 7:2',
      'local-nodeports: tcp . 31050 : 8:1',
      `nodeport-endpoints: tcp . 31050 . 0 : ${L1}`,
      `nodeport-endpoints: tcp . 31050 . 1 : ${R1}`,
      `nodeport-endpoints-local: tcp . 31050 . 0 : ${L1}`,
      hairpinL1,
    ],
  ],
  [
    'a node port without endpoints',
    { addresses: ['NodePort/Cluster/reject'] },
    [`rejected-nodeports: tcp . 31050 ${whose}`],
  ],
  [
    'a node port without endpoints here',
    { addresses: ['NodePort/Local/drop'], cluster: 'R1' },
    [
      `service-nodeports: tcp . 31050 ${whose} : f00:2`,
      'short-circuit-nodeports: tcp . 31050 : 7:1',
      `nodeport-endpoints: tcp . 31050 . 0 : ${R1}`,
      `dropped-nodeports: tcp . 31050 ${whose}`,
    ],
  ],
  [
    'source ranges: host bits cleared, one set per length',
    { addresses: ['LoadBalancerIP from 198.51.100.7/24,203.0.113.9/32'], cluster: 'R1' },
    [
      `service-ips: 192.0.2.50 . tcp . 80 ${whose} : 3:1`,
      `endpoints: 192.0.2.50 . tcp . 80 . 0 : ${R1}`,
      `firewall-ips: 192.0.2.50 . tcp . 80 ${whose}`,
      'source-ranges-24: 198.51.100.0 . 192.0.2.50 . tcp . 80',
      'source-ranges-32: 203.0.113.9 . 192.0.2.50 . tcp . 80',
    ],
  ],
  [
    'no source range at all: nobody may',
    { addresses: ['LoadBalancerIP from '], cluster: 'R1' },
    [
      `service-ips: 192.0.2.50 . tcp . 80 ${whose} : 3:1`,
      `endpoints: 192.0.2.50 . tcp . 80 . 0 : ${R1}`,
      `firewall-ips: 192.0.2.50 . tcp . 80 ${whose}`,
    ],
  ],
  [
    'affinity: all addresses share one number, endpoints have numbers of their own',
    { addresses: ['ClusterIP', 'NodePort'], cluster: 'L1 R1', affinity: 600 },
    [
      `service-ips: 10.177.0.50 . tcp . 80 ${whose} : 1000:2`,
      `service-nodeports: tcp . 31050 ${whose} : 1001:2`,
      `affinity-ips: 10.177.0.50 . tcp . 80 ${whose} : 8005:0`,
      `affinity-nodeports: tcp . 31050 ${whose} : 8005:0`,
      'affinity-slots: 8005:0 . 0 : 8005:1',
      'affinity-slots: 8005:0 . 1 : 8005:2',
      `affinity-endpoints: 8005:1 : ${L1}`,
      `affinity-endpoints: 8005:2 : ${R1}`,
      hairpinL1,
    ],
  ],
  [
    'affinity and policy Local: an endpoint has the same number in both lists',
    { addresses: ['LoadBalancerIP/Local'], cluster: 'R1 L1', local: 'L1', affinity: 600 },
    [
      `service-ips: 192.0.2.50 . tcp . 80 ${whose} : f00:1`,
      'short-circuit-ips: 192.0.2.50 . tcp . 80 : 1000:2',
      'local-ips: 192.0.2.50 . tcp . 80 : 1001:1',
      `affinity-ips: 192.0.2.50 . tcp . 80 ${whose} : 8005:0`,
      'affinity-slots: 8005:0 . 0 : 8005:1',
      'affinity-slots: 8005:0 . 1 : 8005:2',
      'affinity-slots-local: 8005:0 . 0 : 8005:2',
      `affinity-endpoints: 8005:1 : ${R1}`,
      `affinity-endpoints: 8005:2 : ${L1}`,
      `affinity-endpoints-local: 8005:2 : ${L1}`,
      hairpinL1,
    ],
  ],
  [
    'all addresses lost to others, with affinity: only the cluster IP',
    { addresses: [], cluster: 'R1', affinity: 600 },
    [],
  ],
  [
    'an endpoint whose node is not known may be here',
    { addresses: [], cluster: 'U1 R1' },
    ['hairpin-connections: 10.61.9.51 . 10.61.9.51 . tcp . 9000'],
  ],
];

for (const [what, given, elements] of cases) {
  test(what, () => {
    assert.deepEqual(print(given), [...elements, ...common].sort());
  });
}

test('a class is named once per element that leads to it', () => {
  const { classes } = desiredElements(
    state({ addresses: ['ClusterIP', 'ExternalIP'], cluster: 'R1' }),
    new ClassNumbers(),
  );
  assert.deepEqual(
    classes.map(({ kind, endpoints }) => `${kind}-${endpoints}`),
    ['cluster-1', 'external-1'],
  );
});

test('a hostile number of endpoints is cut to what a class can count', () => {
  const many = Array.from({ length: 70_000 }, (_, i) => ({
    ip: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`,
    port: 1,
    local: false,
    nodeUnknown: false,
  }));
  const given = state({ addresses: ['ClusterIP'] });
  const { classes, blocks } = desiredElements({ ...given, clusterSlots: many }, new ClassNumbers());
  assert.equal(classes[0]?.endpoints, 65_535);
  assert.equal([...blocks.values()][0]?.slots.length, 65_535);
});

test('comments are cut to the 128 bytes that nft accepts', () => {
  assert.equal(elementComment('a/b:c'), 'a/b:c');
  assert.equal(elementComment('x'.repeat(128)), 'x'.repeat(128));
  assert.equal(elementComment('x'.repeat(129)), `${'x'.repeat(125)}...`);
});
