/**
 * New flows by the ten thousand while Services shrink, grow and move: none may pass by its Service. The node is a network namespace of
 * its own, and the calling process enters it; senders are in it and in another one that it is the router of. Behind all
 * rules of the mode a table of counters looks at what came of the flows.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { IptablesFamily } from '../../src/backends/iptables/family.js';
import { toolFolder } from '../../src/backends/iptables/testing/tools.js';
import { NftablesFamily } from '../../src/backends/nftables/family.js';
import type { Dataplane, DataplaneOptions } from '../../src/backends/backend.js';
import { silentLogger } from '../../src/log/logger.js';
import { ConntrackConnection } from '@kube-proxy-ts/netlink/conntrack';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { run } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { ClusterModel } from '../proof/cluster-model.js';
import { nodeAddress } from '../proof/world.js';
import type { SenderTask } from './sender.js';
import { FlowsWorld } from './world.js';

export type Mode = 'nftables' | 'iptables';

export interface FlowsOptions {
  readonly mode: Mode;
  readonly seed: number;
  /** It goes on until there were at least as many of each, and at most so many seconds. */
  readonly flows: number;
  readonly shrinks: number;
  readonly moves: number;
  readonly seconds: number;
  /** Pause between two changes. */
  readonly pauseMs: number;
  readonly onProgress?: (result: FlowsResult) => void;
}

export interface FlowsResult {
  flows: number;
  shrinks: number;
  moves: number;
  changes: number;
  seconds: number;
  /** Flows that were seen behind the rules with an endpoint as their destination. */
  translated: number;
  /** The same with the address of a Service. */
  untranslated: number;
  /** ICMP port unreachable, or a reset. */
  refused: number;
  /** Entries of connection tracking at the end that are untranslated. */
  entries: number;
}

const node = nodeAddress('IPv4');
const udp = 17;
const virtual = '{ 10.177.0.0/16, 203.0.113.0/24, 192.0.2.0/24 }';

/** Behind everything that a mode hooks (100 at most). */
const counters = `
table inet flows {
  counter translated { }
  counter untranslated { }
  counter refused { }
  chain forward-and-output {
    type filter hook postrouting priority 300
    ip daddr 10.61.3.0/24 udp dport 9000 counter name translated
    ip daddr ${virtual} counter name untranslated
  }
  chain input {
    type filter hook input priority 300
    ip daddr ${node} udp dport 30000-32767 counter name untranslated
    ip daddr ${virtual} counter name untranslated
  }
  chain output {
    type filter hook output priority 300
    icmp type destination-unreachable counter name refused
    tcp flags rst counter name refused
  }
}`;

function nft(input: string): void {
  const { status, stderr } = spawnSync('nft', ['-f', '-'], { input, encoding: 'utf8' });
  if (status !== 0) throw new Error(`nft: ${stderr}`);
}

function readCounters(): ReadonlyMap<string, number> {
  const document = JSON.parse(run('nft', '-j', 'list', 'counters', 'table', 'inet', 'flows')) as {
    nftables: { counter?: { name: string; packets: number } }[];
  };
  return new Map(
    document.nftables.flatMap(({ counter }) =>
      counter === undefined ? [] : [[counter.name, counter.packets]],
    ),
  );
}

/** Endpoints are nowhere: what is sent to them leaves by a device without ARP, and is for nobody at its other end. */
function layOut(clients: string): void {
  const set = (name: string, value: string): void => {
    writeFileSync(`/proc/sys/net/${name}`, value);
  };
  run('ip', 'netns', 'add', clients);
  run('ip', 'link', 'add', 'to-clients', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', clients);
  run('ip', 'address', 'add', `${node}/24`, 'dev', 'to-clients');
  run('ip', 'link', 'set', 'to-clients', 'up');
  run('ip', '-n', clients, 'address', 'add', '100.64.10.99/24', 'dev', 'eth0');
  run('ip', '-n', clients, 'link', 'set', 'eth0', 'up');
  run('ip', '-n', clients, 'link', 'set', 'lo', 'up');
  run('ip', '-n', clients, 'route', 'add', 'default', 'via', node);
  run('ip', 'link', 'add', 'nowhere', 'type', 'veth', 'peer', 'name', 'end', 'netns', clients);
  run('ip', '-n', clients, 'link', 'set', 'end', 'up');
  run('ip', 'link', 'set', 'nowhere', 'arp', 'off', 'up');
  run('ip', 'route', 'add', 'default', 'dev', 'nowhere');
  for (const name of ['all', 'default', 'to-clients']) set(`ipv4/conf/${name}/rp_filter`, '0');
  set('ipv4/ip_forward', '1');
  // Every flow is one packet: what it leaves behind has to go soon.
  set('netfilter/nf_conntrack_udp_timeout', '1');
  nft(counters);
}

class Sender {
  sent = 0;
  private readonly child: ChildProcess;
  private readonly ended: Promise<void>;
  private errors = '';

  constructor(prefix: readonly string[], task: SenderTask) {
    const file = new URL('sender.js', import.meta.url).pathname;
    const [command, ...args] = [...prefix, process.execPath, file, JSON.stringify(task)];
    this.child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    let rest = '';
    this.child.stdout?.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n');
      rest = lines.pop() ?? '';
      this.sent = Number(lines.at(-1) ?? this.sent);
    });
    this.child.stderr?.on('data', (chunk: Buffer) => (this.errors += chunk.toString()));
    this.ended = new Promise((resolve) => {
      this.child.once('close', () => {
        resolve();
      });
    });
  }

  check(): void {
    if (this.child.exitCode !== null) throw new Error(`a sender has ended: ${this.errors}`);
  }

  async stop(): Promise<void> {
    this.child.stdin?.end();
    await this.ended;
  }
}

function optionsOf(): DataplaneOptions {
  return {
    family: 'IPv4',
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    detector: { kind: 'cidr', cidr: { ip: '10.61.0.0', prefixLength: 16 } },
    nodePortAddresses: 'all',
  };
}

function untranslatedEntries(): number {
  let count = 0;
  const connection = ConntrackConnection.open();
  connection.listFlows('ip', { protocol: udp }, ({ original, reply }) => {
    const isVirtual =
      ['203.0.113', '192.0.2'].some((net) => original.destination.join('.').startsWith(`${net}.`)) ||
      original.destination.join('.').startsWith('10.177.') ||
      (original.destination.join('.') === node && original.destinationPort >= 30_000);
    if (isVirtual && original.destination.equals(reply.source)) count++;
  });
  connection.close();
  return count;
}

/** @throws Error when something does not work at all; the calling thread has to be in a namespace of its own */
export async function runFlows(options: FlowsOptions): Promise<FlowsResult> {
  const clients = `flows-${process.pid}`;
  const tools = options.mode === 'iptables' ? toolFolder('nf_tables') : undefined;
  if (tools !== undefined) process.env['XTABLES_LOCKFILE'] = tools.lock;
  const dataplane: Dataplane =
    tools === undefined
      ? new NftablesFamily(NftablesConnection.open(), optionsOf())
      : new IptablesFamily({
          ...optionsOf(),
          dropInvalid: true,
          log: silentLogger,
          tool: { path: tools.path },
          onDamage: () => undefined,
        });
  const world = new FlowsWorld(new Random(options.seed));
  const nodes = { nodes: new Map(), serviceCIDRs: new Map() };
  const model = new ClusterModel('IPv4');
  const begun = performance.now();
  const senders: Sender[] = [];
  let changes = 0;
  const result = (): FlowsResult => {
    const seen = readCounters();
    return {
      flows: senders.reduce((sum, { sent }) => sum + sent, 0),
      shrinks: world.shrinks,
      moves: world.moves,
      changes,
      seconds: (performance.now() - begun) / 1000,
      translated: seen.get('translated') ?? 0,
      untranslated: seen.get('untranslated') ?? 0,
      refused: seen.get('refused') ?? 0,
      entries: 0,
    };
  };
  try {
    layOut(clients);
    dataplane.setServiceCIDRs([{ ip: '10.177.0.0', prefixLength: 20 }]);
    await dataplane.resync(
      model.follow({ services: world.services, slices: world.slices, ...nodes }).upserted,
    );
    const targets = world.targets(node);
    senders.push(
      new Sender(['ip', 'netns', 'exec', clients], { targets, sources: ['198.51.100', '10.61.9'] }),
      new Sender([], { targets, sources: [node] }),
    );
    let told = begun;
    for (;;) {
      world.step();
      const report = await dataplane.apply(
        model.follow({ services: world.services, slices: world.slices, ...nodes }),
      );
      if (report.failures.length > 0) throw new Error(`refused: ${report.failures[0]?.error.message ?? ''}`);
      changes++;
      await sleep(options.pauseMs);
      const now = performance.now();
      if ((dataplane.deferredDueAt ?? Infinity) <= now) await dataplane.deleteDeferred(now);
      for (const sender of senders) sender.check();
      const flows = senders.reduce((sum, { sent }) => sum + sent, 0);
      const enough =
        flows >= options.flows && world.shrinks >= options.shrinks && world.moves >= options.moves;
      if (enough || now - begun > options.seconds * 1000) break;
      if (options.onProgress !== undefined && now - told > 5000) {
        told = now;
        options.onProgress(result());
      }
    }
    for (const sender of senders) await sender.stop();
    await sleep(200);
    return { ...result(), entries: untranslatedEntries() };
  } finally {
    for (const sender of senders) await sender.stop();
    dataplane.close();
    tools?.remove();
    spawnSync('ip', ['netns', 'del', clients]);
    spawnSync('ip', ['link', 'del', 'nowhere']);
    spawnSync('nft', ['flush', 'ruleset']);
  }
}
