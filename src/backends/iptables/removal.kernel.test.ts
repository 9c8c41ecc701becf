/** Chains that nobody needs any longer, as many as upstream leaves behind: they go, whatever leads to whichever of them. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { silentLogger, type Logger } from '../../log/logger.js';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { IptablesFamily } from './family.js';
import { kinds, missingTool, toolFolder, type ToolFolder } from './testing/tools.js';

const noNamespace = enterNetworkNamespace();
const services = 600;
const endpoints = 4;
/** That of version 1.37 for so many Services: KUBE-SVC- and an KUBE-SEP- for each endpoint. */
const upstreamChains = services * (1 + endpoints);

function name(kind: 'SVC' | 'SEP', number: number): string {
  return `KUBE-${kind}-${String(number)
    .padStart(16, 'A')
    .toUpperCase()
    .replace(/[0189]/g, (digit) => 'WXYZ'.charAt('0189'.indexOf(digit)))}`;
}

function upstreamRules(): string {
  const declared = [':KUBE-SERVICES - [0:0]', ':KUBE-MARK-MASQ - [0:0]'];
  const rules = [
    '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000',
  ];
  for (let service = 0; service < services; service++) {
    const chain = name('SVC', service);
    declared.push(`:${chain} - [0:0]`);
    rules.push(
      `-A KUBE-SERVICES -d 10.178.${service >> 8}.${service & 255}/32 -p tcp -m tcp --dport 80 -j ${chain}`,
    );
    for (let i = 0; i < endpoints; i++) {
      const endpoint = name('SEP', service * endpoints + i);
      const ip = `10.61.${service >> 8}.${service & 255}`;
      declared.push(`:${endpoint} - [0:0]`);
      rules.push(
        `-A ${chain} -m statistic --mode random --probability ${1 / (endpoints - i)} -j ${endpoint}`,
        `-A ${endpoint} -s ${ip}/32 -j KUBE-MARK-MASQ`,
        `-A ${endpoint} -p tcp -m tcp -j DNAT --to-destination ${ip}:${9000 + i}`,
      );
    }
  }
  return ['*nat', ...declared, ...rules, 'COMMIT', ''].join('\n');
}

for (const kind of kinds) {
  describe(`removal (${kind})`, { skip: noNamespace !== false ? noNamespace : missingTool(kind) }, () => {
    let folder: ToolFolder;
    const tool = (command: string, ...args: readonly string[]): string =>
      run(path.join(folder.path, command), ...args);
    const save = (): string => tool('iptables-save', '-t', 'nat');
    const restore = (text: string): void => {
      writeFileSync(path.join(folder.path, 'input'), text);
      tool('iptables-restore', '--noflush', path.join(folder.path, 'input'));
    };
    const left = (): string[] =>
      [...save().matchAll(/^:(KUBE-(?:SVC|SEP)-\S+)/gm)].map(([, one = '']) => one);
    const warnings: Record<string, unknown>[] = [];
    const log: Logger = { ...silentLogger, warn: (_message, fields) => warnings.push({ ...fields }) };
    const family = (): IptablesFamily =>
      new IptablesFamily({
        family: 'IPv4',
        masqueradeMark: 0x4000,
        masqueradeAll: false,
        detector: undefined,
        nodePortAddresses: 'all',
        dropInvalid: true,
        log,
        tool: { path: folder.path },
        onDamage: () => undefined,
      });

    before(() => {
      folder = toolFolder(kind);
      process.env['XTABLES_LOCKFILE'] = folder.lock;
    });
    beforeEach(() => {
      warnings.length = 0;
      for (const word of ['-F', '-X']) tool('iptables', '-t', 'nat', word);
      restore(upstreamRules());
      assert.equal(left().length, upstreamChains);
    });
    after(() => {
      for (const word of ['-F', '-X']) tool('iptables', '-t', 'nat', word);
      folder.remove();
    });

    test(`${upstreamChains} chains that lead to each other`, async () => {
      const report = await family().resync([]);
      assert.deepEqual([report.failures, left(), warnings], [[], [], []]);
      assert.ok(report.elementsDeleted >= 3 * services * endpoints, String(report.elementsDeleted));
      assert.equal(save().match(/-A PREROUTING .*KUBE-SERVICES/g)?.length, 1);
      assert.equal((await family().resync([])).transactions, 0);
    });

    test('rules of others lead to some: these stay, empty and named, all others go, and nothing is there twice', async () => {
      const used = [name('SVC', 3), name('SEP', 1500), name('SEP', 1501)];
      restore(`*nat\n:OTHER - [0:0]\n${used.map((chain) => `-A OTHER -j ${chain}\n`).join('')}COMMIT\n`);
      const one = family();
      await one.resync([]);
      assert.deepEqual(left().sort(), [...used].sort());
      assert.doesNotMatch(save(), /-A KUBE-S(VC|EP)-/);
      assert.equal(save().match(/-A (PREROUTING|OUTPUT) .*KUBE-SERVICES/g)?.length, 2);
      assert.deepEqual(
        warnings.map(({ chains, names }) => [chains, [...(names as string[])].sort()]),
        [[3, [...used].sort()]],
      );
      // It is no news, and nothing is to be done.
      assert.equal((await one.resync([])).transactions, 0);
      assert.equal(warnings.length, 1);
    });

    if (kind === 'legacy') return;
    test('rules that iptables cannot read lead to some', async () => {
      const used = [name('SVC', 3), name('SEP', 1500)];
      for (const chain of used)
        run('nft', 'add', 'rule', 'ip', 'nat', 'PREROUTING', 'ct', 'state', 'new', 'jump', chain);
      await family().resync([]);
      run('nft', 'flush', 'chain', 'ip', 'nat', 'PREROUTING');
      assert.deepEqual(left().sort(), [...used].sort());
      assert.match(JSON.stringify(warnings), new RegExp(`"names":\\[[^\\]]*${used[0]}`));
    });
  });
}
