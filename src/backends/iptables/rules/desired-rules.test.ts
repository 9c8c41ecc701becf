/** What service ports become, walked by packets: the table of service-model.md 6.3 to 6.6. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Endpoint, IPFamily, LocalDetector, ServicePort, VirtualAddress } from '../../../model/types.js';
import { desiredRules, type RuleContext } from './desired-rules.js';
import { endpointChain } from './names.js';
import { averageRules, outcomes, walk, type Packet } from '../testing/walk.js';

const podRange: LocalDetector = { kind: 'cidr', cidr: { ip: '10.61.0.0', prefixLength: 16 } };

const local: Endpoint = { ip: '10.61.1.31', port: 9000, local: true, nodeUnknown: false };
const local2: Endpoint = { ip: '10.61.1.32', port: 9000, local: true, nodeUnknown: false };
const remote: Endpoint = { ip: '10.61.2.41', port: 9000, local: false, nodeUnknown: false };

function address(kind: VirtualAddress['kind'], more: Partial<VirtualAddress> = {}): VirtualAddress {
  const ip = {
    ClusterIP: '10.177.0.50',
    ExternalIP: '203.0.113.80',
    LoadBalancerIP: '192.0.2.50',
    NodePort: '',
  }[kind];
  return {
    kind,
    ip,
    port: kind === 'NodePort' ? 31_050 : 80,
    scope: kind === 'ClusterIP' ? 'internal' : 'external',
    policy: 'Cluster',
    fallback: 'serve',
    sourceRanges: undefined,
    ...more,
  };
}

function servicePort(addresses: readonly VirtualAddress[], more: Partial<ServicePort> = {}): ServicePort {
  return {
    key: 'orchard/pear:web/TCP',
    name: 'orchard/pear:web',
    namespace: 'orchard',
    serviceName: 'pear',
    family: 'IPv4',
    protocol: 'TCP',
    clusterIP: '10.177.0.50',
    port: 80,
    addresses,
    clusterEndpoints: [local, remote],
    localEndpoints: [local],
    affinitySeconds: 0,
    servingEndpoints: [],
    ...more,
  };
}

function contextOf(more: Partial<RuleContext> = {}): RuleContext {
  return { family: 'IPv4', masqueradeAll: false, detector: podRange, ...more };
}

const pod: Partial<Packet> = { source: '10.61.1.20', interface: 'veth9' };
const node: Partial<Packet> = { source: '100.64.10.11', fromNode: true };
const outside: Partial<Packet> = { source: '198.51.100.7', interface: 'eth0' };
const stranger: Partial<Packet> = { source: '198.51.100.200', interface: 'eth0' };

/** The way of a packet to an address, by the rules of nat (or of one tree of filter). */
function sendTo(
  port: ServicePort,
  to: VirtualAddress,
  from: Partial<Packet>,
  context = contextOf(),
  trees: readonly string[] = ['services', 'nodePorts'],
) {
  const { entries, chains } = desiredRules(port, context);
  const all = new Map(chains);
  all.set(
    'ROOT',
    entries.filter(({ tree }) => trees.includes(tree)).flatMap(({ rules }) => rules),
  );
  const protocol = port.protocol.toLowerCase();
  assert.ok(protocol === 'tcp' || protocol === 'udp' || protocol === 'sctp');
  return walk(all, 'ROOT', {
    source: '',
    destination: to.ip === '' ? '100.64.10.11' : to.ip,
    protocol,
    port: to.port,
    toNode: to.kind === 'NodePort',
    ...from,
  });
}

/** 'L', 'R' for the endpoints, with their share when there are several: 'L 0.5 masq, R 0.5 masq'. */
function summary(ways: ReturnType<typeof sendTo>): string {
  const names = new Map(
    [local, local2, remote].map((e, at) => [
      `DNAT --to-destination ${e.ip}:${e.port}`,
      ['L', 'L2', 'R'][at] ?? '',
    ]),
  );
  const found = [...outcomes(ways)].map(([outcome, share]) => {
    const marked = outcome.endsWith(' masq');
    const verdict = marked ? outcome.slice(0, -5) : outcome;
    const portion = Math.abs(share - 1) < 1e-6 ? '' : ` ${share.toFixed(3)}`;
    return `${names.get(verdict) ?? verdict}${portion}${marked ? ' masq' : ''}`;
  });
  return found.sort().join(', ');
}

const clusterIP = address('ClusterIP');
const nodePort = address('NodePort');
const externalIP = address('ExternalIP');
const vip = address('LoadBalancerIP');

describe('cluster IP', () => {
  const port = servicePort([clusterIP]);

  test('pods keep their address, others are masqueraded', () => {
    assert.equal(summary(sendTo(port, clusterIP, pod)), 'L 0.500, R 0.500');
    assert.equal(summary(sendTo(port, clusterIP, node)), 'L 0.500 masq, R 0.500 masq');
    assert.equal(summary(sendTo(port, clusterIP, outside)), 'L 0.500 masq, R 0.500 masq');
  });

  test('masqueradeAll, no detector, interfaces', () => {
    const all = contextOf({ masqueradeAll: true });
    const none = contextOf({ detector: undefined });
    const byInterface = contextOf({ detector: { kind: 'interfacePrefix', prefix: 'veth' } });
    const byBridge = contextOf({ detector: { kind: 'interface', name: 'br0' } });
    assert.equal(summary(sendTo(port, clusterIP, pod, all)), 'L 0.500 masq, R 0.500 masq');
    assert.equal(summary(sendTo(port, clusterIP, outside, none)), 'L 0.500, R 0.500');
    assert.equal(summary(sendTo(port, clusterIP, pod, byInterface)), 'L 0.500, R 0.500');
    assert.equal(summary(sendTo(port, clusterIP, outside, byInterface)), 'L 0.500 masq, R 0.500 masq');
    assert.equal(summary(sendTo(port, clusterIP, pod, byBridge)), 'L 0.500 masq, R 0.500 masq');
  });

  test('other ports and protocols pass', () => {
    assert.equal(summary(sendTo(port, { ...clusterIP, port: 81 }, pod)), 'nothing');
    assert.equal(summary(sendTo(port, clusterIP, { ...pod, protocol: 'udp' })), 'nothing');
  });

  test('internalTrafficPolicy: Local', () => {
    const own = address('ClusterIP', { policy: 'Local' });
    assert.equal(summary(sendTo(servicePort([own]), own, pod)), 'L');
    assert.equal(summary(sendTo(servicePort([own]), own, node)), 'L masq');
  });

  test('one or two endpoints take no chain, three take one', () => {
    const chainsOf = (endpoints: readonly Endpoint[]): number =>
      desiredRules(servicePort([clusterIP], { clusterEndpoints: endpoints }), contextOf()).chains.size;
    assert.deepEqual([chainsOf([]), chainsOf([local]), chainsOf([local, remote])], [0, 0, 0]);
    assert.equal(chainsOf([local, local2, remote]), 1);
  });

  test('without endpoints: refused in table filter', () => {
    const refused = address('ClusterIP', { fallback: 'reject' });
    const dropped = address('ClusterIP', { fallback: 'drop', policy: 'Local' });
    const empty = { clusterEndpoints: [], localEndpoints: [] };
    const verdict = (to: VirtualAddress, more: Partial<ServicePort>): string =>
      summary(sendTo(servicePort([to], more), to, pod, contextOf(), ['refused']));
    assert.equal(verdict(refused, empty), 'REJECT --reject-with icmp-port-unreachable');
    assert.equal(verdict(dropped, { localEndpoints: [] }), 'DROP');
    assert.equal(summary(sendTo(servicePort([refused], empty), refused, pod)), 'nothing');
  });
});

describe('external addresses', () => {
  for (const to of [externalIP, vip, nodePort]) {
    test(`${to.kind}, policy Cluster: everybody is masqueraded`, () => {
      for (const from of [pod, node, outside])
        assert.equal(summary(sendTo(servicePort([clusterIP, to]), to, from)), 'L 0.500 masq, R 0.500 masq');
    });

    test(`${to.kind}, policy Local: pods and the node anywhere, others to this node's endpoints`, () => {
      const own: VirtualAddress = { ...to, policy: 'Local' };
      const port = servicePort([clusterIP, own]);
      assert.equal(summary(sendTo(port, own, pod)), 'L 0.500, R 0.500');
      assert.equal(summary(sendTo(port, own, node)), 'L 0.500 masq, R 0.500 masq');
      assert.equal(summary(sendTo(port, own, outside)), 'L');
      assert.equal(summary(sendTo(port, own, pod, contextOf({ detector: undefined }))), 'L');
      const away = servicePort([clusterIP, { ...own, fallback: 'drop' }], {
        clusterEndpoints: [remote],
        localEndpoints: [],
      });
      assert.equal(summary(sendTo(away, own, pod)), 'R');
      assert.equal(summary(sendTo(away, own, outside)), 'nothing');
      const refused = sendTo(away, own, outside, contextOf(), ['refusedExternal', 'refusedNodePorts']);
      assert.equal(summary(refused), 'DROP');
    });
  }

  test('both policies Local share the list of this node', () => {
    const [inside, own] = [
      address('ClusterIP', { policy: 'Local' }),
      address('LoadBalancerIP', { policy: 'Local' }),
    ];
    const port = servicePort([inside, own]);
    assert.equal(summary(sendTo(port, inside, pod)), 'L');
    assert.equal(summary(sendTo(port, own, outside)), 'L');
    assert.equal(summary(sendTo(port, own, pod)), 'L 0.500, R 0.500');
  });

  test('many addresses share a chain', () => {
    const port = servicePort([clusterIP, vip, externalIP, nodePort]);
    for (const to of [vip, externalIP, nodePort])
      assert.equal(summary(sendTo(port, to, pod)), 'L 0.500 masq, R 0.500 masq');
    assert.ok(desiredRules(port, contextOf()).chains.has('KUBE-EXT-TVLPR6G6OUYAL4AB'));
  });

  test('source ranges: others get nowhere, not even to the node port by that address', () => {
    const ranges = [
      { ip: '198.51.100.0', prefixLength: 26 },
      { ip: '203.0.113.9', prefixLength: 32 },
    ];
    const closed = address('LoadBalancerIP', { sourceRanges: ranges });
    const port = servicePort([clusterIP, closed, nodePort]);
    assert.equal(summary(sendTo(port, closed, outside)), 'L 0.500 masq, R 0.500 masq');
    assert.equal(summary(sendTo(port, closed, stranger)), 'nothing');
    assert.equal(summary(sendTo(port, closed, stranger, contextOf(), ['firewall'])), 'DROP');
    assert.equal(summary(sendTo(port, nodePort, stranger)), 'L 0.500 masq, R 0.500 masq');
    const nobody = address('LoadBalancerIP', { sourceRanges: [] });
    assert.equal(summary(sendTo(servicePort([clusterIP, nobody]), nobody, outside)), 'nothing');
    assert.equal(
      summary(sendTo(servicePort([clusterIP, nobody]), nobody, outside, contextOf(), ['firewall'])),
      'DROP',
    );
  });
});

describe('choice of an endpoint', () => {
  const endpoints = (count: number): Endpoint[] =>
    Array.from({ length: count }, (_, i) => ({
      ip: `10.${62 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`,
      port: 9000,
      local: false,
      nodeUnknown: false,
    }));

  for (const count of [1, 2, 3, 7, 16, 17, 64, 250, 3000]) {
    test(`${count} endpoints have equal chances, by few rules`, () => {
      const port = servicePort([clusterIP], { clusterEndpoints: endpoints(count) });
      const ways = sendTo(port, clusterIP, pod);
      const shares = outcomes(ways);
      assert.equal(shares.size, count);
      for (const [verdict, share] of shares) {
        assert.ok(verdict.startsWith('DNAT'), verdict);
        assert.ok(Math.abs(share * count - 1) < 1e-4, `${verdict}: ${share}`);
      }
      assert.ok(averageRules(ways) < 26, `${averageRules(ways)} rules`);
    });
  }

  test('one endpoint more rewrites the way to its place, not the others', () => {
    const rulesOf = (count: number) =>
      desiredRules(servicePort([clusterIP], { clusterEndpoints: endpoints(count) }), contextOf()).chains;
    const [before, after] = [rulesOf(1000), rulesOf(1001)];
    const changed = [...after].filter(([name, rules]) => before.get(name)?.join('\n') !== rules.join('\n'));
    assert.ok(after.size > 80);
    assert.ok(changed.length <= 6, `${changed.length} of ${after.size} chains`);
    assert.ok(changed.every(([, rules]) => rules.length <= 20));
  });
});

test('affinity: who was here lately goes where he was', () => {
  const port = servicePort([clusterIP], { affinitySeconds: 600 });
  const [rules] = desiredRules(port, contextOf()).chains.values();
  const chainOf = (ip: string): string => endpointChain(port, { ip, port: 9000 });
  assert.deepEqual(rules, [
    '! -s 10.61.0.0/16 -d 10.177.0.50/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ',
    ...[local, remote].map(
      ({ ip }) =>
        `-p tcp -m recent --update --seconds 600 --reap --name ${chainOf(ip)} --mask 255.255.255.255 --rsource -j DNAT --to-destination ${ip}:9000`,
    ),
    `-p tcp -m statistic --mode random --probability 0.50000000000 -m recent --set --name ${chainOf(local.ip)} --mask 255.255.255.255 --rsource -j DNAT --to-destination ${local.ip}:9000`,
    `-p tcp -m recent --set --name ${chainOf(remote.ip)} --mask 255.255.255.255 --rsource -j DNAT --to-destination ${remote.ip}:9000`,
  ]);
});

test('IPv6', () => {
  const ip: IPFamily = 'IPv6';
  const to = address('ClusterIP', { ip: 'fd77::50' });
  const port = servicePort([to], {
    family: ip,
    clusterEndpoints: [{ ip: 'fd61:0:0:1::31', port: 9000, local: true, nodeUnknown: false }],
  });
  const detector: LocalDetector = { kind: 'cidr', cidr: { ip: 'fd61::', prefixLength: 48 } };
  const { entries } = desiredRules(port, { family: ip, masqueradeAll: false, detector });
  assert.deepEqual(
    entries.map(({ rules }) => rules),
    [
      [
        '! -s fd61::/48 -d fd77::50/128 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ',
        '-d fd77::50/128 -p tcp -m comment --comment "orchard/pear:web cluster IP" -m tcp --dport 80 -j DNAT --to-destination [fd61:0:0:1::31]:9000',
      ],
    ],
  );
});
