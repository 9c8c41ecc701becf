/** Counters in the kernel, in a network namespace of their own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { enterNetworkNamespace } from '../testing/namespace.js';
import { NetlinkError } from '../errors.js';
import { AccountingConnection } from './index.js';

const skip = enterNetworkNamespace();

test('a counter is made once, starts at zero, and is found by its name', { skip }, () => {
  const connection = AccountingConnection.open();
  try {
    assert.equal(connection.get('dropped'), undefined);
    connection.ensure('dropped');
    connection.ensure('dropped');
    assert.deepEqual(connection.get('dropped'), { packets: 0n, bytes: 0n });
    assert.equal(connection.get('other'), undefined);
  } finally {
    connection.close();
  }
});

test('a name that the kernel does not take is an error that names it', { skip }, () => {
  const connection = AccountingConnection.open();
  try {
    assert.throws(
      () => {
        connection.ensure('x'.repeat(40));
      },
      (error: unknown) => error instanceof NetlinkError && error.message.includes('xxxx'),
    );
  } finally {
    connection.close();
  }
});
