/**
 * A node in mode ipvs with several pods behind one Service, for tests with real connections. Needs a kernel with IPVS: these
 * tests run in the virtual machine (test/vm) and are skipped elsewhere.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { GenericConnection } from '@kube-proxy-ts/netlink/generic';
import { run } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../../patience.js';
import { Child, nodeIP, program, serviceIP, SmallNode, start } from '../../process/node.js';
import { bothCompared } from '../../both-families.js';

const here = dirname(fileURLToPath(import.meta.url));
export const port = 9001;
/**
 * The client's second address. IPVS mistakes two connections for one that come from the same address and port, to two addresses
 * of a Service, and meet the same endpoint (docs/ipvs.md): so each address of the Service has a client address of its own.
 */
export const otherClientIP = '198.51.100.8';
export const nodePort = 31050;
export const virtualServer = `${serviceIP}:80`;

/** @returns why these tests can't run here; false when they can */
export function missingIpvs(): string | false {
  const generic = GenericConnection.open();
  try {
    if (generic.resolveFamily('IPVS') === undefined)
      return 'this kernel has no IPVS: make test-vm runs it in a machine that has';
  } finally {
    generic.close();
  }
  const { status } = spawnSync('ipvsadm', ['-Ln']);
  return status === 0 ? false : 'needs the package ipvsadm';
}

/** A pod as EndpointSlices tell of it. */
export interface Pod {
  readonly ip: string;
  /** 'terminating': it keeps what it has and gets nothing new. */
  readonly state: 'ready' | 'terminating';
}

/** Pod addresses are numbered. */
export function podIPOf(number: number): string {
  return `10.61.1.${30 + number}`;
}

export function readyPods(...numbers: readonly number[]): Pod[] {
  return numbers.map((number) => ({ ip: podIPOf(number), state: 'ready' }));
}

function manifest(pods: readonly Pod[], settings: string): string {
  const endpoints = pods.map(({ ip, state }) => {
    const ready = state === 'ready';
    const name = `pear-${ip.split('.').at(-1) ?? ''}`;
    return `  - { addresses: [${ip}], nodeName: alder, conditions: { ready: ${ready}, serving: true, terminating: ${!ready} }, targetRef: { kind: Pod, namespace: orchard, name: ${name} } }`;
  });
  return `apiVersion: v1
kind: Service
metadata: { name: pear, namespace: orchard }
spec:
  type: NodePort
  clusterIP: ${serviceIP}
  ports: [{ name: web, port: 80, nodePort: ${nodePort} }]
${settings}---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: pear-1, namespace: orchard, labels: { kubernetes.io/service-name: pear } }
addressType: IPv4
ports: [{ name: web, port: ${port}, protocol: TCP }]
endpoints:${pods.length === 0 ? ' []' : ''}
${endpoints.join('\n')}
`;
}

export class IpvsNode {
  private readonly node = new SmallNode();
  private readonly folder = mkdtempSync(join(tmpdir(), 'kpp-ipvs-'));
  private readonly children: Child[] = [];
  private readonly addresses = new Set<string>();
  private proxy: Child | undefined;

  get manifests(): string {
    return join(this.folder, 'all.yaml');
  }

  async open(): Promise<void> {
    await this.node.open();
    run('ip', '-n', this.namespace(1), 'address', 'add', `${otherClientIP}/24`, 'dev', 'eth0');
  }

  async close(): Promise<void> {
    for (const child of this.children) child.kill('SIGKILL');
    await Promise.all(this.children.map((child) => child.end()));
    await start(program, '--cleanup').end();
    await this.node.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Name of the network namespace of all pods (0), or of the client (1). */
  namespace(index: 0 | 1): string {
    return this.node.namespace(index);
  }

  /** Gives the pods' network namespace an address. */
  addPodAddress(ip: string): void {
    if (this.addresses.has(ip) || ip === podIPOf(1)) return;
    this.addresses.add(ip);
    run('ip', '-n', this.namespace(0), 'address', 'add', `${ip}/24`, 'dev', 'eth0');
  }

  /** Servers that say who they are (whoami.ts). */
  async serve(...numbers: readonly number[]): Promise<void> {
    const ips = numbers.map(podIPOf);
    for (const ip of ips) this.addPodAddress(ip);
    await this.script(0, '../../process/whoami.js', String(port), ...ips).waitFor('ready');
  }

  /** Runs a script beside this file in a namespace; ended by close(). */
  script(index: 0 | 1, name: string, ...args: readonly string[]): Child {
    const child = start(
      'ip',
      'netns',
      'exec',
      this.namespace(index),
      process.execPath,
      join(here, name),
      ...args,
    );
    this.children.push(child);
    return child;
  }

  async clients(): Promise<Clients> {
    const command = ['netns', 'exec', this.namespace(1), process.execPath, join(here, 'clients.js')];
    const clients = new Clients(spawn('ip', command, { stdio: ['pipe', 'pipe', 'pipe'] }));
    this.children.push(clients.child);
    await clients.child.waitFor('ready');
    return clients;
  }

  /** Rewrites the manifest, in one go: a running proxy follows. */
  setPods(pods: readonly Pod[], settings = ''): void {
    const draft = join(this.folder, 'draft');
    writeFileSync(draft, manifest(pods, settings));
    renameSync(draft, this.manifests);
  }

  /** Ends the proxy that runs, if any, and starts one that has programmed everything when this returns. */
  async startProxy(...more: readonly string[]): Promise<Child> {
    await this.stopProxy();
    const proxy = this.spawnProxy('--proxy-mode=ipvs', ...more);
    await proxy.waitFor(bothCompared, 30_000);
    return proxy;
  }

  spawnProxy(...more: readonly string[]): Child {
    const proxy = start(
      program,
      '--manifests',
      this.manifests,
      '--hostname-override=alder',
      '--cluster-cidr=10.61.0.0/16',
      `--bind-address=${nodeIP}`,
      `--nodeport-addresses=${nodeIP}/32`,
      '--v=2',
      ...more,
    );
    this.proxy = proxy;
    this.children.push(proxy);
    return proxy;
  }

  async stopProxy(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.proxy?.kill(signal);
    await this.proxy?.end();
    this.proxy = undefined;
  }
}

export class Clients {
  readonly child: Child;
  private answers = 1;

  constructor(private readonly process: ChildProcess) {
    this.child = new Child(process);
  }

  /** Opens connections one after the other. @returns who answered each, or why nobody did */
  open(count: number, ip: string = serviceIP, at = 80): Promise<string[]> {
    return this.tell(`open ${count} ${ip} ${at}`);
  }

  /** Closes the connections to an endpoint. */
  close(endpoint: string): Promise<string[]> {
    return this.tell(`close ${endpoint}`);
  }

  /** Says something on every connection. */
  ask(): Promise<string[]> {
    return this.tell('ask');
  }

  private async tell(line: string): Promise<string[]> {
    this.process.stdin?.write(`${line}\n`);
    const deadline = Date.now() + patiently(30_000);
    for (;;) {
      const lines = this.child.output.split('\n');
      if (lines.length > this.answers + 1) {
        const answer: unknown = JSON.parse(lines[this.answers++] ?? '');
        if (!Array.isArray(answer)) throw new Error(`clients.ts answered ${lines.at(-2) ?? ''}`);
        return answer.map(String);
      }
      if (Date.now() > deadline) throw new Error(`${line}: no answer; ${this.child.output}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** How often each was named, by name. */
export function countEach(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of [...names].sort()) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

/** The lines of `ipvsadm -Ln` about one virtual server, blanks folded. */
export function ipvsadmLines(server = virtualServer): string[] {
  const lines = run('ipvsadm', '-Ln')
    .split('\n')
    .map((line) => line.trim().replaceAll(/ +/g, ' '));
  const first = lines.findIndex((line) => line.startsWith(`TCP ${server} `));
  if (first < 0) return [];
  const rest = lines.slice(first + 1);
  const end = rest.findIndex((line) => !line.startsWith('->'));
  return [lines[first] ?? '', ...rest.slice(0, end < 0 ? undefined : end)];
}

/** Waits until something is so. */
export async function until(what: string, isSo: () => boolean, limitMs = 20_000): Promise<void> {
  const deadline = Date.now() + patiently(limitMs);
  while (!isSo()) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`);
    // To look may cost more than what is waited for.
    await new Promise((resolve) => setTimeout(resolve, patiently(50)));
  }
}
