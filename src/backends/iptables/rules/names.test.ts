/** Chains that upstream also makes have the names that upstream gives them (dataplane-iptables.md 4). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { owned } from '../owned.js';
import { addressKey, AddressKeys, portKey, PortKeys } from './keys.js';
import { chainPrefixes, endpointChain, isOwnVolatileChain, releasedChain, servicePortHash } from './names.js';

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
  const ours = ['KUBE-PROXY-PROBE', releasedChain];
  for (const label of Object.values(chainPrefixes)) {
    ours.push(label + servicePortHash({ name: 'orchard/plum', protocol: 'UDP' }));
    for (const [family, ip] of [
      ['IPv4', '10.177.0.50'],
      ['IPv6', 'fd61:0:0:1::31'],
      ['IPv6', '2001:db8:1234:5678:9abc:def0:1234:5678'],
    ] as const) {
      const keys = new AddressKeys(family, label);
      const key = addressKey(ip, 'TCP', 65_000);
      for (let digits = 0; digits <= key.length; digits++) ours.push(keys.chainName(key.slice(0, digits)));
    }
    const ports = new PortKeys(label);
    for (const protocol of ['TCP', 'UDP', 'SCTP'] as const) {
      const key = portKey(protocol, 31_050);
      for (let digits = 1; digits <= key.length; digits++) ours.push(ports.chainName(key.slice(0, digits)));
    }
  }
  for (const name of ours) assert.ok(isOwnVolatileChain(name), name);
  for (const name of [
    'KUBE-SERVICES',
    'KUBE-FIREWALL',
    'KUBE-KUBELET-CANARY',
    'KUBE-IPTABLES-HINT',
    'CNI-X',
    'KUBE-FW-allow-ssh',
    'KUBE-FW-X',
    'KUBE-EXT-DNS',
    'KUBE-SVC-MONITORING',
    'KUBE-SVC-TVLPR6G6OUYAL4A',
    'KUBE-SVC-TVLPR6G6OUYAL4ABC',
    'KUBE-SVC-tcp-proxy',
    'KUBE-EXT-10.0.0.0',
  ]) {
    assert.ok(!isOwnVolatileChain(name), name);
    assert.ok(name === 'KUBE-SERVICES' || !owned.ownsChain('nat', name), name);
  }
});
