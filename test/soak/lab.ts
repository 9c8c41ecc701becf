/**
 * Where a soak takes place: the namespaces of the conformance cases with a server at every endpoint's address, the API
 * server's double, and two nodes that run the real program:
 *
 * - alder, with clients and endpoints around it: packets flow, the process is killed and configured anew.
 * - birch, alone in a namespace: the same cluster and the same troubles, but its process lives from the beginning to the
 *   end, so that its memory tells something.
 */
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { joinNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { nodeAddress, secondAddress } from '../conformance/addresses.js';
import { run, runQuietly } from '../conformance/commands.js';
import type { ListenAddress } from '../conformance/protocol.js';
import { Topology } from '../conformance/topology.js';
import { ApiProcess } from './api-process.js';
import { compareTable } from './comparison.js';
import { Expectation, type Circumstances, type Source } from './expectation.js';
import { neighbourTable } from './neighbours.js';
import type { Cluster } from './objects.js';
import { ProgramProcess, type Settings } from './program-process.js';
import { parseRuleset, RulesetError, type Ruleset } from './ruleset.js';
import { families, nodeIPs, pods, targetPorts, unallocated } from './world.js';

export const podRanges = ['10.61.0.0/16', 'fd61::/48'];
/** birch alone: its link to alder, where the API server's double listens. */
const link = { alder: '169.254.8.1', birch: '169.254.8.2' };

/** Ways to say which addresses serve node ports, and what is in force then on alder. */
export const nodePortChoices: readonly {
  readonly cidrs: readonly string[];
  readonly ips: readonly string[];
}[] = [
  { cidrs: ['primary'], ips: [nodeAddress.v4, nodeAddress.v6] },
  { cidrs: ['100.64.77.0/24', '2001:db8:77::/64'], ips: [secondAddress.v4, secondAddress.v6] },
  {
    cidrs: ['100.64.0.0/16', '2001:db8:77::/64'],
    ips: [nodeAddress.v4, secondAddress.v4, secondAddress.v6],
  },
];

interface NodeFacts {
  readonly name: 'alder' | 'birch';
  readonly addresses: ReadonlySet<string>;
}

const facts: Readonly<Record<'alder' | 'birch', NodeFacts>> = {
  alder: {
    name: 'alder',
    addresses: new Set([...nodeIPs.alder, secondAddress.v4, secondAddress.v6, link.alder]),
  },
  birch: {
    name: 'birch',
    addresses: new Set([...nodeIPs.birch, link.birch]),
  },
};

/** Who asks, by walk on both nodes; on alder also by packets. */
export function sourcesOf(node: 'alder' | 'birch', v6: boolean): readonly Source[] {
  const own = nodeIPs[node][v6 ? 1 : 0];
  const others = v6
    ? ['fd61:0:0:1::20', '2001:db8:f::7', '2001:db8:f::200']
    : ['10.61.1.20', '198.51.100.7', '198.51.100.200'];
  return [{ address: own, ownNode: true }, ...others.map((address) => ({ address, ownNode: false }))];
}

/** That of a neighbour, which changes all the time, need not stay as it is. */
const ownTables = new Set(['ip kube-proxy', 'ip6 kube-proxy', neighbourTable]);

/** Tables of other programs, which must stay as they are. One is called as ours are, one translates addresses. */
export const foreignTables = `
table inet kube-proxy {
  set neighbours {
    type ipv4_addr
    elements = { 192.0.2.200 }
  }
  chain kept {
    ip saddr @neighbours counter
  }
}
table ip somebody-else {
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.177.0.50 . tcp . 80 : accept }
  }
  chain postrouting {
    type nat hook postrouting priority 120;
    ip daddr 192.0.2.201 masquerade
  }
}
table ip6 kube-proxy-of-old {
  chain services {
    return
  }
}
`;

export interface Judgement {
  /** Between the kernel and what the objects ask for, in words. */
  readonly differences: readonly string[];
  /** All tables of others, as text; undefined when nothing could be read. */
  readonly foreign: string | undefined;
}

/** One node and the program on it. */
export class NodeUnderTest {
  readonly program: ProgramProcess;
  settings: Settings & { readonly nodePortIPs: readonly string[] };

  constructor(
    private readonly facts: NodeFacts,
    readonly namespace: string,
    folder: string,
  ) {
    const clusterCIDR = podRanges.join(',');
    this.program = new ProgramProcess({ namespace, nodeName: facts.name, folder, clusterCIDR });
    this.settings = {
      nodePortAddresses: ['primary'],
      masqueradeAll: false,
      nodePortIPs: nodeIPs[facts.name],
    };
    this.program.configure(this.settings);
  }

  get name(): 'alder' | 'birch' {
    return this.facts.name;
  }

  /** All that it has. */
  get addresses(): ReadonlySet<string> {
    return this.facts.addresses;
  }

  configure(settings: NodeUnderTest['settings']): void {
    this.settings = settings;
    this.program.configure(settings);
  }

  expectation(cluster: Cluster): Expectation {
    const { name: nodeName } = this.facts;
    const { masqueradeAll, nodePortIPs } = this.settings;
    const circumstances: Circumstances = {
      nodeName,
      nodePortIPs,
      podRanges,
      masqueradeAll,
    };
    return new Expectation(cluster, circumstances);
  }

  /** Runs nft on this node. @returns what it prints */
  nft(script: string): Promise<string> {
    return run('ip', ['netns', 'exec', this.namespace, 'nft', '-f', '-'], script);
  }

  /** All tables, as `nft -j list ruleset` tells them. */
  async ruleset(): Promise<Ruleset> {
    return parseRuleset(
      await run('ip', ['netns', 'exec', this.namespace, 'nft', '-j', 'list', 'ruleset']),
      ownTables,
    );
  }

  /**
   * Compares the kernel with the objects.
   * @param thin see ComparisonOptions
   */
  async judge(cluster: Cluster, thin = 1): Promise<Judgement> {
    let ruleset: Ruleset;
    try {
      ruleset = await this.ruleset();
    } catch (error) {
      if (error instanceof RulesetError) return { differences: [error.message], foreign: undefined };
      throw error;
    }
    const expectation = this.expectation(cluster);
    const differences = families.flatMap((family) =>
      compareTable(ruleset.tables.get(family === 'IPv4' ? 'ip kube-proxy' : 'ip6 kube-proxy'), {
        family,
        expectation,
        sources: sourcesOf(this.name, family === 'IPv6'),
        nodeAddresses: this.facts.addresses,
        unallocated: unallocated[family],
        thin,
      }),
    );
    return { differences, foreign: ruleset.foreign };
  }
}

export class Lab {
  private constructor(
    readonly folder: string,
    readonly topology: Topology,
    readonly api: ApiProcess,
    readonly alder: NodeUnderTest,
    readonly birch: NodeUnderTest,
    private readonly leave: () => void,
  ) {}

  /** Takes a few seconds. Everything made is removed by close(). */
  static async open(): Promise<Lab> {
    const folder = mkdtempSync(join(tmpdir(), 'kube-proxy-soak-'));
    const topology = await Topology.build(0, ['TCP', 'UDP']);
    const birchNamespace = `kpc-${process.pid}-0-alone`;
    let leave: (() => void) | undefined;
    let api: ApiProcess | undefined;
    try {
      const sockets = pods.flatMap(({ address, nodeName }) =>
        families.flatMap((family) =>
          targetPorts.flatMap((port) =>
            (['TCP', 'UDP'] as const).map((protocol) => ({
              place: nodeName === 'alder' ? ('local-pods' as const) : ('remote-pods' as const),
              socket: { protocol, address: address[family], port } satisfies ListenAddress,
            })),
          ),
        ),
      );
      for (const place of ['local-pods', 'remote-pods'] as const) {
        await topology.agent(place).request({
          op: 'listen',
          sockets: sockets.filter((one) => one.place === place).map(({ socket }) => socket),
        });
      }
      await linkBirch(topology.namespace('alder'), birchNamespace);
      leave = joinNetworkNamespace(topology.namespace('alder'));
      api = await ApiProcess.start(folder);
      writeKubeconfigs(folder, api.port);
      const alder = new NodeUnderTest(facts.alder, topology.namespace('alder'), folder);
      const birch = new NodeUnderTest(facts.birch, birchNamespace, folder);
      return new Lab(folder, topology, api, alder, birch, leave);
    } catch (error) {
      await api?.stop();
      leave?.();
      await topology.destroy();
      await runQuietly('ip', ['netns', 'delete', birchNamespace]);
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** @param keep a folder for the programs' logs */
  async close(keep?: string): Promise<void> {
    await Promise.all([this.alder, this.birch].map(({ program }) => program.end('SIGKILL')));
    await this.api.stop();
    this.leave();
    await this.topology.destroy();
    await runQuietly('ip', ['netns', 'delete', this.birch.namespace]);
    if (keep !== undefined) {
      for (const { program } of [this.alder, this.birch]) {
        if (program.starts > 0) copyFileSync(program.log, join(keep, program.log.split('/').at(-1) ?? ''));
      }
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

async function linkBirch(alder: string, birch: string): Promise<void> {
  await run('ip', ['netns', 'add', birch]);
  await run(
    'ip',
    ['-batch', '-'],
    `link add to-birch netns ${alder} type veth peer name up0 netns ${birch}\n`,
  );
  await run(
    'ip',
    ['-n', alder, '-batch', '-'],
    `addr add ${link.alder}/30 dev to-birch\nlink set to-birch addrgenmode none\nlink set to-birch up\n`,
  );
  const own = nodeIPs.birch.map((ip) => `addr add ${ip} dev lo\n`).join('');
  await run(
    'ip',
    ['-n', birch, '-batch', '-'],
    `link set lo up\naddr add ${link.birch}/30 dev up0\nlink set up0 addrgenmode none\nlink set up0 up\n${own}`,
  );
}

function writeKubeconfigs(folder: string, port: number): void {
  for (const [node, host] of [
    ['alder', '127.0.0.1'],
    ['birch', link.alder],
  ] as const) {
    const cluster = {
      server: `https://${host}:${port}`,
      'certificate-authority': 'ca.crt',
      'tls-server-name': 'localhost',
    };
    writeFileSync(
      join(folder, `kubeconfig-${node}`),
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        clusters: [{ name: 'double', cluster }],
        users: [{ name: 'me', user: { 'client-certificate': 'client.crt', 'client-key': 'client.key' } }],
        contexts: [{ name: 'double', context: { cluster: 'double', user: 'me' } }],
        'current-context': 'double',
      }),
    );
  }
}
