/**
 * Change tracking (service-model.md 4), health check counts (8.1) and contested addresses (10). A case is a story:
 * each step delivers objects, then says what the model hands out for it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EndpointSlice, Service } from '../sources/objects.js';
import {
  changesOf,
  clusterIP,
  deliver,
  endpoint,
  newModel,
  only,
  port,
  printEndpoints,
  service,
  slice,
  vip,
} from './fixtures.js';
import type { ServiceModel } from './model.js';
import type { ModelChanges, ServicePort } from './types.js';

type Step = readonly [act: (model: ServiceModel) => void, expected: readonly string[]];

const give =
  (...objects: readonly (Service | EndpointSlice)[]) =>
  (model: ServiceModel): void => {
    deliver(model, ...objects);
  };
const dropService =
  (key: string) =>
  (model: ServiceModel): void => {
    model.setService(key, undefined);
  };
const dropSlice =
  (key: string) =>
  (model: ServiceModel): void => {
    model.setEndpointSlice(key, undefined);
  };
const zone =
  (name: string | undefined) =>
  (model: ServiceModel): void => {
    model.setZone(name);
  };
const both =
  (...acts: readonly ((model: ServiceModel) => void)[]) =>
  (model: ServiceModel): void => {
    for (const act of acts) act(model);
  };

/** '+default/pear: L1 R1' for a service port handed out, '-key' for one that is gone. */
function print(changes: ModelChanges): string[] {
  return changes.families.flatMap(({ family, upserted, removed }) => {
    const suffix = family === 'IPv6' ? ' (IPv6)' : '';
    const lists = (p: ServicePort): string => {
      const cluster = printEndpoints(p.clusterEndpoints);
      return p.localEndpoints.length > 0 ? `${cluster} | ${printEndpoints(p.localEndpoints)}` : cluster;
    };
    return [
      ...removed.map((key) => `-${key}${suffix}`),
      ...upserted.map((p) => `+${p.name}: ${lists(p)}`.trimEnd() + suffix),
    ];
  });
}

const web = [port({ name: 'web' }), port({ name: 'admin', port: 81 })];
const pear = '-default/pear:/TCP';

const stories: readonly (readonly [title: string, ...steps: Step[]])[] = [
  [
    'row 322: endpoints none, then one',
    [give(service()), ['+default/pear:']],
    [give(slice('L1')), ['+default/pear: L1']],
    [dropSlice('default/pear-1'), ['+default/pear:']],
  ],
  ['slices may come before their service', [give(slice('L1')), []], [give(service()), ['+default/pear: L1']]],
  [
    'row 309: the same object again is nothing',
    [give(service(), slice('L1 R1')), ['+default/pear: L1 R1']],
    [give(service(), slice('L1 R1')), []],
    [give(slice('L1 R1', { triggerTime: '2026-01-01T00:00:00Z' })), []],
    [give(slice('R1 L1')), []],
  ],
  [
    'row 319: what the proxy does not use is nothing',
    [give(service()), ['+default/pear:']],
    [give(service({ uid: 'another', healthCheckNodePort: 32190 })), []],
    [give(service({ externalIPs: [], loadBalancerSourceRanges: ['10.0.0.0/8'] })), []],
  ],
  [
    'row 318: added and deleted in one batch is nothing',
    [both(give(service(), slice('L1')), dropSlice('default/pear-1'), dropService('default/pear')), []],
  ],
  [
    'deleted and added again in one batch is nothing',
    [give(service(), slice('L1')), ['+default/pear: L1']],
    [both(dropService('default/pear'), give(service())), []],
    [both(dropSlice('default/pear-1'), give(slice('L1'))), []],
  ],
  [
    'a change that is reverted in one batch is nothing',
    [give(service(), slice('L1')), ['+default/pear: L1']],
    [give(slice('L1 R1'), slice('L1')), []],
  ],
  [
    'row 316: service deleted',
    [give(service(), slice('L1')), ['+default/pear: L1']],
    [dropService('default/pear'), [pear]],
  ],
  [
    'row 317: deleted and created again with other endpoints',
    [give(service(), slice('L1')), ['+default/pear: L1']],
    [dropService('default/pear'), [pear]],
    [both(dropSlice('default/pear-1'), give(slice('R2', { name: 'pear-2' }))), []],
    [give(service()), ['+default/pear: R2']],
  ],
  [
    'rows 49 and 50: the proxy-name label comes and goes',
    [give(service(), slice('L1')), ['+default/pear: L1']],
    [give(service({ serviceProxyName: 'other' })), [pear]],
    [give(service()), ['+default/pear: L1']],
  ],
  [
    'a slice becomes headless',
    [give(service(), slice('L1')), ['+default/pear: L1']],
    [give(slice('L1', { headless: true })), ['+default/pear:']],
  ],
  [
    'row 308: a slice is relabelled to another service, and back',
    [
      give(service(), clusterIP('10.177.0.51', { name: 'plum' }), slice('L1')),
      ['+default/plum:', '+default/pear: L1'],
    ],
    [give(slice('L1', { serviceName: 'plum' })), ['+default/pear:', '+default/plum: L1']],
    [give(slice('L1')), ['+default/plum:', '+default/pear: L1']],
    [give(slice('L1', { serviceName: '' })), ['+default/pear:']],
  ],
  [
    'rows 304 and 305: an endpoint moves between slices without a gap',
    [give(service(), slice('L1 R1')), ['+default/pear: L1 R1']],
    [give(slice('L1', { name: 'pear-2' })), []],
    [give(slice('R1')), []],
    [dropSlice('default/pear-1'), ['+default/pear: L1']],
  ],
  [
    'only the service port that a slice concerns is handed out',
    [give(service({ ports: web })), ['+default/pear:web:', '+default/pear:admin:']],
    [give(slice('L1', { ports: [{ name: 'web', protocol: 'TCP', port: 9000 }] })), ['+default/pear:web: L1']],
  ],
  [
    'a port is renamed',
    [give(service()), ['+default/pear:']],
    [give(service({ ports: [port({ name: 'web' })] })), [pear, '+default/pear:web:']],
  ],
  [
    'row 313: a port number changes',
    [give(service()), ['+default/pear:']],
    [give(service({ ports: [port({ port: 8080 })] })), ['+default/pear:']],
  ],
  [
    'row 320: internal policy becomes Local',
    [give(service(), slice('L1 R1')), ['+default/pear: L1 R1']],
    [give(service({ internalTrafficPolicy: 'Local' })), ['+default/pear:  | L1']],
  ],
  [
    'a dead endpoint comes and goes unseen',
    [give(service(), slice('L1')), ['+default/pear: L1']],
    [give(slice('L1 R1!')), []],
    [give(slice('L1 R1x')), []],
    [give(slice('L1')), []],
  ],
  [
    'row 253: the zone changes only what has hints',
    [
      give(
        service(),
        slice('L1[mtl-1] R2[mtl-2]'),
        clusterIP('10.177.0.51', { name: 'plum' }),
        slice('L1 R2', { name: 'plum-1', serviceName: 'plum' }),
      ),
      ['+default/pear: L1', '+default/plum: L1 R2'],
    ],
    [zone('mtl-2'), ['+default/pear: R2']],
    [zone('mtl-2'), []],
    [zone('mtl-9'), ['+default/pear: L1 R2']],
    [zone(undefined), []],
    [zone('mtl-1'), ['+default/pear: L1']],
    [give(slice('L1 R2')), ['+default/pear: L1 R2']],
    [zone('mtl-2'), []],
  ],
  [
    'one family does not disturb the other',
    [
      give(
        service({ clusterIPs: ['10.177.0.50', 'fd77::50'], ipFamilies: ['IPv4', 'IPv6'] }),
        slice('L1', { addressType: 'IPv6' }),
      ),
      ['+default/pear:', '+default/pear: L1 (IPv6)'],
    ],
    [give(slice('R1', { name: 'pear-4' })), ['+default/pear: R1']],
    [dropSlice('default/pear-1'), ['+default/pear: (IPv6)']],
    [give(service()), ['-default/pear:/TCP (IPv6)']],
  ],
  [
    'a slice changes its family',
    [
      give(service({ clusterIPs: ['10.177.0.50', 'fd77::50'], ipFamilies: ['IPv4', 'IPv6'] }), slice('L1')),
      ['+default/pear: L1', '+default/pear: (IPv6)'],
    ],
    [give(slice('L1', { addressType: 'IPv6' })), ['+default/pear:', '+default/pear: L1 (IPv6)']],
  ],
  ['deleting what was never there', [both(dropService('default/pear'), dropSlice('default/pear-1')), []]],
];

for (const [title, ...steps] of stories) {
  test(`4 ${title}`, () => {
    const model = newModel();
    for (const [index, [act, expected]] of steps.entries()) {
      act(model);
      assert.deepEqual(print(model.takeChanges()), expected, `step ${index + 1}`);
      assert.equal(model.hasChanges, false);
    }
  });
}

test('4 an event that changes nothing does not ask for a sync', () => {
  const model = newModel();
  assert.equal(model.hasChanges, false);
  deliver(model, service(), slice('L1'));
  assert.equal(model.hasChanges, true);
  model.takeChanges();
  deliver(model, service({ uid: 'another' }), slice('L1', { triggerTime: '2026-01-01T00:00:00Z' }));
  assert.equal(model.hasChanges, false);
});

test('4 what did not change keeps its identity', () => {
  const model = newModel();
  const fields: Partial<Service> = {
    type: 'NodePort',
    externalTrafficPolicy: 'Local',
    ports: [port({ nodePort: 31000 })],
  };
  deliver(model, service(fields), slice('L1 R1'));
  const [before] = changesOf(model.takeChanges()).upserted;
  deliver(model, slice('L1 R1 R2'));
  const [after] = changesOf(model.takeChanges()).upserted;
  assert.ok(before && after);
  assert.equal(after.localEndpoints, before.localEndpoints);
  assert.equal(after.addresses, before.addresses);
  assert.equal(after.key, before.key);
  assert.equal(after.clusterEndpoints[0], before.clusterEndpoints[0]);
  assert.equal(after.clusterEndpoints[1], before.clusterEndpoints[1]);
});

test('4 names and keys', () => {
  const ports = [port({ name: 'dns', protocol: 'UDP', port: 53 }), port({ port: 80 })];
  const model = newModel();
  deliver(model, service({ ports }));
  const { upserted } = changesOf(model.takeChanges());
  assert.deepEqual(
    upserted.map(({ key, name }) => [key, name]),
    [
      ['default/pear:dns/UDP', 'default/pear:dns'],
      ['default/pear:/TCP', 'default/pear'],
    ],
  );
});

test('4 problems are reported when they change, and once more when they are over', () => {
  const model = newModel();
  const bad = service({ externalIPs: ['garbage'] });
  const reports = (...objects: readonly (Service | EndpointSlice)[]): string[] => {
    deliver(model, ...objects);
    return reported(model);
  };
  assert.deepEqual(reports(bad), ['Service default/pear spec.externalIPs[0]']);
  assert.deepEqual(reports(service({ externalIPs: ['garbage'], uid: 'another' })), []);
  assert.deepEqual(reports(service({ externalIPs: ['garbage', 'more'] })), [
    'Service default/pear spec.externalIPs[0] spec.externalIPs[1]',
  ]);
  assert.deepEqual(reports(service()), ['Service default/pear']);
  assert.deepEqual(reports(service()), []);
  assert.deepEqual(reports(bad), ['Service default/pear spec.externalIPs[0]']);
  model.setService('default/pear', undefined);
  assert.deepEqual(reported(model), ['Service default/pear'], 'gone, and its problems with it');
  const slices = slice([endpoint('garbage')]);
  assert.deepEqual(reports(slices), ['EndpointSlice default/pear-1 endpoints[0].addresses[0]']);
  assert.deepEqual(reports(slices), []);
});

test('4 of an object that is wrong in thousands of places, the first few are told', () => {
  const model = newModel();
  deliver(
    model,
    slice(Array.from({ length: 5000 }, (_, i) => endpoint(`garbage-${i}\u0000${'x'.repeat(500)}`))),
  );
  const [found] = model.takeChanges().problems;
  assert.equal(found?.problems.length, 8);
  assert.equal(found.more, 4992);
  const { message } = found.problems[0] ?? { message: '' };
  assert.match(message, /^'garbage-0\\u0000x{70}… \(510 characters\)' is not an IPv4 address/);
});

function reported(model: ServiceModel): string[] {
  return model
    .takeChanges()
    .problems.map(({ kind, namespace, name, problems }) =>
      [`${kind} ${namespace}/${name}`, ...problems.map(({ field }) => field)].join(' '),
    );
}

// ---- trigger times

const early = '2026-03-01T10:00:00Z';
const late = '2026-03-01T10:00:05.5Z';

const triggers: readonly (readonly [
  title: string,
  act: (model: ServiceModel) => void,
  expected: readonly string[],
])[] = [
  [
    'one per slice event',
    give(slice('L1 R1', { triggerTime: late }), slice('R2', { name: 'pear-2', triggerTime: early })),
    [late, early],
  ],
  ['none given', give(slice('L1 R1')), []],
  ['not a time', give(slice('L1 R1', { triggerTime: 'noon' })), []],
  ['nothing changed', give(slice('L1', { triggerTime: early })), []],
  [
    'a deletion forgets the times before it',
    both(give(slice('R1', { name: 'pear-2', triggerTime: early })), dropSlice('default/pear-1')),
    [],
  ],
  [
    'but not those after it',
    both(dropSlice('default/pear-1'), give(slice('R1', { name: 'pear-2', triggerTime: late }))),
    [late],
  ],
  ['no service', give(slice('L1', { name: 'plum-1', serviceName: 'plum', triggerTime: early })), []],
];

for (const [title, act, expected] of triggers) {
  test(`4.2 trigger times: ${title}`, () => {
    const model = newModel();
    deliver(model, service(), slice('L1'));
    model.takeChanges();
    act(model);
    assert.deepEqual(model.takeChanges().triggerTimes, {
      IPv4: expected.map((text) => Date.parse(text)),
      IPv6: [],
    });
    assert.deepEqual(model.takeChanges().triggerTimes, { IPv4: [], IPv6: [] });
  });
}

test('trigger times before the start of the process are left out', () => {
  const model = newModel({ triggersSince: Date.parse(early) });
  deliver(model, service(), slice('L1', { triggerTime: early }));
  assert.deepEqual(model.takeChanges().triggerTimes.IPv4, []);
  deliver(model, slice('L1 R1', { triggerTime: late }));
  assert.deepEqual(model.takeChanges().triggerTimes.IPv4, [Date.parse(late)]);
});

test('what is pending: Services that changed, slice events that changed something', () => {
  const model = newModel();
  assert.deepEqual(model.pending, { services: 0, endpointSlices: 0 });
  deliver(model, service(), slice('L1'));
  deliver(model, service(), slice('L1'));
  assert.deepEqual(model.pending, { services: 1, endpointSlices: 1 }, 'the same again is no change');
  deliver(model, slice('L1 R1'), slice('R2', { name: 'pear-2' }));
  assert.deepEqual(model.pending, { services: 1, endpointSlices: 3 });
  model.takeChanges();
  assert.deepEqual(model.pending, { services: 0, endpointSlices: 0 });
  model.setEndpointSlice('default/pear-2', undefined);
  assert.deepEqual(model.pending, { services: 0, endpointSlices: 1 });
});

// ---- health checks

const peach: Partial<Service> = {
  type: 'LoadBalancer',
  externalTrafficPolicy: 'Local',
  healthCheckNodePort: 32190,
  loadBalancerIngress: [vip('192.0.2.190')],
};
const twoPorts = { ports: [port({ name: 'a' }), port({ name: 'b', port: 81 })] };
const forPort = (name: string, eps: string): EndpointSlice =>
  slice(eps, { name: `pear-${name}`, ports: [{ name, protocol: 'TCP', port: name === 'a' ? 9000 : 9001 }] });

const healthCases: readonly (readonly [
  row: string,
  objects: readonly (Service | EndpointSlice)[],
  count: number | undefined,
])[] = [
  ['336', [service(peach), slice('L1 L2 R1')], 2],
  ['337', [service(peach), slice('R1')], 0],
  ['338', [service(peach), slice('L1~ R1')], 0],
  ['339', [service({ ...peach, ...twoPorts }), forPort('a', 'L1'), forPort('b', 'L1')], 1],
  ['340', [service({ ...peach, ...twoPorts }), forPort('a', 'L1!'), forPort('b', 'L1')], 1],
  ['363: a slice port that no Service port names', [service(peach), forPort('b', 'L1 L2'), slice('R1')], 2],
  ['341', [service({ ...peach, externalTrafficPolicy: 'Cluster' }), slice('L1')], undefined],
  ['342', [service({ ...peach, type: 'NodePort' }), slice('L1')], undefined],
];

for (const [row, objects, count] of healthCases) {
  test(`8.1 row ${row}`, () => {
    const model = newModel();
    deliver(model, ...objects);
    const { healthChecks, healthChecksRemoved } = model.takeChanges();
    assert.deepEqual(healthChecksRemoved, []);
    const check = {
      service: 'default/pear',
      namespace: 'default',
      name: 'pear',
      port: 32190,
      localReadyEndpoints: count,
    };
    assert.deepEqual(healthChecks, count === undefined ? [] : [{ family: 'IPv4', check }]);
  });
}

test('8.1 health checks follow the service and its endpoints', () => {
  const model = newModel();
  const step = (...objects: readonly (Service | EndpointSlice)[]): string[] => {
    deliver(model, ...objects);
    const { healthChecks, healthChecksRemoved } = model.takeChanges();
    return [
      ...healthChecksRemoved.map(({ family, service: name }) => `-${family} ${name}`),
      ...healthChecks.map(({ family, check }) => `+${family} ${check.port} ${check.localReadyEndpoints}`),
    ];
  };
  assert.deepEqual(step(service(peach), slice('L1')), ['+IPv4 32190 1']);
  assert.deepEqual(step(slice('L1 R1')), []);
  assert.deepEqual(step(slice('L1 L2')), ['+IPv4 32190 2']);
  assert.deepEqual(step(service({ ...peach, healthCheckNodePort: 32191 })), ['+IPv4 32191 2']);
  assert.deepEqual(step(service({ ...peach, externalTrafficPolicy: 'Cluster' })), ['-IPv4 default/pear']);
  assert.deepEqual(step(service(peach)), ['+IPv4 32190 2']);
  model.setService('default/pear', undefined);
  assert.deepEqual(step(), ['-IPv4 default/pear']);
});

// ---- contested addresses

const shared = '203.0.113.200';

/** Services a, b, c share an external IP; b is the oldest. */
const rivals: Readonly<Record<string, Service>> = Object.fromEntries(
  [
    ['a', '2026-01-03T00:00:00Z'],
    ['b', '2026-01-01T00:00:00Z'],
    ['c', '2026-01-02T00:00:00Z'],
  ].map(([name = '', creationTimestamp = ''], index) => [
    name,
    clusterIP(`10.177.0.${index + 1}`, { name, creationTimestamp, externalIPs: [shared] }),
  ]),
);
const A = rivals['a']!;
const B = rivals['b']!;
const C = rivals['c']!;
const of = (name: string, eps: string): EndpointSlice => slice(eps, { name: `${name}-1`, serviceName: name });

interface Contest {
  readonly title: string;
  readonly steps: readonly {
    readonly act: (model: ServiceModel) => void;
    /** Who has the address afterwards. */
    readonly owner: string | undefined;
    /** What is reported: 'owner: others'. */
    readonly reported?: string;
    /** Whom takeChanges() hands out. */
    readonly upserted?: string;
  }[];
}

const contests: readonly Contest[] = [
  {
    title: 'the older service wins, whatever the order of arrival',
    steps: [
      { act: give(A), owner: 'a' },
      { act: give(B), owner: 'b', reported: 'b: a', upserted: 'a b' },
      { act: give(C), owner: 'b', reported: 'b: c a', upserted: 'c' },
      { act: give(service()), owner: 'b', upserted: 'pear' },
    ],
  },
  {
    title: 'row 348: who has usable endpoints comes first',
    steps: [
      { act: give(A, B), owner: 'b', reported: 'b: a' },
      { act: give(of('a', 'L1')), owner: 'a', reported: 'a: b', upserted: 'a b' },
      { act: give(of('b', 'R1')), owner: 'b', reported: 'b: a', upserted: 'a b' },
      { act: give(of('b', 'R1!')), owner: 'a', reported: 'a: b', upserted: 'a b' },
      { act: give(of('b', 'R1~')), owner: 'b', reported: 'b: a', upserted: 'a b' },
    ],
  },
  {
    title: 'the owner is deleted: the next one takes over, and a lone claimant is no conflict',
    steps: [
      { act: give(A, B, C), owner: 'b', reported: 'b: c a' },
      { act: dropService('default/b'), owner: 'c', reported: 'c: a', upserted: 'c' },
      { act: give({ ...C, externalIPs: [] }), owner: 'a', upserted: 'a c' },
      { act: dropService('default/a'), owner: undefined, upserted: '' },
      { act: give(A, C), owner: 'c', reported: 'c: a', upserted: 'a c' },
    ],
  },
  {
    title: 'a conflict is reported once, until it changes or comes back',
    steps: [
      { act: give(A, B), owner: 'b', reported: 'b: a' },
      { act: both(dropService('default/b'), give(B)), owner: 'b', upserted: '' },
      { act: both(give(of('a', 'L1')), dropSlice('default/a-1')), owner: 'b', upserted: '' },
      { act: dropService('default/b'), owner: 'a', upserted: 'a' },
      { act: give(B), owner: 'b', reported: 'b: a', upserted: 'a b' },
    ],
  },
  {
    title: 'equal age: the smaller name; an unknown age comes last',
    steps: [
      {
        act: give({ ...C, creationTimestamp: '' }, { ...B, creationTimestamp: '' }),
        owner: 'b',
        reported: 'b: c',
      },
      { act: give(A), owner: 'a', reported: 'a: b c' },
    ],
  },
  {
    title: 'a service that turns out older takes over',
    steps: [
      { act: give(A, C), owner: 'c', reported: 'c: a' },
      {
        act: give({ ...A, creationTimestamp: '2025-01-01T00:00:00Z' }),
        owner: 'a',
        reported: 'a: c',
        upserted: 'a c',
      },
    ],
  },
  {
    title: 'rows 349 and 350: another port or protocol is another address',
    steps: [
      {
        act: give(A, { ...B, ports: [port({ port: 81 })] }, { ...C, ports: [port({ protocol: 'UDP' })] }),
        owner: 'a b c',
      },
    ],
  },
  {
    title: 'the cluster IP of one as the external IP of another',
    steps: [
      { act: give(clusterIP(shared, { name: 'd', creationTimestamp: '2026-02-01T00:00:00Z' })), owner: 'd' },
      { act: give(C), owner: 'c', reported: 'c: d', upserted: 'c d' },
    ],
  },
];

for (const { title, steps } of contests) {
  test(`10 ${title}`, () => {
    const model = newModel();
    for (const [index, { act, owner, reported, upserted }] of steps.entries()) {
      act(model);
      const changes = model.takeChanges();
      const at = `step ${index + 1}`;
      const owners = [...model.servicePorts('IPv4')]
        .filter((p) => p.addresses.some((address) => address.ip === shared))
        .map((p) => p.serviceName)
        .sort();
      assert.equal(owners.join(' '), owner ?? '', at);
      const open = changes.conflicts.filter(({ others }) => others.length > 0);
      const conflicts = open.map((c) => `${c.owner}: ${c.others.join(' ')}`);
      assert.deepEqual(
        conflicts,
        reported === undefined ? [] : [reported.replaceAll(/\b([abcd])\b/g, 'default/$1')],
        at,
      );
      if (reported !== undefined) assert.equal(open[0]?.address, `${shared}:80/TCP`);
      if (upserted !== undefined) {
        const names = changesOf(changes).upserted.map((p) => p.serviceName);
        assert.equal(names.sort().join(' '), upserted, at);
      }
    }
  });
}

test('10 node ports are contested per family and protocol', () => {
  const dual = {
    clusterIPs: ['10.177.0.1', 'fd77::1'],
    ipFamilies: ['IPv4', 'IPv6'],
    ports: [port({ nodePort: 31110 })],
  };
  const v6Only = {
    clusterIP: 'fd77::2',
    clusterIPs: ['fd77::2'],
    ipFamilies: ['IPv6'],
    ports: [port({ nodePort: 31110 })],
  };
  const model = newModel();
  deliver(model, service({ name: 'a', ...dual }), service({ name: 'b', ...v6Only }));
  deliver(model, clusterIP('10.177.0.3', { name: 'c', ports: [port({ nodePort: 31110, protocol: 'UDP' })] }));
  assert.deepEqual(model.takeChanges().conflicts, [
    {
      family: 'IPv6',
      address: 'node port 31110/TCP',
      owner: 'default/a',
      others: ['default/b'],
      losers: [{ namespace: 'default', name: 'b', uid: '' }],
    },
  ]);
});

test('10 two ports of one service with the same number', () => {
  const model = newModel();
  deliver(model, service({ ports: [port({ name: 'b' }), port({ name: 'a' })] }));
  const { conflicts } = model.takeChanges();
  assert.deepEqual(conflicts, [
    {
      family: 'IPv4',
      address: '10.177.0.50:80/TCP',
      owner: 'default/pear:a',
      others: ['default/pear:b'],
      losers: [{ namespace: 'default', name: 'pear', uid: '' }],
    },
  ]);
  deliver(model, service({ ports: [port({ name: 'a' })] }));
  assert.deepEqual(model.takeChanges().conflicts, [
    { family: 'IPv4', address: '10.177.0.50:80/TCP', owner: 'default/pear:a', others: [], losers: [] },
  ]);
});

test('10 an external IP that is a VIP of the same service is one address, with its source ranges (row 145)', () => {
  const result = only([
    service({
      type: 'LoadBalancer',
      externalIPs: ['192.0.2.100'],
      loadBalancerIngress: [vip('192.0.2.100')],
      loadBalancerSourceRanges: ['198.51.100.0/26'],
    }),
    slice('L1'),
  ]);
  assert.deepEqual(result?.addresses[1], {
    kind: 'LoadBalancerIP',
    ip: '192.0.2.100',
    port: 80,
    scope: 'external',
    policy: 'Cluster',
    fallback: 'serve',
    sourceRanges: [{ ip: '198.51.100.0', prefixLength: 26 }],
  });
});

test('9 affinity is one property of the service port, whatever the address', () => {
  const result = only([service({ sessionAffinity: 'ClientIP', affinityTimeoutSeconds: 600 }), slice('L1')]);
  assert.equal(result?.affinitySeconds, 600);
  const model = newModel();
  deliver(model, service({ sessionAffinity: 'ClientIP' }), slice('L1'));
  assert.equal(changesOf(model.takeChanges()).upserted[0]?.affinitySeconds, 10800);
  // Row 294: switched off.
  deliver(model, service());
  assert.equal(changesOf(model.takeChanges()).upserted[0]?.affinitySeconds, 0);
});

test('what changed last is handed out last', () => {
  const model = newModel();
  const services = ['apple', 'fig', 'plum'].map((name, at) => clusterIP(`10.177.0.${at + 1}`, { name }));
  const endpointsOf = (name: string): EndpointSlice => slice('L1', { name: `${name}-1`, serviceName: name });
  deliver(model, ...services, endpointsOf('fig'), endpointsOf('apple'));
  const names = changesOf(model.takeChanges(), 'IPv4').upserted.map(({ name }) => name);
  assert.deepEqual(names, ['default/plum', 'default/fig', 'default/apple']);
});
