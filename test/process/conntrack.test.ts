/** What becomes of flows when endpoints come and go and kube-proxy does, with the real program and real packets. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatAddress } from '@kube-proxy-ts/netlink';
import { ConntrackConnection } from '@kube-proxy-ts/netlink/conntrack';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { ApiServer } from '../apiserver/server.js';
import { patiently } from '../patience.js';
import { type Child, nodeIP, program, SmallNode, start } from './node.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace() || missingNft();

const targetPort = 9009;
const port = 80;
const nodePort = 31080;
const families = ['IPv4', 'IPv6'] as const;
type Family = (typeof families)[number];

const clusterIPs: Readonly<Record<Family, string>> = { IPv4: '10.177.0.80', IPv6: 'fd77::80' };
const nodeIPs: Readonly<Record<Family, string>> = { IPv4: nodeIP, IPv6: '2001:db8:a::11' };
/** Endpoints by name. D swallows everything. */
const endpointIPs = {
  A: { IPv4: '10.61.1.41', IPv6: 'fd61::41' },
  B: { IPv4: '10.61.1.42', IPv6: 'fd61::42' },
  D: { IPv4: '10.61.1.49', IPv6: 'fd61::49' },
} as const;
type EndpointName = keyof typeof endpointIPs;
interface Condition {
  readonly ready?: boolean;
  readonly serving?: boolean;
  readonly terminating?: boolean;
}
const ready: Condition = { ready: true, serving: true, terminating: false };

const node = {
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'alder' },
  status: { addresses: families.map((family) => ({ type: 'InternalIP', address: nodeIPs[family] })) },
};
const service = (name: string, ips: Readonly<Record<Family, string>>, number: number) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'orchard' },
  spec: {
    type: 'NodePort',
    clusterIP: ips.IPv4,
    clusterIPs: [ips.IPv4, ips.IPv6],
    ipFamilies: [...families],
    ports: ['TCP', 'UDP'].map((protocol) => ({
      name: protocol.toLowerCase(),
      port,
      protocol,
      targetPort,
      nodePort: number,
    })),
  },
});
const slices = (name: string, endpoints: Partial<Record<EndpointName, Condition>>) =>
  families.map((family) => ({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${name}-${family.toLowerCase()}`,
      namespace: 'orchard',
      labels: { 'kubernetes.io/service-name': name },
    },
    addressType: family,
    ports: ['TCP', 'UDP'].map((protocol) => ({ name: protocol.toLowerCase(), port: targetPort, protocol })),
    endpoints: (Object.keys(endpoints) as EndpointName[]).map((endpoint) => ({
      addresses: [endpointIPs[endpoint][family]],
      conditions: endpoints[endpoint],
      nodeName: 'alder',
    })),
  }));

/** Flows of one process, and what they say. */
class Flows {
  private seen = 0;

  constructor(readonly child: Child) {}

  /** The last answer of each flow whose name begins so. */
  answers(prefix: string): Map<string, string> {
    const last = new Map<string, string>();
    for (const line of this.child.output.trim().split('\n')) {
      const [name = '', answer = ''] = line.split(' ');
      if (name.startsWith(prefix)) last.set(name, answer);
    }
    return last;
  }

  /** Lines since the last call. */
  news(): string[] {
    const lines = this.child.output.split('\n').slice(0, -1);
    const news = lines.slice(this.seen);
    this.seen = lines.length;
    return news;
  }
}

describe('flows of clients that keep their source port', { skip }, () => {
  const small = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-conntrack-'));
  const children: Child[] = [];
  let server: ApiServer | undefined;
  let proxy: Child;
  let flows: Flows;
  let sourcePort = 20_000;

  const startProxy = async (): Promise<void> => {
    proxy = start(
      program,
      `--kubeconfig=${join(folder, 'kubeconfig')}`,
      '--hostname-override=alder',
      '--proxy-mode=nftables',
      '--cluster-cidr=10.61.0.0/16,fd61::/64',
      '--v=4',
    );
    children.push(proxy);
    await proxy.waitFor(bothCompared, 20_000);
  };
  /** Does something and waits until kube-proxy tells that it has followed: both families. */
  const followed = async (line: string, change: () => void, withinMs = 5000): Promise<void> => {
    const mark = proxy.output.length;
    change();
    const deadline = Date.now() + patiently(withinMs);
    for (const family of families) {
      const told = new RegExp(line.replace('FAMILY', family));
      while (!told.test(proxy.output.slice(mark))) {
        if (Date.now() > deadline)
          throw new Error(`${line} ${family}: not told\n${proxy.output.slice(mark)}`);
        await sleep(5);
      }
    }
  };
  const put = (...objects: readonly Parameters<ApiServer['store']['put']>[0][]): void => {
    for (const object of objects) server?.store.put(object);
  };
  const endpoints = (list: Partial<Record<EndpointName, Condition>>): void => {
    put(...slices('pear', list));
  };
  /** 'protocol-family-frontend host port sourcePort' of each. */
  const four = (protocol: 'udp' | 'tcp'): string[] =>
    families.flatMap((family) => [
      `${protocol}-${family}-cluster ${protocol} ${clusterIPs[family]} ${port} ${++sourcePort}`,
      `${protocol}-${family}-nodeport ${protocol} ${nodeIPs[family]} ${nodePort} ${++sourcePort}`,
    ]);
  const open = (...list: readonly string[]): Flows => {
    const child = small.inNamespace(1, 'flows.js', ...list);
    return new Flows(child);
  };
  /** Waits until each of these flows is answered by this endpoint, or in this way. */
  const answeredBy = async (
    of: Flows,
    prefix: string,
    by: EndpointName | 'refused',
    count = 4,
    withinMs = 5000,
  ): Promise<void> => {
    const wanted = ([name, answer]: [string, string]): boolean =>
      answer ===
      (by === 'refused'
        ? by
        : endpointIPs[by][name.includes('IPv4') ? ('IPv4' as const) : ('IPv6' as const)]);
    const deadline = Date.now() + patiently(withinMs);
    for (;;) {
      const answers = [...of.answers(prefix)];
      if (answers.length === count && answers.every(wanted)) return;
      if (Date.now() > deadline)
        throw new Error(
          `${prefix}* not answered by ${by}: ${JSON.stringify(answers)}\n${of.child.output}\n${proxy.output.split('\n').slice(-20).join('\n')}`,
        );
      await sleep(5);
    }
  };
  /** The kernel's numbers of the entries of the flows, by source port: another number is another entry. */
  const ids = (): Map<string, number | undefined> => {
    const connection = ConntrackConnection.open();
    const found = new Map<string, number | undefined>();
    for (const [family, protocol] of [
      ['ip', 17],
      ['ip6', 17],
      ['ip', 6],
      ['ip6', 6],
    ] as const) {
      connection.listFlows(family, { protocol }, (flow) => {
        const { destination, destinationPort, sourcePort: from } = flow.original;
        if (from > 20_000 && from <= sourcePort && (destinationPort === port || destinationPort === nodePort))
          found.set(`${protocol} ${from} ${formatAddress(destination)}`, flow.identity().id);
      });
    }
    connection.close();
    return found;
  };

  before(async () => {
    await small.open();
    writeFileSync('/proc/sys/net/ipv6/conf/all/forwarding', '1');
    // Longer than a busy machine takes to look.
    writeFileSync('/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close', '60');
    // Every datagram that is refused is to be told.
    writeFileSync('/proc/sys/net/ipv4/icmp_ratelimit', '0');
    writeFileSync('/proc/sys/net/ipv6/icmp/ratelimit', '0');
    const [pod, client] = [small.namespace(0), small.namespace(1)];
    run('ip', 'address', 'add', 'fd61::1/64', 'dev', 'to0', 'nodad');
    run('ip', 'address', 'add', '2001:db8:c::1/64', 'dev', 'to1', 'nodad');
    run('ip', 'address', 'add', `${nodeIPs.IPv6}/128`, 'dev', 'lo', 'nodad');
    run('ip', '-n', client, 'address', 'add', '2001:db8:c::7/64', 'dev', 'eth0', 'nodad');
    run('ip', '-n', client, 'route', 'add', 'default', 'via', '2001:db8:c::1');
    // As on any node: what nobody takes is on its way somewhere, and refused there.
    run('ip', 'route', 'add', 'default', 'via', '198.51.100.7');
    run('ip', 'route', 'add', 'default', 'via', '2001:db8:c::7');
    for (const { IPv4, IPv6 } of Object.values(endpointIPs)) {
      run('ip', '-n', pod, 'address', 'add', `${IPv4}/24`, 'dev', 'eth0');
      run('ip', '-n', pod, 'address', 'add', `${IPv6}/64`, 'dev', 'eth0', 'nodad');
    }
    run('ip', '-n', pod, 'route', 'add', 'default', 'via', 'fd61::1');
    writeFileSync(
      join(folder, 'deaf.nft'),
      `table inet deaf { chain in { type filter hook input priority 0;
        ip daddr ${endpointIPs.D.IPv4} drop; ip6 daddr ${endpointIPs.D.IPv6} drop; }; }`,
    );
    run('ip', 'netns', 'exec', pod, 'nft', '-f', join(folder, 'deaf.nft'));
    // Some rule of the node's looks at connections at all times, so that the kernel tracks them without ours.
    writeFileSync(
      join(folder, 'track.nft'),
      'table inet track { chain in { type filter hook prerouting priority 0; ct state new counter; }; }',
    );
    run('nft', '-f', join(folder, 'track.nft'));
    const served = [endpointIPs.A, endpointIPs.B].flatMap(({ IPv4, IPv6 }) => [IPv4, IPv6]);
    await small.inNamespace(0, 'whoami.js', String(targetPort), ...served).waitFor('ready');

    server = await ApiServer.start({});
    put(node, service('pear', clusterIPs, nodePort), ...slices('pear', { A: ready }));
    writeFileSync(
      join(folder, 'kubeconfig'),
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'double', cluster: { server: server.url } }],
        users: [{ name: 'me', user: {} }],
        contexts: [{ name: 'double', context: { cluster: 'double', user: 'me' } }],
        'current-context': 'double',
      }),
    );
    await startProxy();
    flows = open(...four('udp'), ...four('tcp'));
    await answeredBy(flows, 'udp', 'A', 4, 10_000);
    await answeredBy(flows, 'tcp', 'A', 4, 10_000);
    flows.news();
  });
  after(async () => {
    for (const child of children) child.kill('SIGKILL');
    await Promise.all(children.map((child) => child.end()));
    await server?.close();
    await small.close();
    rmSync(folder, { recursive: true });
  });

  test('the endpoint is replaced: UDP goes to the new one at once, TCP stays with what lives', async () => {
    endpoints({ B: ready });
    await answeredBy(flows, 'udp', 'B');
    await answeredBy(flows, 'tcp', 'A');
    assert.equal(flows.news().length, 4, 'one change each, and no silence');
  });

  test('no endpoint: UDP is refused, and answered when one comes', async () => {
    endpoints({});
    await answeredBy(flows, 'udp', 'refused');
    endpoints({ A: ready });
    await answeredBy(flows, 'udp', 'A');
    await answeredBy(flows, 'tcp', 'A');
    assert.ok(!flows.news().some((line) => line.endsWith('silence')));
  });

  test('an endpoint that still serves while it terminates keeps its flows', async () => {
    endpoints({ A: ready });
    await answeredBy(flows, 'udp', 'A');
    flows.news();
    const before = ids();
    assert.equal(before.size, 8);
    await followed('Sync complete".* family="FAMILY"', () => {
      endpoints({ A: { ready: false, serving: true, terminating: true }, B: ready });
    });
    await sleep(patiently(300));
    assert.deepEqual(ids(), before);
    assert.deepEqual(flows.news(), []);
  });

  test('kube-proxy is ended and killed, and starts again: no entry is touched', async () => {
    const before = ids();
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      proxy.kill(signal);
      await proxy.end();
      await startProxy();
      // Both families have looked at the table.
      await proxy.waitFor(/(Connection tracking reconciled[^\n]*protocol="UDP" deleted=0[\s\S]*){2}/);
    }
    assert.deepEqual(ids(), before);
    assert.deepEqual(flows.news(), []);
  });

  test('endpoints of others come and go while it is killed: no entry is touched', async () => {
    const others = { IPv4: '10.177.0.81', IPv6: 'fd77::81' };
    const before = ids();
    put(service('plum', others, nodePort + 1), ...slices('plum', { A: ready, B: ready }));
    for (const list of [{ B: ready }, {}, { A: ready }, { B: ready }]) {
      put(...slices('plum', list));
      if ('A' in list) {
        proxy.kill('SIGKILL');
        await proxy.end();
        await startProxy();
      }
      await sleep(patiently(100));
    }
    assert.deepEqual(ids(), before);
    assert.deepEqual(flows.news(), []);
  });

  test('the endpoint is replaced while kube-proxy is away', async () => {
    endpoints({ A: ready });
    await answeredBy(flows, 'udp', 'A');
    flows.news();
    proxy.kill('SIGKILL');
    await proxy.end();
    endpoints({ B: ready });
    await startProxy();
    await answeredBy(flows, 'udp', 'B');
    await answeredBy(flows, 'tcp', 'A');
    assert.equal(flows.news().length, 4);
  });

  test('a connection attempt to a dead endpoint is continued with one that lives', async () => {
    await followed('Sync complete".* family="FAMILY"', () => {
      endpoints({ D: ready });
    });
    const attempts = open(...four('tcp').map((flow) => `attempt-${flow}`));
    const deadline = Date.now() + patiently(5000);
    const begun = (): number => {
      let count = 0;
      const connection = ConntrackConnection.open();
      for (const [index, family] of (['ip', 'ip6'] as const).entries()) {
        const dead = endpointIPs.D[families[index] ?? 'IPv4'];
        connection.listFlows(family, { protocol: 6, unanswered: true }, ({ reply }) => {
          if (formatAddress(reply.source) === dead) count++;
        });
      }
      connection.close();
      return count;
    };
    while (begun() < 4 && Date.now() < deadline) await sleep(10);
    assert.equal(begun(), 4);
    endpoints({ B: ready });
    // A first packet is sent again after 1 s, then after 2 s, 4 s, 8 s.
    await answeredBy(attempts, 'attempt', 'B', 4, 20_000);
    await answeredBy(flows, 'udp', 'B');
    await answeredBy(flows, 'tcp', 'A');
  });

  test('a connection that its endpoint reset can be made anew from the same port, to another endpoint', async () => {
    endpoints({ B: ready });
    await answeredBy(flows, 'udp', 'B');
    const list = four('tcp').map((flow) => `reset-${flow}`);
    const first = open(...list);
    await answeredBy(first, 'reset', 'B');
    // The first word that the client writes after this one.
    first.child.process.kill('SIGUSR2');
    for (const flow of list) await first.child.waitFor(`${flow.split(' ')[0]} closed`);
    await followed(
      'reconciled".* family="FAMILY" protocol="TCP" deleted=2',
      () => {
        endpoints({ A: ready });
      },
      // Its turn comes seldom where looking takes long.
      15_000,
    );
    const second = open(...list);
    await answeredBy(second, 'reset', 'A');
  });

  test('the rules are gone for a while: who began meanwhile is served afterwards', async () => {
    endpoints({ A: ready });
    await answeredBy(flows, 'udp', 'A');
    proxy.kill('SIGSTOP');
    const connection = NftablesConnection.open();
    for (const family of ['ip', 'ip6'] as const) {
      const batch = new Batch(family, 'kube-proxy');
      batch.deleteTable();
      connection.commit(batch);
    }
    connection.close();
    // The node itself answers for its node ports, and each refusal is an entry without translation.
    const early = open(...four('udp').map((flow) => `early-${flow}`));
    const nodePorts = ['early-udp-IPv4-nodeport', 'early-udp-IPv6-nodeport'];
    for (const name of nodePorts) await early.child.waitFor(`${name} refused`);
    proxy.kill('SIGCONT');
    await answeredBy(early, 'early', 'A');
    await answeredBy(flows, 'udp', 'A');
  });
});
