/** EndpointSlices to endpoints: service-model.md 3 and 5, with the conformance rows they stand for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EndpointSlice, Service, SliceEndpoint } from '../../sources/objects.js';
import { deliver, endpoint, newModel, only, port, printEndpoints, service, slice } from '../fixtures.js';

const nodePortLocal: Partial<Service> = {
  type: 'NodePort',
  externalTrafficPolicy: 'Local',
  ports: [port({ nodePort: 31150 })],
};

const usableCases: readonly (readonly [row: string, eps: string, cluster: string, local?: string])[] = [
  ['218', 'L1~ R1', 'R1', 'L1'],
  ['219', 'L1~ R1~', 'L1 R1', 'L1'],
  ['220', 'L1~ R1x', 'L1', 'L1'],
  ['221', 'L1x R1x', ''],
  ['222', 'L1~ R1!', 'L1', 'L1'],
  ['202', 'L1 L2~ R1', 'L1 R1', 'L1'],
  ['200', 'L1x R1', 'R1', ''],
  ['247', 'L1~[mtl-1] R2~[mtl-2]', 'L1 R2', 'L1'],
];

for (const [row, eps, cluster, local = ''] of usableCases) {
  test(`5.1 row ${row}: ${eps}`, () => {
    const result = only([service(nodePortLocal), slice(eps)]);
    assert.ok(result);
    assert.equal(printEndpoints(result.clusterEndpoints), cluster);
    assert.equal(printEndpoints(result.localEndpoints), local);
  });
}

const conditionCases: readonly (readonly [
  row: string,
  conditions: Partial<SliceEndpoint>,
  usable: boolean,
])[] = [
  ['223: all conditions unset', {}, true],
  ['224: ready unset, terminating', { terminating: true }, true],
  ['225: not ready, serving unset, terminating', { ready: false, terminating: true }, true],
  ['227: ready, not serving', { serving: false }, true],
  ['228: not ready, serving, not terminating', { ready: false }, false],
];

for (const [row, conditions, usable] of conditionCases) {
  test(`3.2 row ${row}`, () => {
    const result = only([service(), slice([endpoint('10.61.1.31', conditions)])]);
    assert.equal(result?.clusterEndpoints.length, usable ? 1 : 0);
    assert.equal(result.addresses[0]?.fallback, usable ? 'serve' : 'reject');
  });
}

const hintCases: readonly {
  readonly row: string;
  readonly eps: string;
  readonly cluster: string;
  readonly local?: string;
  /** mtl-1 unless given; '' for a node without the label. */
  readonly zone?: string;
}[] = [
  { row: '235', eps: 'L1[mtl-1] R1[mtl-1] R2[mtl-2]', cluster: 'L1 R1' },
  { row: '236', eps: 'L1[mtl-1] R1[mtl-1] R2', cluster: 'L1 R1 R2' },
  { row: '237', eps: 'L1[mtl-1] R1[mtl-1] R2[mtl-2]', cluster: 'L1 R1 R2', zone: '' },
  { row: '238', eps: 'L1[mtl-1] R1[mtl-1] R2[mtl-2]', cluster: 'L1 R1 R2', zone: 'mtl-9' },
  { row: '239', eps: 'L1[mtl-1] R1! R2[mtl-2]', cluster: 'L1' },
  { row: '240', eps: 'L1![mtl-1] R2[mtl-2]', cluster: 'R2' },
  { row: '241', eps: 'L1[mtl-2] R2[mtl-1,mtl-2]', cluster: 'R2' },
  { row: '242', eps: 'L1<alder>[mtl-1] R1<birch>[mtl-1] R2<cedar>[mtl-2]', cluster: 'L1' },
  { row: '243', eps: 'R1<birch>[mtl-1] R2<cedar>[mtl-2]', cluster: 'R1' },
  { row: '244', eps: 'L1<alder>[mtl-1] R1[mtl-1] R2<cedar>[mtl-2]', cluster: 'L1 R1' },
  { row: '245', eps: 'R1<birch> R2<cedar>', cluster: 'R1 R2' },
  { row: '246', eps: 'R2<alder,cedar>[mtl-2] R1<birch>[mtl-1]', cluster: 'R2' },
  { row: '249 to 251', eps: 'L1[mtl-2] L2[mtl-1] R1[mtl-1]', cluster: 'L2 R1', local: 'L1 L2' },
  {
    row: 'worked example of 5.2',
    eps: 'L1[mtl-2] L2[mtl-1] R1[mtl-1] R2!',
    cluster: 'L2 R1',
    local: 'L1 L2',
  },
];

for (const { row, eps, cluster, local, zone = 'mtl-1' } of hintCases) {
  test(`5.2 ${row}: ${eps}, zone '${zone}'`, () => {
    const model = newModel();
    model.setZone(zone === '' ? undefined : zone);
    deliver(model, service(nodePortLocal), slice(eps));
    model.takeChanges();
    const [result] = model.servicePorts('IPv4');
    assert.ok(result);
    assert.equal(printEndpoints(result.clusterEndpoints), cluster);
    if (local !== undefined) assert.equal(printEndpoints(result.localEndpoints), local);
  });
}

const slicePort = { name: 'web', protocol: 'TCP', port: 9000 } as const;

const sliceCases: readonly {
  readonly title: string;
  readonly slices: readonly EndpointSlice[];
  readonly expected: string;
  readonly problems?: readonly string[];
}[] = [
  { title: 'row 34: the empty name is a name', slices: [slice('L1 R1')], expected: 'L1 R1' },
  { title: 'row 35: another name', slices: [slice('L1', { ports: [slicePort] })], expected: '' },
  {
    title: 'row 36: no name',
    slices: [slice('L1', { ports: [{ ...slicePort, name: undefined }] })],
    expected: '',
  },
  {
    title: 'rows 37 and 38: no number',
    slices: [slice('L1', { ports: [{ name: '', protocol: 'TCP', port: 0 }] })],
    expected: '',
  },
  {
    title: 'a number out of range',
    slices: [slice('L1', { ports: [{ name: '', protocol: 'TCP', port: 65536 }] })],
    expected: '',
    problems: ['ports[0].port'],
  },
  {
    title: 'row 39: another protocol',
    slices: [slice('L1', { ports: [{ name: '', protocol: 'UDP', port: 9000 }] })],
    expected: '',
  },
  {
    title: 'row 40: slices with different numbers',
    slices: [
      slice('L1'),
      slice('R1', { name: 'pear-2', ports: [{ name: '', protocol: 'TCP', port: 9100 }] }),
    ],
    expected: 'L1 R1:9100',
  },
  { title: 'row 51: a headless slice', slices: [slice('L1', { headless: true })], expected: '' },
  {
    title: 'row 52: no service name',
    slices: [slice('L1', { serviceName: '' })],
    expected: '',
    problems: ['metadata.labels[kubernetes.io/service-name]'],
  },
  { title: 'row 53: another namespace', slices: [slice('L1', { namespace: 'other' })], expected: '' },
  { title: 'row 58: the other family', slices: [slice('L1', { addressType: 'IPv6' })], expected: '' },
  { title: 'row 63: FQDN', slices: [slice('L1', { addressType: 'FQDN' })], expected: '' },
  {
    title: 'row 297: an endpoint in two slices',
    slices: [slice('L1'), slice('L1 R1', { name: 'pear-2' })],
    expected: 'L1 R1',
  },
  {
    title: 'row 298: terminating in the first of two slices',
    slices: [slice('L1~'), slice('L1 R1', { name: 'pear-2' })],
    expected: 'L1 R1',
  },
  {
    title: 'row 299: terminating in the second',
    slices: [slice('L1 R1'), slice('L1~', { name: 'pear-2' })],
    expected: 'L1 R1',
  },
  {
    title: 'not ready in the first, ready in the second',
    slices: [slice('L1!'), slice('L1 R1', { name: 'pear-2' })],
    expected: 'L1 R1',
  },
  {
    title: 'ready in the first, not ready in the second',
    slices: [slice('L1 R1'), slice('L1!', { name: 'pear-2' })],
    expected: 'L1 R1',
  },
  {
    title: 'not ready beats terminating, as upstream',
    slices: [slice('L1~'), slice('L1! R1~', { name: 'pear-2' })],
    expected: 'R1',
  },
  { title: 'a duplicate within one slice', slices: [slice('L1! L1 L1~ R1')], expected: 'L1 R1' },
  {
    title: 'row 301: an endpoint without addresses',
    slices: [slice([endpoint(''), endpoint('10.61.2.41')])],
    expected: 'R1',
  },
  { title: 'row 302: leading zeros', slices: [slice([endpoint('10.061.001.031')])], expected: 'L1' },
  {
    title: 'a bad address costs only that endpoint',
    slices: [slice([endpoint('<nil>'), endpoint('fd61::31'), endpoint('10.61.2.41')])],
    expected: 'R1',
    problems: ['endpoints[0].addresses[0]', 'endpoints[1].addresses[0]'],
  },
  {
    title: 'plain string order of ip:port',
    slices: [
      slice([endpoint('10.61.1.9'), endpoint('10.61.1.10'), endpoint('10.61.1.1'), endpoint('10.61.1.100')]),
    ],
    expected: '10.61.1.100 10.61.1.10 10.61.1.1 10.61.1.9',
  },
];

for (const { title, slices, expected, problems = [] } of sliceCases) {
  test(`3 ${title}`, () => {
    // The order of arrival must not matter.
    for (const order of [slices, [...slices].reverse()]) {
      const model = newModel();
      deliver(model, ...order, service());
      const changes = model.takeChanges();
      const [result] = model.servicePorts('IPv4');
      assert.ok(result);
      assert.equal(printEndpoints(result.clusterEndpoints), expected);
      assert.deepEqual(
        changes.problems.flatMap((found) => found.problems.map(({ field }) => field)),
        problems,
      );
    }
  });
}

const locality: readonly (readonly [
  row: string,
  nodeName: string | undefined,
  local: boolean,
  nodeUnknown: boolean,
])[] = [
  ['own node', 'alder', true, false],
  ['another node', 'birch', false, false],
  ['row 306: differs in case', 'Alder', false, false],
  ['row 307: no node', undefined, false, true],
];

for (const [row, nodeName, local, nodeUnknown] of locality) {
  test(`3.2 node name: ${row}`, () => {
    const result = only([service(), slice([endpoint('10.61.1.31', { nodeName })])]);
    assert.deepEqual(result?.clusterEndpoints, [{ ip: '10.61.1.31', port: 9000, local, nodeUnknown }]);
  });
}

test('the order of IPv6 endpoints is that of [ip]:port', () => {
  const ips = ['fd00::1', 'fd00::1a', 'fd00::10', 'fd00::1:0:1', 'fd00::'];
  const v6 = { clusterIP: 'fd77::1', clusterIPs: ['fd77::1'], ipFamilies: ['IPv6'] };
  const result = only(
    [
      service(v6),
      slice(
        ips.map((ip) => endpoint(ip)),
        { addressType: 'IPv6' },
      ),
    ],
    'IPv6',
  );
  const expected = ips.map((ip) => `[${ip}]:9000`).sort();
  assert.deepEqual(
    result?.clusterEndpoints.map((e) => `[${e.ip}]:${e.port}`),
    expected,
  );
});

test('row 303: many slices make one sorted list', () => {
  const slices = [0, 1, 2, 3, 4].map((n) =>
    slice(
      Array.from({ length: 50 }, (_, i) => endpoint(`10.61.${2 + ((i * 7) % 50)}.${n + 1}`)),
      { name: `pear-${n}` },
    ),
  );
  const list = only([service(), ...slices])?.clusterEndpoints.map((e) => `${e.ip}:${e.port}`);
  assert.equal(list?.length, 250);
  assert.deepEqual(list, [...new Set(list)].sort());
});

test('11: UDP flows stay with serving endpoints, SCTP associations with all, TCP is not looked at', () => {
  const ports = [port({ protocol: 'UDP', port: 53 })];
  const dns = slice('L1 L2~ R1x R2!', { ports: [{ name: '', protocol: 'UDP', port: 5353 }] });
  assert.deepEqual(only([service({ ports, internalTrafficPolicy: 'Local' }), dns])?.servingEndpoints, [
    '10.61.1.31:5353',
    '10.61.1.32:5353',
  ]);
  const signalling = [port({ protocol: 'SCTP', port: 38412 })];
  const amf = slice('L1 L2~ R1x', { ports: [{ name: '', protocol: 'SCTP', port: 38412 }] });
  assert.deepEqual(only([service({ ports: signalling }), amf])?.servingEndpoints, [
    '10.61.1.31:38412',
    '10.61.1.32:38412',
    '10.61.2.41:38412',
  ]);
  assert.deepEqual(only([service(), slice('L1')])?.servingEndpoints, []);
});

test('11: an endpoint that the rules may choose keeps its UDP flows, also when it is ready and does not serve', () => {
  const ports = [port({ protocol: 'UDP', port: 53 })];
  const of = (...conditions: readonly Partial<SliceEndpoint>[]): readonly string[] | undefined =>
    only([
      service({ ports }),
      slice(
        conditions.map((each, index) => endpoint(`10.61.1.3${index}`, each)),
        { ports: [{ name: '', protocol: 'UDP', port: 5353 }] },
      ),
    ])?.servingEndpoints;
  assert.deepEqual(of({ ready: true, serving: false }, { ready: false, serving: false }), [
    '10.61.1.30:5353',
  ]);
  assert.deepEqual(of({ ready: true, serving: false, terminating: true }), ['10.61.1.30:5353']);
});
