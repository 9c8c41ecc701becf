/** At a start the table names addresses that nobody has any more: conntrack is told of them before they go. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import type { ServicePort } from '../../model/types.js';
import { endpoints, onNode, servicePort, type Reading } from './testing/node.js';

const skip = enterNetworkNamespace();

const readings: Readonly<Record<string, Reading>> = {
  dumped: { dumpLimit: Infinity },
  'by key': { dumpLimit: 0 },
};

function udp(id: number, fields: Partial<ServicePort> = {}): ServicePort {
  const port = servicePort(id, { protocol: 'UDP', key: `test/s${id}:dns/UDP`, ...fields });
  const [address] = port.addresses;
  assert.ok(address);
  return {
    ...port,
    addresses: [
      address,
      { ...address, kind: 'NodePort', ip: '', port: 30_000 + id, scope: 'external' },
      { ...address, kind: 'ExternalIP', ip: `203.0.113.${id}`, scope: 'external' },
    ],
  };
}

for (const [name, reading] of Object.entries(readings)) {
  test(`endpoints ${name}`, { skip }, async () => {
    await onNode(
      'IPv4',
      async (node) => {
        await node.resync();
        const stays = udp(1);
        const shrinks = udp(2, { clusterEndpoints: endpoints(3) });
        const sticky = udp(4, { affinitySeconds: 10 });
        await node.apply([stays, shrinks, udp(3), sticky, servicePort(5)]);
        node.wanted.clear();
        const now = [stays, { ...shrinks, addresses: shrinks.addresses.slice(0, 1) }];
        for (const port of now) node.wanted.set(port.key, port);
        node.restart();
        const { released = [] } = await node.resync();
        const text = ({ ip, port }: { readonly ip: string; readonly port: number }): string =>
          `${ip}:${port}`;
        const expected = [shrinks, udp(3), sticky].flatMap((port) =>
          port.addresses
            .slice(port === shrinks ? 1 : 0)
            .map((address) => `UDP ${text(address)} → ${port.clusterEndpoints.map(text).sort().join()}`),
        );
        assert.deepEqual(
          released
            .map((each) => `${each.protocol} ${text(each)} → ${[...each.endpoints].sort().join()}`)
            .sort(),
          expected.sort(),
        );
        assert.deepEqual((await node.resync()).released ?? [], []);
      },
      {},
      reading,
    );
  });
}
