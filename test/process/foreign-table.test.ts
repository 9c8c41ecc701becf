/**
 * Another program changes a table of its own all the time, from before the start on. That is nobody's damage: everything is compared
 * once, and nothing is said. What it changes in our table is noticed as ever. SERVICES=10000 for a large cluster.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { serviceKey } from '../../src/backends/nft/keys.js';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { clusterObjects } from '../apiserver/generate.js';
import { ApiServer } from '../apiserver/server.js';
import { patiently } from '../patience.js';
import { type Child, kubeconfigFor, ownNode, program, start } from './node.js';
import { bothCompared } from '../both-families.js';

const services = Number(process.env['SERVICES'] ?? '2000');
const endpoints = 10;
const changesPerSecond = 10;
/** So many Services get other endpoints in one large change. */
const changedServices = 1000;
const neighbour = join(dirname(fileURLToPath(import.meta.url)), 'busy-neighbour.js');
const skip = enterNetworkNamespace();

interface Slice {
  readonly kind: string;
  readonly endpoints: readonly { readonly addresses: readonly string[] }[];
}

describe(`another program changes its own table, ${services} Services`, { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'kpp-foreign-'));
  const slices: Slice[] = [];
  let server: ApiServer;
  let kernel: NftablesConnection;
  let other: Child;
  let proxy: Child;

  before(async () => {
    other = start(process.execPath, neighbour, String(changesPerSecond));
    await other.waitFor('ready');
    server = await ApiServer.start();
    server.store.put(ownNode);
    for (const object of clusterObjects({ services, endpoints, nodes: 50 })) {
      server.store.put(object);
      if (object['kind'] === 'EndpointSlice') slices.push(object as unknown as Slice);
    }
    kernel = NftablesConnection.open();
    proxy = start(
      program,
      `--kubeconfig=${kubeconfigFor(server.url, folder)}`,
      '--proxy-mode=nftables',
      '--hostname-override=alder',
      '--cluster-cidr=10.128.0.0/9',
      '--v=2',
    );
    await proxy.waitFor(bothCompared, 60_000);
  });
  after(async () => {
    kernel.close();
    proxy.kill('SIGTERM');
    await proxy.end();
    other.kill('SIGKILL');
    await other.end();
    await server.close();
    rmSync(folder, { recursive: true });
  });

  const metric = async (name: string): Promise<number> => {
    const text = await (await fetch('http://127.0.0.1:10249/metrics')).text();
    const line = text.split('\n').find((each) => each.startsWith(`${name} `) || each.startsWith(`${name}{`));
    return Number(line?.slice(line.lastIndexOf(' ') + 1));
  };
  const said = (text: string): string[] => proxy.output.split('\n').filter((line) => line.includes(text));
  const comparisons = (family: string): number =>
    said('"Resync complete"').filter((line) => line.includes(`family="${family}"`)).length;
  const isQuiet = async (): Promise<void> => {
    assert.deepEqual([comparisons('IPv4'), comparisons('IPv6')], [1, 1], proxy.output);
    assert.deepEqual(
      proxy.output.split('\n').filter((line) => /^[WE].*(watch|sync)|another program/.test(line)),
      [],
    );
    assert.equal(await metric('kubeproxyts_rules_contested'), 0);
    assert.equal(await metric('kubeproxyts_kernel_repairs_total{ip_family="IPv4"}'), 0);
    assert.deepEqual(
      server.events.filter(({ reason }) => reason === 'RulesContested'),
      [],
    );
  };
  /** As the kernel counts them (from 6.18 on), or counted. */
  const elements = (set: string): number => {
    const info = kernel.getSet('ip', 'kube-proxy', set);
    if (info === undefined) return 0;
    if (info.count !== undefined) return info.count;
    let count = 0;
    kernel.listElements('ip', 'kube-proxy', set, () => count++, { onRestart: () => (count = 0) });
    return count;
  };
  /** Milliseconds until it is so. */
  const until = async (isSo: () => boolean, mostMs: number): Promise<number> => {
    const begun = performance.now();
    while (!isSo()) {
      assert.ok(performance.now() - begun < patiently(mostMs), `not within ${mostMs} ms\n${proxy.output}`);
      await sleep(1);
    }
    return performance.now() - begun;
  };
  /** Seconds of processor time. */
  const cpu = (): number => {
    const fields =
      readFileSync(`/proc/${proxy.process.pid ?? 0}/stat`, 'utf8')
        .split(') ')[1]
        ?.split(' ') ?? [];
    return (Number(fields[11]) + Number(fields[12])) / 100;
  };

  test('everything is compared once per family, and nothing is said', async (t) => {
    await sleep(patiently(3000));
    await isQuiet();
    const before = cpu();
    await sleep(5000);
    t.diagnostic(`${((cpu() - before) * 20).toFixed(2)} % of a core at ${changesPerSecond} changes a second`);
  });

  test('so it is in large changes of ours', async () => {
    for (let round = 1; round <= 3; round++) {
      const changed = slices.slice(0, changedServices);
      for (const slice of changed) server.store.put({ ...slice, endpoints: slice.endpoints.slice(round) });
      const expected = (slices.length - changed.length) * endpoints + changed.length * (endpoints - round);
      await until(() => elements('endpoints') === expected, 20_000);
    }
    await sleep(patiently(2000));
    await isQuiet();
  });

  test('one element of ours that is deleted is back at once', async (t) => {
    const key = Buffer.from(serviceKey('10.96.0.7', 'TCP', 80), 'latin1');
    const isThere = (): boolean => {
      let found = false;
      kernel.getElements('ip', 'kube-proxy', 'service-ips', [key], () => (found = true));
      return found;
    };
    assert.ok(isThere());
    const batch = new Batch('ip', 'kube-proxy');
    batch.deleteElement('service-ips', key);
    kernel.commit(batch);
    const ms = await until(isThere, 1000);
    t.diagnostic(`${ms.toFixed(1)} ms`);
    assert.ok(ms <= patiently(50), `${ms} ms`);
  });

  test('the whole table is back within a second', async (t) => {
    await sleep(patiently(2000));
    const names = ['service-ips', 'endpoints'] as const;
    const before = names.map(elements);
    const batch = new Batch('ip', 'kube-proxy');
    batch.deleteTable();
    kernel.commit(batch);
    const isThere = (): boolean => names.every((name, i) => elements(name) === before[i]);
    const ms = await until(isThere, 20_000);
    t.diagnostic(`${ms.toFixed(0)} ms`);
    assert.ok(ms <= patiently(1000), `${ms} ms`);
    await sleep(patiently(2000));
    assert.equal(comparisons('IPv4'), 2, proxy.output);
    assert.equal(await metric('kubeproxyts_rules_contested'), 0);
  });
});
