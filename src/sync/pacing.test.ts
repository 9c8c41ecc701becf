import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pace } from './pacing.js';

/**
 * Changes at these times, each programmed as soon as the pace lets it, by syncs of 1 ms.
 * @returns when the syncs began
 */
function syncs(pace: Pace, changes: readonly number[]): number[] {
  const began: number[] = [];
  let next = 0;
  while (next < changes.length) {
    pace.requested(changes[next] ?? NaN);
    const begin = Math.max(changes[next] ?? NaN, pace.earliest);
    for (; next < changes.length && (changes[next] ?? NaN) <= begin; next++);
    pace.began();
    pace.ended(begin + 1);
    began.push(begin);
  }
  return began;
}

const every = (ms: number, count: number, from = 0): number[] =>
  Array.from({ length: count }, (_, i) => from + i * ms);

test('a change after a pause goes at once, and the next waits for a period', () => {
  const pace = new Pace(10);
  assert.equal(pace.earliest, -Infinity);
  assert.deepEqual(syncs(pace, [0, 2, 5, 100, 130]), [0, 11, 100, 130]);
});

test('steady changes are gathered for 1.2 periods, until there is a pause', () => {
  const pace = new Pace(10);
  const begins = syncs(pace, every(10, 40));
  // The first one at once, and seven after a period each; then two changes each.
  assert.deepEqual(begins.slice(0, 8), [0, 11, 22, 33, 44, 55, 66, 77]);
  assert.deepEqual(begins.slice(8, 12), [92, 112, 132, 152]);
  assert.deepEqual(syncs(pace, [1000, 1005]), [1000, 1011]);
});

test('no change waits for longer than 1.2 periods', () => {
  for (const ms of [0.5, 1, 3, 7, 10, 14, 15, 16, 19, 21, 33]) {
    const changes = every(ms, 400);
    const begins = syncs(new Pace(10), changes);
    for (const change of changes) {
      const waited = (begins.find((begin) => begin >= change) ?? NaN) - change;
      assert.ok(waited <= 12, `every ${ms} ms, change at ${change}: ${waited} ms`);
    }
  }
});

test('a sync after which others need more than a period is followed by none for so long', () => {
  const pace = new Pace(10);
  pace.began();
  pace.ended(40, 120);
  assert.equal(pace.earliest, 160);
  pace.began();
  pace.ended(170, 5);
  assert.equal(pace.earliest, 180);
});
