/**
 * The real program against the API server's double, each a process of its own, in a network namespace of their own.
 * Run as root:
 *
 *     node dist/bench/program.js [services] [endpoints per service]
 *
 * Prints one JSON object (ProgramResult). What the kernel holds is watched from outside: through the generation of
 * its nftables ruleset, which every commit increases.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { NftablesConnection } from '../src/netlink/nftables/index.js';
import { enterNetworkNamespace } from '../src/netlink/testing/namespace.js';
import { clusterObjects } from '../test/apiserver/generate.js';
import { percentile } from './percentile.js';

export interface ProgramResult {
  readonly services: number;
  readonly endpoints: number;
  /** Bare process: `--version`, median of five, milliseconds. */
  readonly versionMs: number;
  /** From process start to the last acknowledgement of the kernel, empty table before. */
  readonly coldMs: number;
  /** From kill -9 and start to the kernel's state compared, nothing changed meanwhile. */
  readonly restartMs: number;
  /** Commits to nftables while it restarted. */
  readonly restartWrites: number;
  /** From a write to the API server to the kernel's commit, both as seen by a third process. */
  readonly changeP50: number;
  readonly changeP99: number;
  /** MiB when the cold start is done, at its peak, after settling, and after the changes. */
  readonly rssStart: number;
  readonly rssPeak: number;
  readonly rssSettled: number;
  readonly rssAfterChanges: number;
  readonly rssAfterRestart: number;
}

const changes = 200;
const settleMs = 5_000;
const deadlineMs = 60_000;
const program = fileURLToPath(new URL('../../bin/kube-proxy', import.meta.url));
const apiServer = fileURLToPath(new URL('../test/apiserver/main.js', import.meta.url));

type Json = Readonly<Record<string, unknown>>;

const children = new Set<ChildProcess>();

function start(file: string, args: readonly string[]): ChildProcess {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

/** Waits for a line of a child's output, and keeps reading it afterwards. */
async function line(child: ChildProcess, from: 'stdout' | 'stderr', wanted: RegExp): Promise<string> {
  const stream = child[from];
  if (stream === null) throw new Error('no output to wait for');
  return await new Promise<string>((resolve, reject) => {
    let rest = '';
    let seen = '';
    const timer = setTimeout(() => {
      reject(new Error(`no line ${String(wanted)} within ${deadlineMs / 1000} s; the output was:\n${seen}`));
    }, deadlineMs);
    child.once('exit', (code) => {
      clearTimeout(timer);
      reject(new Error(`the process ended with ${String(code)}; its output was:\n${seen}`));
    });
    stream.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n');
      rest = lines.pop() ?? '';
      if (seen.length < 4000) seen += chunk.toString();
      const found = lines.find((candidate) => wanted.test(candidate));
      if (found === undefined) return;
      clearTimeout(timer);
      resolve(found);
    });
  });
}

/** Value in MiB of a line of /proc/PID/status. */
function memory(child: ChildProcess, what: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${child.pid ?? 0}/status`, 'utf8');
  const match = new RegExp(`^${what}:\\s+(\\d+) kB`, 'm').exec(status);
  return Number(match?.[1] ?? NaN) / 1024;
}

/** A client that writes objects, over one connection. */
class Writer {
  private readonly agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

  constructor(private readonly url: string) {}

  async create(path: string, object: Json): Promise<void> {
    await this.send('POST', path, object);
  }

  async replace(path: string, object: Json): Promise<void> {
    await this.send('PUT', path, object);
  }

  private async send(method: string, path: string, object: Json): Promise<void> {
    const headers = { 'content-type': 'application/json' };
    await new Promise<void>((resolve, reject) => {
      const request = http.request(this.url + path, { method, agent: this.agent, headers }, (answer) => {
        answer.resume();
        answer.once('end', () => {
          if (answer.statusCode === 200 || answer.statusCode === 201) resolve();
          else
            reject(
              new Error(`${method} ${path}: the API server's double answers ${String(answer.statusCode)}`),
            );
        });
      });
      request.once('error', reject);
      request.end(JSON.stringify(object));
    });
  }

  close(): void {
    this.agent.destroy();
  }
}

function slicePath(slice: Json): string {
  const { namespace, name } = slice['metadata'] as Json;
  return `/apis/discovery.k8s.io/v1/namespaces/${String(namespace)}/endpointslices/${String(name)}`;
}

const adopted = /"Kernel state compared and completed".*"family":"IPv6"/;

function startProxy(url: string): ChildProcess {
  return start(program, [
    `--master=${url}`,
    '--hostname-override=node-0',
    '--cluster-cidr=10.128.0.0/9',
    '--logging-format=json',
    '--healthz-bind-address=127.0.0.1:10256',
    '--metrics-bind-address=127.0.0.1:10249',
  ]);
}

async function versionTime(): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const begin = performance.now();
    const child = start(program, ['--version']);
    await new Promise((resolve) => child.once('exit', resolve));
    times.push(performance.now() - begin);
  }
  return percentile(times, 0.5);
}

async function main(services: number, endpoints: number): Promise<ProgramResult> {
  const impossible = enterNetworkNamespace();
  if (impossible !== false) throw new Error(impossible);
  const versionMs = await versionTime();

  const size = ['--services', String(services), '--endpoints', String(endpoints)];
  const api = start(process.execPath, [apiServer, ...size]);
  const url = await line(api, 'stdout', /^http/);
  const writer = new Writer(url);
  await writer.create('/api/v1/nodes', {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'node-0' },
    status: { addresses: [{ type: 'InternalIP', address: '100.64.0.1' }] },
  });

  const kernel = NftablesConnection.open();
  const generation = (): number => kernel.getGeneration().id;

  const coldStart = performance.now();
  let proxy = startProxy(url);
  await line(proxy, 'stderr', adopted);
  const coldMs = performance.now() - coldStart;
  const [rssStart, rssPeak] = [memory(proxy, 'VmRSS'), memory(proxy, 'VmHWM')];
  await sleep(settleMs);
  const rssSettled = memory(proxy, 'VmRSS');

  // An endpoint of one service goes and comes back, in turn; each time of another service.
  const slices = [...clusterObjects({ services: Math.min(services, 1000), endpoints, nodes: 100 })].filter(
    (object) => object['kind'] === 'EndpointSlice',
  );
  const latencies: number[] = [];
  for (let i = 0; i < changes; i++) {
    const slice = slices[(Math.floor(i / 2) * 7919) % slices.length] ?? {};
    const all = slice['endpoints'] as readonly unknown[];
    await sleep(5);
    const before = generation();
    const begin = performance.now();
    const written = writer.replace(slicePath(slice), {
      ...slice,
      endpoints: i % 2 === 0 ? all.slice(1) : all,
    });
    while (generation() === before) {
      if (performance.now() - begin > deadlineMs) throw new Error('a change never reached the kernel');
      await nextTurn();
    }
    latencies.push(performance.now() - begin);
    await written;
  }
  const rssAfterChanges = memory(proxy, 'VmRSS');

  proxy.kill('SIGKILL');
  await new Promise((resolve) => proxy.once('exit', resolve));
  const before = generation();
  const restart = performance.now();
  proxy = startProxy(url);
  await line(proxy, 'stderr', adopted);
  const restartMs = performance.now() - restart;
  await sleep(1000);
  const restartWrites = generation() - before;
  const rssAfterRestart = memory(proxy, 'VmRSS');
  kernel.close();
  writer.close();
  return {
    services,
    endpoints,
    versionMs,
    coldMs,
    restartMs,
    restartWrites,
    changeP50: percentile(latencies, 0.5),
    changeP99: percentile(latencies, 0.99),
    rssStart,
    rssPeak,
    rssSettled,
    rssAfterChanges,
    rssAfterRestart,
  };
}

const [services = 10_000, endpoints = 10] = process.argv.slice(2).map(Number);
try {
  process.stdout.write(`${JSON.stringify(await main(services, endpoints))}\n`);
} finally {
  for (const child of children) child.kill('SIGKILL');
}
