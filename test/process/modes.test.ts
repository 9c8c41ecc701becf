/**
 * From one mode to another and back, under traffic: the new rules are there before the old go, so no connection is lost and no new
 * one has to wait.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../patience.js';
import {
  type Child,
  manifest,
  nodeIP,
  program,
  proxyArguments,
  serviceIP,
  SmallNode,
  start,
  trafficResult,
} from './node.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace();
const patienceMs = 20_000;

const node = new SmallNode();
if (skip === false) {
  before(() => node.open());
  after(() => node.close());
}

for (const kind of ['nft', 'legacy'] as const) {
  const binary = `/usr/sbin/xtables-${kind}-multi`;
  const missing = existsSync(binary) ? false : `${binary} is not there: install the package iptables`;
  describe(`mode nftables and mode iptables (${kind})`, { skip: skip !== false ? skip : missing }, () => {
    const folder = mkdtempSync(join(tmpdir(), 'kpp-modes-'));
    const path = process.env['PATH'] ?? '';
    let proxy: Child | undefined;

    before(() => {
      for (const command of ['iptables', 'ip6tables'])
        for (const suffix of ['', '-save', '-restore']) symlinkSync(binary, join(folder, command + suffix));
      process.env['PATH'] = `${folder}:${path}`;
      process.env['XTABLES_LOCKFILE'] = join(folder, 'lock');
      writeFileSync(join(folder, 'all.yaml'), manifest);
    });
    after(async () => {
      proxy?.kill('SIGKILL');
      await proxy?.end();
      await start(program, '--cleanup').end();
      process.env['PATH'] = path;
      rmSync(folder, { recursive: true });
    });

    const change = async (mode: 'nftables' | 'iptables'): Promise<void> => {
      proxy?.kill('SIGTERM');
      await proxy?.end();
      const others = proxyArguments.filter((argument) => !argument.startsWith('--proxy-mode'));
      proxy = start(
        program,
        '--manifests',
        join(folder, 'all.yaml'),
        ...others,
        `--proxy-mode=${mode}`,
        '--nodeport-addresses=0.0.0.0/0',
      );
      await proxy.waitFor(bothCompared, patienceMs);
    };
    const oldRules = (): string =>
      run('iptables-save', '-t', 'nat').includes('KUBE-SERVICES') ? 'iptables' : '';
    const nftTable = (): string => (run('nft', 'list', 'tables').includes('ip kube-proxy') ? 'nftables' : '');
    const rulesOf = (): string => [oldRules(), nftTable()].filter((name) => name !== '').join(' and ');

    for (const [name, ip, port] of [
      ['cluster IP', serviceIP, 80],
      ['node port', nodeIP, 31050],
    ] as const) {
      test(`there and back again, twice: no packet is lost (${name})`, async () => {
        await change('nftables');
        const traffic = await node.traffic(ip, port);
        for (const mode of ['iptables', 'nftables', 'iptables', 'nftables'] as const) {
          await change(mode);
          await proxy?.waitFor('Removed leftovers of another mode', patienceMs);
          const end = Date.now() + patiently(patienceMs);
          while (rulesOf() !== mode) {
            assert.ok(Date.now() < end, `rules of ${rulesOf()} in mode ${mode}`);
            await new Promise((resolve) => setTimeout(resolve, 50));
          }
        }
        const seen = await trafficResult(traffic);
        assert.deepEqual(seen.errors, []);
        assert.equal(seen.newFailed + seen.linesLost, 0);
        assert.ok(seen.newConnections > 50, String(seen.newConnections));
        // A lost first packet is sent again after a second.
        assert.ok(seen.slowestMs < patiently(900), `${seen.slowestMs} ms`);
      });
    }
  });
}
