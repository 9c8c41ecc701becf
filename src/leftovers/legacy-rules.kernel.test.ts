/**
 * Random tables of iptables-legacy: after ours are taken out, iptables-legacy-save prints what it prints for the same
 * table made without ours.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { removeLeftovers } from './index.js';
import { useOwnXtablesLock } from './testing/own-lock.js';

useOwnXtablesLock();
const root = enterNetworkNamespace();
const skip =
  root !== false
    ? root
    : spawnSync('iptables-legacy-save', ['-t', 'filter']).status === 0
      ? false
      : 'iptables-legacy is not installed, or the kernel has none';

const builtIn = ['INPUT', 'FORWARD', 'OUTPUT'];
const ownNames = [
  'KUBE-SERVICES',
  'KUBE-FORWARD',
  'KUBE-NODEPORTS',
  'KUBE-PROXY-FIREWALL',
  'KUBE-EXTERNAL-SERVICES',
];

interface Line {
  readonly text: string;
  readonly ours: boolean;
}

function pick<T>(random: Random, list: readonly T[]): T {
  const value = list[random.below(list.length)];
  assert.ok(value !== undefined);
  return value;
}

function randomTable(random: Random): Line[] {
  const theirs = Array.from({ length: 1 + random.below(8) }, (_, i) => `THEIRS-${i}`);
  const ours = ownNames.slice(0, 1 + random.below(ownNames.length));
  const chains = [...theirs, ...ours].map((name) => ({ name, order: random.next() }));
  chains.sort((a, b) => a.order - b.order);
  const lines: Line[] = [
    ...builtIn.map((name) => ({
      text: `:${name} ${pick(random, ['ACCEPT', 'DROP'])} [${random.below(99)}:0]`,
      ours: false,
    })),
    ...chains.map(({ name }) => ({ text: `:${name} - [0:0]`, ours: ours.includes(name) })),
  ];
  for (let i = random.below(60); i > 0; i--) {
    const chain = pick(random, [...builtIn, ...chains.map(({ name }) => name)]);
    const from = chains.findIndex(({ name }) => name === chain);
    // Only to later chains, so that there are no loops; theirs lead to ours from built-in chains only.
    const later = chains.slice(from + 1).map(({ name }) => name);
    const targets = theirs.includes(chain) ? later.filter((name) => !ours.includes(name)) : later;
    const target = pick(random, [
      '',
      '-j ACCEPT',
      '-j LOG',
      '-j RETURN',
      ...targets.flatMap((name) => [`-j ${name}`, `-g ${name}`]),
    ]);
    const condition = pick(random, [
      '',
      '-p udp -m udp --sport 53',
      '-p tcp -m tcp --dport 80',
      '-m comment --comment "a b"',
      '-m mark --mark 0x1',
    ]);
    lines.push({
      text: ['-A', chain, condition, target].filter((word) => word !== '').join(' '),
      ours: ours.includes(chain) || ours.some((name) => target.endsWith(` ${name}`)),
    });
  }
  return lines.map(({ text, ours: own }) => ({
    text: text.startsWith('-A') ? `[${random.below(999)}:1] ${text}` : text,
    ours: own,
  }));
}

for (const program of ['iptables-legacy', 'ip6tables-legacy']) {
  const restore = (lines: readonly Line[]): void => {
    const input = `*filter\n${lines.map(({ text }) => text).join('\n')}\nCOMMIT\n`;
    const { status, stderr } = spawnSync(`${program}-restore`, ['--counters'], { input, encoding: 'utf8' });
    assert.equal(status, 0, `${stderr}\n${input}`);
  };
  const save = (): string =>
    spawnSync(`${program}-save`, ['--counters', '-t', 'filter'], { encoding: 'utf8' }).stdout.replaceAll(
      /^#.*\n/gm,
      '',
    );

  test(`${program}: random tables`, { skip }, async () => {
    const random = new Random(20241121);
    for (let round = 0; round < 15; round++) {
      const lines = randomTable(random);
      restore(lines.filter(({ ours }) => !ours));
      const expected = save();
      restore(lines);
      const before = save();
      assert.equal((await removeLeftovers({ mode: 'nftables' })).complete, true);
      assert.equal(save(), expected, `round ${round}, before:\n${before}`);
    }
    restore([]);
  });
}
