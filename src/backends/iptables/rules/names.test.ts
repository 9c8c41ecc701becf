/** Chains that upstream also makes have the names that upstream gives them (dataplane-iptables.md 4). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { endpointChain, isOwnVolatileChain, servicePortHash } from './names.js';

test('service ports', () => {
  assert.equal(servicePortHash({ name: 'orchard/pear:web', protocol: 'TCP' }), 'TVLPR6G6OUYAL4AB');
  assert.equal(servicePortHash({ name: 'orchard/plum', protocol: 'UDP' }), 'JWYNI2HSC3SQ3J7B');
  assert.equal(servicePortHash({ name: 'orchard/pear:web', protocol: 'SCTP' }), 'LHOF3M2C5HEALAQJ');
});

test('endpoints', () => {
  const pear = { name: 'orchard/pear:web', protocol: 'TCP' } as const;
  const plum = { name: 'orchard/plum', protocol: 'UDP' } as const;
  assert.equal(endpointChain(pear, { ip: '10.61.1.31', port: 9000 }), 'KUBE-SEP-JB3XAQF5B4LJO7NH');
  assert.equal(endpointChain(pear, { ip: 'fd61:0:0:1::31', port: 9000 }), 'KUBE-SEP-WRKELZCWDETGLKJF');
  assert.equal(endpointChain(plum, { ip: '10.61.1.31', port: 5353 }), 'KUBE-SEP-PBJXPKONRGS6MA4F');
});

test('what is ours to delete', () => {
  for (const name of [
    'KUBE-SVC-X',
    'KUBE-SVL-X',
    'KUBE-SEP-X',
    'KUBE-FW-X',
    'KUBE-EXT-X',
    'KUBE-PROXY-PROBE',
  ])
    assert.ok(isOwnVolatileChain(name), name);
  for (const name of ['KUBE-SERVICES', 'KUBE-FIREWALL', 'KUBE-KUBELET-CANARY', 'KUBE-IPTABLES-HINT', 'CNI-X'])
    assert.ok(!isOwnVolatileChain(name), name);
});
