/**
 * Mode iptables, and somebody who flushes tables or deletes the rules that lead to ours, once or again and again: they are back within
 * a second, the program is named where the kernel names it, and repairs give way to a fight.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../patience.js';
import {
  type Child,
  manifest,
  program,
  proxyArguments,
  serviceIP,
  SmallNode,
  start,
  trafficResult,
} from './node.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace();
/** What may pass until rules are back. */
const repairMs = 1000;
const contentionMs = 8000;
const contentionPeriodMs = 500;
/** After this long nothing that came before counts as a fight. */
const quietMs = 15_000;

const node = new SmallNode();
if (skip === false) {
  before(() => node.open());
  after(() => node.close());
}

for (const kind of ['nft', 'legacy'] as const) {
  const binary = `/usr/sbin/xtables-${kind}-multi`;
  const missing = existsSync(binary) ? false : `${binary} is not there: install the package iptables`;
  describe(`contested rules (iptables, ${kind})`, { skip: skip !== false ? skip : missing }, () => {
    const folder = mkdtempSync(join(tmpdir(), 'kpp-contested-'));
    const path = process.env['PATH'] ?? '';
    let proxy: Child;

    before(async () => {
      for (const command of ['iptables', 'ip6tables'])
        for (const suffix of ['', '-save', '-restore']) symlinkSync(binary, join(folder, command + suffix));
      process.env['PATH'] = `${folder}:${path}`;
      process.env['XTABLES_LOCKFILE'] = join(folder, 'lock');
      writeFileSync(join(folder, 'all.yaml'), manifest);
      const others = proxyArguments.filter((argument) => !argument.startsWith('--proxy-mode'));
      proxy = start(program, '--manifests', join(folder, 'all.yaml'), ...others, '--proxy-mode=iptables');
      await proxy.waitFor(bothCompared);
      // The first look at the tables.
      await sleep(quietMs / 10);
    });
    after(async () => {
      proxy.kill('SIGKILL');
      await proxy.end();
      await start(program, '--cleanup').end();
      process.env['PATH'] = path;
      rmSync(folder, { recursive: true });
    });

    const ours = (): string[] =>
      ['nat', 'filter'].flatMap((table) =>
        run('iptables-save', '-t', table)
          .split('\n')
          .filter((line) => line.startsWith('-A ') && line.includes('KUBE-')),
      );
    const metric = async (name: string): Promise<number> => {
      const text = await (await fetch('http://127.0.0.1:10249/metrics')).text();
      const line = text
        .split('\n')
        .find((each) => each.startsWith(`${name} `) || each.startsWith(`${name}{`));
      return Number(line?.slice(line.lastIndexOf(' ') + 1));
    };
    /** @returns milliseconds until our rules are as they were */
    const timeToRepair = async (expected: readonly string[]): Promise<number> => {
      const begin = performance.now();
      while (ours().join() !== expected.join()) {
        if (performance.now() - begin > patiently(30_000)) throw new Error(`not repaired\n${proxy.output}`);
        await sleep(10);
      }
      return performance.now() - begin;
    };
    const deleteJumps = (): void => {
      for (const chain of ['PREROUTING', 'OUTPUT', 'POSTROUTING']) run('iptables', '-t', 'nat', '-F', chain);
    };
    const named = kind === 'nft' ? /by="(ip|x)tables\S* \(pid \d+[,)]/ : /by="unknown, iptables \(legacy\)/;

    for (const [what, damage] of [
      ['-t nat -F', [['-t', 'nat', '-F']]],
      ['-F and -X', ['nat', 'filter'].flatMap((table) => ['-F', '-X'].map((word) => ['-t', table, word]))],
      ['-t nat -D PREROUTING', [['-t', 'nat', '-D', 'PREROUTING', '1']]],
    ] as const) {
      test(`${what}: repaired within a second`, async (t) => {
        const expected = ours();
        const before = proxy.output.length;
        for (const args of damage) run('iptables', ...args);
        const took = await timeToRepair(expected);
        t.diagnostic(`${Math.round(took)} ms`);
        assert.ok(took < patiently(repairMs), `${took} ms`);
        assert.match(proxy.output.slice(before), named);
        await sleep(quietMs / 5);
      });
    }

    test('jumps deleted twice a second: repairs give way, are told of once, and the last one stands', async (t) => {
      const expected = ours();
      await sleep(quietMs);
      const repairsBefore = await metric('kubeproxyts_kernel_repairs_total{ip_family="IPv4"}');
      const until = performance.now() + contentionMs;
      let deleted = 0;
      for (; performance.now() < until; deleted++) {
        deleteJumps();
        await sleep(contentionPeriodMs);
      }
      const took = await timeToRepair(expected);
      const repairs = (await metric('kubeproxyts_kernel_repairs_total{ip_family="IPv4"}')) - repairsBefore;
      t.diagnostic(`${deleted} times deleted, ${repairs} repairs, the last one after ${Math.round(took)} ms`);
      assert.ok(took < patiently(repairMs), `${took} ms`);
      assert.ok(repairs >= 4 && repairs < deleted, `${repairs} repairs of ${deleted}`);
      assert.equal(await metric('kubeproxyts_rules_contested'), 1);
      const said = proxy.output
        .split('\n')
        .filter((line) => line.includes('Rules contested by another program'));
      assert.equal(said.length, 1, proxy.output);
      assert.match(said[0] ?? '', named);
      const traffic = await node.traffic(serviceIP, 80);
      await sleep(1000);
      const { newFailed, newConnections } = await trafficResult(traffic);
      assert.ok(newFailed === 0 && newConnections > 0, `${newFailed} of ${newConnections}`);
    });
  });
}
