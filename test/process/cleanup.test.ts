/** `--cleanup` on a node that has run every mode, with rules of others around: the command as an operator runs it. */
import assert from 'node:assert/strict';
import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { describe, test } from 'node:test';
import { useOwnXtablesLock } from '../../src/leftovers/testing/own-lock.js';
import { nodeRules } from '../../src/leftovers/testing/upstream-rules.js';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../patience.js';
import { program } from './node.js';

useOwnXtablesLock();
const skip =
  enterNetworkNamespace() ||
  missingNft() ||
  (spawnSync('iptables-nft', ['--version']).status === 0 ? false : 'iptables is not installed');
const families = ['ip', 'ip6'] as const;
const kinds = ['nft', 'legacy'] as const;
type Program = `${'ip' | 'ip6'}tables-${'nft' | 'legacy'}`;
const programs: readonly Program[] = families.flatMap((family) =>
  kinds.map((kind): Program => `${family}tables-${kind}`),
);

function cleanup(): SpawnSyncReturns<string> {
  return spawnSync(program, ['--cleanup'], { encoding: 'utf8', timeout: patiently(30_000) });
}

function restore(name: Program, text: string): void {
  const { status, stderr } = spawnSync(`${name}-restore`, ['--noflush', '--counters'], {
    input: text,
    encoding: 'utf8',
  });
  assert.equal(status, 0, `${name}: ${stderr}`);
}

/** Everything that nft and iptables print, times and legacy's forgetful policy counters left out. */
function everything(): string {
  const tables = programs.map((name) => run(`${name}-save`).replaceAll(/^#.*\n/gm, ''));
  const text = [run('nft', 'list', 'ruleset'), ...tables, run('ipset', 'save')].join('\n');
  return text.replaceAll(/ initval 0x\w+/g, '').replaceAll(/^(:\w+ \w+) \[\d+:\d+\]$/gm, '$1');
}

const foreignTable = `
table inet operators-own {
  chain input {
    type filter hook input priority 10; policy accept;
    tcp dport 2222 accept
  }
}
table ip kube-proxy-of-somebody-else { }
`;

describe('--cleanup', { skip }, () => {
  test('removes every mode and nothing else, says so, and finds nothing the second time', () => {
    for (const name of programs)
      restore(name, nodeRules('iptables', name.startsWith('ip6') ? 'ip6' : 'ip').foreign);
    run('ipset', 'create', 'OPERATORS-OWN', 'hash:ip');
    run('ipset', 'add', 'OPERATORS-OWN', '192.0.2.1');
    const { status, stderr } = spawnSync('nft', ['-f', '-'], { input: foreignTable, encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    const foreign = everything();

    for (const [prefix, family] of [
      ['KUBE-', 'inet'],
      ['KUBE-6-', 'inet6'],
    ] as const) {
      run('ipset', 'create', `${prefix}CLUSTER-IP`, 'hash:ip,port', 'family', family);
      run('ipset', 'create', `${prefix}NODE-PORT-TCP`, 'bitmap:port', 'range', '0-65535');
      run('ipset', 'create', `${prefix}IPVS-IPS`, 'hash:ip', 'family', family);
    }
    for (const name of programs) {
      const family = name.startsWith('ip6') ? 'ip6' : 'ip';
      restore(name, nodeRules('iptables', family).ours);
      restore(name, nodeRules('ipvs', family).ours);
    }
    for (const family of families) run('nft', 'add', 'table', family, 'kube-proxy');
    assert.notEqual(everything(), foreign);

    const first = cleanup();
    assert.equal(first.status, 0, first.stderr);
    assert.equal(first.stderr, '');
    assert.equal(everything(), foreign);
    for (const line of [
      /^removed nftables table ip kube-proxy$/m,
      /^removed nftables table ip6 kube-proxy$/m,
      /^removed \d+ chains and \d+ jumps from iptables \(nf_tables\) table ip nat$/m,
      /^removed \d+ chains and \d+ jumps from iptables \(legacy\) table ip6 filter$/m,
      /^removed 6 ipsets: .*\bKUBE-6-IPVS-IPS\b/m,
      /^nothing to remove: no interface kube-ipvs0$/m,
    ])
      assert.match(first.stdout, line);

    const second = cleanup();
    assert.equal(second.status, 0, second.stderr);
    assert.equal(second.stderr, '');
    for (const line of second.stdout.trim().split('\n')) assert.match(line, /^nothing to remove: no /);
    assert.equal(everything(), foreign);
  });

  test('what another program uses is left, named, and told by the exit code', () => {
    run('nft', 'add', 'table', 'ip', 'kube-proxy');
    restore(
      'iptables-nft',
      '*nat\n:KUBE-MARK-MASQ - [0:0]\n:HOSTPORTS - [0:0]\n-A HOSTPORTS -j KUBE-MARK-MASQ\nCOMMIT\n',
    );
    const { status, stdout, stderr } = cleanup();
    assert.equal(status, 11);
    assert.match(stdout, /^removed nftables table ip kube-proxy$/m);
    assert.equal(
      stderr,
      "kube-proxy: left behind chain KUBE-MARK-MASQ in iptables (nf_tables) table ip nat: chain HOSTPORTS, which is not kube-proxy's, leads there\n",
    );
    run('iptables-nft', '-t', 'nat', '-F', 'HOSTPORTS');
    run('iptables-nft', '-t', 'nat', '-X', 'HOSTPORTS');
    assert.equal(cleanup().status, 0);
  });

  test('without privilege: one line, and its code', () => {
    const drop = ['--bounding-set=-net_admin', '--inh-caps=-net_admin'];
    const { status, stdout, stderr } = spawnSync('setpriv', [...drop, program, '--cleanup'], {
      encoding: 'utf8',
      timeout: patiently(30_000),
    });
    assert.equal(status, 3);
    assert.equal(stdout, '');
    assert.match(stderr, /^kube-proxy: not permitted to program the kernel: .*NET_ADMIN\n$/);
  });
});
