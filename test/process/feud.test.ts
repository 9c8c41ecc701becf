/** Another program undoes what kube-proxy writes, in a loop: kube-proxy gives way without giving up, and says so once. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, missingNft } from '@kube-proxy-ts/netlink/testing';
import { ApiServer } from '../apiserver/server.js';
import { patiently } from '../patience.js';
import { service, slice } from './hostile-objects.js';
import {
  type Child,
  kubeconfigFor,
  ownNode,
  podIP,
  program,
  serviceIP,
  SmallNode,
  start,
  trafficResult,
} from './node.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace() || missingNft();

/** So long the other program goes on. */
const contentionMs = 3000;
/** 5 ms, 10 ms, … 2.56 s: what fits into that time, and one that is under way. */
const mostRepairs = 12;

describe('two programs, one table', { skip }, () => {
  const node = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-feud-'));
  let server: ApiServer;
  let proxy: Child;

  before(async () => {
    await node.open();
    server = await ApiServer.start();
    server.store.put(ownNode);
    server.store.put(service('pear', { clusterIP: serviceIP }, { namespace: 'orchard' }));
    server.store.put(slice('pear', [podIP], {}, { namespace: 'orchard' }));
    proxy = start(
      program,
      `--kubeconfig=${kubeconfigFor(server.url, folder)}`,
      '--proxy-mode=nftables',
      '--hostname-override=alder',
      '--cluster-cidr=10.61.0.0/16',
    );
    await proxy.waitFor(bothCompared);
  });
  after(async () => {
    proxy.kill('SIGKILL');
    await server.close();
    await node.close();
    rmSync(folder, { recursive: true });
  });

  const metric = async (name: string): Promise<number> => {
    const text = await (await fetch('http://127.0.0.1:10249/metrics')).text();
    const line = text.split('\n').find((each) => each.startsWith(`${name} `) || each.startsWith(`${name}{`));
    return Number(line?.slice(line.lastIndexOf(' ') + 1));
  };
  /** Processor time of the proxy, seconds. */
  const cpu = (): number => {
    const fields =
      readFileSync(`/proc/${proxy.process.pid ?? 0}/stat`, 'utf8')
        .split(') ')[1]
        ?.split(' ') ?? [];
    return (Number(fields[11]) + Number(fields[12])) / 100;
  };
  const contested = (): number => server.events.filter(({ reason }) => reason === 'RulesContested').length;
  const elements = (connection: NftablesConnection): number => {
    let count = 0;
    connection.listElements('ip', 'kube-proxy', 'service-ips', () => count++);
    return count;
  };

  test('repairs come later and later, cost next to nothing, and are told of once in each place', async (t) => {
    const connection = NftablesConnection.open();
    try {
      const before = cpu();
      const until = performance.now() + contentionMs;
      let undone = 0;
      while (performance.now() < until) {
        if (elements(connection) > 0) {
          const batch = new Batch('ip', 'kube-proxy');
          batch.flushSet('service-ips');
          connection.commit(batch);
          undone++;
        }
        await sleep(2);
      }
      const seconds = cpu() - before;
      const repairs = await metric('kubeproxyts_kernel_repairs_total{ip_family="IPv4"}');
      t.diagnostic(`${undone} times undone, ${repairs} repairs, ${seconds.toFixed(2)} s of processor time`);
      assert.ok(repairs >= 4 && repairs <= mostRepairs, `${repairs} repairs`);
      assert.ok(seconds < patiently(contentionMs / 1000 / 2), `${seconds} s of processor time`);
      const said = proxy.output
        .split('\n')
        .filter((line) => line.includes('Rules contested by another program'));
      assert.equal(said.length, 1, said.join('\n'));
      // This process, and what it runs.
      assert.match(said[0] ?? '', new RegExp(`^E.* by="[^ ]+ \\(pid ${process.pid}, /.*node.*\\)"`));
      assert.equal(contested(), 1);
      assert.equal(await metric('kubeproxyts_rules_contested'), 1);
      const warnings = proxy.output
        .split('\n')
        .filter((line) => line.includes('Rules modified by another program'));
      assert.ok(warnings.length <= mostRepairs, `${warnings.length} warnings`);
    } finally {
      connection.close();
    }
  });

  test('when the other one stops, the last repair stands', async () => {
    const connection = NftablesConnection.open();
    try {
      const deadline = Date.now() + patiently(15_000);
      while (elements(connection) === 0) {
        assert.ok(Date.now() < deadline, proxy.output);
        await sleep(20);
      }
    } finally {
      connection.close();
    }
    const traffic = await node.traffic(serviceIP, 80);
    const { newFailed, linesLost, newConnections } = await trafficResult(traffic);
    assert.equal(newFailed + linesLost, 0);
    assert.ok(newConnections > 0);
    assert.equal(contested(), 1);
  });
});
