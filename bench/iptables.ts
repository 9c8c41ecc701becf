/**
 * Mode iptables with both kinds of the tool, beside mode nftables, on the same cluster in the same run: the real program, the
 * API server's double, a client and a pod in namespaces of their own. Run as root:
 *
 *     node dist/bench/iptables.js [services] [endpoints per service]
 *
 * Prints one JSON object per mode (IptablesResult) and a table. Times are taken by the client: from the start of
 * the process, or a write to the API server, to an answered connection.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { podIP, program, SmallNode, start, type Child } from '../test/process/node.js';
import { percentile } from './percentile.js';
import { bothCompared } from '../test/both-families.js';

export interface IptablesResult {
  readonly mode: string;
  readonly services: number;
  readonly endpoints: number;
  /** Milliseconds. */
  readonly coldMs: number;
  readonly restartMs: number;
  /** Transactions of the restart. */
  readonly restartWrites: number;
  readonly changeP50: number;
  /** MiB, the tool not counted. */
  readonly rssPeak: number;
  readonly rss: number;
  /** Medians, microseconds. */
  readonly connectServiceUs: number;
  readonly connectPodUs: number;
  /** What the tool alone takes for the same rules, milliseconds; undefined for nftables. */
  readonly floorColdMs: number | undefined;
  readonly floorChangeMs: number | undefined;
  readonly rules: number;
  readonly chains: number;
}

type Kind = 'nft' | 'legacy';
type Json = Readonly<Record<string, unknown>>;

const here = path.dirname(fileURLToPath(import.meta.url));
const apiServer = path.join(here, '..', 'test', 'apiserver', 'main.js');
const changes = 15;
const connects = 2000;
const patienceMs = 180_000;
/** Above all generated ones, so the last in every list. */
const lastService = '10.111.255.1';

async function main(services: number, endpoints: number): Promise<void> {
  const impossible = enterNetworkNamespace();
  if (impossible !== false) throw new Error(impossible);
  const node = new SmallNode();
  await node.open();
  const results: IptablesResult[] = [];
  try {
    const bare = await connectTime(node, podIP, 9000);
    for (const kind of [undefined, 'nft', 'legacy'] as const) {
      if (kind !== undefined && !existsSync(`/usr/sbin/xtables-${kind}-multi`)) continue;
      const result = await measure(node, kind, services, endpoints);
      results.push(result);
      process.stdout.write(`${JSON.stringify(result)}\n`);
    }
    process.stdout.write(
      `\n${services} services x ${endpoints} endpoints; a connect without rules: ${bare.toFixed(1)} us\n`,
    );
    for (const r of results) {
      process.stdout.write(
        `${r.mode.padEnd(16)} cold ${(r.coldMs / 1000).toFixed(2)} s, restart ${(r.restartMs / 1000).toFixed(2)} s (${r.restartWrites} writes), change ${r.changeP50.toFixed(0)} ms, ` +
          `peak ${r.rssPeak.toFixed(0)} MiB, service ${r.connectServiceUs.toFixed(1)} us, pod ${r.connectPodUs.toFixed(1)} us, ` +
          `floor ${r.floorColdMs?.toFixed(0) ?? '-'} / ${r.floorChangeMs?.toFixed(0) ?? '-'} ms, ${r.rules} rules in ${r.chains} chains\n`,
      );
    }
  } finally {
    await node.close();
  }
}

async function measure(
  node: SmallNode,
  kind: Kind | undefined,
  services: number,
  endpoints: number,
): Promise<IptablesResult> {
  const folder = mkdtempSync(path.join(tmpdir(), 'kube-proxy-bench-'));
  const before = process.env['PATH'] ?? '';
  if (kind !== undefined) {
    for (const command of ['iptables', 'ip6tables'])
      for (const suffix of ['', '-save', '-restore'])
        symlinkSync(`/usr/sbin/xtables-${kind}-multi`, path.join(folder, command + suffix));
    process.env['PATH'] = `${folder}:${before}`;
    process.env['XTABLES_LOCKFILE'] = path.join(folder, 'lock');
  }
  const api = start(
    process.execPath,
    apiServer,
    ...['--services', String(services), '--endpoints', String(endpoints)],
  );
  const mode = kind === undefined ? 'nftables' : `iptables`;
  let proxy: Child | undefined;
  try {
    await api.waitFor(/http:\S+/, patienceMs);
    const url = /http:\S+/.exec(api.output)?.[0] ?? '';
    await post(url, '/api/v1/nodes', {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: 'node-0' },
      status: { addresses: [{ type: 'InternalIP', address: '100.64.10.11' }] },
    });
    await addService(url, 'last', lastService);

    const run = (): Child =>
      start(
        program,
        `--master=${url}`,
        `--proxy-mode=${mode}`,
        '--hostname-override=node-0',
        '--cluster-cidr=198.51.100.0/24',
        '--nodeport-addresses=primary',
        '--v=2',
      );
    const awaitCold = await watchFor(node, lastService);
    const begin = Date.now();
    proxy = run();
    const coldMs = (await awaitCold()) - begin;
    await proxy.waitFor(bothCompared, patienceMs);
    const rssPeak = memory(proxy, 'VmHWM');

    const times: number[] = [];
    for (let i = 0; i < changes; i++) {
      const ip = `10.111.254.${i + 1}`;
      const answered = await watchFor(node, ip);
      await sleep(300);
      const changed = Date.now();
      await addService(url, `change-${i}`, ip);
      times.push((await answered()) - changed);
    }
    const connectServiceUs = await connectTime(node, lastService, 80);
    const connectPodUs = await connectTime(node, podIP, 9000);
    const rss = memory(proxy, 'VmRSS');

    proxy.kill('SIGKILL');
    await proxy.end();
    const restart = Date.now();
    proxy = run();
    await proxy.waitFor(bothCompared, patienceMs);
    const restartMs = Date.now() - restart;
    const restartWrites = [...proxy.output.matchAll(/"Resync complete".* transactions=(\d+)/g)].reduce(
      (sum, [, count]) => sum + Number(count),
      0,
    );
    return {
      mode: kind === undefined ? mode : `iptables (${kind})`,
      services,
      endpoints,
      coldMs,
      restartMs,
      restartWrites,
      changeP50: percentile(times, 0.5),
      rssPeak,
      rss,
      connectServiceUs,
      connectPodUs,
      ...(kind === undefined ? noFloor : floor(folder)),
    };
  } finally {
    for (const child of [proxy, api]) {
      child?.kill('SIGKILL');
      await child?.end();
    }
    const cleaner = start(program, '--cleanup');
    await cleaner.end();
    process.env['PATH'] = before;
    rmSync(folder, { recursive: true, force: true });
  }
}

const noFloor = { floorColdMs: undefined, floorChangeMs: undefined, rules: 0, chains: 0 };

/** The rules of table nat as they are, by hand through the tool into an empty namespace, and one chain of them again. */
function floor(folder: string): Pick<IptablesResult, 'floorColdMs' | 'floorChangeMs' | 'rules' | 'chains'> {
  const saved = execFileSync('iptables-save', ['-t', 'nat'], { encoding: 'utf8', maxBuffer: 1 << 30 });
  const lines = saved.split('\n').filter((text) => /^[*:]|^-A|^COMMIT/.test(text));
  const all = path.join(folder, 'all');
  writeFileSync(all, `${lines.join('\n')}\n`);
  const chain = /^:(KUBE-SVC-[A-Z2-7]{16}) /m.exec(saved)?.[1] ?? '';
  const rules = lines.filter((text) => text.startsWith(`-A ${chain} `));
  const one = path.join(folder, 'one');
  writeFileSync(one, ['*nat', `:${chain} - [0:0]`, ...rules, 'COMMIT', ''].join('\n'));
  const script = [
    `t() { s=$(date +%s%N); iptables-restore -w 5 --noflush "$1" || exit 1; e=$(date +%s%N); echo $(( (e - s) / 1000 )); }`,
    `t ${all}`,
    ...new Array<string>(5).fill(`t ${one}`),
  ].join('\n');
  const [cold = NaN, ...again] = execFileSync('unshare', ['-n', 'sh', '-c', script], { encoding: 'utf8' })
    .trim()
    .split('\n')
    .map((microseconds) => Number(microseconds) / 1000);
  return {
    floorColdMs: cold,
    floorChangeMs: percentile(again, 0.5),
    rules: lines.filter((text) => text.startsWith('-A')).length,
    chains: lines.filter((text) => text.startsWith(':')).length,
  };
}

/** @returns what to await for the time of the first answer, milliseconds since the epoch */
async function watchFor(node: SmallNode, ip: string): Promise<() => Promise<number>> {
  const child = connector(node, 'await', ip, '80');
  await child.waitFor('ready');
  return async () => {
    await child.waitFor(/answered \d+/, patienceMs);
    return Number(/answered (\d+)/.exec(child.output)?.[1]);
  };
}

async function connectTime(node: SmallNode, ip: string, port: number): Promise<number> {
  const child = connector(node, 'measure', ip, String(port), String(connects));
  await child.waitFor(/median [\d.]+\n/, patienceMs);
  return Number(/median ([\d.]+)/.exec(child.output)?.[1]);
}

function connector(node: SmallNode, ...args: readonly string[]): Child {
  return start(
    'ip',
    'netns',
    'exec',
    node.namespace(1),
    process.execPath,
    path.join(here, 'connect.js'),
    ...args,
  );
}

async function addService(url: string, name: string, ip: string): Promise<void> {
  await post(url, '/apis/discovery.k8s.io/v1/namespaces/bench/endpointslices', {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: `${name}-1`, namespace: 'bench', labels: { 'kubernetes.io/service-name': name } },
    addressType: 'IPv4',
    ports: [{ name: 'http', port: 9000, protocol: 'TCP' }],
    endpoints: [{ addresses: [podIP], conditions: { ready: true }, nodeName: 'node-0' }],
  });
  await post(url, '/api/v1/namespaces/bench/services', {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'bench' },
    spec: { clusterIP: ip, ports: [{ name: 'http', port: 80, protocol: 'TCP', targetPort: 9000 }] },
  });
}

async function post(url: string, where: string, object: Json): Promise<void> {
  const answer = await fetch(url + where, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(object),
  });
  await answer.arrayBuffer();
  if (!answer.ok) throw new Error(`POST ${where}: the API server's double answers ${answer.status}`);
}

/** Value in MiB of a line of /proc/PID/status. */
function memory({ process: child }: Child, what: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${child.pid ?? 0}/status`, 'utf8');
  return Number(new RegExp(`^${what}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? NaN) / 1024;
}

const [services = 5000, endpoints = 10] = process.argv.slice(2).map(Number);
await main(services, endpoints);
