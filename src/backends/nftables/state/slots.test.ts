import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Endpoint } from '../../../model/types.js';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { assignFew, assignSlots } from './slots.js';

const endpoints = (names: string): Endpoint[] =>
  Array.from(names).map((name) => ({
    ip: `10.61.1.${name.charCodeAt(0)}`,
    port: 9000,
    local: false,
    nodeUnknown: false,
  }));
const text = (slots: readonly Endpoint[]): string =>
  slots.map((slot) => String.fromCharCode(Number(slot.ip.split('.')[3]))).join('');

const cases: [current: string, wanted: string, expected: string, why: string][] = [
  ['', 'abc', 'abc', 'a new list is taken as it is'],
  ['abc', 'abc', 'abc', 'nothing changed'],
  ['cab', 'abc', 'cab', 'the order of the wanted list does not matter'],
  ['abc', 'abcd', 'abcd', 'an added endpoint takes the next slot'],
  ['abcd', 'acd', 'adc', 'the last slot moves into the hole'],
  ['abcd', 'abc', 'abc', 'removing the last moves nothing'],
  ['abc', 'xbc', 'xbc', 'a replacement takes the hole'],
  ['abcdef', 'bdf', 'dbf', 'survivors below the new length stay where they are'],
  ['abc', '', '', 'an empty list has no slots'],
  ['abc', 'xyz', 'xyz', 'all replaced'],
  ['abc', 'abcdef', 'abcdef', 'a list that grows at its end is taken as it is'],
  ['acb', 'abcxyz', 'acbxyz', 'and one that does not'],
];

for (const [current, wanted, expected, why] of cases) {
  test(`slots ${current || '-'} + wanted ${wanted || '-'} → ${expected || '-'}: ${why}`, () => {
    assert.equal(text(assignSlots(endpoints(current), endpoints(wanted))), expected);
  });
}

for (const [current, wanted, expected, why] of cases) {
  test(`slots ${current || '-'} + wanted ${wanted || '-'}, survivors are the same objects: ${why}`, () => {
    const known = new Map(Array.from(current + wanted, (name) => [name, endpoints(name)[0]]));
    const list = (names: string): Endpoint[] => Array.from(names).flatMap((name) => known.get(name) ?? []);
    assert.equal(text(assignSlots(list(current), list(wanted))), expected);
    // Every second one was made anew.
    const mixed = list(wanted).map((endpoint, i) => (i % 2 === 0 ? endpoint : { ...endpoint }));
    assert.equal(text(assignSlots(list(current), mixed)), expected);
  });
}

test('unchanged lists keep their identity, so that callers can stop early', () => {
  const current = endpoints('cab');
  assert.equal(assignSlots(current, endpoints('abc')), current);
});

test('an endpoint that comes to this node, or whose node becomes known, keeps its slot and is remembered as it is now', () => {
  const current = endpoints('cab');
  const [a, b, c] = endpoints('abc');
  assert.ok(a !== undefined && b !== undefined && c !== undefined);
  for (const moved of [
    { ...a, local: true },
    { ...a, nodeUnknown: true },
  ]) {
    const assigned = assignSlots(current, [moved, b, c]);
    assert.equal(text(assigned), 'cab');
    assert.equal(assigned[1], moved);
    assert.deepEqual(assignFew([c, a, b], [a, b, c], [moved, b, c]), [c, moved, b]);
  }
});

test('a small change of a list: the same as without knowing the list before', () => {
  const pool = endpoints('abcdefghijklmnopqrstuvwxyz');
  const random = new Random(3);
  const some = (): Endpoint[] => pool.filter(() => random.below(3) > 0);
  for (let round = 0; round < 300; round++) {
    const before = some();
    const current = assignSlots(some(), before);
    const wanted = some();
    const few = assignFew(current, before, wanted);
    assert.ok(few !== undefined, `round ${round}`);
    const slow = assignSlots(current, wanted);
    assert.deepEqual(
      [...few].sort((a, b) => pool.indexOf(a) - pool.indexOf(b)),
      wanted,
      `round ${round}: each endpoint once`,
    );
    for (const [slot, endpoint] of slow.entries()) {
      // Who has a slot keeps it; who is new in one may be new in another.
      if (current[slot] === endpoint) assert.equal(few[slot], endpoint, `round ${round}: slot ${slot}`);
    }
  }
});

test('a change is not small when other objects stand in the slots, or hundreds come and go', () => {
  const before = endpoints('abc');
  const wanted = before.slice(1);
  assert.equal(assignFew(endpoints('abc'), before, wanted), undefined);
  assert.deepEqual(assignFew(before, before, wanted), [before[2], before[1]]);
  const many = Array.from({ length: 600 }, (_, i): Endpoint => ({
    ip: `10.0.${i >> 8}.${i & 255}`,
    port: 80,
    local: false,
    nodeUnknown: false,
  }));
  assert.equal(assignFew(many, many, many.slice(0, 300)), undefined);
  assert.equal(assignFew(many, many, many.slice(1, -1))?.length, 598);
  assert.equal(assignFew(many, many, many.slice(1))?.length, 599);
});
