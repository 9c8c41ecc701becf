import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { acknowledgement, enterNetworkNamespace, FakeTransport } from '@kube-proxy-ts/netlink/testing';

test('without a kernel: what is sent, and an answer from a script', () => {
  const transport = new FakeTransport((_sent, sequence) => [acknowledgement(sequence, 1)]);
  const batch = new Batch('ip', 'example');
  batch.addTable();
  assert.throws(
    () => {
      new NftablesConnection(transport).commit(batch);
    },
    (error: unknown) => error instanceof NetlinkError && error.code === 'EPERM',
  );
  assert.equal(transport.sent.length, 1);
});

const skip = enterNetworkNamespace(); // this process, until it ends; false, or why it can't be done
test('against the kernel', { skip }, () => {
  const connection = NftablesConnection.open();
  const batch = new Batch('ip', 'example');
  batch.addTable();
  connection.commit(batch);
  assert.deepEqual(
    connection.listTables('ip').map(({ name }) => name),
    ['example'],
  );
  connection.close();
});
