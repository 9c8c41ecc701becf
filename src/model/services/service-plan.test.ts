/** Services to service ports: service-model.md 2 and 6.5, every field, with the conformance rows they stand for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IPFamily, Service } from '../../sources/objects.js';
import { formatCidr } from '../addresses/addresses.js';
import { alder, port, service, vip } from '../fixtures.js';
import { planService, type PlanOptions } from './service-plan.js';
import type { PortPlan } from './plan.js';

const dual: Partial<Service> = {
  clusterIP: '10.177.0.70',
  clusterIPs: ['10.177.0.70', 'fd77::70'],
  ipFamilies: ['IPv4', 'IPv6'],
};

function ports(
  fields: Partial<Service>,
  family: IPFamily,
  options: Partial<PlanOptions> = {},
): readonly PortPlan[] {
  return planService(service(fields), { ...alder, ...options }).plan?.[family]?.ports ?? [];
}

/** 'ClusterIP 10.177.0.50:80, NodePort :31000' */
function addresses(
  fields: Partial<Service>,
  family: IPFamily = 'IPv4',
  options: Partial<PlanOptions> = {},
): string {
  return ports(fields, family, options)
    .flatMap((plan) => plan.addresses.map(({ kind, ip, port: number }) => `${kind} ${ip}:${number}`))
    .join(', ');
}

function problems(fields: Partial<Service>): readonly string[] {
  return planService(service(fields), alder).problems.list.map(({ field }) => field);
}

const clusterIp = 'ClusterIP 10.177.0.50:80';

const skipped: readonly (readonly [title: string, fields: Partial<Service>, v4: string, v6: string])[] = [
  ['an ordinary service', {}, clusterIp, ''],
  ['row 43: cluster IP None', { clusterIP: 'None', clusterIPs: ['None'] }, '', ''],
  [
    'row 45: no cluster IP takes the node port with it',
    { clusterIP: '', clusterIPs: [], ports: [port({ nodePort: 31045 })] },
    '',
    '',
  ],
  ['row 44: ExternalName', { type: 'ExternalName' }, '', ''],
  ['row 46: another proxy serves it', { serviceProxyName: 'other' }, '', ''],
  ['row 48: the label counts even when it is empty', { serviceProxyName: '' }, '', ''],
  ['row 55: dual stack', dual, 'ClusterIP 10.177.0.70:80', 'ClusterIP fd77::70:80'],
  [
    'row 57: the order of the families has no meaning',
    { ...dual, clusterIPs: ['fd77::70', '10.177.0.70'], ipFamilies: ['IPv6', 'IPv4'] },
    'ClusterIP 10.177.0.70:80',
    'ClusterIP fd77::70:80',
  ],
  [
    'row 59: an IPv6 service has no IPv4 node port',
    {
      clusterIP: 'fd77::59',
      clusterIPs: ['fd77::59'],
      ipFamilies: ['IPv6'],
      ports: [port({ nodePort: 31059 })],
    },
    '',
    'ClusterIP fd77::59:80, NodePort :31059',
  ],
  [
    'row 61: an IPv4 service has no IPv6 external IP',
    { externalIPs: ['203.0.113.61', '2001:db8:e::61'] },
    `${clusterIp}, ExternalIP 203.0.113.61:80`,
    '',
  ],
  ['row 62: an old object without ipFamilies', { ipFamilies: [], clusterIPs: [] }, clusterIp, ''],
  ['an old IPv6 object', { ipFamilies: [], clusterIP: 'fd77::62' }, '', 'ClusterIP fd77::62:80'],
  ['row 66: fewer cluster IPs than families', { ipFamilies: ['IPv4', 'IPv6'] }, clusterIp, ''],
  ['a cluster IP that is none', { clusterIP: '10.177.0', clusterIPs: ['10.177.0'] }, '', ''],
  ['a cluster IP with leading zeros', { clusterIPs: ['010.177.000.050'] }, clusterIp, ''],
  ['no ports', { ports: [] }, '', ''],
];

for (const [title, fields, v4, v6] of skipped) {
  test(`2.1 ${title}`, () => {
    assert.equal(addresses(fields), v4);
    assert.equal(addresses(fields, 'IPv6'), v6);
  });
}

test('2.1 a family that is not served gets no plan', () => {
  const { plan } = planService(service(dual), { ...alder, families: ['IPv6'] });
  assert.equal(plan?.IPv4, undefined);
  assert.equal(plan?.IPv6?.ports.length, 1);
});

const addressCases: readonly {
  readonly title: string;
  readonly fields: Partial<Service>;
  readonly expected: string;
  readonly options?: Partial<PlanOptions>;
  readonly problems?: readonly string[];
}[] = [
  {
    title: 'a node port does not depend on the type',
    fields: { ports: [port({ nodePort: 31000 })] },
    expected: 'NodePort :31000',
  },
  {
    title: 'row 90: two external IPs',
    fields: { externalIPs: ['203.0.113.81', '203.0.113.80'] },
    expected: 'ExternalIP 203.0.113.80:80, ExternalIP 203.0.113.81:80',
  },
  {
    title: 'row 85, done better: external IPs are trimmed',
    fields: { externalIPs: [' 203.0.113.81', '203.0.113.80'] },
    expected: 'ExternalIP 203.0.113.80:80, ExternalIP 203.0.113.81:80',
  },
  {
    title: 'row 87: leading zeros',
    fields: { externalIPs: ['203.000.113.082'] },
    expected: 'ExternalIP 203.0.113.82:80',
  },
  {
    title: 'a bad external IP is left out alone; a blank one in silence',
    fields: { externalIPs: ['203.0.113', ' ', '203.0.113.80'] },
    expected: 'ExternalIP 203.0.113.80:80',
    problems: ['spec.externalIPs[0]'],
  },
  {
    title: 'the same address twice appears once',
    fields: { externalIPs: ['203.0.113.80', '203.0.113.080', '::ffff:203.0.113.80'] },
    expected: 'ExternalIP 203.0.113.80:80',
  },
  {
    title: 'row 83: the gate suppresses external IPs',
    fields: { externalIPs: ['203.0.113.80', 'garbage'] },
    options: { externalIPs: false },
    expected: '',
  },
  {
    title: 'row 91: a VIP and its node port',
    fields: {
      type: 'LoadBalancer',
      loadBalancerIngress: [vip('192.0.2.90')],
      ports: [port({ nodePort: 31090 })],
    },
    expected: 'LoadBalancerIP 192.0.2.90:80, NodePort :31090',
  },
  {
    title: 'rows 96, 97 and 100: only mode VIP, or none, counts',
    fields: {
      loadBalancerIngress: [vip('192.0.2.90', 'VIP'), vip('192.0.2.91', 'Proxy'), vip('192.0.2.92', 'Later')],
    },
    expected: 'LoadBalancerIP 192.0.2.90:80',
  },
  { title: 'row 99: a host name', fields: { loadBalancerIngress: [vip('')] }, expected: '' },
  {
    title: 'row 103: the status counts whatever the type',
    fields: { type: 'ClusterIP', loadBalancerIngress: [vip('192.0.2.90')] },
    expected: 'LoadBalancerIP 192.0.2.90:80',
  },
  {
    title: 'a VIP that is no address',
    fields: { loadBalancerIngress: [vip('192.0.2'), vip('192.0.2.90')] },
    expected: 'LoadBalancerIP 192.0.2.90:80',
    problems: ['status.loadBalancer.ingress[0].ip'],
  },
  {
    title: 'row 145: an external IP that is also a VIP is a VIP',
    fields: { externalIPs: ['192.0.2.100'], loadBalancerIngress: [vip('192.0.2.100')] },
    expected: 'LoadBalancerIP 192.0.2.100:80',
  },
  {
    title: 'the cluster IP given as an external IP stays the cluster IP',
    fields: { externalIPs: ['10.177.0.50'] },
    expected: '',
  },
  {
    title: 'a port number that is none costs only that port',
    fields: { ports: [port({ name: 'bad', port: 70000 }), port({ nodePort: 70000 })] },
    expected: '',
    problems: ['spec.ports[0].port', 'spec.ports[1].nodePort'],
  },
];

for (const { title, fields, expected, options, problems: reported = [] } of addressCases) {
  test(`2.2 ${title}`, () => {
    const all = addresses(fields, 'IPv4', options);
    assert.equal(all, expected === '' ? clusterIp : `${clusterIp}, ${expected}`);
    if (options === undefined) assert.deepEqual(problems(fields), reported);
  });
}

test('2.2 each port has the addresses at its own number (row 116)', () => {
  const fields = {
    loadBalancerIngress: [vip('192.0.2.90')],
    ports: [port({ name: 'a', port: 443 }), port({ name: 'b', port: 8443 })],
  };
  assert.equal(
    addresses(fields),
    'ClusterIP 10.177.0.50:443, LoadBalancerIP 192.0.2.90:443, ClusterIP 10.177.0.50:8443, LoadBalancerIP 192.0.2.90:8443',
  );
});

test('2.2 of two ports with one name and protocol the last one wins', () => {
  const plans = ports(
    { ports: [port({ port: 80 }), port({ port: 81 }), port({ port: 82, protocol: 'UDP' })] },
    'IPv4',
  );
  assert.deepEqual(
    plans.map((plan) => `${plan.port}/${plan.protocol}`),
    ['81/TCP', '82/UDP'],
  );
});

// prettier-ignore
const affinityCases: readonly (readonly [affinity: string, timeout: number | undefined, expected: number, problem: boolean])[] = [
  ['None', 600, 0, false],
  ['', undefined, 0, false],
  ['ClientIP', 600, 600, false],
  ['ClientIP', 1, 1, false],
  ['ClientIP', 86400, 86400, false],
  ['ClientIP', undefined, 10800, false],
  ['ClientIP', 0, 10800, true],
  ['ClientIP', 86401, 10800, true],
];

for (const [sessionAffinity, affinityTimeoutSeconds, expected, problem] of affinityCases) {
  test(`2.2 affinity '${sessionAffinity}' with timeout ${affinityTimeoutSeconds} is ${expected}`, () => {
    const fields = { sessionAffinity, affinityTimeoutSeconds };
    assert.equal(ports(fields, 'IPv4')[0]?.affinitySeconds, expected);
    assert.equal(problems(fields).length, problem ? 1 : 0);
  });
}

// prettier-ignore
const policyCases: readonly {
  readonly fields: Partial<Service>;
  readonly internal: 'Cluster' | 'Local';
  readonly external: 'Cluster' | 'Local' | 'none';
  readonly uses: string;
}[] = [
  { fields: {}, internal: 'Cluster', external: 'none', uses: 'cluster' },
  { fields: { internalTrafficPolicy: '' }, internal: 'Cluster', external: 'none', uses: 'cluster' },
  { fields: { internalTrafficPolicy: 'Local' }, internal: 'Local', external: 'none', uses: 'local' },
  { fields: { internalTrafficPolicy: 'Local', ports: [port({ nodePort: 31000 })] }, internal: 'Local', external: 'Cluster', uses: 'cluster local' },
  { fields: { externalTrafficPolicy: 'Local' }, internal: 'Cluster', external: 'none', uses: 'cluster' },
  { fields: { type: 'NodePort', externalTrafficPolicy: 'Local', ports: [port({ nodePort: 31000 })] }, internal: 'Cluster', external: 'Local', uses: 'cluster local' },
  { fields: { type: 'LoadBalancer', externalTrafficPolicy: 'Local' }, internal: 'Cluster', external: 'none', uses: 'cluster' },
  { fields: { type: 'LoadBalancer', externalTrafficPolicy: 'Local', loadBalancerIngress: [vip('192.0.2.90')], healthCheckNodePort: 32190 }, internal: 'Cluster', external: 'Local', uses: 'cluster local' },
  { fields: { externalTrafficPolicy: 'Local', externalIPs: ['203.0.113.80'] }, internal: 'Cluster', external: 'Local', uses: 'cluster local' },
  // Row 104: a stale status without external IPs is treated as policy Cluster.
  { fields: { externalTrafficPolicy: 'Local', loadBalancerIngress: [vip('192.0.2.90')] }, internal: 'Cluster', external: 'Cluster', uses: 'cluster' },
  // An external IP of the other family makes the policy count.
  { fields: { externalTrafficPolicy: 'Local', loadBalancerIngress: [vip('192.0.2.90')], externalIPs: ['2001:db8::1'] }, internal: 'Cluster', external: 'Local', uses: 'cluster local' },
];

for (const [index, { fields, internal, external, uses }] of policyCases.entries()) {
  test(`2.2 policies of ${JSON.stringify(fields)} (${index})`, () => {
    const [plan] = ports(fields, 'IPv4');
    assert.ok(plan);
    const policies = (scope: string): string[] => [
      ...new Set(plan.addresses.filter((a) => a.scope === scope).map((a) => a.policy)),
    ];
    assert.deepEqual(policies('internal'), [internal]);
    assert.deepEqual(policies('external'), external === 'none' ? [] : [external]);
    assert.equal([plan.usesCluster && 'cluster', plan.usesLocal && 'local'].filter(Boolean).join(' '), uses);
  });
}

const rangeCases: readonly {
  readonly title: string;
  readonly ranges: readonly string[];
  /** undefined: unrestricted; []: nobody. */
  readonly v4: readonly string[] | undefined;
  readonly v6: readonly string[] | undefined;
  readonly problems?: number;
}[] = [
  { title: 'none', ranges: [], v4: undefined, v6: undefined },
  { title: 'only blanks', ranges: ['', ' '], v4: undefined, v6: undefined },
  {
    title: 'both families',
    ranges: ['198.51.100.0/26', '2001:db8:f::/48'],
    v4: ['198.51.100.0/26'],
    v6: ['2001:db8:f::/48'],
  },
  {
    title: 'rows 128 to 130: blanks, host bits, leading zeros; the same range once',
    ranges: [' 198.51.100.0/26 ', '198.51.100.9/26', '198.051.100.000/026', '2001:db8:f::/48'],
    v4: ['198.51.100.0/26'],
    v6: ['2001:db8:f::/48'],
  },
  {
    title: 'row 131, done better: nothing usable lets nobody in',
    ranges: ['garbage'],
    v4: [],
    v6: [],
    problems: 3,
  },
  {
    title: 'row 132: what is usable counts',
    ranges: ['garbage', '198.51.100.0/26', '2001:db8:f::/48'],
    v4: ['198.51.100.0/26'],
    v6: ['2001:db8:f::/48'],
    problems: 1,
  },
  {
    title: 'row 133: a prefix of length 0 lets everybody of its family in',
    ranges: ['198.51.100.0/26', '0.0.0.0/0', '2001:db8:f::/48'],
    v4: undefined,
    v6: ['2001:db8:f::/48'],
  },
  {
    title: 'rows 134 and 135, done better: ranges of one family only keep the other out',
    ranges: ['2001:db8:f::/48'],
    v4: [],
    v6: ['2001:db8:f::/48'],
    problems: 1,
  },
  {
    title: 'row 137: nested ranges stay as they are',
    ranges: ['198.51.100.0/26', '198.51.100.0/28', '::/0'],
    v4: ['198.51.100.0/26', '198.51.100.0/28'],
    v6: undefined,
  },
  {
    title: 'rows 124 and 125: with the node itself in a range, the VIPs may come as sources',
    ranges: ['100.64.10.0/24', '::/0'],
    v4: ['100.64.10.0/24', '192.0.2.100/32', '192.0.2.101/32'],
    v6: undefined,
  },
  {
    title: 'the same for IPv6, and one family does not open the other',
    ranges: ['2001:db8:a::/48', '198.51.100.0/26'],
    v4: ['198.51.100.0/26'],
    v6: ['2001:db8:a::/48', '2001:db8:b::100/128'],
  },
];

for (const { title, ranges, v4, v6, problems: count = 0 } of rangeCases) {
  test(`6.5 source ranges: ${title}`, () => {
    const fields: Partial<Service> = {
      ...dual,
      type: 'LoadBalancer',
      loadBalancerIngress: [vip('192.0.2.100'), vip('192.0.2.101'), vip('2001:db8:b::100')],
      externalIPs: ['203.0.113.100'],
      loadBalancerSourceRanges: ranges,
      ports: [port({ nodePort: 31100 })],
    };
    for (const [family, expected] of [
      ['IPv4', v4],
      ['IPv6', v6],
    ] as const) {
      const [plan] = ports(fields, family);
      for (const { kind, sourceRanges } of plan?.addresses ?? []) {
        const wanted = kind === 'LoadBalancerIP' ? expected : undefined;
        assert.deepEqual(sourceRanges?.map(formatCidr), wanted, `${family} ${kind}`);
      }
    }
    assert.equal(problems(fields).length, count);
  });
}

test('6.5 ranges that concern no VIP are not complained about', () => {
  assert.deepEqual(
    problems({
      ...dual,
      loadBalancerSourceRanges: ['198.51.100.0/26'],
      loadBalancerIngress: [vip('192.0.2.1')],
    }),
    [],
  );
});

const balancer: Partial<Service> = {
  type: 'LoadBalancer',
  externalTrafficPolicy: 'Local',
  healthCheckNodePort: 32190,
};

const healthCases: readonly (readonly [
  title: string,
  fields: Partial<Service>,
  expected: number,
  problem: boolean,
])[] = [
  ['row 336: a load balancer with policy Local', balancer, 32190, false],
  ['row 341: policy Cluster', { ...balancer, externalTrafficPolicy: 'Cluster' }, 0, false],
  ['row 342: type NodePort', { ...balancer, type: 'NodePort' }, 0, false],
  ['no number', { ...balancer, healthCheckNodePort: 0 }, 0, true],
];

for (const [title, fields, expected, problem] of healthCases) {
  test(`2.2 health check node port: ${title}`, () => {
    assert.equal(planService(service(fields), alder).plan?.IPv4?.healthCheckNodePort, expected);
    assert.deepEqual(problems(fields), problem ? ['spec.healthCheckNodePort'] : []);
  });
}
