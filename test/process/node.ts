/**
 * A small node for process tests: this process's network namespace is the node, with one pod (10.61.1.31) and one
 * client (198.51.100.7) in namespaces of their own. `close()` removes what was made.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { run } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../patience.js';

const here = dirname(fileURLToPath(import.meta.url));
export const program = join(here, '..', '..', '..', 'bin', 'kube-proxy');

export const serviceIP = '10.177.0.50';
export const podIP = '10.61.1.31';
export const nodeIP = '100.64.10.11';
export const clientIP = '198.51.100.7';

/** The Node object of this node, for the double of the API server. */
export const ownNode = {
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'alder' },
  status: { addresses: [{ type: 'InternalIP', address: nodeIP }] },
};

/** Writes a kubeconfig for the double of the API server at `url`, over plain HTTP. @returns its path */
export function kubeconfigFor(url: string, folder: string): string {
  const path = join(folder, 'kubeconfig');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'double', cluster: { server: url } }],
    users: [{ name: 'me', user: {} }],
    contexts: [{ name: 'double', context: { cluster: 'double', user: 'me' } }],
    'current-context': 'double',
  };
  writeFileSync(path, JSON.stringify(config));
  return path;
}

/** A child whose output can be waited for. */
export class Child {
  output = '';
  private readonly ended: Promise<number>;

  constructor(readonly process: ChildProcess) {
    const take = (chunk: Buffer): void => {
      this.output += chunk.toString();
    };
    process.stdout?.on('data', take);
    process.stderr?.on('data', take);
    this.ended = new Promise((resolve) => {
      process.on('close', (code, signal) => {
        resolve(code ?? (signal === null ? 1 : 128));
      });
    });
  }

  async waitFor(text: string | RegExp, timeoutMs = 10_000): Promise<void> {
    const deadline = Date.now() + patiently(timeoutMs);
    const found = (): boolean =>
      typeof text === 'string' ? this.output.includes(text) : text.test(this.output);
    while (!found()) {
      if (Date.now() > deadline || this.process.exitCode !== null) {
        throw new Error(`waited for ${String(text)}, got:\n${this.output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** Exit status; 128 when a signal ended it. */
  async end(timeoutMs = 10_000): Promise<number> {
    const timer = setTimeout(() => this.process.kill('SIGKILL'), patiently(timeoutMs));
    try {
      return await this.ended;
    } finally {
      clearTimeout(timer);
    }
  }

  kill(signal: NodeJS.Signals): void {
    this.process.kill(signal);
  }
}

export function start(command: string, ...args: readonly string[]): Child {
  return new Child(spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] }));
}

/** What traffic.ts tells when it ends. */
export interface Traffic {
  readonly newConnections: number;
  readonly newFailed: number;
  readonly lines: number;
  readonly linesLost: number;
  readonly slowestMs: number;
  readonly errors: readonly string[];
}

/** Ends traffic (SmallNode.traffic), and what it saw. */
export async function trafficResult(traffic: Child): Promise<Traffic> {
  traffic.kill('SIGTERM');
  await traffic.end();
  return JSON.parse(traffic.output.trim().split('\n').at(-1) ?? '') as Traffic;
}

/** Number that grows with every transaction that changed something in nf_tables, of this network namespace. */
export function generation(): number {
  const connection = NftablesConnection.open();
  try {
    return connection.getGeneration().id;
  } finally {
    connection.close();
  }
}

/** Waits for the outcome of something that may take as long as the longest pause between two tries, 30 s. */
export async function eventually(
  what: string,
  isSo: () => boolean,
  children: readonly Child[],
): Promise<void> {
  const deadline = Date.now() + patiently(45_000);
  while (!isSo()) {
    if (Date.now() > deadline)
      throw new Error(`${what}: not within 45 s\n${children.map((c) => c.output).join('\n')}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export class SmallNode {
  private readonly names: readonly string[];
  private readonly children: Child[] = [];

  constructor() {
    const prefix = `kpp-${process.pid}`;
    this.names = [`${prefix}-pod`, `${prefix}-client`];
  }

  async open(): Promise<void> {
    const [pod = '', client = ''] = this.names;
    for (const [index, { name, address, gateway }] of [
      { name: pod, address: podIP, gateway: '10.61.1.1' },
      { name: client, address: clientIP, gateway: '198.51.100.1' },
    ].entries()) {
      run('ip', 'netns', 'add', name);
      run('ip', 'link', 'add', `to${index}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
      run('ip', 'address', 'add', `${gateway}/24`, 'dev', `to${index}`);
      run('ip', 'link', 'set', `to${index}`, 'up');
      run('ip', '-n', name, 'address', 'add', `${address}/24`, 'dev', 'eth0');
      run('ip', '-n', name, 'link', 'set', 'eth0', 'up');
      run('ip', '-n', name, 'link', 'set', 'lo', 'up');
      run('ip', '-n', name, 'route', 'add', 'default', 'via', gateway);
    }
    run('ip', 'address', 'add', `${nodeIP}/32`, 'dev', 'lo');
    writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
    const server = this.inNamespace(0, 'echo.js', podIP, '9000');
    await server.waitFor('ready');
  }

  /** Name of a network namespace; 0: the pod's, 1: the client's. */
  namespace(index: 0 | 1): string {
    return this.names[index] ?? '';
  }

  /** Runs one of the scripts beside this file; ended by close(). */
  inNamespace(index: 0 | 1, script: string, ...args: readonly string[]): Child {
    const name = this.names[index] ?? '';
    const child = start('ip', 'netns', 'exec', name, process.execPath, join(here, script), ...args);
    this.children.push(child);
    return child;
  }

  async traffic(ip: string, port: number): Promise<Child> {
    const child = this.inNamespace(1, 'traffic.js', ip, String(port));
    await child.waitFor('ready');
    return child;
  }

  async close(): Promise<void> {
    for (const child of this.children) child.kill('SIGKILL');
    await Promise.all(this.children.map((child) => child.end()));
    for (const name of this.names) run('ip', 'netns', 'delete', name);
  }
}

/** A Service at serviceIP:80 with node port 31050 and the pod behind it. */
export const manifest = `
apiVersion: v1
kind: Service
metadata: { name: pear, namespace: orchard }
spec:
  type: NodePort
  clusterIP: ${serviceIP}
  ports: [{ name: web, port: 80, nodePort: 31050 }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: pear-1, namespace: orchard, labels: { kubernetes.io/service-name: pear } }
addressType: IPv4
ports: [{ name: web, port: 9000, protocol: TCP }]
endpoints:
  - { addresses: [${podIP}], nodeName: alder, conditions: { ready: true } }
`;

export const proxyArguments: readonly string[] = [
  '--hostname-override=alder',
  '--cluster-cidr=10.61.0.0/16',
  `--bind-address=${nodeIP}`,
  '--v=2',
];
