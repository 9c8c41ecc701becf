/** Notifications of own changes and those of others. In a network namespace of its own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from '../testing/namespace.js';
import { Batch } from './batch.js';
import { expr } from './expression/index.js';
import { types } from './field.js';
import { type Notification, subscribeNftables } from './notification.js';
import { connect, hex, skip } from './testing/kernel.fixture.js';

test('notifications tell own changes from those of others', { skip }, async (t) => {
  const connection = connect();
  const seen: Notification[] = [];
  const keys: string[] = [];
  const subscription = subscribeNftables({
    onNotification: (notification) => {
      seen.push(notification);
      if (notification.kind === 'elements')
        keys.push(...(notification.keys?.() ?? []).map((key) => key.toString('hex')));
    },
    onOverrun: () => assert.fail('overrun'),
    onError: (error) => assert.fail(error),
  });
  // An open subscription keeps the process alive.
  t.after(() => subscription.close());
  const batch = new Batch('ip', 'watched');
  batch.addTable();
  batch.addChain('c');
  batch.addRule('c', [expr.counter()]);
  batch.addSet({ name: 's', key: [types.ipv4Addr] });
  batch.addElement('s', hex('01020304'));
  connection.commit(batch);
  run('nft', 'add', 'element', 'ip', 'watched', 's', '{ 1.1.1.1 }');
  subscription.pause();
  run('nft', 'add', 'element', 'ip', 'watched', 's', '{ 1.1.1.2 }');
  subscription.resume();
  run('nft', 'delete', 'table', 'ip', 'watched');
  const deadline = Date.now() + 20_000;
  while (!seen.some((n) => n.kind === 'table' && n.action === 'delete') && Date.now() < deadline)
    await sleep(20);
  await sleep(50);
  await subscription.close();

  const changes = seen.map((n) =>
    n.kind === 'generation'
      ? `generation by ${n.generation.processName}`
      : `${n.portId === connection.portId ? 'own' : 'foreign'} ${n.action} ${n.kind} ${n.family ?? '?'} ${n.table} ${n.name}`,
  );
  const [self = ''] = seen.flatMap((n) =>
    n.kind === 'generation' && n.generation.processId === process.pid ? n.generation.processName : [],
  );
  assert.deepEqual(changes, [
    'own new table ip watched watched',
    'own new chain ip watched c',
    'own new rule ip watched c',
    'own new set ip watched s',
    'own new elements ip watched s',
    `generation by ${self}`,
    'foreign new elements ip watched s',
    'generation by nft',
    'foreign delete rule ip watched c',
    'foreign delete set ip watched s',
    'foreign delete chain ip watched c',
    'foreign delete table ip watched watched',
    'generation by nft',
  ]);
  assert.deepEqual(keys, ['01020304', '01010101']);
});

test('what ignored connections change is not told', { skip }, async (t) => {
  const [first, second, other] = [connect(), connect(), connect()];
  const seen: string[] = [];
  const subscription = subscribeNftables(
    {
      onNotification: (n) => seen.push(n.kind === 'generation' ? 'generation' : `${n.kind} ${n.name}`),
      onOverrun: () => assert.fail('overrun'),
      onError: (error) => assert.fail(error),
    },
    { ignoredPorts: [first.portId, second.portId] },
  );
  t.after(() => subscription.close());
  for (const [index, connection] of [first, other, second].entries()) {
    const batch = new Batch('ip', `ignored-${index}`);
    batch.addTable();
    batch.addChain('c');
    connection.commit(batch);
  }
  const deadline = Date.now() + 20_000;
  while (!seen.includes('generation') && Date.now() < deadline) await sleep(20);
  await sleep(50);
  await subscription.close();
  assert.deepEqual(seen, ['table ignored-1', 'chain c', 'generation']);
});

test('an overrun is told, and notifications go on', { skip }, async (t) => {
  const connection = connect();
  let overruns = 0;
  const names: string[] = [];
  const subscription = subscribeNftables(
    {
      onNotification: (n) => {
        if (n.kind === 'table') names.push(n.name);
      },
      onOverrun: () => overruns++,
      onError: (error) => assert.fail(error),
    },
    { receiveBuffer: 4096 },
  );
  t.after(() => subscription.close());
  const batch = new Batch('ip', 'flood');
  batch.addTable();
  for (let i = 0; i < 3000; i++) batch.addChain(`chain-${i}`);
  connection.commit(batch);
  const deadline = Date.now() + 20_000;
  while (overruns === 0 && Date.now() < deadline) await sleep(20);
  assert.ok(overruns > 0);
  // Heard once the reader has emptied the socket; until then it may overflow again.
  for (let i = 0; !names.some((name) => name.startsWith('after-flood')) && Date.now() < deadline; i++) {
    const next = new Batch('ip', `after-flood-${i}`);
    next.addTable();
    connection.commit(next);
    await sleep(100);
  }
  assert.ok(names.some((name) => name.startsWith('after-flood')));
});
