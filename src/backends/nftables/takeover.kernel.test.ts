/** A table of upstream v1.37 with KEP-6032's objects, as nft makes it, is taken over whole: no counter of it stays. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { removeTable } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import type { IPFamily } from '../../model/types.js';
import { World } from '../testing/world.js';
import { onNode, tableName } from './testing/node.js';

const skip = enterNetworkNamespace();
const nft = (...args: readonly string[]): string => execFileSync('nft', args, { encoding: 'utf8' });

/** Named counters, a map of counters, rules that refer to both, and a chain per Service. */
function layOut(family: IPFamily, services: number): void {
  const [ip, address, loopback] =
    family === 'IPv4' ? ['ip', 'ipv4_addr', '127.0.0.0/8'] : ['ip6', 'ipv6_addr', '::1'];
  const lines = [
    `add table ${ip} ${tableName} { comment "rules for kube-proxy"; }`,
    ...['tcp', 'udp', 'sctp'].map(
      (protocol) => `add counter ${ip} ${tableName} localhost-nodeport-rejected-${protocol}`,
    ),
    `add counter ${ip} ${tableName} ct-state-invalid-pkts`,
    `add map ${ip} ${tableName} localhost-nodeport-counters { type inet_proto : counter; }`,
    `add element ${ip} ${tableName} localhost-nodeport-counters { tcp : "localhost-nodeport-rejected-tcp", udp : "localhost-nodeport-rejected-udp" }`,
    `add map ${ip} ${tableName} service-ips { type ${address} . inet_proto . inet_service : verdict; }`,
    `add chain ${ip} ${tableName} filter-output { type filter hook output priority -110; }`,
    `add chain ${ip} ${tableName} localhost-nodeport-check`,
    `add rule ${ip} ${tableName} filter-output ${ip} daddr ${loopback} jump localhost-nodeport-check`,
    `add rule ${ip} ${tableName} localhost-nodeport-check meta l4proto sctp counter name "localhost-nodeport-rejected-sctp" reject`,
    `add rule ${ip} ${tableName} localhost-nodeport-check counter name meta l4proto map @localhost-nodeport-counters reject`,
  ];
  for (let i = 0; i < services; i++) {
    const chain = `service-${i}-shop/web/tcp/http`;
    lines.push(`add chain ${ip} ${tableName} ${chain}`, `add rule ${ip} ${tableName} ${chain} counter`);
  }
  execFileSync('nft', ['-f', '-'], { input: `${lines.join('\n')}\n` });
}

for (const family of ['IPv4', 'IPv6'] as const) {
  for (const services of [3, 400]) {
    test(`${family}, ${services} chains of Services`, { skip }, async () => {
      await onNode(family, async (node) => {
        layOut(family, services);
        assert.match(nft('list', 'counters'), /localhost-nodeport-rejected-sctp/);
        for (const port of new World(new Random(1), family).step().upserted) node.wanted.set(port.key, port);
        assert.ok(node.wanted.size > 0);
        assert.deepEqual((await node.resync()).failures, []);
        node.check('taken over');
        assert.doesNotMatch(nft('list', 'ruleset'), /localhost-nodeport|ct-state-invalid-pkts/);
        assert.equal((await node.resync()).transactions, 0);
      });
    });
  }
}

test('and is removed whole, in pieces', { skip }, async () => {
  await onNode('IPv4', async (node) => {
    layOut('IPv4', 400);
    assert.ok((await removeTable(node.connection, 'ip', tableName)) > 1);
    assert.equal(nft('list', 'ruleset').trim(), '');
  });
});
