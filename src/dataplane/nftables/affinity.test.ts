import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Endpoint } from '../../model/types.js';
import {
  AffinityChanges,
  AffinityServiceNumbers,
  forgetUntil,
  numberEndpoints,
  type AffinityNumbers,
} from './affinity.js';
import { endpointKey } from './slots.js';

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

describe('numbers of endpoints', () => {
  const endpoints = (names: string): Endpoint[] =>
    Array.from(names).map((name) => ({
      ip: `10.61.1.${name.charCodeAt(0)}`,
      port: 9000,
      local: false,
      nodeUnknown: false,
    }));
  const keyOf = (name: string): string => endpoints(name).map(endpointKey).join();
  const known = (text: string): Map<string, number> =>
    new Map(
      text
        .split(' ')
        .filter((word) => word !== '')
        .map((word) => [keyOf(word.charAt(0)), Number(word.slice(1))]),
    );
  const numbered = (found: ReadonlyMap<string, number>): AffinityNumbers => ({
    service: first,
    endpoints: found,
    last: [...found.values()].at(-1) ?? 0,
  });
  const print = (numbers: ReadonlyMap<string, number>): string =>
    [...numbers]
      .map(([key, number]) => `${String.fromCharCode(Number(/(\d+):/.exec(key)?.[1]))}${number}`)
      .sort()
      .join(' ');

  const cases: [known: string, wanted: string, expected: string, why: string][] = [
    ['', 'abc', 'a1 b2 c3', 'from 1'],
    ['a1 b2', 'ab', 'a1 b2', 'nothing changed'],
    ['a1 b2', 'abc', 'a1 b2 c3', 'a new one gets the next'],
    ['a1 b2 c3', 'ac', 'a1 c3', 'the others keep theirs'],
    ['a1 b2 c3', 'acd', 'a1 c3 d4', 'not the number that has just become free'],
    ['a1 b2 c3', 'abd', 'a1 b2 d4', 'nor when that was the last'],
    ['a1', 'bc', 'b2 c3', 'nor when all are gone'],
    ['a1 b2', 'bb', 'b2', 'a list that names one twice: both lists of a service port together'],
    ['a65535', 'ab', 'a65535 b1', 'after the last comes the first'],
    ['a65535 b1', 'abc', 'a65535 b1 c2', 'past those in use'],
    ['a1', '', '', 'none'],
  ];
  for (const [before, wanted, expected, why] of cases) {
    test(`${before || '-'} + ${wanted || '-'} → ${expected || '-'}: ${why}`, () => {
      assert.equal(print(numberEndpoints(numbered(known(before)), endpoints(wanted)).endpoints), expected);
    });
  }

  test('unchanged numbers keep their identity', () => {
    const numbers = numbered(known('a1 b2'));
    assert.equal(numberEndpoints(numbers, endpoints('ba')), numbers);
  });

  test('more endpoints than numbers: those that fit', () => {
    const many = Array.from({ length: 65_540 }, (_, i) => ({
      ip: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`,
      port: 1,
      local: false,
      nodeUnknown: false,
    }));
    const { endpoints: numbers } = numberEndpoints(numbered(new Map()), many);
    assert.equal(numbers.size, 65_535);
    assert.equal(new Set(numbers.values()).size, 65_535);
  });

  test('without endpoints the place is kept: what comes next does not begin at 1', () => {
    const freed: number[] = [];
    const none = numberEndpoints(numbered(known('a1 b2')), [], undefined, freed);
    assert.deepEqual(freed, [1, 2]);
    assert.equal(print(numberEndpoints(none, endpoints('xy')).endpoints), 'x3 y4');
  });

  test('retired numbers are passed over, until nothing else is left: then the first one retired', () => {
    const before = numbered(known('a65534'));
    const retired = new Map([65535, 1, 2, 4].map((number) => [number, 0]));
    assert.equal(print(numberEndpoints(before, endpoints('abc'), retired).endpoints), 'a65534 b3 c5');
    const all = new Map(Array.from({ length: 65_535 }, (_, i) => [65_535 - i, 0]));
    assert.equal(print(numberEndpoints(before, endpoints('ab'), all).endpoints), 'a65534 b65535');
    // One more goes: of all free numbers its own is the last to be given away.
    assert.equal(print(numberEndpoints(before, endpoints('b'), all).endpoints), 'b65535');
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
