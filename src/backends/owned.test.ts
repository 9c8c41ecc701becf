import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ipsets, setNameIPv6 } from './ipvs/leftovers/sets.js';
import { allModes, modeNamed } from './modes.js';
import { xtables, type XtableName } from './owned.js';

/** Names of the modes that have such a chain. */
const owners = (table: XtableName, chain: string): string[] =>
  allModes()
    .filter(({ owned }) => owned.ownsChain(table, chain))
    .map(({ name }) => name);

test("chains of the kubelet, of upstream's other tables and of other programs are nobody's", () => {
  const foreign = [
    'KUBE-FIREWALL',
    'KUBE-MARK-DROP',
    'KUBE-KUBELET-CANARY',
    'KUBE-IPTABLES-HINT',
    'KUBE-ROUTER-INPUT',
    'KUBE-POD-FW-ABCDEFGHIJKLMNOP',
    'KUBE-NWPLCY-DEFAULT',
    'KUBE-SVC',
    'KUBE-FW-allow-ssh',
    'KUBE-SEP-A',
    'KUBE-SERVICES-OF-MINE',
    'kube-services',
    'cali-PREROUTING',
    'PREROUTING',
    '',
  ];
  for (const table of xtables)
    for (const name of foreign) assert.deepEqual(owners(table, name), [], `${table} ${name}`);
  assert.deepEqual(owners('mangle', 'KUBE-SVC-NPX46M4PTMTKRN6Y'), [], 'Services are in nat and filter');
  assert.deepEqual(owners('filter', 'KUBE-POSTROUTING'), []);
  assert.deepEqual(owners('mangle', 'KUBE-SERVICES'), []);
});

test('which mode has which chains', () => {
  const names = [
    'KUBE-SERVICES',
    'KUBE-NODEPORTS',
    'KUBE-NODE-PORT',
    'KUBE-SEP-NPX46M4PTMTKRN6Y',
    'KUBE-XLB-NPX46M4PTMTKRN6Y',
    'OTHER',
  ];
  const of = (mode: string): string[] =>
    names.filter((chain) => modeNamed(mode)?.owned.ownsChain('nat', chain) === true);
  assert.deepEqual(of('iptables'), [
    'KUBE-SERVICES',
    'KUBE-NODEPORTS',
    'KUBE-SEP-NPX46M4PTMTKRN6Y',
    'KUBE-XLB-NPX46M4PTMTKRN6Y',
  ]);
  assert.deepEqual(of('ipvs'), ['KUBE-SERVICES', 'KUBE-NODE-PORT']);
  assert.deepEqual(of('nftables'), []);
});

test('sets of IPv6, cut where upstream cuts them', () => {
  assert.equal(setNameIPv6('KUBE-CLUSTER-IP'), 'KUBE-6-CLUSTER-IP');
  assert.equal(setNameIPv6('KUBE-LOAD-BALANCER-SOURCE-CIDR'), 'KUBE-6-LOAD-BALANCER-SOURCE-CID');
  assert.equal(setNameIPv6('KUBE-NODE-PORT-LOCAL-SCTP-HASH'), 'KUBE-6-NODE-PORT-LOCAL-SCTP-HAS');
  assert.equal(ipsets.size, 34, 'seventeen of each family');
  for (const name of ipsets) assert.ok(name.length <= 31, name);
});
