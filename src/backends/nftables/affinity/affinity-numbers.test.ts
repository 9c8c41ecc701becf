import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AffinityChanges, AffinityServiceNumbers, forgetUntil } from './affinity-numbers.js';

const first = 0x8000;
const last = 0xffff;

describe('numbers of service ports', () => {
  test('are handed out in order, and a released one is reused as late as possible', () => {
    const numbers = new AffinityServiceNumbers();
    assert.deepEqual([numbers.take(), numbers.take(), numbers.take()], [first, first + 1, first + 2]);
    numbers.release(first + 1, 0);
    assert.equal(numbers.take(), first + 3);
    for (let number = first + 4; number <= last; number++) assert.equal(numbers.take(), number);
    assert.equal(numbers.take(), first + 1, 'the only one left');
    assert.throws(() => numbers.take(), /more than 32768 service ports with session affinity ClientIP/);
    numbers.release(first + 7, 0);
    assert.equal(numbers.take(), first + 7);
  });

  test('a retired one is passed over until it is forgotten, or nothing else is left', () => {
    const numbers = new AffinityServiceNumbers();
    const taken = Array.from({ length: last - first + 1 }, () => numbers.take());
    for (const [number, at] of [
      [first + 9, 10],
      [first + 5, 20],
      [first + 7, 30],
    ] as const)
      numbers.release(number, at);
    forgetUntil(numbers.retired, 20);
    assert.equal(taken.length, 32_768);
    assert.deepEqual([numbers.take(), numbers.take()], [first + 5, first + 9]);
    numbers.release(first + 1, 40);
    assert.deepEqual([numbers.take(), numbers.take()], [first + 7, first + 1], 'the one retired first');
    assert.throws(() => numbers.take(), RangeError);
  });

  test('found in the kernel: claimed once, if they are ours at all', () => {
    const numbers = new AffinityServiceNumbers();
    assert.equal(numbers.claim(first + 1), true);
    assert.equal(numbers.claim(first + 1), false);
    for (const foreign of [0, first - 1, last + 1]) assert.equal(numbers.claim(foreign), false);
    assert.deepEqual([numbers.take(), numbers.take()], [first, first + 2]);
  });

  test('reserved ones are left to those who have them, unless nothing else is left', () => {
    const numbers = new AffinityServiceNumbers();
    numbers.reserve([first, first + 1, first + 3]);
    assert.equal(numbers.take(), first + 2);
    assert.equal(numbers.claim(first + 1), true);
    assert.equal(numbers.take(), first + 4);
    numbers.reserve(Array.from({ length: last - first + 1 }, (_, i) => first + i));
    assert.equal(numbers.take(), first + 5, 'all are reserved');
    numbers.reserve([]);
    assert.equal(numbers.take(), first + 6);
  });
});

describe('what remembered clients have to be looked through for', () => {
  test('is settled up to a time, and taken back with a transaction', () => {
    const changes = new AffinityChanges();
    changes.retire(first, [1, 2], 10);
    const undo = changes.retire(first, [3], 30);
    changes.lower(first, 600_000, 20);
    const unlower = changes.lower(first, 5000, 40);
    assert.deepEqual(changes.lowered.get(first), { formerMs: 600_000, at: 40 });
    unlower();
    changes.settle(20);
    assert.deepEqual([...(changes.endpoints.get(first) ?? [])], [[3, 30]]);
    assert.equal(changes.lowered.size, 0);
    undo();
    changes.settle(25);
    assert.equal(changes.isEmpty, true);
  });
});
