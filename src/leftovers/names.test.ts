import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isLeftoverChain, modesOfChain, ownSets, setNameIPv6, xtables } from './names.js';

test("chains of the kubelet, of upstream's other tables and of other programs are nobody's leftovers", () => {
  const foreign = [
    'KUBE-FIREWALL',
    'KUBE-MARK-DROP',
    'KUBE-KUBELET-CANARY',
    'KUBE-IPTABLES-HINT',
    'KUBE-ROUTER-INPUT',
    'KUBE-POD-FW-ABCDEFGHIJKLMNOP',
    'KUBE-NWPLCY-DEFAULT',
    'KUBE-SVC',
    'KUBE-SERVICES-OF-MINE',
    'kube-services',
    'cali-PREROUTING',
    'PREROUTING',
    '',
  ];
  for (const table of xtables)
    for (const name of foreign) assert.deepEqual(modesOfChain(table, name), [], `${table} ${name}`);
  assert.deepEqual(modesOfChain('mangle', 'KUBE-SVC-NPX46M4PTMTKRN6Y'), [], 'Services are in nat and filter');
  assert.deepEqual(modesOfChain('filter', 'KUBE-POSTROUTING'), []);
  assert.deepEqual(modesOfChain('mangle', 'KUBE-SERVICES'), []);
});

test('which chains are left over depends on what runs', () => {
  const names = ['KUBE-SERVICES', 'KUBE-NODEPORTS', 'KUBE-NODE-PORT', 'KUBE-SEP-A', 'KUBE-XLB-A', 'OTHER'];
  const leftover = (running: 'iptables' | 'ipvs' | undefined): string[] =>
    names.filter(isLeftoverChain('nat', running));
  assert.deepEqual(leftover(undefined), names.slice(0, -1));
  assert.deepEqual(leftover('iptables'), ['KUBE-NODE-PORT']);
  assert.deepEqual(leftover('ipvs'), ['KUBE-NODEPORTS', 'KUBE-SEP-A', 'KUBE-XLB-A']);
});

test('sets of IPv6, cut where upstream cuts them', () => {
  assert.equal(setNameIPv6('KUBE-CLUSTER-IP'), 'KUBE-6-CLUSTER-IP');
  assert.equal(setNameIPv6('KUBE-LOAD-BALANCER-SOURCE-CIDR'), 'KUBE-6-LOAD-BALANCER-SOURCE-CID');
  assert.equal(setNameIPv6('KUBE-NODE-PORT-LOCAL-SCTP-HASH'), 'KUBE-6-NODE-PORT-LOCAL-SCTP-HAS');
  assert.equal(ownSets.size, 34, 'seventeen of each family');
  for (const name of ownSets) assert.ok(name.length <= 31, name);
});
