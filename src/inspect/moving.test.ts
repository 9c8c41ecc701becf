import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FORWARDING, IPVS_SVC_F, type RealServer, type VirtualServer } from '@kube-proxy-ts/netlink/ipvs';
import { movingText } from './moving-text.js';
import { movingReport, type IpvsFacts, type MovingTarget } from './moving.js';

function server(address: string, port: number, scheduler = 'rr', affinitySeconds = 0): VirtualServer {
  return {
    key: { family: 'ip', protocol: 6, address, port },
    settings: {
      scheduler,
      flags: affinitySeconds > 0 ? IPVS_SVC_F.persistent : 0,
      timeoutSeconds: affinitySeconds,
      clientPrefixLength: 32,
    },
  };
}

function endpoint(address: string, weight: number, active: number, inactive: number): RealServer {
  return {
    key: { family: 'ip', address, port: 8080 },
    settings: { forwarding: FORWARDING.masquerade, weight, upperThreshold: 0, lowerThreshold: 0 },
    activeConnections: active,
    inactiveConnections: inactive,
    persistentConnections: 0,
  };
}

const idle: IpvsFacts = {
  ours: [{ server: server('10.96.0.2', 80), endpoints: [endpoint('10.61.2.5', 1, 0, 0)], name: 'shop/cart' }],
  others: 0,
  serviceAddresses: ['10.96.0.2'],
  externalAddresses: [],
  nodeAddresses: ['192.0.2.11'],
  timeouts: { tcpSeconds: 900, tcpFinSeconds: 120, udpSeconds: 300 },
  conntrackTcpSeconds: 86_400,
  arp: { ignore: 0, announce: 0 },
};
const target: MovingTarget = {
  mode: 'nftables',
  nodePortAddresses: [],
  localhostNodePorts: true,
  excludeCIDRs: [],
};

function rowsOf(facts: Partial<IpvsFacts>, to: Partial<MovingTarget> = {}) {
  const rows = movingReport({ ...idle, ...facts }, { ...target, ...to });
  return new Map(rows.map(({ topic, now, then, advice }) => [topic, [now, then, advice]]));
}

test('a node without anything special: nothing to do', () => {
  const rows = rowsOf({});
  assert.deepEqual(
    [...rows.keys()],
    [
      'established connections',
      'idle TCP connections',
      'choice of an endpoint',
      'service addresses',
      'node ports',
      'settings of the kernel',
    ],
  );
  assert.deepEqual(rows.get('established connections'), [
    '0 active and 0 closing or UDP, through 0 of 1 virtual servers',
    'none to keep: all of IPVS goes at once',
    '',
  ]);
  assert.deepEqual(rows.get('idle TCP connections')?.slice(0, 2), [
    'forgotten after 15 min (IPVS)',
    'forgotten after 1 day (connection tracking)',
  ]);
  assert.deepEqual(rows.get('choice of an endpoint'), [
    'rr (1 virtual server)',
    'at random, each endpoint as likely (mode nftables)',
    '',
  ]);
});

test('what is special is told, with what to do', () => {
  const rows = rowsOf(
    {
      ours: [
        {
          server: server('10.96.0.2', 80, 'lc', 10_800),
          endpoints: [endpoint('10.61.2.5', 7, 3, 1), endpoint('10.61.2.6', 1, 2, 0)],
          name: 'shop/cart',
        },
        {
          server: server('192.0.2.11', 30080, 'lc'),
          endpoints: [endpoint('10.61.2.5', 9, 0, 4)],
          name: undefined,
        },
        { server: server('198.51.100.11', 30080, 'rr'), endpoints: [], name: undefined },
      ],
      others: 2,
      nodeAddresses: ['192.0.2.11', '198.51.100.11', '203.0.113.1'],
      externalAddresses: ['203.0.113.80'],
      arp: { ignore: 1, announce: 2 },
    },
    { nodePortAddresses: ['primary'], localhostNodePorts: false, excludeCIDRs: ['203.0.113.0/24'] },
  );
  assert.deepEqual(
    rows.get('established connections')?.[0],
    '5 active and 5 closing or UDP, through 2 of 3 virtual servers',
  );
  assert.match(
    rows.get('established connections')?.[1] ?? '',
    /^go on through IPVS until they are over, at most 24 hours/,
  );
  assert.match(
    rows.get('choice of an endpoint')?.[0] ?? '',
    /^lc \(2 virtual servers\), rr \(1 virtual server\)$/,
  );
  assert.match(rows.get('choice of an endpoint')?.[2] ?? '', /^lc: see whether/);
  assert.equal(
    rows.get('weights given by hand')?.[0],
    '10.61.2.5:8080 of shop/cart: 7, 10.61.2.5:8080 of tcp 192.0.2.11:30080: 9',
  );
  assert.match(rows.get('session affinity')?.[0] ?? '', /^1 virtual server, kept until 3 h after/);
  assert.equal(rows.get('external and load balancer IPs')?.[0], '203.0.113.80');
  assert.equal(
    rows.get('external and load balancer IPs')?.[2],
    '',
    'with strict ARP nobody relied on the node',
  );
  assert.match(rows.get('strict ARP')?.[0] ?? '', /arp_ignore=1, arp_announce=2/);
  assert.deepEqual(rows.get('node ports'), [
    'on 192.0.2.11, 198.51.100.11; not on loopback addresses',
    "on the node's primary addresses only, not on loopback addresses",
    'nodePortAddresses: ["0.0.0.0/0", "::/0"] keeps them on all addresses',
  ]);
  assert.deepEqual(rows.get('virtual servers of others')?.slice(0, 2), [
    '2; excludeCIDRs: 203.0.113.0/24',
    'are left alone, wherever they are',
  ]);
});

test('long lists are cut', () => {
  const external = Array.from({ length: 8 }, (_, n) => `203.0.113.${n + 1}`);
  const [now, , advice] = rowsOf({ externalAddresses: external }).get('external and load balancer IPs') ?? [];
  assert.equal(now, '203.0.113.1, 203.0.113.2, 203.0.113.3, 203.0.113.4, 203.0.113.5 and 3 more');
  assert.match(advice ?? '', /announces them/);
});

test('as a table with lines of a bounded length', () => {
  const text = movingText(movingReport(idle, target), target);
  const lines = text.trimEnd().split('\n');
  assert.match(lines[0] ?? '', /^TOPIC {2,}NOW, IN MODE IPVS {2,}IN MODE NFTABLES {2,}WHAT TO DO$/);
  assert.ok(lines.every((line) => line.length <= 160));
  assert.match(text, /^established connections {2,}0 active and 0 closing or UDP, through 0 +none to keep/m);
});
