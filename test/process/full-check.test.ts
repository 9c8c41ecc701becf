/** The look at what the kernel holds that needs no reason: it happens, finds nothing, and holds up no change. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../patience.js';
import { type Child, generation, manifest, program, proxyArguments, SmallNode, start } from './node.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace() || missingNft();

describe('the full check', { skip }, () => {
  const node = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-check-'));
  const file = join(folder, 'all.yaml');
  let proxy: Child;

  before(async () => {
    writeFileSync(file, manifest);
    await node.open();
    proxy = start(program, `--manifests=${folder}`, '--full-check-period=100ms', ...proxyArguments);
    await proxy.waitFor(bothCompared);
  });
  after(async () => {
    proxy.kill('SIGKILL');
    await node.close();
    rmSync(folder, { recursive: true });
  });

  /** Checks so far, the least of both families. */
  const checks = async (): Promise<number> => {
    const text = await (await fetch('http://127.0.0.1:10249/metrics')).text();
    const counts = [...text.matchAll(/^kubeproxyts_kernel_check_duration_seconds_count\{.*\} (\d+)$/gm)];
    assert.equal(counts.length, 2);
    return Math.min(...counts.map(([, count]) => Number(count)));
  };
  const checked = async (times: number): Promise<void> => {
    const goal = (await checks()) + times;
    const deadline = Date.now() + patiently(10_000);
    while ((await checks()) < goal) {
      assert.ok(Date.now() < deadline, `fewer than ${goal} checks: ${proxy.output}`);
      await sleep(20);
    }
  };

  test('it comes when it is due, and writes nothing where nothing is wrong', async () => {
    const before = generation();
    await checked(5);
    assert.equal(generation(), before);
    assert.doesNotMatch(proxy.output, /repaired drift|another program/);
  });

  test('changes are followed; what the kernel told of, too, is not said to have come silently', async () => {
    writeFileSync(file, manifest.replace('31050', '31051'));
    const deadline = Date.now() + patiently(5000);
    while (!run('nft', 'list', 'map', 'ip', 'kube-proxy', 'service-nodeports').includes('31051')) {
      assert.ok(Date.now() < deadline, proxy.output);
      await sleep(20);
    }
    run('nft', 'flush', 'map', 'ip', 'kube-proxy', 'service-nodeports');
    await proxy.waitFor('Rules modified by another program');
    while (!run('nft', 'list', 'map', 'ip', 'kube-proxy', 'service-nodeports').includes('31051')) {
      assert.ok(Date.now() < deadline + patiently(5000), proxy.output);
      await sleep(20);
    }
    // What packets in flight might still need goes a little later.
    while (run('nft', 'list', 'map', 'ip', 'kube-proxy', 'nodeport-endpoints').includes('31050')) {
      assert.ok(Date.now() < deadline + patiently(5000), proxy.output);
      await sleep(20);
    }
    const settled = generation();
    await checked(3);
    assert.equal(generation(), settled);
    assert.doesNotMatch(proxy.output, /repaired drift/);
  });
});
