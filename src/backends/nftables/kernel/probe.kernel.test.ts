import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { acknowledgement, FakeTransport } from '@kube-proxy-ts/netlink/testing';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import type { DataplaneOptions } from '../../backend.js';
import { probeNftables } from './probe.js';

const skip = enterNetworkNamespace();

const options = (family: 'IPv4' | 'IPv6'): DataplaneOptions => ({
  family,
  masqueradeMark: 0x4000,
  masqueradeAll: false,
  detector: undefined,
  nodePortAddresses: 'all',
});

for (const family of ['IPv4', 'IPv6'] as const) {
  test(`${family}: this kernel has what is needed, and nothing is left of the question`, { skip }, () => {
    const connection = NftablesConnection.open();
    const { id } = connection.getGeneration();
    assert.equal(probeNftables(connection, options(family)), undefined);
    assert.deepEqual(connection.listTables(), []);
    assert.equal(connection.getGeneration().id, id);
    connection.close();
  });
}

test('what the kernel refuses is told', () => {
  const ENOENT = 2;
  // The fourth message, say because of a kind of set that this kernel lacks; never the last, which has to fail.
  const transport = new FakeTransport((_, begin) => [acknowledgement(begin + 4, ENOENT)]);
  const refusal = probeNftables(new NftablesConnection(transport), options('IPv4'));
  assert.ok(refusal instanceof NetlinkError);
  assert.equal(refusal.code, 'ENOENT');
  assert.equal(refusal.messageIndex, 3);
});
