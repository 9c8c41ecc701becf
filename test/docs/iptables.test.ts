/** Holds docs/iptables.md against the kernel: its rules, put together, are what iptables-save prints. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { bothCompared } from '../both-families.js';
import { program, start } from '../process/node.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const missing = spawnSync('iptables-save', ['--version']).status === 0 ? false : 'iptables is not installed';

/** Rules by chain, in their order; white space does not count. */
function byChain(lines: readonly string[]): Record<string, string[]> {
  const chains: Record<string, string[]> = {};
  for (const line of lines) {
    const [, chain = '', rule = ''] = /^-A (\S+) (.*)$/.exec(line.replace(/ +/g, ' ').trim()) ?? [];
    if (chain !== '') (chains[chain] ??= []).push(rule);
  }
  return chains;
}

test(
  'docs/iptables.md shows what iptables-save prints',
  { skip: enterNetworkNamespace() || missing },
  async () => {
    const proxy = start(
      program,
      '--manifests',
      join(root, 'docs', 'examples', 'three-services.yaml'),
      '--proxy-mode=iptables',
      '--hostname-override=alder',
      '--cluster-cidr=10.61.0.0/16',
    );
    try {
      await proxy.waitFor(bothCompared);
      const page = readFileSync(join(root, 'docs', 'iptables.md'), 'utf8');
      const shown = page.split('\n').filter((line) => line.startsWith('-A '));
      const printed = ['nat', 'filter'].flatMap((table) => run('iptables-save', '-t', table).split('\n'));
      assert.ok(shown.length > 30);
      assert.deepEqual(byChain(shown), byChain(printed));
    } finally {
      proxy.kill('SIGTERM');
      await proxy.end();
    }
  },
);
