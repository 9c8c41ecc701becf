import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { enterNetworkNamespace, run } from '../testing/namespace.js';
import { RouteConnection, subscribeAddresses } from './index.js';

const skip = enterNetworkNamespace();

test('addresses with their interfaces', { skip }, () => {
  run('ip', 'link', 'add', 'rt-test0', 'type', 'veth', 'peer', 'name', 'rt-test1');
  run('ip', 'addr', 'add', '192.0.2.7/24', 'dev', 'rt-test0');
  run('ip', 'addr', 'add', '198.51.100.1', 'peer', '198.51.100.2', 'dev', 'rt-test0');
  run('ip', 'addr', 'add', '2001:db8::7/64', 'dev', 'rt-test0', 'nodad');
  const connection = RouteConnection.open();
  const brief = connection
    .listAddresses()
    .map((a) => `${a.family} ${a.address}/${a.prefixLength} ${a.interfaceName} ${a.scope}`)
    .sort();
  assert.deepEqual(brief, [
    'ip 127.0.0.1/8 lo host',
    'ip 192.0.2.7/24 rt-test0 global',
    'ip 198.51.100.1/32 rt-test0 global',
    'ip6 2001:db8::7/64 rt-test0 global',
    'ip6 ::1/128 lo host',
  ]);
  assert.deepEqual(
    connection.listAddresses('ip6').map((a) => a.address),
    ['::1', '2001:db8::7'],
  );
  assert.deepEqual(
    connection
      .listLinks()
      .map((l) => l.name)
      .sort(),
    ['lo', 'rt-test0', 'rt-test1'],
  );
  connection.close();
});

test('address changes are told', { skip }, async () => {
  const seen: string[] = [];
  const subscription = subscribeAddresses({
    onAddress: (action, a) => seen.push(`${action} ${a.address}`),
    onOverrun: () => assert.fail('overrun'),
    onError: (error) => assert.fail(error),
  });
  run('ip', 'addr', 'add', '203.0.113.9/32', 'dev', 'lo');
  run('ip', 'addr', 'del', '203.0.113.9/32', 'dev', 'lo');
  for (const deadline = Date.now() + 5000; seen.length < 2 && Date.now() < deadline;) await sleep(20);
  await subscription.close();
  assert.deepEqual(seen, ['new 203.0.113.9', 'delete 203.0.113.9']);
});

test('interfaces end', { skip }, () => {
  run('ip', 'link', 'add', 'rt-end0', 'type', 'veth', 'peer', 'name', 'rt-end1');
  const connection = RouteConnection.open();
  const link = connection.listLinks().find(({ name }) => name === 'rt-end0');
  assert.ok(link);
  assert.equal(link.kind, 'veth');
  assert.equal(connection.listLinks().find(({ name }) => name === 'lo')?.kind, undefined);
  assert.equal(connection.deleteLink(link), true);
  assert.equal(connection.deleteLink(link), false, 'gone already');
  assert.equal(
    connection.listLinks().some(({ name }) => name.startsWith('rt-end')),
    false,
  );
  connection.close();
});
