import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Endpoint } from '../../model/types.js';
import { assignSlots } from './slots.js';

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
  }
});
