/** What is asked of the kernel, without one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compareEndpoints } from '../model/endpoints/slice.js';
import type { AddressKind, Protocol, ServicePort } from '../model/types.js';
import { formatAddress } from '@kube-proxy-ts/netlink';
import { Candidates } from './candidates.js';
import { affordableFilters, queriesFor, possiblyStale, type TableSize } from './queries.js';

const numbers = { TCP: 6, UDP: 17, SCTP: 132 } as const;
const candidates = (protocol: Protocol): Candidates =>
  new Candidates({
    protocol,
    number: numbers[protocol],
    delayMs: 0,
    rest: 0,
    maxRestMs: 0,
    retireAfterMs: 0,
  });

/** Addresses as 'ip:port', ':port' for a node port; endpoints by the last number of their address. */
function port(protocol: Protocol, addresses: readonly string[], endpoints: readonly number[]): ServicePort {
  const ip = (n: number): string => `10.61.0.${n}`;
  return {
    key: 'a/b:c',
    name: 'a/b:c',
    namespace: 'a',
    serviceName: 'b',
    family: 'IPv4',
    protocol,
    clusterIP: '10.96.0.1',
    port: 53,
    addresses: addresses.map((address) => {
      const [to = '', number = ''] = address.split(':');
      const kind: AddressKind = to === '' ? 'NodePort' : 'ExternalIP';
      return {
        kind,
        ip: to,
        port: Number(number),
        scope: 'external',
        policy: 'Cluster',
        fallback: 'serve',
        sourceRanges: undefined,
      };
    }),
    clusterEndpoints: endpoints.map((n) => ({ ip: ip(n), port: 90, local: false, nodeUnknown: false })),
    localEndpoints: [],
    affinitySeconds: 0,
    servingEndpoints: protocol === 'TCP' ? [] : endpoints.map((n) => `${ip(n)}:90`),
  };
}

const portX = '10.96.0.1:53';
const portY = '203.0.113.1:53';

test('what may be stale about a service port', () => {
  const udp = (addresses: readonly string[], ...endpoints: readonly number[]): ServicePort =>
    port('UDP', addresses, endpoints);
  const cases: readonly (readonly [
    name: string,
    versions: readonly ServicePort[],
    now: ServicePort,
    came: readonly string[],
    left: readonly number[],
  ])[] = [
    ['more endpoints', [udp([portX], 1)], udp([portX], 1, 2), [], []],
    ['one less', [udp([portX], 1, 2)], udp([portX], 2), [], [1]],
    ['one that came and went', [udp([portX], 1), udp([portX], 1, 2)], udp([portX], 1), [], [2]],
    ['one that went and came', [udp([portX], 1, 2), udp([portX], 1)], udp([portX], 1, 2), [], []],
    ['the last one', [udp([portX], 1)], udp([portX]), [], [1]],
    ['the first one', [udp([portX])], udp([portX], 1), [portX], []],
    ['none in between', [udp([portX], 1), udp([portX])], udp([portX], 1), [portX], []],
    ['a new address', [udp([portX], 1)], udp([portX, portY], 1), [portY], []],
    ['a new address, no endpoint', [udp([portX])], udp([portX, portY]), [portY], []],
    ['an address less', [udp([portX, portY], 1)], udp([portX], 1), [], []],
    [
      'an address that was away',
      [udp([portX, portY], 1), udp([portX], 1)],
      udp([portX, portY], 1),
      [portY],
      [],
    ],
    ['a node port moves', [udp([portX, ':31000'], 1)], udp([portX, ':31001'], 1), [':31001'], []],
  ];
  for (const [name, versions, now, came, left] of cases) {
    const found = possiblyStale(now, { versions: [...versions], everything: false });
    assert.deepEqual(
      {
        came: found.came.map((address) => `${address.ip}:${address.port}`),
        left: found.left,
      },
      {
        came,
        left: left.map((n) => `10.61.0.${n}:90`),
      },
      name,
    );
  }
  const { came } = possiblyStale(udp([portX, portY]), { versions: [], everything: true });
  assert.equal(came.length, 2, 'nothing is known');
});

/** @returns filters as text */
async function ask(
  protocol: Protocol,
  before: ServicePort | undefined,
  now: ServicePort,
  size: TableSize,
  family: 'IPv4' | 'IPv6' = 'IPv4',
): Promise<string[]> {
  const of = candidates(protocol);
  if (before !== undefined) {
    of.changed(before);
    of.take();
    of.done(0);
  }
  of.changed(now);
  const { filters, whole } = await queriesFor(family, of, of.take(), size);
  return [
    ...filters.map(({ originalDestination: to, replySource: from, unanswered }) => {
      const end = (e: { readonly address?: Buffer; readonly port: number } | undefined): string =>
        e === undefined ? '*' : `${e.address === undefined ? '*' : formatAddress(e.address)}:${e.port}`;
      return `${end(to)} ${end(from)}${unanswered === true ? ' unanswered' : ''}`;
    }),
    ...(whole ? ['whole'] : []),
  ];
}

const crowded: TableSize = { entries: 100_000, buckets: 100_000 };
const many = Array.from({ length: 50 }, (_, i) => i + 1);

test('few questions are asked one by one, many as one', async () => {
  const two = ['10.96.0.1:53', ':31000'];
  const udp = (addresses: readonly string[], endpoints: readonly number[]): ServicePort =>
    port('UDP', addresses, endpoints);
  const cases: readonly (readonly [ServicePort | undefined, ServicePort, readonly string[]])[] = [
    // What an address itself answers was not translated: the packet met the rules while they changed.
    [udp(two, [1, 2]), udp(two, [2]), ['* 10.61.0.1:90', '* 10.96.0.1:53', '* *:31000']],
    [udp(two, many), udp(two, []), ['10.96.0.1:53 *', '*:31000 *']],
    [undefined, udp(two, [1]), ['10.96.0.1:53 *', '*:31000 *']],
    [udp(two, [1]), udp(two, [1, 2]), []],
    [
      undefined,
      udp(
        many.map((n) => `10.96.0.${n}:53`),
        [1],
      ),
      ['* *', 'whole'],
    ],
  ];
  for (const [before, now, expected] of cases)
    assert.deepEqual(await ask('UDP', before, now, crowded), expected);
  assert.deepEqual(
    await ask('UDP', udp([portX], many), udp([portX], [1]), crowded, 'IPv6'),
    ['*:53 *'],
    'the kernel does not compare IPv6 addresses',
  );
});

test('TCP: unanswered ones of the node, reset ones only of few endpoints', async () => {
  const tcp = (...endpoints: readonly number[]): ServicePort => port('TCP', [portX], endpoints);
  const never = '* * unanswered';
  assert.deepEqual(await ask('TCP', undefined, tcp(1), crowded), [never]);
  assert.deepEqual(await ask('TCP', tcp(1, 2), tcp(2), crowded), ['* 10.61.0.1:90', '* 10.96.0.1:53']);
  assert.deepEqual(await ask('TCP', tcp(), tcp(2), crowded), [never]);
  assert.deepEqual(await ask('TCP', tcp(...many), tcp(1), crowded), [never]);
  assert.deepEqual(await ask('TCP', tcp(1), tcp(1, 2), crowded), []);
  assert.deepEqual(await ask('TCP', tcp(1, 2), tcp(2), crowded, 'IPv6'), [never]);
  const small: TableSize = { entries: 100, buckets: 100_000 };
  assert.deepEqual(await ask('TCP', tcp(1, 2), tcp(2), small, 'IPv6'), ['* *:90', '* *:53']);
});

test('the price of reading decides how many questions are too many', () => {
  const size = { entries: 700_000, buckets: 300_000 };
  assert.equal(affordableFilters(size, 0), 1);
  assert.equal(affordableFilters(size, 25_000), 2);
  assert.equal(affordableFilters(size, 250_000), 11);
  assert.equal(affordableFilters({ entries: 0, buckets: 0 }, 0), 1);
});

test('a lane that failed has everything under suspicion as before', () => {
  const of = candidates('UDP');
  const versions = [[1], [1, 2], [2], [3]].map((endpoints) => port('UDP', [portX], endpoints));
  for (const version of versions.slice(0, 3)) of.changed(version);
  const work = of.take();
  for (const version of versions.slice(3)) of.changed(version);
  assert.deepEqual(of.failed(work), { first: true, retryMs: 1000 });
  assert.ok(!of.busy, 'waits for its next try');
  const again = of.take();
  assert.deepEqual(again.pending.get('a/b:c'), { versions: versions.slice(0, 3), everything: true });
  assert.deepEqual(of.failed(again), { first: false, retryMs: 2000 });
  of.removed('a/b:c');
  const { pending, retired } = of.take();
  assert.deepEqual([pending.size, [...retired.keys()]], [0, ['10.96.0.1 53']]);
  const endpoints = new Set(retired.get('10.96.0.1 53')?.endpoints.flat());
  assert.deepEqual([...endpoints].sort(), ['10.61.0.1:90', '10.61.0.2:90', '10.61.0.3:90']);
  assert.equal(of.done(0), true, 'recovered');
  assert.equal(of.done(0), false);
});

test('very many versions: everything is looked at instead', () => {
  const of = candidates('UDP');
  of.changed(port('UDP', [portX], [1]));
  of.take();
  of.done(0);
  for (let n = 2; n < 50; n++) of.changed(port('UDP', [portX], [n]));
  const candidate = of.take().pending.get('a/b:c');
  assert.equal(candidate?.everything, true);
  assert.ok(candidate.versions.length <= 32);
});

test('addresses that go are found without a look at those that stay', () => {
  const of = candidates('UDP');
  const others = 50_000;
  for (let n = 0; n < others; n++)
    of.changed({ ...port('UDP', [`10.${n >> 8}.${n & 255}.1:53`], [1]), key: `a/other${n}:c` });
  of.changed(port('UDP', [portX, portY], [1]));
  of.take();
  of.done(0);
  let read = 0;
  for (const other of of.known.values()) {
    const { addresses } = other;
    if (other.key !== 'a/b:c')
      Object.defineProperty(other, 'addresses', {
        get: () => {
          read++;
          return addresses;
        },
      });
  }
  of.changed(port('UDP', [portX], [1]));
  assert.deepEqual([...of.take().retired.keys()], ['203.0.113.1 53']);
  of.done(0);
  of.removed('a/b:c');
  assert.deepEqual([...of.take().retired.keys()], ['10.96.0.1 53']);
  assert.equal(read, 0);
});

test('an address that another service port has now is not retired, whoever is told of first', () => {
  const heir = { ...port('UDP', [portX], [2]), key: 'a/heir:c' };
  for (const order of ['heir first', 'heir last']) {
    const of = candidates('UDP');
    of.changed(port('UDP', [portX, portY], [1]));
    of.take();
    of.done(0);
    if (order === 'heir first') of.changed(heir);
    of.changed(port('UDP', [portY], [1]));
    if (order === 'heir last') of.changed(heir);
    assert.equal(of.ownerOf('10.96.0.1 53', 'a/b:c'), heir, order);
    assert.deepEqual([...of.take().retired.keys()], [], order);
    of.removed('a/b:c');
    assert.deepEqual([...of.take().retired.keys()], ['203.0.113.1 53'], order);
  }
});

test('while looking fails, what waits for it is bounded', () => {
  const of = candidates('UDP');
  for (let n = 0; n < 30_000; n++) {
    const one = { ...port('UDP', [`10.${n >> 8}.${n & 255}.1:53`], [1]), key: `a/gone${n}:c` };
    of.changed(one);
    of.removed(one.key);
    if (n % 50 === 0) of.changed(port('UDP', [portX], [n]));
    if (n % 500 !== 0) continue;
    const work = of.take();
    of.failed(work);
    const versions = work.pending.get('a/b:c')?.versions.length ?? 0;
    assert.ok(work.retired.size <= 10_000, `${work.retired.size} addresses`);
    assert.ok(versions <= 33, `${versions} versions`);
  }
  assert.ok(of.take().retired.has(`10.${29_999 >> 8}.${29_999 & 255}.1 53`), 'the newest are kept');
});

test('which of many endpoints left is found without looking at the others one by one', () => {
  const endpoints = Array.from({ length: 50_000 }, (_, i) => ({
    ip: `10.61.${String(i >> 8).padStart(3, '1')}.${i & 255}`,
    port: 90,
    local: false,
    nodeUnknown: false,
  })).sort(compareEndpoints);
  const before = { ...port('TCP', [portX], []), clusterEndpoints: endpoints };
  const now = { ...before, clusterEndpoints: endpoints.filter((_, i) => i !== 7 && i !== 49_000) };
  const versions = Array.from({ length: 8 }, () => before);
  const begin = process.cpuUsage().user;
  const { left } = possiblyStale(now, { versions, everything: false });
  const ms = (process.cpuUsage().user - begin) / 1000;
  assert.deepEqual(
    left,
    [7, 49_000].map((i) => `${endpoints[i]?.ip ?? ''}:90`),
  );
  // 400 ms, when each of them was put into words.
  assert.ok(ms < 100, `${ms} ms`);
});
