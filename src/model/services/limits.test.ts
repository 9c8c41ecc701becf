/** Objects that ask for more than a node can give, and addresses that no endpoint can have. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { specialUse } from '../addresses/addresses.js';
import { clusterIP, deliver, endpoint, newModel, port, service, slice, vip } from '../fixtures.js';
import { maxPortTargets, maxServiceAddresses, maxServiceTargets, maxSlicePairs } from './limits.js';
import type { ModelChanges, ServicePort } from '../types.js';

const many = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));
const ip = (index: number): string => `10.${61 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`;
const ports = (count: number) => many(count, (i) => port({ name: `p${i}`, port: i + 1 }));
const slicePorts = (count: number) =>
  many(count, (i) => ({ name: `p${i}`, protocol: 'TCP' as const, port: i + 1 }));

function told({ problems }: ModelChanges): string[] {
  return problems.map(
    ({ aspect, kind, name, problems: [first] }) =>
      `${aspect} ${kind} ${name}: ${first?.message ?? 'in order'}`,
  );
}

function targets(all: Iterable<ServicePort>): number {
  let sum = 0;
  for (const { addresses, clusterEndpoints } of all) sum += addresses.length * clusterEndpoints.length;
  return sum;
}

test('a slice of many endpoints and ports is cut to what a slice may have, and mended by a smaller one', () => {
  const model = newModel();
  deliver(
    model,
    service({ ports: ports(1000) }),
    slice(
      many(1000, (i) => endpoint(ip(i))),
      { ports: slicePorts(1000) },
    ),
  );
  assert.deepEqual(told(model.takeChanges()), [
    'fields EndpointSlice pear-1: 1000 endpoints with 1000 ports each are too many; 100 are used',
  ]);
  assert.equal(targets(model.servicePorts('IPv4')), maxSlicePairs);
  deliver(
    model,
    slice(
      many(100, (i) => endpoint(ip(i))),
      { ports: slicePorts(1000) },
    ),
  );
  assert.deepEqual(told(model.takeChanges()), ['fields EndpointSlice pear-1: in order']);
});

test('many slices together are cut to what a Service may have', () => {
  const model = newModel();
  deliver(
    model,
    service({ ports: ports(100) }),
    ...many(10, (k) =>
      slice(
        many(1000, (i) => endpoint(ip(k * 1000 + i))),
        { name: `s${k}`, ports: slicePorts(100) },
      ),
    ),
  );
  assert.deepEqual(told(model.takeChanges()), [
    'size Service pear: too many addresses, ports and endpoints for one Service; of each port 5242 are used',
  ]);
  assert.ok(targets(model.servicePorts('IPv4')) <= maxServiceTargets);
  model.setService('default/pear', undefined);
  assert.deepEqual(told(model.takeChanges()), ['size Service pear: in order']);
});

test('many addresses: ports and endpoints are cut, each address stays', () => {
  const model = newModel();
  const externalIPs = many(10_000, (i) => `203.${i >> 8}.113.${i & 255}`);
  deliver(
    model,
    service({ ports: ports(10), externalIPs }),
    slice(
      many(1000, (i) => endpoint(ip(i))),
      { ports: slicePorts(10) },
    ),
  );
  const changes = model.takeChanges();
  assert.deepEqual(told(changes), [
    'fields Service pear: 10 ports on 10001 addresses each are too many; 4 are used',
    'size Service pear: too many addresses, ports and endpoints for one Service; of each port 13 are used',
  ]);
  const all = [...model.servicePorts('IPv4')];
  assert.equal(all.length, 4);
  for (const one of all) {
    assert.equal(one.addresses.length, 10_001);
    assert.ok(one.addresses.length * one.clusterEndpoints.length <= maxPortTargets);
  }
  assert.ok(all.reduce((sum, { addresses }) => sum + addresses.length, 0) <= maxServiceAddresses);
});

test('source ranges beyond what the addresses leave room for let nobody in', () => {
  const model = newModel();
  deliver(
    model,
    service({
      type: 'LoadBalancer',
      ports: ports(100),
      loadBalancerIngress: [vip('192.0.2.9'), vip('192.0.2.10')],
      loadBalancerSourceRanges: many(10_000, (i) => `${ip(i)}/32`),
    }),
    slice([endpoint('10.61.1.1')], { ports: slicePorts(100) }),
  );
  assert.deepEqual(told(model.takeChanges()), [
    'fields Service pear: 10000 ranges for 200 addresses and ports are too many; 655 are used',
  ]);
  for (const { addresses } of model.servicePorts('IPv4'))
    assert.equal(addresses[1]?.sourceRanges?.length, 655);
});

test('an ordinary large Service is not cut', () => {
  const model = newModel();
  deliver(
    model,
    service({ type: 'LoadBalancer', ports: ports(10).map((p, i) => ({ ...p, nodePort: 31_000 + i })) }),
    ...many(5, (k) =>
      slice(
        many(1000, (i) => endpoint(ip(k * 1000 + i))),
        { name: `s${k}`, ports: slicePorts(10) },
      ),
    ),
  );
  assert.deepEqual(told(model.takeChanges()), []);
  assert.equal(targets(model.servicePorts('IPv4')), 10 * 2 * 5000);
});

const special: readonly (readonly [ip: string, what: string | undefined])[] = [
  ['0.0.0.0', 'unspecified'],
  ['0.1.2.3', 'unspecified'],
  ['127.0.0.1', 'a loopback address'],
  ['127.255.1.2', 'a loopback address'],
  ['169.254.169.254', 'a link-local address'],
  ['169.253.1.1', undefined],
  ['224.0.0.1', 'a multicast address'],
  ['239.1.2.3', 'a multicast address'],
  ['255.255.255.255', 'the broadcast address'],
  ['240.0.0.1', undefined],
  ['255.255.255.254', undefined],
  ['223.255.255.255', undefined],
  ['24.0.0.1', undefined],
  ['2.2.2.2', undefined],
  ['10.61.1.1', undefined],
  ['::', 'unspecified'],
  ['::1', 'a loopback address'],
  ['::2', undefined],
  ['fe80::1', 'a link-local address'],
  ['febf::1', 'a link-local address'],
  ['fec0::1', undefined],
  ['ff02::1', 'a multicast address'],
  ['ff::1', undefined],
  ['fd00::1', undefined],
];
for (const [address, what] of special) {
  test(`${address} is ${what ?? 'an ordinary address'}`, () => {
    assert.equal(specialUse(address), what);
  });
}

test('endpoints and virtual addresses that can not be are left out; the others serve', () => {
  const model = newModel();
  const bad = ['127.0.0.1', '0.0.0.0', '169.254.169.254', '224.0.0.1', '255.255.255.255'];
  deliver(
    model,
    service({ externalIPs: ['127.0.0.1', '0.0.0.0', '203.0.113.9'] }),
    slice([...bad, '10.61.1.1', '::ffff:10.61.1.2', '010.061.001.003'].map((address) => endpoint(address))),
    clusterIP('127.0.0.1', { name: 'fig' }),
  );
  const { problems } = model.takeChanges();
  assert.deepEqual(
    problems.map(({ name, problems: list }) => `${name}: ${list.map(({ field }) => field).join(' ')}`),
    [
      'pear: spec.externalIPs[0] spec.externalIPs[1]',
      'pear-1: endpoints[0].addresses[0] endpoints[1].addresses[0] endpoints[2].addresses[0] endpoints[3].addresses[0] endpoints[4].addresses[0]',
      'fig: spec.clusterIPs[0]',
    ],
  );
  const all = [...model.servicePorts('IPv4')];
  assert.deepEqual(
    all.map(({ addresses }) => addresses.map((address) => address.ip)),
    [['10.177.0.50', '203.0.113.9']],
  );
  assert.deepEqual(
    all[0]?.clusterEndpoints.map((each) => each.ip),
    ['10.61.1.1', '10.61.1.2', '10.61.1.3'],
  );
});

test('of too many endpoints those of this node are kept, in one slice and in many together', () => {
  const own = { nodeName: 'alder' };
  const model = newModel();
  const eps = many(1000, (i) => endpoint(ip(i), i >= 990 ? own : { nodeName: 'birch' }));
  deliver(
    model,
    service({ internalTrafficPolicy: 'Local', ports: ports(1000) }),
    slice(eps, { ports: slicePorts(1000) }),
  );
  model.takeChanges();
  for (const { localEndpoints } of model.servicePorts('IPv4')) assert.equal(localEndpoints.length, 10);

  const together = newModel();
  deliver(
    together,
    service({
      type: 'NodePort',
      internalTrafficPolicy: 'Local',
      ports: many(100, (i) => port({ name: `p${i}`, port: i + 1, nodePort: 30_000 + i })),
    }),
    ...many(10, (k) =>
      slice(
        many(1000, (i) => endpoint(ip(k * 1000 + i), k === 9 && i >= 990 ? own : { nodeName: 'birch' })),
        { name: `pear-${k}`, ports: slicePorts(100) },
      ),
    ),
  );
  together.takeChanges();
  for (const { localEndpoints, clusterEndpoints } of together.servicePorts('IPv4')) {
    assert.equal(localEndpoints.length, 10);
    assert.ok(clusterEndpoints.length < 10_000);
    const texts = clusterEndpoints.map((each) => `${each.ip}:${each.port}`);
    assert.deepEqual(texts, [...texts].sort(), 'in order as ever');
  }
});
