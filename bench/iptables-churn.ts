/**
 * Mode iptables under steady changes, with both kinds of the tool: processor time with the tool's runs, how long a change takes to
 * reach the kernel, and how long others wait for the lock of the tables. Run as root:
 *
 *     node dist/bench/iptables-churn.js [services] [endpoints per service] [changes per second] [seconds]
 */
import { existsSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { tryLock } from '@kube-proxy-ts/netlink/xtables';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { ApiServer } from '../test/apiserver/server.js';
import { service, slice } from '../test/process/hostile-objects.js';
import { program, start, type Child } from '../test/process/node.js';
import { percentile } from './percentile.js';
import { bothCompared } from '../test/both-families.js';

const patienceMs = 120_000;
/** Another program that wants the lock, as often as a node with some agents has them. */
const lockPeriodMs = 50;

const [services = 1000, endpoints = 10, perSecond = 100, seconds = 15] = process.argv.slice(2).map(Number);

const impossible = enterNetworkNamespace();
if (impossible !== false) throw new Error(impossible);
for (const kind of ['nft', 'legacy']) if (existsSync(`/usr/sbin/xtables-${kind}-multi`)) await measure(kind);

async function measure(kind: string): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'kube-proxy-churn-'));
  const before = process.env['PATH'] ?? '';
  const lock = path.join(folder, 'lock');
  for (const command of ['iptables', 'ip6tables'])
    for (const suffix of ['', '-save', '-restore'])
      symlinkSync(`/usr/sbin/xtables-${kind}-multi`, path.join(folder, command + suffix));
  process.env['PATH'] = `${folder}:${before}`;
  process.env['XTABLES_LOCKFILE'] = lock;
  const server = await ApiServer.start();
  let proxy: Child | undefined;
  try {
    for (let number = 0; number < services; number++) {
      server.store.put(service(`svc-${number}`, { clusterIP: `10.100.${number >> 8}.${number & 255}` }));
      server.store.put(sliceOf(number, 0));
    }
    proxy = start(
      program,
      `--master=${server.url}`,
      '--proxy-mode=iptables',
      '--hostname-override=node-0',
      '--cluster-cidr=10.61.0.0/16',
    );
    await proxy.waitFor(bothCompared, patienceMs);
    await sleep(1000);
    const begin = { ticks: ticks(proxy), lag: await lag(), at: performance.now() };
    const waits: number[] = [];
    let isOver = false;
    const other = waitForLock(lock, waits, () => isOver);
    for (let change = 0; change < perSecond * seconds; change++) {
      server.store.put(sliceOf((change * 7919) % services, change + 1));
      const due = begin.at + ((change + 1) * 1000) / perSecond;
      await sleep(Math.max(0, due - performance.now()));
    }
    await sleep(1500);
    isOver = true;
    await other;
    const end = { ticks: ticks(proxy), lag: await lag() };
    const count = end.lag.count - begin.lag.count;
    process.stdout.write(
      `${kind}: ${((end.ticks - begin.ticks) / seconds).toFixed(0)} % CPU, ` +
        `${(end.lag.syncs - begin.lag.syncs) / seconds} syncs a second, ` +
        `lag ${(((end.lag.sum - begin.lag.sum) / count) * 1000).toFixed(0)} ms on average (${count} changes), ` +
        `others wait for the lock ${percentile(waits, 0.5).toFixed(1)} ms, p95 ${percentile(waits, 0.95).toFixed(1)} ms, at most ${Math.max(...waits).toFixed(0)} ms\n`,
    );
  } finally {
    proxy?.kill('SIGKILL');
    await proxy?.end();
    await server.close();
    await start(program, '--cleanup').end();
    process.env['PATH'] = before;
    rmSync(folder, { recursive: true, force: true });
  }
}

function sliceOf(number: number, round: number): ReturnType<typeof slice> {
  const addresses = Array.from(
    { length: endpoints },
    (_, i) => `10.61.${number & 255}.${1 + ((i + (i === 0 ? round * endpoints : 0)) % 250)}`,
  );
  const annotations =
    round === 0
      ? {}
      : { annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': new Date().toISOString() } };
  return slice(`svc-${number}`, [...new Set(addresses)], {}, annotations);
}

/** Hundredths of a second of the process and of what it has run. */
function ticks({ process: { pid = 0 } }: Child): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1] ?? '';
  return stat
    .split(' ')
    .slice(11, 15)
    .reduce((sum, field) => sum + Number(field), 0);
}

async function lag(): Promise<{ readonly sum: number; readonly count: number; readonly syncs: number }> {
  const text = await (await fetch('http://127.0.0.1:10249/metrics')).text();
  const sumOf = (name: string): number =>
    [...text.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].reduce(
      (sum, [, value]) => sum + Number(value),
      0,
    );
  const programming = 'kubeproxy_network_programming_duration_seconds';
  return {
    sum: sumOf(`${programming}_sum`),
    count: sumOf(`${programming}_count`),
    syncs: sumOf('kubeproxy_sync_partial_proxy_rules_duration_seconds_count'),
  };
}

async function waitForLock(file: string, waits: number[], isOver: () => boolean): Promise<void> {
  while (!isOver()) {
    const fd = openSync(file, 'a');
    const begin = performance.now();
    while (!tryLock(fd, 'lock')) await sleep(1);
    waits.push(performance.now() - begin);
    closeSync(fd);
    await sleep(lockPeriodMs);
  }
}
