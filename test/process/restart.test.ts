import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import {
  type Child,
  generation,
  manifest,
  nodeIP,
  program,
  proxyArguments,
  serviceIP,
  SmallNode,
  start,
  trafficResult,
} from './node.js';
import { patiently } from '../patience.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace();

describe('life of the process and its rules', { skip }, () => {
  const node = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-'));
  const file = join(folder, 'all.yaml');
  let proxy: Child;

  const startProxy = async (...more: readonly string[]): Promise<Child> => {
    const child = start(program, '--manifests', folder, ...proxyArguments, ...more);
    await child.waitFor(bothCompared);
    return child;
  };
  before(async () => {
    writeFileSync(file, manifest);
    await node.open();
    proxy = await startProxy();
  });
  after(async () => {
    proxy.kill('SIGKILL');
    await node.close();
    rmSync(folder, { recursive: true });
  });

  /** TCP segments that the pod and the client had to send again so far (RetransSegs of /proc/net/snmp, RFC 4022). */
  const sentAgain = (): number =>
    ([0, 1] as const)
      .map((index) => run('ip', 'netns', 'exec', node.namespace(index), 'cat', '/proc/net/snmp'))
      .map((text) => {
        const [names = [], values = []] = [...text.matchAll(/^Tcp: (.*)$/gm)].map(([, list = '']) =>
          list.split(' '),
        );
        const value = values[names.indexOf('RetransSegs')];
        assert.ok(value !== undefined);
        return Number(value);
      })
      .reduce((sum, one) => sum + one, 0);

  for (const [name, ip, port] of [
    ['cluster IP', serviceIP, 80],
    ['node port', nodeIP, 31050],
  ] as const) {
    test(`kill -9 and start again, five times: no packet is lost (${name}), nothing is written`, async () => {
      const again = sentAgain();
      const traffic = await node.traffic(ip, port);
      const before = generation();
      for (let i = 0; i < 5; i++) {
        proxy.kill('SIGKILL');
        await proxy.end();
        proxy = await startProxy();
      }
      assert.equal(generation(), before, 'the generation counts every transaction that changed something');
      const { newConnections, newFailed, lines, linesLost, errors } = await trafficResult(traffic);
      assert.deepEqual(errors, []);
      assert.equal(newFailed + linesLost, 0);
      assert.ok(
        newConnections > 50 && lines > 50,
        `traffic flowed: ${newConnections} connections, ${lines} lines`,
      );
      assert.equal(sentAgain() - again, 0, 'no packet had to be sent again');
    });
  }

  test('SIGTERM leaves the rules in force and exits with 0', async () => {
    const traffic = await node.traffic(serviceIP, 80);
    proxy.kill('SIGTERM');
    assert.equal(await proxy.end(), 0);
    await new Promise((resolve) => setTimeout(resolve, patiently(200)));
    const { newFailed, linesLost, newConnections } = await trafficResult(traffic);
    assert.equal(newFailed + linesLost, 0);
    assert.ok(newConnections > 10);
    proxy = await startProxy();
  });

  const foreign = (change: (batch: Batch) => void): void => {
    const connection = NftablesConnection.open();
    const batch = new Batch('ip', 'kube-proxy');
    change(batch);
    connection.commit(batch);
    connection.close();
  };
  const compared = /"Rules modified by another program[\s\S]*"Resync complete" .*family="IPv4"/;
  const putRight =
    /"Rules modified by another program[\s\S]*"Repaired map elements" .*family="IPv4" added=[1-9]/;
  const repairs: [name: string, change: (batch: Batch) => void, cure: RegExp][] = [
    [
      'deletes the table',
      (batch) => {
        batch.deleteTable();
      },
      compared,
    ],
    [
      'puts the table to sleep',
      (batch) => {
        batch.addTable({ dormant: true });
      },
      compared,
    ],
    [
      'deletes the endpoints',
      (batch) => {
        batch.flushSet('endpoints');
      },
      putRight,
    ],
    [
      'deletes the rules of a chain',
      (batch) => {
        batch.flushChain('services');
      },
      compared,
    ],
  ];
  for (const [name, change, cure] of repairs) {
    test(`somebody ${name}: noticed and repaired within a second, without any event`, async () => {
      proxy.kill('SIGKILL');
      await proxy.end();
      proxy = await startProxy();
      foreign(change);
      const deleted = performance.now();
      await proxy.waitFor('Rules modified by another program', 1000);
      await proxy.waitFor(cure, 1000);
      const took = performance.now() - deleted;
      const traffic = await node.traffic(serviceIP, 80);
      assert.equal((await trafficResult(traffic)).newFailed, 0);
      assert.ok(took < patiently(1000), `${took.toFixed(0)} ms`);
    });
  }

  test('a change while the table is gone, and not watched, brings everything back too', async () => {
    proxy.kill('SIGSTOP');
    foreign((batch) => {
      batch.deleteTable();
    });
    writeFileSync(file, manifest.replace('31050', '31051'));
    proxy.kill('SIGCONT');
    const deadline = Date.now() + patiently(5000);
    const programmed = (): boolean => run('nft', 'list', 'ruleset').includes('tcp . 31051');
    while (!programmed() && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
    const traffic = await node.traffic(nodeIP, 31051);
    assert.equal((await trafficResult(traffic)).newFailed, 0);
    writeFileSync(file, manifest);
  });

  test('--cleanup removes our tables and only those, and says so', async () => {
    proxy.kill('SIGTERM');
    await proxy.end();
    const connection = NftablesConnection.open();
    const other = new Batch('ip', 'somebody-else');
    other.addTable();
    connection.commit(other);
    const cleanup = start(program, '--cleanup');
    assert.equal(await cleanup.end(), 0);
    assert.match(
      cleanup.output,
      /removed nftables table ip kube-proxy\nremoved nftables table ip6 kube-proxy\n/,
    );
    assert.deepEqual(
      connection.listTables().map(({ family, name }) => `${family} ${name}`),
      ['ip somebody-else'],
    );
    connection.close();
    const again = start(program, '--cleanup');
    assert.equal(await again.end(), 0);
    assert.match(again.output, /nothing to remove: no nftables table ip kube-proxy/);
    proxy = await startProxy();
  });
});
