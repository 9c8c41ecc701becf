import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NetlinkError } from '../errors.js';
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

test('a dummy interface', { skip }, (context) => {
  const connection = RouteConnection.open();
  assert.equal(connection.findLink('rt-dummy'), undefined);
  try {
    connection.addDummyLink('rt-dummy');
  } catch (error) {
    if (!(error instanceof NetlinkError && error.code === 'ENOTSUP')) throw error;
    context.skip('this kernel has no dummy interfaces');
    return;
  }
  assert.throws(
    () => {
      connection.addDummyLink('rt-dummy');
    },
    { code: 'EEXIST' },
  );
  const link = connection.findLink('rt-dummy');
  assert.ok(link);
  assert.equal(link.kind, 'dummy');
  assert.equal(link.up, false);
  assert.equal(connection.deleteLink(link), true);
  connection.close();
});

test('many addresses at once, on an interface that is down', { skip }, () => {
  const connection = RouteConnection.open();
  run('ip', 'link', 'add', 'rt-many', 'type', 'veth', 'peer', 'name', 'rt-many1');
  const link = connection.findLink('rt-many');
  assert.ok(link);
  assert.equal(connection.findLink('lo')?.up, true);
  const interfaceIndex = link.index;
  const v4 = Array.from({ length: 300 }, (_, n) => `10.96.${n >> 8}.${n & 255}`);
  const keys = [
    ...v4.map((address) => ({ family: 'ip' as const, address, prefixLength: 32, interfaceIndex })),
    { family: 'ip6' as const, address: 'fd00:96::1', prefixLength: 128, interfaceIndex },
  ];
  const add = keys.map((key) => ({ do: 'add' as const, ...key }));
  assert.deepEqual(connection.changeAddresses(add), []);
  assert.deepEqual(connection.changeAddresses(add), [], 'there already');
  const listed = connection.listAddresses().filter((a) => a.interfaceName === 'rt-many');
  assert.deepEqual(
    listed.map((a) => `${a.address}/${a.prefixLength}`).sort(),
    [...v4.map((a) => `${a}/32`), 'fd00:96::1/128'].sort(),
  );
  // Packets to them are for this host, though the interface is down.
  assert.match(run('ip', 'route', 'get', '10.96.1.7'), /^local 10\.96\.1\.7 dev lo/);
  const remove = keys.map((key) => ({ do: 'delete' as const, ...key }));
  assert.deepEqual(connection.changeAddresses(remove), []);
  assert.deepEqual(connection.changeAddresses(remove), [], 'gone already');
  const refused = connection.changeAddresses([
    { do: 'add', family: 'ip', address: '10.96.0.1', prefixLength: 32, interfaceIndex: 9999 },
    { do: 'add', family: 'ip', address: '10.96.0.2', prefixLength: 32, interfaceIndex },
  ]);
  assert.deepEqual(
    refused.map(({ index, error }) => [index, error.code]),
    [[0, 'ENODEV']],
  );
  assert.equal(connection.listAddresses('ip').filter((a) => a.interfaceName === 'rt-many').length, 1);
  connection.deleteLink(link);
  connection.close();
});
