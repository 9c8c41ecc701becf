/** Which addresses iptables-save names that no service port has. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ServicePort } from '../../model/types.js';
import { RecentlyReleased, releasedAddresses } from './released.js';
import { Saved } from './tool/saved.js';

function port(ip: string, number: number, protocol: 'UDP' | 'TCP' = 'UDP'): ServicePort {
  return {
    key: `a/b:c/${protocol}`,
    name: 'a/b:c',
    namespace: 'a',
    serviceName: 'b',
    family: 'IPv4',
    protocol,
    clusterIP: ip,
    port: number,
    addresses: [
      {
        kind: 'ClusterIP',
        ip,
        port: number,
        scope: 'internal',
        policy: 'Cluster',
        fallback: 'serve',
        sourceRanges: undefined,
      },
    ],
    clusterEndpoints: [],
    localEndpoints: [],
    affinitySeconds: 0,
    servingEndpoints: ['10.61.1.1:53', '10.61.1.2:53'],
  };
}

const ours = `*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ABC - [0:0]
:KUBE-NODEPORTS - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
-A KUBE-SERVICES ! -s 10.61.0.0/16 -d 10.96.0.10/32 -p udp -m comment --comment "a/b-g:c cluster IP" -m udp --dport 53 -j KUBE-MARK-MASQ
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment "a/b-g:c cluster IP" -m udp --dport 53 -g KUBE-SVC-ABC
-A KUBE-SERVICES -d 10.96.0.11/32 -p udp -m comment --comment "a/one cluster IP" -m udp --dport 53 -j DNAT --to-destination 10.61.1.9:53
-A KUBE-SERVICES -d 10.96.0.12/32 -p tcp -m comment --comment "a/tcp cluster IP" -m tcp --dport 53 -j DNAT --to-destination 10.61.1.9:53
-A KUBE-SERVICES -p udp -m comment --comment "kubernetes service nodeports" -m udp --dport 30053 -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p udp -m comment --comment "a/b-g:c" -m udp --dport 30053 -g KUBE-SVC-ABC
-A KUBE-SVC-ABC ! -s 10.61.0.0/16 -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-MARK-MASQ
-A KUBE-SVC-ABC -p udp -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.61.1.1:53
-A KUBE-SVC-ABC -p udp -j DNAT --to-destination 10.61.1.2:53
-A CNI-HOSTPORT-DNAT -p udp -m udp --dport 5353 -j DNAT --to-destination 10.61.1.3:53
COMMIT
`;
const upstream = `*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ABC - [0:0]
:KUBE-SEP-DEF - [0:0]
-A KUBE-SERVICES -d fd77::10/128 -p udp -m comment --comment "a/b:c cluster IP" -m udp --dport 53 -j KUBE-SVC-ABC
-A KUBE-SVC-ABC -m comment --comment "a/b:c -> [fd61::1]:53" -j KUBE-SEP-DEF
-A KUBE-SEP-DEF -p udp -m comment --comment "a/b:c" -m udp -j DNAT --to-destination [fd61::1]:53
COMMIT
`;

const both = ['10.61.1.1:53', '10.61.1.2:53'];
const cases: readonly (readonly [string, string, readonly ServicePort[], readonly unknown[]])[] = [
  [
    'nobody has them',
    ours,
    [],
    [
      { protocol: 'UDP', ip: '10.96.0.10', port: 53, endpoints: both },
      { protocol: 'UDP', ip: '10.96.0.11', port: 53, endpoints: ['10.61.1.9:53'] },
      { protocol: 'UDP', ip: '', port: 30_053, endpoints: both },
    ],
  ],
  [
    'two are left, and one is another protocol now',
    ours,
    [port('10.96.0.10', 53), port('10.96.0.11', 53, 'TCP')],
    [
      { protocol: 'UDP', ip: '10.96.0.11', port: 53, endpoints: ['10.61.1.9:53'] },
      { protocol: 'UDP', ip: '', port: 30_053, endpoints: both },
    ],
  ],
  ["upstream's", upstream, [], [{ protocol: 'UDP', ip: 'fd77::10', port: 53, endpoints: ['[fd61::1]:53'] }]],
];
for (const [what, text, wanted, expected] of cases) {
  test(`released addresses: ${what}`, async () => {
    assert.deepEqual(await releasedAddresses(await Saved.read(text), wanted), expected);
  });
}

test('what has gone lately is found in the note that is left of it, the newest first', async () => {
  const recent = new RecentlyReleased('IPv4');
  for (let n = 0; n < 2_000; n++)
    recent.change(port(`10.97.${n >> 8}.${n & 255}`, 53), n % 2 === 0 ? undefined : port('10.96.0.1', 53));
  recent.change(port('10.96.0.1', 53), { ...port('10.96.0.1', 53), servingEndpoints: [] });
  const rules = recent.rules();
  assert.equal(rules.length, 1_000);
  const text = `*nat\n:KUBE-SEP-NOTE - [0:0]\n${rules.map((rule) => `-A KUBE-SEP-NOTE ${rule}`).join('\n')}\nCOMMIT\n`;
  const found = await releasedAddresses(await Saved.read(text), []);
  assert.equal(found.length, 500);
  assert.deepEqual(found[0], { protocol: 'UDP', ip: '10.97.7.207', port: 53, endpoints: both });
});
