import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pace } from './pacing.js';

test('steady changes have one and a half periods between them, until there is a pause', () => {
  const pace = new Pace(10);
  assert.equal(pace.earliest, -Infinity, 'the first at once');
  let now = 100;
  const pauses: number[] = [];
  for (let sync = 0; sync < 12; sync++) {
    pace.began(now);
    now += 1;
    pace.ended(now);
    pauses.push(pace.earliest - now);
    now = pace.earliest;
  }
  assert.deepEqual(pauses, [10, 10, 10, 10, 10, 10, 10, 10, 15, 15, 15, 15]);
  now += 25;
  pace.began(now);
  pace.ended(now);
  assert.equal(pace.earliest - now, 10);
});

test('a sync after which others need more than a period is followed by none for so long', () => {
  const pace = new Pace(10);
  pace.began(0);
  pace.ended(40, 120);
  assert.equal(pace.earliest, 160);
  pace.began(160);
  pace.ended(170, 5);
  assert.equal(pace.earliest, 180);
});
