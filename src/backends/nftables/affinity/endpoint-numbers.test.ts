import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Endpoint } from '../../../model/types.js';
import { Batch } from '@kube-proxy-ts/netlink/nftables';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { EndpointNumbers, noMinors, type NumberedSlots } from './endpoint-numbers.js';
import { endpointKey, slotDifference } from '../state/slots.js';
import { Transaction } from '../transaction/transaction.js';

const transaction = (): Transaction => new Transaction(new Batch('ip', 'numbers'));

/** By letter. */
const endpoints = (names: string): Endpoint[] =>
  names.split('').map((name) => ({
    ip: `10.61.1.${name.charCodeAt(0)}`,
    port: 9000,
    local: false,
    nodeUnknown: false,
  }));

/** 'a1 b2', as the kernel told. */
const learned = (text: string): EndpointNumbers => {
  const numbers = new EndpointNumbers();
  for (const word of text.split(' ').filter((each) => each !== ''))
    numbers.learn(endpoints(word.charAt(0)).map(endpointKey).join(), Number(word.slice(1)));
  return numbers;
};

const print = (numbers: EndpointNumbers): string =>
  'abcdefghxy'
    .split('')
    .flatMap((name) => endpoints(name).map((endpoint) => `${name}${numbers.of(endpoint)}`))
    .filter((text) => !/^.0$/.test(text))
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
describe('endpoints that come and go', () => {
  for (const [before, wanted, expected, why] of cases) {
    test(`${before || '-'} + ${wanted || '-'} → ${expected || '-'}: ${why}`, () => {
      const numbers = learned(before);
      numbers.change(transaction(), undefined, [endpoints(wanted)]);
      assert.equal(print(numbers), expected);
    });
  }

  test('more endpoints than numbers: those that fit, and the others as soon as some are free', () => {
    const many = Array.from({ length: 65_540 }, (_, i) => ({
      ip: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`,
      port: 1,
      local: false,
      nodeUnknown: false,
    }));
    const numbers = new EndpointNumbers();
    numbers.change(transaction(), undefined, [many]);
    const none: NumberedSlots = { slots: [], minors: noMinors };
    const before = { slots: many, minors: numbers.bySlot(many, none) };
    assert.equal(new Set(before.minors).size, 65_536, 'each once, and none');
    assert.equal(before.minors.filter((minor) => minor === 0).length, 5);
    const fewer = many.slice(3);
    assert.deepEqual(numbers.change(transaction(), { gone: many.slice(0, 3), come: [] }, [fewer]), [1, 2, 3]);
    assert.equal(numbers.bySlot(fewer, before).filter((minor) => minor === 0).length, 2);
  });

  test('without endpoints the place is kept: what comes next does not begin at 1', () => {
    const numbers = learned('a1 b2');
    assert.deepEqual(numbers.change(transaction(), undefined, []), [1, 2]);
    numbers.change(transaction(), undefined, [endpoints('xy')]);
    assert.equal(print(numbers), 'x3 y4');
  });

  test('retired numbers are passed over, until nothing else is left: then the first one retired', () => {
    const come = (names: string, retired: ReadonlyMap<number, unknown>): string => {
      const numbers = learned('a65534');
      numbers.change(transaction(), undefined, [endpoints(names)], retired);
      return print(numbers);
    };
    assert.equal(come('abc', new Map([65535, 1, 2, 4].map((number) => [number, 0]))), 'a65534 b3 c5');
    const all = new Map(Array.from({ length: 65_535 }, (_, i) => [65_535 - i, 0]));
    assert.equal(come('ab', all), 'a65534 b65535');
    // One more goes: of all free numbers its own is the last to be given away.
    assert.equal(come('b', all), 'b65535');
  });
});

test('random changes of two lists, some taken back: each endpoint has one number, and only those that are there', () => {
  const random = new Random(3);
  const numbers = new EndpointNumbers();
  const empty: NumberedSlots = { slots: [], minors: noMinors };
  let lists: readonly [NumberedSlots, NumberedSlots] = [empty, empty];
  // Other objects may come for the same endpoint.
  const all = [...endpoints('abcdefghxy'), ...endpoints('abcdefghxy')];
  const state = (): string => `${print(numbers)} ${lists.map(({ minors }) => minors.join()).join(' ')}`;
  const some = (): Endpoint[] => {
    const byKey = new Map(all.filter(() => random.below(2) === 0).map((one) => [endpointKey(one), one]));
    return [...byKey.values()];
  };
  for (let step = 0; step < 2000; step++) {
    const tx = transaction();
    const before = state();
    const next = lists.map((list) => (random.below(3) === 0 ? list.slots : some()));
    const parts = lists.map((list, i) => slotDifference(list.slots, next[i] ?? []));
    const held = new Map(all.map((one) => [endpointKey(one), numbers.of(one)]));
    const freed = numbers.change(
      tx,
      { gone: parts.flatMap(({ gone }) => gone), come: parts.flatMap(({ come }) => come) },
      next,
    );
    const now = lists.map((list, i) => ({
      slots: next[i] ?? [],
      minors: numbers.bySlot(next[i] ?? [], list),
    }));
    const there = new Set(next.flat().map(endpointKey));
    const seen = new Map<number, string>();
    for (const { slots, minors } of now) {
      for (const [slot, endpoint] of slots.entries()) {
        const key = endpointKey(endpoint);
        const minor = minors[slot] ?? 0;
        assert.ok(minor > 0 && numbers.isUsed(minor) && !freed.includes(minor));
        assert.equal(seen.get(minor) ?? key, key, 'one number, one endpoint');
        seen.set(minor, key);
        const known = held.get(key) ?? 0;
        if (known > 0) assert.equal(minor, known, 'it keeps its number');
      }
    }
    for (const one of all) assert.equal(numbers.of(one) > 0, there.has(endpointKey(one)));
    if (random.below(4) === 0) {
      tx.rollBack();
      assert.equal(state(), before);
      for (const minor of freed) assert.ok(numbers.isUsed(minor));
    } else {
      lists = [now[0] ?? empty, now[1] ?? empty];
    }
  }
});

test('when most are gone, those that are left keep their numbers, and it can be taken back', () => {
  const many = Array.from({ length: 5000 }, (_, i) => ({
    ip: `10.0.${i >> 8}.${i & 255}`,
    port: 1,
    local: false,
    nodeUnknown: false,
  }));
  const numbers = new EndpointNumbers();
  numbers.change(transaction(), undefined, [many]);
  const left = many.slice(10, 20);
  const come = endpoints('ab');
  const change = (tx: Transaction): number[] =>
    numbers.change(tx, { gone: many.filter((one) => !left.includes(one)), come }, [[...left, ...come], left]);
  const tx = transaction();
  const freed = change(tx);
  tx.rollBack();
  assert.deepEqual(
    [...many, ...come].map((one) => numbers.of(one)),
    [...many.map((_, i) => i + 1), 0, 0],
  );
  assert.ok(freed.every((minor) => numbers.isUsed(minor)) && !numbers.isUsed(5001));
  assert.deepEqual(change(transaction()), freed);
  assert.equal(freed.length, 4990);
  assert.deepEqual(
    [...left, ...come].map((one) => numbers.of(one)),
    [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 5001, 5002],
  );
  assert.equal(numbers.isUsed(1), false);
  numbers.change(transaction(), { gone: left, come: [] }, [[...left, ...come], []]);
  assert.equal(numbers.isUsed(11), true, 'it is in the other list');
});
