import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeKey, type VirtualServerKey } from '@kube-proxy-ts/netlink/ipvs';
import { nodePortKey, ownership } from './virtual-servers.js';

const addresses = [
  { address: '10.96.0.10', interfaceName: 'kube-ipvs0' },
  { address: 'fd00:96::10', interfaceName: 'kube-ipvs0' },
  { address: '192.0.2.1', interfaceName: 'eth0' },
  { address: '2001:db8::1', interfaceName: 'eth0' },
];
const nodePorts = {
  ip: new Set([nodePortKey(6, 30080), nodePortKey(132, 30132)]),
  ip6: new Set([nodePortKey(17, 30053)]),
};

const cases: readonly [key: VirtualServerKey, ours: boolean, why: string][] = [
  [{ family: 'ip', protocol: 17, address: '10.96.0.10', port: 53 }, true, 'a service address'],
  [{ family: 'ip', protocol: 6, address: '10.96.0.10', port: 9 }, true, 'any port of a service address'],
  [{ family: 'ip6', protocol: 17, address: 'fd00:96::10', port: 53 }, true, 'of IPv6, too'],
  [{ family: 'ip', protocol: 6, address: '192.0.2.1', port: 30080 }, true, 'a node port'],
  [{ family: 'ip', protocol: 132, address: '192.0.2.1', port: 30132 }, true, 'a node port of SCTP'],
  [{ family: 'ip6', protocol: 17, address: '2001:db8::1', port: 30053 }, true, 'a node port of IPv6'],
  [{ family: 'ip', protocol: 17, address: '192.0.2.1', port: 30080 }, false, 'another protocol'],
  [{ family: 'ip6', protocol: 6, address: '2001:db8::1', port: 30080 }, false, 'another family'],
  [{ family: 'ip', protocol: 6, address: '192.0.2.1', port: 443 }, false, 'a director on the node'],
  [{ family: 'ip', protocol: 6, address: '198.51.100.7', port: 30080 }, false, 'an address of nobody here'],
  [{ family: 'ip', fwmark: 30080 }, false, 'a mark'],
  [{ family: 'ip', fwmark: 0x6b700007 }, true, 'a mark of ours'],
  [
    { family: 'ip', protocol: 6, address: '192.0.2.1', port: 30443 },
    true,
    'a node port that our table names',
  ],
];

for (const [key, ours, why] of cases) {
  test(`${describeKey(key)}: ${ours ? '' : 'not '}kube-proxy's, ${why}`, () => {
    assert.equal(ownership(addresses, nodePorts, new Set(['tcp 192.0.2.1:30443']))(key), ours);
  });
}
