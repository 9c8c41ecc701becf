/**
 * Mode iptables with the nf_tables kind, and rules of nftables itself in the tables of iptables, by which iptables takes a whole
 * table for incompatible: each way into our chains is there once, the processor rests, and one line names table and rule.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
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

const binary = '/usr/sbin/xtables-nft-multi';
const skip =
  enterNetworkNamespace() ||
  missingNft() ||
  (existsSync(binary) ? false : `${binary} is not there: install the package iptables`);

/** By the words that the warning has for them. None of them meets the packets of this test. */
const rules = {
  nat: {
    masquerade: 'oifname "wan9" masquerade',
    'ct state': 'oifname "wan9" ct state established,related accept',
    log: 'oifname "wan9" log prefix "seen " accept',
    fib: 'oifname "wan9" fib daddr type local accept',
    'meta skuid': 'oifname "wan9" meta skuid 1000 counter accept',
  },
  filter: {
    'ct state': 'oifname "wan9" ct state established,related accept',
    log: 'oifname "wan9" log prefix "seen " accept',
    fib: 'oifname "wan9" fib daddr type local accept',
    'meta skuid': 'oifname "wan9" meta skuid 1000 counter accept',
  },
} as const;
const chainOf = { nat: 'POSTROUTING', filter: 'FORWARD' } as const;
const patienceMs = 10_000;
/** So long the processor is watched. */
const restMs = 1500;

describe('native rules in the tables of iptables', { skip }, () => {
  const node = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-native-'));
  let proxy: Child;

  const begin = async (): Promise<void> => {
    proxy = start(
      program,
      '--manifests',
      join(folder, 'all.yaml'),
      ...proxyArguments.filter((argument) => !argument.startsWith('--proxy-mode')),
      '--proxy-mode=iptables',
    );
    await proxy.waitFor(bothCompared, patienceMs);
  };
  const end = async (): Promise<void> => {
    proxy.kill('SIGTERM');
    await proxy.end();
  };
  /** Every rule that leads to a chain of ours from one that is not, by place and target. */
  const jumps = (): string[] =>
    (['nat', 'filter'] as const).flatMap((table) => {
      let chain = '';
      return run('nft', 'list', 'table', 'ip', table)
        .split('\n')
        .flatMap((line) => {
          chain = /^\tchain (\S+)/.exec(line)?.[1] ?? chain;
          const target = /jump (KUBE-\S+)/.exec(line)?.[1];
          return target === undefined || chain.startsWith('KUBE-') ? [] : [`${table} ${chain} ${target}`];
        });
    });
  /** Clock ticks of the proxy and what it has run. */
  const ticks = (): number => {
    const stat = readFileSync(`/proc/${proxy.process.pid ?? 0}/stat`, 'utf8').split(') ')[1] ?? '';
    return stat
      .split(' ')
      .slice(11, 15)
      .reduce((sum, field) => sum + Number(field), 0);
  };
  const warnings = (): string[] =>
    proxy.output.split('\n').filter((line) => line.startsWith('W') && line.includes('iptables cannot read'));
  const assertAtRest = async (expected: readonly string[]): Promise<void> => {
    const before = ticks();
    await sleep(restMs);
    const spent = (ticks() - before) / (restMs / 10);
    assert.deepEqual(jumps().sort(), expected);
    assert.ok(spent < 0.15, `${Math.round(spent * 100)} % of a processor`);
  };

  before(async () => {
    for (const command of ['iptables', 'ip6tables'])
      for (const suffix of ['', '-save', '-restore']) symlinkSync(binary, join(folder, command + suffix));
    process.env['PATH'] = `${folder}:${process.env['PATH'] ?? ''}`;
    writeFileSync(join(folder, 'all.yaml'), manifest);
    await node.open();
  });
  afterEach(async () => {
    await end();
    for (const family of ['ip', 'ip6'])
      for (const table of ['nat', 'filter', 'mangle']) run('nft', 'delete', 'table', family, table);
  });
  after(async () => {
    await node.close();
    rmSync(folder, { recursive: true });
  });

  for (const table of ['nat', 'filter'] as const) {
    for (const [words, rule] of Object.entries(rules[table])) {
      test(`${words} in ip ${table}: at run time, over a restart, and when our rules are flushed`, async () => {
        await begin();
        const expected = jumps().sort();
        assert.equal(new Set(expected).size, expected.length);
        const traffic = await node.traffic(serviceIP, 80);
        run('nft', 'add', 'rule', 'ip', table, chainOf[table], ...rule.split(' '));
        const named = new RegExp(
          `table="ip ${table}" chain="${chainOf[table]}" rule="[^"]*${words}[^"]*handle \\d+`,
        );
        await proxy.waitFor(named);
        assert.match(warnings()[0] ?? '', /by="nft/);
        await assertAtRest(expected);
        assert.equal(warnings().length, 1);

        await end();
        await begin();
        await assertAtRest(expected);
        assert.equal(warnings().length, 1, proxy.output);
        assert.match(warnings()[0] ?? '', named);
        assert.equal((await fetch('http://127.0.0.1:10256/healthz')).status, 200);
        assert.equal((await trafficResult(traffic)).newFailed, 0);

        const jump = expected.find((line) => line.startsWith('nat PREROUTING')) ?? '';
        run('iptables', '-t', 'nat', '-F', 'PREROUTING');
        const deadline = Date.now() + patiently(patienceMs);
        while (!jumps().includes(jump)) {
          assert.ok(Date.now() < deadline, proxy.output);
          await sleep(20);
        }
        await assertAtRest(expected);
        assert.equal(warnings().length, 1);
      });
    }
  }

  test('jumps that an earlier version has left twice are taken out but for one', async () => {
    await begin();
    const expected = jumps().sort();
    await end();
    const saved = run('iptables-save', '-t', 'nat')
      .split('\n')
      .find((line) => line.startsWith('-A PREROUTING'));
    writeFileSync(join(folder, 'twice'), `*nat\n${saved ?? ''}\n${saved ?? ''}\nCOMMIT\n`);
    run('iptables-restore', '--noflush', join(folder, 'twice'));
    assert.equal(jumps().length, expected.length + 2);
    await begin();
    await assertAtRest(expected);
  });
});
