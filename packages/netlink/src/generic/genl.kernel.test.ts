import assert from 'node:assert/strict';
import { test } from 'node:test';
import { enterNetworkNamespace } from '../testing/namespace.js';
import { GenericConnection } from './index.js';

const skip = enterNetworkNamespace();

test('families by name and in a list', { skip }, () => {
  const connection = GenericConnection.open();
  const controller = connection.resolveFamily('nlctrl');
  assert.equal(controller?.id, 0x10);
  assert.equal(connection.resolveFamily('no-such-thing'), undefined);
  const families = connection.listFamilies();
  assert.deepEqual(
    families.find(({ name }) => name === 'nlctrl'),
    controller,
  );
  assert.equal(new Set(families.map(({ id }) => id)).size, families.length);
  connection.close();
});
