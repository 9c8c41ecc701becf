/** What mode ipvs leaves, beside a director of somebody else. Needs a kernel with IPVS; Debian's has it (test/vm). */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { GenericConnection } from '@kube-proxy-ts/netlink/generic';
import { IpvsConnection, type VirtualServerKey } from '@kube-proxy-ts/netlink/ipvs';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { removeLeftovers } from './index.js';

function missing(): string | false {
  const generic = GenericConnection.open();
  try {
    if (generic.resolveFamily('IPVS') === undefined) return 'this kernel has no IPVS';
  } finally {
    generic.close();
  }
  return spawnSync('ipset', ['version']).status === 0
    ? false
    : 'ipset is not installed, or the kernel has none';
}

const skip = enterNetworkNamespace() || missing();

const settings = { scheduler: 'rr', flags: 0, timeoutSeconds: 0 };
const nodePort: VirtualServerKey = { family: 'ip', protocol: 6, address: '192.0.2.1', port: 30080 };
const nodePort6: VirtualServerKey = { family: 'ip6', protocol: 17, address: '2001:db8::1', port: 30053 };
const ours: readonly VirtualServerKey[] = [
  { family: 'ip', protocol: 6, address: '10.96.0.1', port: 443 },
  { family: 'ip', protocol: 17, address: '10.96.0.10', port: 53 },
  { family: 'ip6', protocol: 132, address: 'fd00:96::1', port: 38412 },
  nodePort,
  nodePort6,
];
const theirs: readonly VirtualServerKey[] = [
  { family: 'ip', protocol: 6, address: '192.0.2.1', port: 443 },
  { family: 'ip', protocol: 6, address: '198.51.100.80', port: 80 },
  { family: 'ip', fwmark: 7 },
];

test(
  "virtual servers, sets and the interface go; another director's virtual servers stay",
  { skip },
  async () => {
    run('ip', 'link', 'add', 'up0', 'type', 'dummy');
    run('ip', 'addr', 'add', '192.0.2.1/24', 'dev', 'up0');
    run('ip', 'addr', 'add', '2001:db8::1/64', 'dev', 'up0', 'nodad');
    run('ip', 'link', 'add', 'kube-ipvs0', 'type', 'dummy');
    for (const address of ['10.96.0.1/32', '10.96.0.10/32', 'fd00:96::1/128'])
      run('ip', 'addr', 'add', address, 'dev', 'kube-ipvs0');
    const createSets = (): void => {
      run('ipset', 'create', 'KUBE-NODE-PORT-TCP', 'bitmap:port', 'range', '0-65535');
      run('ipset', 'add', 'KUBE-NODE-PORT-TCP', '30080');
      run('ipset', 'create', 'KUBE-6-NODE-PORT-UDP', 'bitmap:port', 'range', '0-65535');
      run('ipset', 'add', 'KUBE-6-NODE-PORT-UDP', '30053');
    };
    createSets();
    const ipvs = IpvsConnection.open();
    for (const key of [...ours, ...theirs])
      ipvs.addService({ key, settings: { ...settings, clientPrefixLength: key.family === 'ip' ? 32 : 128 } });
    const services = (): string[] =>
      ipvs
        .listServices()
        .map(({ key }) => JSON.stringify(key))
        .sort();

    // Our mode ipvs takes over the virtual servers; it has no use for sets.
    const kept = await removeLeftovers({ mode: 'ipvs' });
    assert.equal(kept.complete, true);
    assert.deepEqual(services(), [...ours, ...theirs].map((key) => JSON.stringify(key)).sort());
    assert.equal(run('ipset', 'list', '-n'), '');
    createSets();

    const report = await removeLeftovers({ mode: 'nftables' });
    assert.deepEqual(
      report.outcomes.filter(({ kind }) => kind !== 'absent').map(({ kind, what }) => `${kind} ${what}`),
      [
        'removed 5 IPVS virtual servers',
        'removed interface kube-ipvs0',
        'removed 2 ipsets: KUBE-NODE-PORT-TCP KUBE-6-NODE-PORT-UDP',
      ],
    );
    assert.deepEqual(services(), theirs.map((key) => JSON.stringify(key)).sort());
    assert.equal(run('ipset', 'list', '-n'), '');
    assert.match(run('ip', '-brief', 'link'), /up0/);
    assert.doesNotMatch(run('ip', '-brief', 'link'), /kube-ipvs0/);

    const again = await removeLeftovers({ mode: 'nftables' });
    assert.equal(
      again.outcomes.every(({ kind }) => kind === 'absent'),
      true,
    );
    ipvs.close();
  },
);

test('an interface of that name that is no dummy is somebody else’s', { skip }, async () => {
  run('ip', 'link', 'add', 'kube-ipvs0', 'type', 'bridge');
  const { outcomes, complete } = await removeLeftovers(undefined);
  assert.equal(complete, false);
  assert.deepEqual(
    outcomes.filter(({ kind }) => kind === 'kept').map(({ what }) => what),
    ['interface kube-ipvs0'],
  );
  assert.match(run('ip', '-brief', 'link'), /kube-ipvs0/);
  run('ip', 'link', 'del', 'kube-ipvs0');
});
