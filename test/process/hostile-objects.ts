/** Objects that no sane client would send, and what has to be said about each. */
import type { Json } from '../apiserver/defaults.js';
import { nodeIP, podIP } from './node.js';

export interface HostileCase {
  readonly what: string;
  readonly objects: readonly Json[];
  /** 'REASON Kind namespace/name' of the event, each exactly once. */
  readonly told: readonly string[];
  /** Protobuf has no way to say it. */
  readonly jsonOnly?: true;
  /** What iptables programs in a time that a test has. */
  readonly small?: true;
}

const namespace = 'hostile';

export function many<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

export function service(name: string, spec: Json, metadata: Json = {}, more: Json = {}): Json {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, ...metadata },
    spec: { ports: [{ name: 'web', port: 80 }], ...spec },
    ...more,
  };
}

export function slice(
  name: string,
  addresses: readonly string[],
  more: Json = {},
  metadata: Json = {},
): Json {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: `${name}-1`, namespace, labels: { 'kubernetes.io/service-name': name }, ...metadata },
    addressType: 'IPv4',
    ports: [{ name: 'web', port: 9000, protocol: 'TCP' }],
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
    ...more,
  };
}

/** A Service of its own cluster IP, with one endpoint. */
function served(name: string, host: number, spec: Json = {}, metadata: Json = {}, more: Json = {}): Json[] {
  return [service(name, { clusterIP: `10.177.66.${host}`, ...spec }, metadata, more), slice(name, [podIP])];
}

const ip = (index: number): string => `10.${62 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`;
const fields = (kind: string, name: string): string => `FieldsLeftOut ${kind} ${namespace}/${name}`;

/** Names that would be commands if somebody pasted them into the text of a ruleset, a shell or a terminal. */
const oddNames: readonly string[] = [
  'quote"quote\'; drop table',
  'line\nCOMMIT\n*nat\n-F\n',
  'nul\u0000nul',
  '\u001b[2J\u202efdp.exe',
  '../../etc/passwd',
  '$(reboot)`reboot`',
  '{ flush ruleset }',
  'größe-梨-🍐',
  '-A KUBE-SERVICES -j DROP',
];

export const hostileCases: readonly HostileCase[] = [
  {
    what: 'a Service with 10,000 ports, and as many in its slice',
    objects: [
      service('ports', {
        clusterIP: '10.177.66.1',
        ports: many(10_000, (i) => ({ name: `p${i}`, port: i + 1 })),
      }),
      slice('ports', [podIP, '10.62.0.1'], {
        ports: many(10_000, (i) => ({ name: `p${i}`, port: i + 1, protocol: 'TCP' })),
      }),
    ],
    told: [],
  },
  {
    what: 'a Service with 200 ports',
    objects: [
      service('ports', {
        clusterIP: '10.177.66.1',
        ports: many(200, (i) => ({ name: `p${i}`, port: i + 1 })),
      }),
      slice('ports', [podIP], { ports: many(200, (i) => ({ name: `p${i}`, port: i + 1, protocol: 'TCP' })) }),
    ],
    told: [],
    small: true,
  },
  {
    what: 'a slice with 50,000 endpoints (the API allows 1,000)',
    objects: [service('crowd', { clusterIP: '10.177.66.2' }), slice('crowd', many(50_000, ip))],
    told: [],
  },
  {
    what: 'a million pairs of port and endpoint',
    objects: [
      service('product', {
        clusterIP: '10.177.66.3',
        ports: many(1000, (i) => ({ name: `p${i}`, port: i + 1 })),
      }),
      slice('product', many(1000, ip), {
        ports: many(1000, (i) => ({ name: `p${i}`, port: i + 1, protocol: 'TCP' })),
      }),
    ],
    told: [fields('EndpointSlice', 'product-1')],
  },
  {
    what: 'the same address many times, in one slice and in others, and ports twice',
    objects: [
      service('twice', {
        clusterIP: '10.177.66.4',
        ports: [
          { name: 'web', port: 80 },
          { name: 'web', port: 80 },
        ],
      }),
      slice(
        'twice',
        many(1000, (i) => (i % 2 === 0 ? podIP : '10.62.0.1')),
        {
          ports: many(100, () => ({ name: 'web', port: 9000, protocol: 'TCP' })),
        },
      ),
      slice('twice', [podIP, podIP], {}, { name: 'twice-2' }),
    ],
    told: [],
    small: true,
  },
  {
    what: 'names that are commands',
    objects: oddNames.flatMap((odd, i) => [
      ...served(`odd-${i}`, 10 + i, {
        ports: [{ name: odd, port: 80, nodePort: 31_100 + i }],
        type: 'NodePort',
      }),
      slice(
        `odd-${i}`,
        ['10.62.0.1'],
        { ports: [{ name: odd, port: 9000, protocol: 'TCP' }] },
        { name: odd },
      ),
    ]),
    told: [],
    small: true,
  },
  {
    what: 'objects, and namespaces, whose names are commands',
    objects: oddNames.flatMap((odd, i) => [
      ...served(odd, 30 + i, {}, { namespace: odd }),
      slice(odd, ['10.62.0.1'], {}, { namespace: odd, labels: { 'kubernetes.io/service-name': odd } }),
    ]),
    told: [],
    small: true,
  },
  {
    what: 'names of 10 kB',
    objects: served('n'.repeat(10_240), 50, { ports: [{ name: 'p'.repeat(10_240), port: 70_000 }] }),
    told: [fields('Service', 'n'.repeat(10_240))],
    small: true,
  },
  {
    what: 'endpoints that can not be, and some that can',
    objects: [
      service('nowhere', { clusterIP: '10.177.66.5' }),
      slice('nowhere', [
        '127.0.0.1',
        '0.0.0.0',
        '169.254.169.254',
        '224.0.0.1',
        '255.255.255.255',
        'fe80::1%eth0',
        '10.62.0.999',
        'localhost',
        '',
        'x'.repeat(100_000),
        '::ffff:10.62.0.1',
        '010.062.000.002',
        nodeIP,
      ]),
    ],
    told: [fields('EndpointSlice', 'nowhere-1')],
    small: true,
  },
  {
    what: 'two Services on one cluster IP',
    objects: [
      ...served('first', 6, {}, { creationTimestamp: '2026-01-01T00:00:00Z' }),
      ...served('second', 6, {}, { creationTimestamp: '2026-01-02T00:00:00Z' }),
    ],
    told: ['AddressTaken Service hostile/second'],
    small: true,
  },
  {
    what: 'two Services on one external IP and one node port',
    objects: [
      ...served(
        'third',
        7,
        {
          type: 'NodePort',
          externalIPs: ['203.0.113.66'],
          ports: [{ name: 'web', port: 80, nodePort: 31_200 }],
        },
        { creationTimestamp: '2026-01-01T00:00:00Z' },
      ),
      ...served(
        'fourth',
        8,
        {
          type: 'NodePort',
          externalIPs: ['203.0.113.66'],
          ports: [{ name: 'web', port: 80, nodePort: 31_200 }],
        },
        { creationTimestamp: '2026-01-02T00:00:00Z' },
      ),
    ],
    told: ['AddressTaken Service hostile/fourth'],
    small: true,
  },
  {
    what: 'addresses of the node itself and of nothing, as cluster IP and as external IP',
    objects: [
      service('loop', { clusterIP: '127.0.0.1' }),
      service('zero', { clusterIP: '0.0.0.0' }),
      service('none', { clusterIP: 'None' }),
      service('empty', { clusterIP: '' }),
      service('rubbish', { clusterIP: 'rubbish', ipFamilies: ['IPv4'], clusterIPs: ['rubbish'] }),
      ...served('self', 9, {
        externalIPs: [nodeIP, '127.0.0.1', '0.0.0.0'],
        ports: [{ name: 'web', port: 8099 }],
      }),
    ],
    told: ['loop', 'zero', 'rubbish', 'self'].map((name) => fields('Service', name)),
    small: true,
  },
  {
    what: 'port numbers that are none',
    objects: [
      ...served('numbers', 20, {
        type: 'NodePort',
        ports: [
          { name: 'a', port: 80, nodePort: 70_000 },
          { name: 'b', port: 81, nodePort: -1 },
          { name: 'c', port: 0 },
          { name: 'd', port: 65_536 },
          { name: 'e', port: -80 },
        ],
      }),
      slice(
        'numbers',
        [podIP],
        {
          ports: [
            { name: 'a', port: 0 },
            { name: 'b', port: 99_999 },
          ],
        },
        { name: 'numbers-2' },
      ),
    ],
    told: [fields('Service', 'numbers'), fields('EndpointSlice', 'numbers-2')],
    small: true,
  },
  {
    what: 'ports that are text',
    objects: served('text', 21, { ports: [{ name: 'web', port: '80' }] }),
    told: ['ObjectUnreadable Service hostile/text'],
    jsonOnly: true,
  },
  {
    what: 'protocols that there are not',
    objects: [
      ...served('quic', 22, { ports: [{ name: 'web', port: 80, protocol: 'QUIC' }] }),
      slice(
        'quic',
        [podIP],
        { ports: [{ name: 'web', port: 80, protocol: 'tcp\u0000' }] },
        { name: 'quic-2' },
      ),
    ],
    told: ['ObjectUnreadable Service hostile/quic', 'ObjectUnreadable EndpointSlice hostile/quic-2'],
    small: true,
  },
  {
    what: 'affinity for no time, for negative time and for ever',
    objects: [0, -5, 2 ** 31 - 1].flatMap((timeoutSeconds, i) =>
      served(`sticky-${i}`, 23 + i, {
        sessionAffinity: 'ClientIP',
        sessionAffinityConfig: { clientIP: { timeoutSeconds } },
      }),
    ),
    told: [0, 1, 2].map((i) => fields('Service', `sticky-${i}`)),
    small: true,
  },
  {
    what: 'source ranges: 10,000, rubbish, and such that overlap',
    objects: served(
      'ranges',
      26,
      {
        type: 'LoadBalancer',
        loadBalancerSourceRanges: [
          'rubbish',
          '10.0.0.0/99',
          '',
          '10.0.0.0/8',
          '10.0.0.0/9',
          ...many(10_000, (i) => `${ip(i)}/${17 + (i % 16)}`),
        ],
      },
      {},
      { status: { loadBalancer: { ingress: [{ hostname: 'only.a.name' }, { ip: '203.0.113.67' }] } } },
    ),
    told: [fields('Service', 'ranges')],
  },
  {
    what: 'slices that belong to nothing',
    objects: [
      slice('lost', [podIP], {}, { name: 'lost-a', labels: {} }),
      slice('lost', [podIP], {}, { name: 'lost-b', labels: { 'kubernetes.io/service-name': 'never-was' } }),
      slice(
        'lost',
        [podIP],
        {},
        { name: 'lost-c', labels: { 'kubernetes.io/service-name': 'x'.repeat(100_000) } },
      ),
      slice(
        'lost',
        [podIP],
        {},
        { name: 'lost-d', labels: { 'kubernetes.io/service-name': 'orchard/pear' } },
      ),
    ],
    told: [fields('EndpointSlice', 'lost-a')],
    small: true,
  },
  {
    what: 'slices of other address types, and whose ports contradict each other',
    objects: [
      service('mixed', { clusterIP: '10.177.66.27' }),
      slice('mixed', ['example.com'], { addressType: 'FQDN' }, { name: 'mixed-1' }),
      slice('mixed', ['fd00::1'], { addressType: 'IPv9' }, { name: 'mixed-2' }),
      slice('mixed', [podIP], { ports: [{ name: 'other', port: 1 }] }, { name: 'mixed-3' }),
      slice('mixed', [podIP], { ports: [{ name: 'web', port: 9000, protocol: 'UDP' }] }, { name: 'mixed-4' }),
      slice('mixed', [podIP], { ports: [] }, { name: 'mixed-5' }),
      slice('mixed', [podIP], {}, { name: 'mixed-6' }),
    ],
    told: [],
    small: true,
  },
  {
    what: 'an annotation of a megabyte',
    objects: served('talk', 28, {}, { annotations: { essay: 'x'.repeat(1 << 20) } }),
    told: [],
    small: true,
  },
];
