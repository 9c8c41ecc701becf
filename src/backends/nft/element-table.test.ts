import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ElementTable } from './element-table.js';

function bytes(number: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(number);
  return buffer;
}

describe('elements read from the kernel', () => {
  test('an empty table finds nothing', () => {
    const table = new ElementTable();
    assert.equal(table.find(bytes(1)), -1);
    assert.deepEqual([...table.rest()], []);
  });

  test('holds what a Map holds, through growth and repeated keys', () => {
    const table = new ElementTable();
    const expected = new Map<number, number>();
    let random = 1;
    for (let i = 0; i < 20_000; i++) {
      random = Math.imul(random, 1103515245) + 12345;
      const key = (random >>> 8) % 8_000;
      table.set(bytes(key), bytes(i));
      expected.set(key, i);
    }
    assert.equal(table.size, expected.size);
    for (const [key, value] of expected) {
      const record = table.find(bytes(key));
      assert.deepEqual(table.key(record), bytes(key));
      assert.deepEqual(table.value(record), bytes(value));
      assert.ok(table.hasValue(record, bytes(value)));
      assert.ok(!table.hasValue(record, bytes(value + 1)));
    }
    assert.equal(table.find(bytes(8_000)), -1);
  });

  test('what is taken is found no more, until it is given back', () => {
    const table = new ElementTable();
    for (const key of [1, 2, 3]) table.set(bytes(key), Buffer.alloc(0));
    const record = table.find(bytes(2));
    table.take(record);
    assert.equal(table.find(bytes(2)), -1);
    const rest = [...table.rest()].map((left) => table.key(left).readUInt32BE());
    assert.deepEqual(rest, [1, 3]);
    table.giveBack(record);
    assert.equal(table.find(bytes(2)), record);
  });

  test('a key of another length is not in it, and may not be added', () => {
    const table = new ElementTable();
    table.set(bytes(1), Buffer.alloc(0));
    assert.equal(table.find(Buffer.from([0, 0, 0, 1, 0])), -1);
    assert.throws(() => {
      table.set(Buffer.alloc(5), Buffer.alloc(0));
    }, RangeError);
  });
});
