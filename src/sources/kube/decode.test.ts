import assert from 'node:assert/strict';
import { test } from 'node:test';
import { recording, recordingNames } from '../../../test/recordings/recordings.js';
import type { BrokenObject, Decoded, ListMeta, WatchEvent } from './decode/decoded.js';
import { GarbageError, KubeError } from './errors.js';
import {
  endpointSlices,
  ownNode,
  serviceCIDRs,
  services,
  type ContentType,
  type Resource,
} from './resources.js';
import { decodeStatus } from './decode/status.js';
import { StringTable } from '../strings.js';

const contentType = (name: string): ContentType => (name.endsWith('.pb') ? 'protobuf' : 'json');

function decodeList<T>(
  resource: Resource<T>,
  type: ContentType,
  body: Buffer,
  chunkSize = body.length,
): { items: Decoded<T>[]; broken: BrokenObject[]; meta: ListMeta } {
  const items: Decoded<T>[] = [];
  const broken: BrokenObject[] = [];
  const decoder = resource.codec(type, new StringTable(64)).list({
    item: (item) => items.push(item),
    broken: (item) => broken.push(item),
  });
  for (let i = 0; i < body.length; i += chunkSize) decoder.push(body.subarray(i, i + chunkSize));
  return { items, broken, meta: decoder.end() };
}

function decodeWatch<T>(
  resource: Resource<T>,
  type: ContentType,
  body: Buffer,
  chunkSize = body.length,
): WatchEvent<T>[] {
  const events: WatchEvent<T>[] = [];
  const decoder = resource.codec(type, new StringTable(64)).watch();
  for (let i = 0; i < body.length; i += chunkSize) {
    decoder.push(body.subarray(i, i + chunkSize), (event) => events.push(event));
  }
  decoder.end();
  return events;
}

/** Which recording holds what; every recording appears in one of the three tables. */
const lists: readonly (readonly [string, Resource<unknown>, number])[] = [
  ['services-list', services, 7],
  ['services-page2', services, 3],
  ['endpointslices-list', endpointSlices, 5],
  ['nodes-list', ownNode('node-1'), 1],
  ['servicecidrs-list', serviceCIDRs, 1],
  ['both-accepted', services, 1],
];
const watches: readonly (readonly [string, Resource<unknown>])[] = [
  ['services-watchlist', services],
  ['endpointslices-watchlist', endpointSlices],
  ['services-watch', services],
  ['services-watch-expired', services],
  ['services-watchlist-refused', services],
];
const statuses: readonly (readonly [string, number, string])[] = [
  ['services-forbidden', 403, 'Forbidden'],
  ['unauthorized', 401, 'Unauthorized'],
  ['no-such-resource', 404, 'NotFound'],
  ['services-continue-expired', 410, 'Expired'],
  ['services-version-too-large', 504, 'Timeout'],
];

test('every recording is used by a test', () => {
  const used = new Set(['services-page1.json', 'node-get.pb', 'node-get.json']);
  for (const [name] of [...lists, ...watches, ...statuses]) used.add(`${name}.pb`).add(`${name}.json`);
  assert.deepEqual(
    recordingNames.filter((name) => !used.has(name)),
    [],
  );
});

for (const [name, resource, count] of lists) {
  test(`${name}: both encodings give the same objects, whatever the chunks`, () => {
    const pb = decodeList(resource, 'protobuf', recording(`${name}.pb`).body);
    const json = decodeList(resource, 'json', recording(`${name}.json`).body);
    assert.equal(pb.items.length, count);
    assert.deepEqual(pb.broken, []);
    assert.deepEqual(json.broken, []);
    assert.deepEqual(
      pb.items.map(({ key, object }) => ({ key, object })),
      json.items.map(({ key, object }) => ({ key, object })),
    );
    for (const size of [1, 7, 1000]) {
      assert.deepEqual(decodeList(resource, 'protobuf', recording(`${name}.pb`).body, size), pb);
      assert.deepEqual(decodeList(resource, 'json', recording(`${name}.json`).body, size), json);
    }
  });
}

test('services: the fields that the model reads', () => {
  const { items, meta } = decodeList(services, 'protobuf', recording('services-list.pb').body);
  assert.match(meta.version, /^\d+$/);
  assert.equal(meta.continueToken, '');
  const byKey = new Map(items.map(({ key, object }) => [key, object]));
  assert.deepEqual(byKey.get('default/dual'), {
    namespace: 'default',
    name: 'dual',
    uid: '7f8f8c58-8907-49ff-b43b-ec8885422de6',
    creationTimestamp: '2026-11-21T12:35:01Z',
    serviceProxyName: undefined,
    type: 'ClusterIP',
    clusterIP: '10.96.102.178',
    clusterIPs: ['10.96.102.178', 'fd00:96::e354'],
    ipFamilies: ['IPv4', 'IPv6'],
    ports: [
      { name: 'http', protocol: 'TCP', port: 80, nodePort: 0 },
      { name: 'dns', protocol: 'UDP', port: 53, nodePort: 0 },
      { name: 'sctp', protocol: 'SCTP', port: 9, nodePort: 0 },
    ],
    externalIPs: [],
    loadBalancerIngress: [],
    loadBalancerSourceRanges: [],
    sessionAffinity: 'ClientIP',
    affinityTimeoutSeconds: 600,
    internalTrafficPolicy: 'Cluster',
    externalTrafficPolicy: '',
    healthCheckNodePort: 0,
  });
  const lb = byKey.get('default/lb');
  assert.deepEqual(lb?.loadBalancerIngress, [
    { ip: '5.6.7.8', ipMode: 'VIP' },
    { ip: '5.6.7.9', ipMode: 'Proxy' },
    { ip: '', ipMode: '' },
  ]);
  assert.deepEqual(lb.loadBalancerSourceRanges, ['1.2.3.0/24', '5.0.0.0/8']);
  assert.deepEqual(lb.externalIPs, ['172.30.1.1']);
  assert.equal(lb.healthCheckNodePort, 30999);
  assert.equal(lb.externalTrafficPolicy, 'Local');
  assert.equal(byKey.get('default/np')?.internalTrafficPolicy, 'Local');
  assert.equal(byKey.get('default/np')?.ports[0]?.nodePort, 30080);
  assert.equal(byKey.get('default/named')?.type, 'ExternalName');
});

test('services: a page that is not the last carries a continue token', () => {
  const { items, meta } = decodeList(services, 'json', recording('services-page1.json').body);
  assert.equal(items.length, 3);
  assert.notEqual(meta.continueToken, '');
  const other = items.find(({ object }) => object.serviceProxyName !== undefined);
  assert.ok(other === undefined || other.object.serviceProxyName !== '');
});

test('slices: conditions, hints and ports that are absent', () => {
  const { items } = decodeList(endpointSlices, 'protobuf', recording('endpointslices-list.pb').body);
  const byKey = new Map(items.map(({ key, object }) => [key, object]));
  const none = { nodeName: undefined, zoneHints: [], nodeHints: [] };
  assert.deepEqual(byKey.get('default/my-app-1'), {
    namespace: 'default',
    name: 'my-app-1',
    serviceName: 'my-app',
    headless: false,
    addressType: 'IPv4',
    ports: [{ name: '', protocol: 'TCP', port: 8080 }],
    endpoints: [
      {
        address: '10.0.0.1',
        ready: true,
        serving: true,
        terminating: false,
        nodeName: 'node-1',
        zoneHints: ['z1'],
        nodeHints: ['node-1'],
      },
      {
        ...none,
        address: '10.0.0.2',
        ready: false,
        serving: true,
        terminating: true,
        nodeName: 'node-2',
      },
      { ...none, address: '10.0.0.3', ready: true, serving: true, terminating: false },
    ],
    triggerTime: '2026-11-21T12:00:00.5Z',
  });
  assert.equal(byKey.get('default/fqdn')?.addressType, 'FQDN');
  assert.deepEqual(byKey.get('default/no-ports')?.ports, []);
});

test('the node and the service CIDR', () => {
  const node = decodeList(ownNode('node-1'), 'protobuf', recording('nodes-list.pb').body).items[0];
  assert.deepEqual(node?.object, {
    name: 'node-1',
    uid: 'cebb841d-6e7a-447f-9c8b-0c1d5933f49c',
    addresses: [
      { type: 'InternalIP', address: '192.168.0.2' },
      { type: 'InternalIP', address: '2001:db8::1' },
      { type: 'Hostname', address: 'node-1' },
    ],
    podCIDRs: ['10.0.0.0/24', 'fd00:10::/64'],
    zone: 'z1',
    taintKeys: ['ToBeDeletedByClusterAutoscaler', 'node.kubernetes.io/not-ready'],
    deleting: false,
  });
  const cidr = decodeList(serviceCIDRs, 'protobuf', recording('servicecidrs-list.pb').body).items[0];
  assert.deepEqual(cidr?.object, { name: 'kubernetes', cidrs: ['10.96.0.0/16', 'fd00:96::/108'] });
});

for (const name of ['node-get.pb', 'node-get.json']) {
  test(`${name}: a single object is not taken for a list`, () => {
    assert.throws(
      () => decodeList(ownNode('node-1'), contentType(name), recording(name).body),
      (error) => error instanceof GarbageError && error.message.startsWith('expected a NodeList, not "Node"'),
    );
  });
}

/** An event with what differs between two recordings of the same thing taken out. */
function comparable(event: WatchEvent<unknown>): unknown {
  if (event.type === 'BOOKMARK') return { type: event.type, initialEventsEnd: event.initialEventsEnd };
  if (event.type === 'ERROR') return { type: event.type, code: event.status.code };
  if (event.type === 'BROKEN') return event;
  const text = JSON.stringify('object' in event.item ? event.item.object : event.item.key)
    .replaceAll(/late-\d+/g, 'late')
    .replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|10\.96\.\d+\.\d+|"2026-[^"]*"/g, '?');
  return { type: event.type, object: text };
}

for (const [name, resource] of watches) {
  test(`${name}: both encodings give the same events, whatever the chunks`, () => {
    const pb = decodeWatch(resource, 'protobuf', recording(`${name}.pb`).body);
    const json = decodeWatch(resource, 'json', recording(`${name}.json`).body);
    assert.ok(pb.length > 0);
    // Plain bookmarks come when the server finds the time.
    const facts = (events: WatchEvent<unknown>[]): unknown[] =>
      events.filter((event) => event.type !== 'BOOKMARK' || event.initialEventsEnd).map(comparable);
    assert.deepEqual(facts(pb), facts(json));
    for (const size of [1, 3, 500]) {
      assert.deepEqual(decodeWatch(resource, 'protobuf', recording(`${name}.pb`).body, size), pb);
      assert.deepEqual(decodeWatch(resource, 'json', recording(`${name}.json`).body, size), json);
    }
  });
}

test('watches: bookmarks, the end of the initial events, errors', () => {
  const watchList = decodeWatch(services, 'protobuf', recording('services-watchlist.pb').body);
  const end = watchList.findIndex((event) => event.type === 'BOOKMARK' && event.initialEventsEnd);
  assert.ok(end > 0);
  assert.ok(watchList.slice(0, end).every((event) => event.type === 'ADDED'));
  const plain = decodeWatch(services, 'protobuf', recording('services-watch.pb').body);
  assert.deepEqual(
    plain.map((event) => event.type),
    ['ADDED', 'MODIFIED', 'BOOKMARK', 'DELETED', 'BOOKMARK'],
  );
  assert.ok(plain.every((event) => event.type !== 'BOOKMARK' || /^\d+$/.test(event.version)));
  for (const type of ['pb', 'json']) {
    const [expired] = decodeWatch(
      services,
      contentType(`.${type}`),
      recording(`services-watch-expired.${type}`).body,
    );
    assert.ok(expired?.type === 'ERROR');
    assert.equal(expired.status.code, 410);
    assert.equal(expired.status.reason, 'Expired');
  }
});

for (const [name, code, reason] of statuses) {
  test(`${name}: the Status is read in both encodings`, () => {
    const [pb, json] = ['pb', 'json'].map((type) => {
      const { body, contentType: header, status } = recording(`${name}.${type}`);
      assert.equal(status, code);
      return decodeStatus(body, header);
    });
    assert.deepEqual(pb, json);
    assert.equal(pb?.code, code);
    assert.equal(pb.reason, reason);
    assert.notEqual(pb.message, '');
  });
}

test('a Status from something that is not an API server is its text', () => {
  assert.deepEqual(decodeStatus(Buffer.from('<html><body>502\nBad Gateway</body></html>'), 'text/html'), {
    code: 0,
    reason: '',
    message: '502 Bad Gateway',
    retryAfterSeconds: 0,
    causes: [],
  });
});

test('a broken object is reported by name and the others are delivered', () => {
  const list = {
    kind: 'ServiceList',
    metadata: { resourceVersion: '9' },
    items: [
      { metadata: { name: 'good', namespace: 'a', resourceVersion: '1' } },
      {
        metadata: { name: 'bad', namespace: 'a', resourceVersion: '2' },
        spec: { ports: [{ port: 'http' }] },
      },
      { metadata: { namespace: 'a' } },
      { metadata: { name: 'odd', namespace: 'a' }, spec: { ports: [{ port: 1, protocol: 'QUIC' }] } },
      { metadata: { name: 'last', namespace: 'a', resourceVersion: '3' } },
    ],
  };
  const { items, broken } = decodeList(services, 'json', Buffer.from(JSON.stringify(list)));
  assert.deepEqual(
    items.map((item) => item.key),
    ['a/good', 'a/last'],
  );
  assert.deepEqual(
    broken.map((item) => [item.key, item.error.message]),
    [
      ['a/bad', 'spec.ports[0].port: must be a whole number, not string "http"'],
      [undefined, 'metadata.name: is missing'],
      ['a/odd', 'spec.ports[0].protocol: unknown protocol "QUIC"'],
    ],
  );
});

test('a JSON list whose items are null is empty, one without items is none', () => {
  const head = '{"kind":"ServiceList","metadata":{"resourceVersion":"9"}';
  assert.deepEqual(decodeList(services, 'json', Buffer.from(`${head},"items": null}`)), {
    items: [],
    broken: [],
    meta: { version: '9', continueToken: '' },
  });
  for (const rest of ['}', ',"items":{}}', ',"items":7}', ',"items":true}']) {
    assert.throws(() => decodeList(services, 'json', Buffer.from(head + rest)), /is not a ServiceList/);
  }
});

for (const [type, name] of [
  ['json', 'services-list.json'],
  ['protobuf', 'services-list.pb'],
] as const) {
  test(`damage inside a string does not pass for a value, ${type}`, () => {
    const body = Buffer.from(recording(name).body);
    const clean = decodeList(services, type, body);
    const key = clean.items[1]?.key ?? '';
    const ip = clean.items[1]?.object.clusterIP ?? '';
    // In protobuf with its tag (field 3) and length, so that it is this string and no other.
    const sought = type === 'json' ? `"${ip}"` : `\x1a${String.fromCharCode(ip.length)}${ip}`;
    const at = body.indexOf(sought);
    assert.ok(at > 0);
    body[at + sought.length - 2] = 0xff;
    if (type === 'json') {
      assert.throws(() => decodeList(services, type, body), /not UTF-8/);
    } else {
      const { items, broken } = decodeList(services, type, body);
      assert.equal(items.length, clean.items.length - 1);
      assert.deepEqual(
        broken.map((item) => item.key),
        [key],
      );
    }
  });
}

/** xorshift32: the same bytes in every run. */
function randomSource(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

function mutate(body: Buffer, random: (below: number) => number): Buffer {
  const copy = Buffer.from(body);
  const kind = random(4);
  if (kind === 0) return copy.subarray(0, random(copy.length));
  for (let i = 0, n = 1 + random(8); i < n; i++) copy[random(copy.length)] = random(256);
  if (kind === 1) {
    const at = random(copy.length);
    return Buffer.concat([copy.subarray(0, at), copy.subarray(at + random(20))]);
  }
  return kind === 2 ? copy : copy.subarray(random(4));
}

test('a watch frame whose length is not that of its event is garbage at once', () => {
  const body = Buffer.from(recording('services-watch.pb').body);
  const decoder = services.codec('protobuf', new StringTable(64)).watch();
  const first = 4 + body.readUInt32BE(0);
  const events: unknown[] = [];
  // Whole, and then the beginning of the next one.
  decoder.push(body.subarray(0, first + 40), (event) => events.push(event));
  assert.equal(events.length, 1);
  assert.equal(decoder.unfinished, true, 'it waits for the rest');
  body.writeUInt32BE(60_000, first);
  const other = services.codec('protobuf', new StringTable(64)).watch();
  assert.throws(
    () => {
      other.push(body.subarray(0, first + 40), () => undefined);
    },
    (error) => error instanceof GarbageError && error.offset === first,
  );
});

/** Bytes that are wrong in any way end in an answer or in our own error; nothing else, and soon. */
function survives(run: () => unknown): void {
  try {
    run();
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
  }
}

for (const type of ['pb', 'json'] as const) {
  test(`fuzz: ${type} decoders meet mutated, truncated and random bytes`, () => {
    const random = randomSource(type === 'pb' ? 20261121 : 11212026);
    const deadline = Date.now() + 1500;
    const sources = [
      ...lists.map(([name, resource]) => ({ name, resource, watch: false })),
      ...watches.map(([name, resource]) => ({ name, resource, watch: true })),
    ].map((source) => ({ ...source, body: recording(`${source.name}.${type}`).body }));
    let rounds = 0;
    while (Date.now() < deadline && rounds < 4000) {
      rounds++;
      const source = sources[random(sources.length)];
      assert.ok(source !== undefined);
      const bytes =
        random(10) === 0
          ? Buffer.from(Array.from({ length: random(300) }, () => random(256)))
          : mutate(source.body, random);
      const size = 1 + random(bytes.length + 1);
      const format = contentType(`.${type}`);
      survives(() => (source.watch ? decodeWatch : decodeList)(source.resource, format, bytes, size));
      survives(() => decodeStatus(bytes, type === 'pb' ? 'application/vnd.kubernetes.protobuf' : ''));
    }
    assert.ok(rounds > 100, `only ${rounds} rounds`);
  });
}
