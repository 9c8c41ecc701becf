/** Batches that succeed, batches that fail, and reading single elements. In a network namespace of its own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NetlinkError } from '../errors.js';
import { Batch } from './batch.js';
import { goTo } from './data.js';
import { expr } from './expression/index.js';
import { selectors, types } from './field.js';
import { connect, hex, skip } from './testing/kernel.fixture.js';

test('a failed batch changes nothing and names the offending message', { skip }, () => {
  const connection = connect();
  const make = new Batch('ip', 'errors');
  make.addTable();
  make.addChain('c');
  make.addSet({ name: 'classes', key: [selectors.priority], value: 'verdict' });
  connection.commit(make);

  interface Expected {
    readonly name: string;
    readonly fill: (batch: Batch) => void;
    readonly error: Partial<NetlinkError>;
  }
  const cases: readonly Expected[] = [
    {
      name: 'an element that jumps nowhere, among others',
      fill: (b) => {
        b.addChain('new');
        for (let i = 0; i < 5; i++)
          b.addElement('classes', hex(`0${i}000100`), goTo(i === 3 ? 'nowhere' : 'c'));
      },
      error: {
        code: 'ENOENT',
        operation: 'add element to map "classes"',
        messageIndex: 1,
        elementIndex: 3,
        attribute: 'elements[3]',
        elementKey: hex('03000100'),
      },
    },
    {
      name: 'an element that is not there',
      fill: (b) => {
        b.deleteElement('classes', hex('03000100'));
      },
      error: { code: 'ENOENT', operation: 'delete element of set "classes"', elementIndex: 0 },
    },
    {
      name: 'an unknown set in a rule',
      fill: (b) => {
        b.addRule('c', [expr.meta('priority', 0), expr.lookup('nothing', 0)]);
      },
      error: {
        code: 'ENOENT',
        operation: 'add rule to chain "c", [ lookup reg 1 set nothing 0x0 ]',
        messageIndex: 0,
        attribute: 'expressions[1]',
      },
    },
    {
      name: 'an unknown chain',
      fill: (b) => {
        b.addChain('new');
        b.deleteChain('nothing');
      },
      error: { code: 'ENOENT', operation: 'delete chain "nothing"', messageIndex: 1, attribute: 'name' },
    },
    {
      name: 'two failures: the first is told',
      fill: (b) => {
        b.deleteSet('first');
        b.deleteSet('second');
      },
      error: { code: 'ENOENT', operation: 'delete set "first"', messageIndex: 0 },
    },
    {
      name: 'a set with other properties',
      fill: (b) => {
        b.addSet({ name: 'classes', key: [selectors.priority, selectors.l4proto], value: 'verdict' });
      },
      error: { operation: 'add map "classes"', messageIndex: 0 },
    },
  ];
  for (const { name, fill, error } of cases) {
    const batch = new Batch('ip', 'errors');
    fill(batch);
    assert.throws(
      () => {
        connection.commit(batch);
      },
      (thrown: unknown) => {
        assert.ok(thrown instanceof NetlinkError);
        for (const [property, value] of Object.entries(error)) {
          assert.deepEqual(thrown[property as keyof NetlinkError], value, `${name}: ${property}`);
        }
        return true;
      },
    );
  }
  assert.deepEqual(
    connection.listChains('ip', 'errors').map((chain) => chain.name),
    ['c'],
  );
  // A connection that had errors goes on.
  connection.commit(make);
});

test('a batch can demand a generation', { skip }, () => {
  const connection = connect();
  const batch = new Batch('ip', 'generation');
  batch.addTable();
  const before = connection.getGeneration().id;
  connection.commit(batch, { generation: before });
  const after = connection.getGeneration();
  assert.equal(after.id, before + 1);
  assert.equal(after.processId, process.pid);
  assert.throws(
    () => {
      connection.commit(batch, { generation: before });
    },
    { code: 'ERESTART' },
  );
  connection.commit(batch, { generation: after.id });
});

test('a large batch: one acknowledgement, every element there', { skip }, async () => {
  const connection = connect();
  const total = 200_000;
  const batch = new Batch('ip', 'large');
  batch.addTable();
  batch.addSet({ name: 's', key: [types.ipv4Addr] });
  const key = Buffer.alloc(4);
  for (let i = 0; i < total; i++) {
    key.writeUInt32BE(i);
    batch.addElement('s', key);
  }
  assert.ok(batch.messageCount < 100);
  connection.commit(batch);
  // Until the kernel's hash table has grown, dumps may repeat and omit elements: what listElements() warns of.
  const seen = new Set<number>();
  for (let attempt = 0; attempt < 20 && seen.size < total; attempt++) {
    await sleep(100);
    seen.clear();
    connection.listElements('ip', 'large', 's', (k) => seen.add(k.readUInt32BE(0)));
  }
  assert.equal(seen.size, total);
  const end = new Batch('ip', 'large');
  end.deleteTable();
  connection.commit(end);
});

test('a batch of nothing but errors does not lose the first one', { skip }, () => {
  const connection = connect();
  const batch = new Batch('ip', 'nothing-here');
  for (let i = 0; i < 5000; i++) batch.deleteChain(`chain-${i}`);
  assert.throws(
    () => {
      connection.commit(batch);
    },
    { code: 'ENOENT', operation: 'delete chain "chain-0"', messageIndex: 0 },
  );
  connection.getGeneration();
});

test('a batch that is too large for the socket is rejected whole, and says what to do', { skip }, () => {
  const connection = connect({ sendBuffer: 50_000 });
  assert.ok(connection.maxBatchBytes < 200_000);
  const batch = new Batch('ip', 'too-large');
  batch.addTable();
  batch.addSet({ name: 's', key: [types.ipv4Addr] });
  const key = Buffer.alloc(4);
  const fill = (bytes: number): void => {
    for (let i = 0; batch.byteLength < bytes; i++) {
      key.writeUInt32BE(i);
      batch.addElement('s', key);
    }
  };
  // An element with a key of 4 bytes takes 16, and a new message for it less than 60 more.
  fill(connection.maxBatchBytes - 100);
  connection.commit(batch);
  fill(connection.maxBatchBytes + 1);
  assert.throws(
    () => {
      connection.commit(batch);
    },
    { code: 'EMSGSIZE', hint: /split the batch/ },
  );
});

test('a callback that throws does not spoil the connection', { skip }, () => {
  const connection = connect();
  const batch = new Batch('ip', 'throws');
  batch.addTable();
  batch.addSet({ name: 's', key: [types.ipv4Addr] });
  const key = Buffer.alloc(4);
  for (let i = 0; i < 5000; i++) {
    key.writeUInt32BE(i);
    batch.addElement('s', key);
  }
  connection.commit(batch);
  assert.throws(() => {
    connection.listElements('ip', 'throws', 's', () => {
      throw new Error('enough');
    });
  }, /enough/);
  let count = 0;
  connection.listElements('ip', 'throws', 's', () => count++);
  assert.ok(count > 0);
});

test('elements by their keys: what is there comes in order, what is not is passed over', { skip }, () => {
  const connection = connect();
  const batch = new Batch('ip', 'by-key');
  batch.addTable();
  batch.addSet({ name: 'm', key: [types.ipv4Addr], value: [types.mark] });
  batch.addSet({ name: 'empty', key: [types.ipv4Addr] });
  const bytes = (number: number): Buffer => {
    const buffer = Buffer.alloc(4);
    buffer.writeUInt32BE(number);
    return buffer;
  };
  for (let i = 0; i < 1000; i++) batch.addElement('m', bytes(i), bytes(i * 3), { comment: `number ${i}` });
  connection.commit(batch);
  const read = (set: string, numbers: readonly number[]): string[] => {
    const seen: string[] = [];
    connection.getElements('ip', 'by-key', set, numbers.map(bytes), (key, value, { comment }) => {
      assert.ok(Buffer.isBuffer(value));
      seen.push(`${key.readUInt32BE()} ${value.readUInt32BE()} ${comment}`);
    });
    return seen;
  };
  const expected = (numbers: readonly number[]): string[] => numbers.map((i) => `${i} ${i * 3} number ${i}`);
  const all = Array.from({ length: 1000 }, (_, i) => 999 - i);
  assert.deepEqual(read('m', all), expected(all));
  assert.deepEqual(read('m', [5000, 7, 7, 5001, 5002, 3, 1000]), expected([7, 7, 3]));
  assert.deepEqual(read('m', []), []);
  assert.deepEqual(read('empty', [1, 2]), []);
  assert.deepEqual(read('no-such-set', [1]), []);
  assert.throws(() => {
    connection.getElements('ip', 'by-key', 'm', all.map(bytes), () => {
      throw new Error('enough');
    });
  }, /enough/);
  assert.deepEqual(read('m', [4]), expected([4]));
});
