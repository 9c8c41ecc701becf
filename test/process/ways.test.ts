/**
 * Every way from one mode to another: ours, and upstream's as its rules stand when its process has ended. Connections and flows from
 * outside, from a pod and from the node go on all the while; afterwards every Service is right, also those that change later, and
 * nothing of the former mode is left. (Mode ipvs: test/vm/ipvs/moving.test.ts.)
 *
 * With WAYS_DOCS=1 the table of docs/migration.md is written anew.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chainPerService } from '../../bench/ruleset-text.js';
import { useOwnXtablesLock } from '../../src/leftovers/testing/own-lock.js';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../patience.js';
import {
  type Child,
  manifest,
  nodeIP,
  podIP,
  program,
  proxyArguments,
  serviceIP,
  SmallNode,
  start,
  type Traffic,
  trafficResult,
} from './node.js';

useOwnXtablesLock();

const kinds = ['nft', 'legacy'] as const;
type Kind = (typeof kinds)[number];
const toolOf = (kind: Kind): string => `/usr/sbin/xtables-${kind}-multi`;

function missingTools(): string | false {
  const missing = kinds.map(toolOf).find((path) => !existsSync(path));
  return missing === undefined ? false : `${missing} is not there: install the package iptables`;
}

const skip = enterNetworkNamespace() || missingNft() || missingTools();

const here = dirname(fileURLToPath(import.meta.url));
const nodePort = 31050;
const udpIP = '10.177.0.52';
const lateIP = '10.177.0.53';
const newIP = '10.177.0.54';
const openIP = '192.0.2.60';
const closedIP = '192.0.2.61';

const slice = (service: string, protocol = 'TCP'): string => `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: ${service}-1, namespace: orchard, labels: { kubernetes.io/service-name: ${service} } }
addressType: IPv4
ports: [{ name: web, port: 9000, protocol: ${protocol} }]
endpoints: [{ addresses: [${podIP}], nodeName: alder, conditions: { ready: true } }]
`;
const service = (name: string, ip: string, protocol = 'TCP'): string => `---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: orchard }
spec: { clusterIP: ${ip}, ports: [{ name: web, protocol: ${protocol}, port: 80 }] }
`;
const loadBalancer = (name: string, clusterIP: string, ip: string, range: string): string => `---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: orchard }
spec:
  type: LoadBalancer
  allocateLoadBalancerNodePorts: false
  clusterIP: ${clusterIP}
  loadBalancerSourceRanges: [${range}]
  ports: [{ name: web, port: 80 }]
status: { loadBalancer: { ingress: [{ ip: ${ip} }] } }
${slice(name)}`;

const atFirst = [
  manifest,
  service('plum', udpIP, 'UDP') + slice('plum', 'UDP'),
  service('late', lateIP),
  loadBalancer('open', '10.177.0.55', openIP, '198.51.100.0/24'),
  loadBalancer('closed', '10.177.0.56', closedIP, '203.0.113.0/24'),
].join('');
const afterwards = slice('late') + service('new', newIP) + slice('new');

/** What upstream's mode iptables has for pear and plum. */
const iptablesRules = `*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SVC-PEARPEARPEARPEAR - [0:0]
:KUBE-EXT-PEARPEARPEARPEAR - [0:0]
:KUBE-SEP-PEARPEARPEARPEAR - [0:0]
:KUBE-SVC-PLUMPLUMPLUMPLUM - [0:0]
:KUBE-SEP-PLUMPLUMPLUMPLUM - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A POSTROUTING -s 192.0.2.0/24 -o nowhere -j MASQUERADE
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SERVICES -d ${serviceIP}/32 -p tcp -m comment --comment "orchard/pear:web cluster IP" -m tcp --dport 80 -j KUBE-SVC-PEARPEARPEARPEAR
-A KUBE-SERVICES -d ${udpIP}/32 -p udp -m comment --comment "orchard/plum:web cluster IP" -m udp --dport 80 -j KUBE-SVC-PLUMPLUMPLUMPLUM
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment "orchard/pear:web" -m tcp --dport ${nodePort} -j KUBE-EXT-PEARPEARPEARPEAR
-A KUBE-EXT-PEARPEARPEARPEAR -m comment --comment "masquerade traffic for orchard/pear:web external destinations" -j KUBE-MARK-MASQ
-A KUBE-EXT-PEARPEARPEARPEAR -j KUBE-SVC-PEARPEARPEARPEAR
-A KUBE-SVC-PEARPEARPEARPEAR ! -s 10.61.0.0/16 -d ${serviceIP}/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-PEARPEARPEARPEAR -m comment --comment "orchard/pear:web -> ${podIP}:9000" -j KUBE-SEP-PEARPEARPEARPEAR
-A KUBE-SEP-PEARPEARPEARPEAR -s ${podIP}/32 -m comment --comment "orchard/pear:web" -j KUBE-MARK-MASQ
-A KUBE-SEP-PEARPEARPEARPEAR -p tcp -m comment --comment "orchard/pear:web" -m tcp -j DNAT --to-destination ${podIP}:9000
-A KUBE-SVC-PLUMPLUMPLUMPLUM ! -s 10.61.0.0/16 -d ${udpIP}/32 -p udp -m udp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-PLUMPLUMPLUMPLUM -m comment --comment "orchard/plum:web -> ${podIP}:9000" -j KUBE-SEP-PLUMPLUMPLUMPLUM
-A KUBE-SEP-PLUMPLUMPLUMPLUM -s ${podIP}/32 -m comment --comment "orchard/plum:web" -j KUBE-MARK-MASQ
-A KUBE-SEP-PLUMPLUMPLUMPLUM -p udp -m comment --comment "orchard/plum:web" -m udp -j DNAT --to-destination ${podIP}:9000
COMMIT
*filter
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d ${lateIP}/32 -p tcp -m comment --comment "orchard/late:web has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`;

/** The same of its mode nftables. */
const nftablesRules = `${chainPerService(
  'kube-proxy',
  { services: 20, endpoints: 3 },
  {
    clusterIP: serviceIP,
    loadBalancerIP: '203.0.113.9',
    port: 80,
    nodePort,
    nodeIP,
    server: { ip: podIP, port: 9000 },
    podCIDR: { ip: '10.61.0.0', prefixLength: 16 },
  },
)}
add chain ip kube-proxy service-PLUMPLUM-orchard/plum/udp/web
add rule ip kube-proxy service-PLUMPLUM-orchard/plum/udp/web meta l4proto udp dnat to ${podIP}:9000
add element ip kube-proxy cluster-ips { ${udpIP} }
add element ip kube-proxy service-ips { ${udpIP} . udp . 80 : goto service-PLUMPLUM-orchard/plum/udp/web }
add element ip kube-proxy hairpin-connections { ${podIP} . ${podIP} . tcp . 9000 }
add chain ip kube-proxy reject-chain
add rule ip kube-proxy reject-chain reject
add element ip kube-proxy no-endpoint-services { ${lateIP} . tcp . 80 : goto reject-chain }
`;

interface Mode {
  readonly name: string;
  readonly mode: 'nftables' | 'iptables';
  readonly kind: Kind;
}
const ours: readonly Mode[] = [
  { name: 'nftables', mode: 'nftables', kind: 'nft' },
  { name: 'iptables (nft)', mode: 'iptables', kind: 'nft' },
  { name: 'iptables (legacy)', mode: 'iptables', kind: 'legacy' },
];
const upstreams: readonly { readonly name: string; readonly load: () => void }[] = [
  {
    name: "upstream's nftables",
    load: () => {
      feed('nft', ['-f', '-'], nftablesRules);
    },
  },
  ...kinds.map((kind) => ({
    name: `upstream's iptables (${kind})`,
    load: () => {
      feed(`iptables-${kind}-restore`, ['--noflush'], iptablesRules);
    },
  })),
];

function feed(command: string, options: readonly string[], input: string): void {
  const { status, stderr } = spawnSync(command, options, { input });
  assert.equal(status, 0, stderr.toString().slice(0, 500));
}

/** Whose rules are there, of both families. */
function rulesOf(): string[] {
  const found = new Set<string>();
  for (const line of run('nft', 'list', 'tables').split('\n'))
    if (line.includes('kube-proxy')) found.add(`nftables table ${line.split(' ')[2] ?? ''}`);
  for (const kind of kinds)
    for (const family of ['iptables', 'ip6tables'])
      if (/KUBE-(?!KUBELET|FIREWALL|IPTABLES-HINT)/.test(run(`${family}-${kind}-save`)))
        found.add(`iptables (${kind})`);
  return [...found].sort();
}

/** How many of each kind there were. */
interface Seen {
  connections: number;
  failed: number;
  lost: number;
  slowestMs: number;
}
const lines = new Map<string, string>();

describe('ways between modes', { skip }, () => {
  const node = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-ways-'));
  const manifests = join(folder, 'manifests');
  const path = process.env['PATH'] ?? '';
  let proxy: Child | undefined;

  before(async () => {
    await node.open();
    // A process of the node needs a route to a service address until it is translated. Not where clients are: the kernel would tell
    // them of the shorter way, and counts that among the refusals that it may send.
    run('ip', 'link', 'add', 'uplink', 'type', 'veth', 'peer', 'name', 'uplink-peer');
    for (const name of ['uplink', 'uplink-peer']) run('ip', 'link', 'set', name, 'up');
    run('ip', 'address', 'add', '203.0.113.200/24', 'dev', 'uplink');
    run('ip', 'route', 'add', 'default', 'via', '203.0.113.201');
    mkdirSync(manifests);
    for (const kind of kinds) {
      mkdirSync(join(folder, kind));
      for (const command of ['iptables', 'ip6tables'])
        for (const suffix of ['', '-save', '-restore'])
          symlinkSync(toolOf(kind), join(folder, kind, command + suffix));
    }
  });
  afterEach(async () => {
    proxy?.kill('SIGKILL');
    await proxy?.end();
    proxy = undefined;
    process.env['PATH'] = path;
  });
  after(async () => {
    await start(program, '--cleanup').end();
    await node.close();
    rmSync(folder, { recursive: true });
    writeDocs();
  });

  const startMode = async ({ mode, kind }: Mode): Promise<void> => {
    proxy?.kill('SIGTERM');
    await proxy?.end();
    process.env['PATH'] = `${join(folder, kind)}:${path}`;
    proxy = start(
      program,
      `--manifests=${manifests}`,
      ...proxyArguments,
      `--proxy-mode=${mode}`,
      `--nodeport-addresses=${nodeIP}/32`,
    );
    for (const family of ['IPv4', 'IPv6'])
      await proxy.waitFor(new RegExp(`"Resync complete" .*family="${family}"`), patiently(20_000));
  };
  /** From outside, from the pod, from the node. */
  const ask = async (from: 'outside' | 'pod' | 'node', ip: string): Promise<string> => {
    const options = [ip, '80', String(patiently(2_000))];
    const child =
      from === 'node'
        ? start(process.execPath, join(here, 'ask.js'), ...options)
        : node.inNamespace(from === 'pod' ? 0 : 1, 'ask.js', ...options);
    await child.end();
    return child.output.trim();
  };
  const startTraffic = async (): Promise<{ readonly tcp: readonly Child[]; readonly udp: Child }> => {
    const tcp = [
      node.inNamespace(1, 'traffic.js', serviceIP, '80'),
      node.inNamespace(1, 'traffic.js', nodeIP, String(nodePort)),
      node.inNamespace(0, 'traffic.js', serviceIP, '80'),
      start(process.execPath, join(here, 'traffic.js'), serviceIP, '80'),
    ];
    const udp = node.inNamespace(1, 'flows.js', `plum udp ${udpIP} 80 40123`);
    for (const child of tcp) await child.waitFor('ready', 20_000);
    await udp.waitFor('plum x', 20_000);
    return { tcp, udp };
  };

  for (const from of [...upstreams, ...ours]) {
    for (const to of ours.filter((mode) => mode !== from)) {
      test(`${from.name} → ${to.name}`, async () => {
        assert.equal(await start(program, '--cleanup').end(), 0);
        assert.deepEqual(rulesOf(), []);
        run('conntrack', '-F');
        rmSync(join(manifests, 'afterwards.yaml'), { force: true });
        writeFileSync(join(manifests, 'all.yaml'), atFirst);
        if ('load' in from) from.load();
        else await startMode(from);
        const { tcp, udp } = await startTraffic();
        await sleep(300);

        await startMode(to);
        const end = performance.now() + patiently(20_000);
        const wanted = to.mode === 'nftables' ? 'nftables table kube-proxy' : to.name;
        while (rulesOf().join() !== wanted && performance.now() < end) await sleep(50);
        assert.deepEqual(rulesOf(), [wanted], 'nothing of the former mode');
        await sleep(300);

        const seen: Seen = { connections: 0, failed: 0, lost: 0, slowestMs: 0 };
        const errors: string[] = [];
        for (const child of tcp) {
          const result: Traffic = await trafficResult(child);
          assert.ok(result.newConnections > 10 && result.lines > 10, 'traffic flowed');
          seen.connections += result.newConnections;
          seen.failed += result.newFailed;
          seen.lost += result.linesLost;
          seen.slowestMs = Math.max(seen.slowestMs, result.slowestMs);
          errors.push(...result.errors);
        }
        assert.deepEqual(errors, []);
        // A lost first packet is sent again after a second.
        assert.ok(seen.slowestMs < patiently(900), `${seen.slowestMs} ms`);
        udp.kill('SIGTERM');
        await udp.end();
        assert.deepEqual(udp.output.trim().split('\n'), ['plum x'], 'one answer, never another nor silence');

        for (const asker of ['outside', 'pod', 'node'] as const)
          assert.equal(await ask(asker, lateIP), 'ECONNREFUSED', `no endpoints yet, from ${asker}`);
        assert.equal(await ask('outside', openIP), 'hello', 'its range is allowed');
        assert.equal(await ask('outside', closedIP), 'silence', 'its range is not');
        writeFileSync(join(manifests, 'afterwards.yaml'), afterwards);
        for (const ip of [lateIP, newIP]) {
          for (const asker of ['outside', 'pod', 'node'] as const) {
            const deadline = performance.now() + patiently(5_000);
            let answer = await ask(asker, ip);
            while (answer !== 'hello' && performance.now() < deadline) answer = await ask(asker, ip);
            assert.equal(answer, 'hello', `${ip} from ${asker}`);
          }
        }
        lines.set(
          `${from.name} → ${to.name}`,
          `${seen.connections} | ${seen.failed} | ${seen.lost} | ${Math.round(seen.slowestMs)} ms`,
        );
      });
    }
  }
});

function writeDocs(): void {
  if (process.env['WAYS_DOCS'] !== '1') return;
  const page = join(here, '..', '..', '..', 'docs', 'migration.md');
  const [begin, close] = ['<!-- ways: written by test/process/ways.test.ts -->', '<!-- end of ways -->'];
  const text = readFileSync(page, 'utf8');
  const [head, rest] = text.split(begin);
  const tail = rest?.split(close)[1];
  assert.ok(head !== undefined && tail !== undefined, 'docs/migration.md has both marks');
  const table = [
    '| from → to | new connections | failed | lines lost | slowest answer |',
    '| --- | --- | --- | --- | --- |',
    ...[...lines].map(([way, figures]) => `| ${way} | ${figures} |`),
  ];
  writeFileSync(page, `${head}${begin}\n\n${table.join('\n')}\n\n${close}${tail}`);
}
