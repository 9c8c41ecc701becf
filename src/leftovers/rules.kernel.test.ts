/** Rules of upstream, made with the programs iptables of both kinds, among rules of others: ours go, others stay. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { before, beforeEach, describe, test } from 'node:test';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { removeLeftovers } from './index.js';
import { useOwnXtablesLock } from './testing/own-lock.js';
import { nodeRules } from './testing/upstream-rules.js';

useOwnXtablesLock();
const root = enterNetworkNamespace();
const families = ['ip', 'ip6'] as const;
type Family = (typeof families)[number];
type Kind = 'nft' | 'legacy';

function command(family: Family, kind: Kind, what: 'save' | 'restore'): string {
  return `${family === 'ip' ? 'iptables' : 'ip6tables'}-${kind}-${what}`;
}

function missing(kind: Kind): string | false {
  if (root !== false) return root;
  for (const family of families) {
    const { status, error } = spawnSync(command(family, kind, 'save'), ['-t', 'nat'], { encoding: 'utf8' });
    if (error !== undefined) return `${command(family, kind, 'save')} is not installed`;
    if (status !== 0) return `the kernel has no iptables of kind ${kind}`;
  }
  return false;
}

function restore(family: Family, kind: Kind, text: string): void {
  const name = command(family, kind, 'restore');
  const { status, stderr } = spawnSync(name, ['--noflush', '--counters'], { input: text, encoding: 'utf8' });
  assert.equal(status, 0, `${name}: ${stderr}`);
}

/** iptables-legacy forgets the counters of built-in chains whenever it changes a table. */
function restoreBuiltInCounters(family: Family, kind: Kind): void {
  const lines = nodeRules('iptables', family).foreign.split('\n');
  const builtIn = lines.filter((line) => /^(?:\*|:\w+ (?:ACCEPT|DROP) |COMMIT)/.test(line));
  restore(family, kind, `${builtIn.join('\n')}\n`);
}

/** Beside others' rules. */
function restoreOurs(family: Family, kind: Kind, mode: 'iptables' | 'ipvs'): void {
  restore(family, kind, nodeRules(mode, family).ours);
  restoreBuiltInCounters(family, kind);
}

/** With counters; without the time. */
function save(family: Family, kind: Kind): string {
  return run(command(family, kind, 'save'), '--counters')
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .join('\n');
}

function flush(family: Family, kind: Kind): void {
  const program = `${family === 'ip' ? 'iptables' : 'ip6tables'}-${kind}`;
  for (const table of ['nat', 'filter', 'mangle']) {
    run(program, '-t', table, '-F');
    run(program, '-t', table, '-X');
  }
}

const setNames = ['CLUSTER-IP', 'NODE-PORT-TCP', 'IPVS-IPS'];

function createSets(): void {
  for (const [prefix, family] of [
    ['KUBE-', 'inet'],
    ['KUBE-6-', 'inet6'],
  ] as const) {
    run('ipset', '-exist', 'create', `${prefix}CLUSTER-IP`, 'hash:ip,port', 'family', family);
    run('ipset', '-exist', 'create', `${prefix}NODE-PORT-TCP`, 'bitmap:port', 'range', '0-65535');
    run('ipset', '-exist', 'create', `${prefix}IPVS-IPS`, 'hash:ip', 'family', family);
  }
}

const sets = (): string[] =>
  run('ipset', 'list', '-n')
    .split('\n')
    .filter((name) => name !== '')
    .sort();
const ownSets = ['KUBE-', 'KUBE-6-'].flatMap((prefix) => setNames.map((name) => prefix + name)).sort();

for (const kind of ['nft', 'legacy'] as const) {
  const other = kind === 'nft' ? 'legacy' : 'nft';
  describe(`iptables of kind ${kind}`, { skip: missing(kind) }, () => {
    const original = new Map<Family, string>();

    before(() => {
      if (kind === 'legacy') return;
      run('ipset', 'create', 'OPERATORS-OWN', 'hash:ip');
    });

    beforeEach(() => {
      for (const family of families) {
        flush(family, kind);
        restore(family, kind, nodeRules('iptables', family).foreign);
        original.set(family, save(family, kind));
      }
    });

    const assertOnlyForeign = (): void => {
      for (const family of families) assert.equal(save(family, kind), original.get(family));
    };

    test('mode iptables is gone, everything else as it was, counters included', async () => {
      for (const family of families) restoreOurs(family, kind, 'iptables');
      const report = await removeLeftovers({ mode: 'nftables' });
      assertOnlyForeign();
      const name = kind === 'nft' ? 'nf_tables' : 'legacy';
      assert.deepEqual(
        report.outcomes.filter(({ what }) => what.includes(` from iptables (${name})`)),
        families.flatMap((family) => [
          { kind: 'removed', what: `10 chains and 3 jumps from iptables (${name}) table ${family} nat` },
          { kind: 'removed', what: `6 chains and 9 jumps from iptables (${name}) table ${family} filter` },
          { kind: 'removed', what: `1 chain and 0 jumps from iptables (${name}) table ${family} mangle` },
        ]),
      );
      assert.equal(
        report.complete,
        true,
        JSON.stringify(report.outcomes, (_, v: unknown) => String(v)),
      );

      const again = await removeLeftovers({ mode: 'nftables' });
      assert.deepEqual(
        again.outcomes.filter(({ kind: outcome }) => outcome !== 'absent'),
        [],
        'a second time finds nothing',
      );
      assertOnlyForeign();
    });

    test('mode ipvs is gone, with its sets of both families', async () => {
      createSets();
      for (const family of families) restoreOurs(family, kind, 'ipvs');
      assert.equal((await removeLeftovers({ mode: 'nftables' })).complete, true);
      assertOnlyForeign();
      assert.deepEqual(
        sets().filter((name) => name !== 'OPERATORS-OWN'),
        [],
      );
      if (kind === 'nft') assert.deepEqual(sets(), ['OPERATORS-OWN']);
    });

    test('while mode iptables runs, only what mode ipvs alone uses goes', async () => {
      createSets();
      for (const family of families) restoreOurs(family, kind, 'ipvs');
      // Its own rules take the place of those in the chains of both.
      for (const family of families) restoreOurs(family, kind, 'iptables');
      assert.equal(
        (await removeLeftovers({ mode: 'iptables', iptablesKinds: { IPv4: kind, IPv6: kind } })).complete,
        true,
      );
      assert.deepEqual(
        sets().filter((name) => ownSets.includes(name)),
        [],
      );
      for (const family of families) {
        const text = save(family, kind);
        assert.doesNotMatch(text, /KUBE-NODE-PORT\b|KUBE-LOAD-BALANCER|KUBE-IPVS-|KUBE-SOURCE-RANGES/);
        for (const line of [
          'KUBE-SVC-NPX46M4PTMTKRN6Y',
          '-A PREROUTING .*-j KUBE-SERVICES',
          '-A KUBE-FORWARD .*INVALID',
        ])
          assert.match(text, new RegExp(line));
      }
    });

    test('while mode iptables runs, nothing of it goes', async () => {
      for (const family of families) restoreOurs(family, kind, 'iptables');
      const running = families.map((family) => save(family, kind));
      assert.equal(
        (await removeLeftovers({ mode: 'iptables', iptablesKinds: { IPv4: kind, IPv6: kind } })).complete,
        true,
      );
      assert.deepEqual(
        families.map((family) => save(family, kind)),
        running,
      );
      // What another kind of iptables has written is not what runs.
      assert.equal(
        (await removeLeftovers({ mode: 'iptables', iptablesKinds: { IPv4: other, IPv6: other } })).complete,
        true,
      );
      assertOnlyForeign();
    });

    test('while mode iptables runs with another kind for IPv6, nothing of it goes, and what else there is goes', async () => {
      const runs = { [families[0]]: kind, [families[1]]: other } as Record<
        (typeof families)[number],
        typeof kind
      >;
      for (const family of families) restoreOurs(family, runs[family], 'iptables');
      const running = families.map((family) => save(family, runs[family]));
      const kept = { mode: 'iptables', iptablesKinds: { IPv4: kind, IPv6: other } } as const;
      assert.equal((await removeLeftovers(kept)).complete, true);
      assert.deepEqual(
        families.map((family) => save(family, runs[family])),
        running,
      );
      // A family that has no tool keeps nothing.
      assert.equal(
        (await removeLeftovers({ mode: 'iptables', iptablesKinds: { IPv4: kind } })).complete,
        true,
      );
      assert.equal(save(families[0], kind), running[0]);
      assert.doesNotMatch(save(families[1], other), /:KUBE-SVC-|:KUBE-SERVICES/);
      assert.equal((await removeLeftovers({ mode: 'nftables' })).complete, true);
      assertOnlyForeign();
    });

    test('while mode ipvs runs, which is ours, all rules and sets of others go', async () => {
      createSets();
      for (const family of families) restoreOurs(family, kind, 'iptables');
      for (const family of families) restoreOurs(family, kind, 'ipvs');
      assert.equal((await removeLeftovers({ mode: 'ipvs' })).complete, true);
      assert.deepEqual(
        sets().filter((name) => ownSets.includes(name)),
        [],
      );
      assertOnlyForeign();
    });

    test("a chain that another program's rule uses stays, with what it leads to, and is told", async () => {
      for (const family of families) {
        restoreOurs(family, kind, 'iptables');
        restore(
          family,
          kind,
          '*nat\n:HOSTPORTS - [0:0]\n-A HOSTPORTS -p tcp -m tcp --dport 9000 -j KUBE-EXT-NPX46M4PTMTKRN6Y\nCOMMIT\n',
        );
      }
      const report = await removeLeftovers({ mode: 'nftables' });
      assert.equal(report.complete, false);
      const kept = report.outcomes.filter((outcome) => outcome.kind === 'kept');
      assert.deepEqual(
        kept.filter(({ what }) => what.endsWith('ip6 nat')).map(({ what }) => what.split(' ')[1]),
        [
          'KUBE-EXT-NPX46M4PTMTKRN6Y',
          'KUBE-MARK-MASQ',
          'KUBE-SVC-NPX46M4PTMTKRN6Y',
          'KUBE-SEP-IT2ZTR26TO4XFPTO',
        ],
      );
      assert.match(kept[0]?.why ?? '', /chain HOSTPORTS, which is not kube-proxy's/);
      for (const family of families) {
        const text = save(family, kind);
        assert.match(text, /-A HOSTPORTS .*-j KUBE-EXT-NPX46M4PTMTKRN6Y/);
        assert.match(text, /-A KUBE-SEP-IT2ZTR26TO4XFPTO .*-j DNAT/);
        assert.doesNotMatch(text, /^:KUBE-(SERVICES|NODEPORTS|POSTROUTING)/m);
      }
      for (const family of families) {
        const program = `${family === 'ip' ? 'iptables' : 'ip6tables'}-${kind}`;
        run(program, '-t', 'nat', '-F', 'HOSTPORTS');
        run(program, '-t', 'nat', '-X', 'HOSTPORTS');
        restoreBuiltInCounters(family, kind);
      }
      assert.equal((await removeLeftovers({ mode: 'nftables' })).complete, true);
      assertOnlyForeign();
    });
  });
}
