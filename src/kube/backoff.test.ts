import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from './backoff.js';

test('doubles up to the limit, honours the server, and starts anew after a quiet time', () => {
  let now = 0;
  const backoff = new Backoff(
    { firstMs: 100, maxMs: 500, resetMs: 10_000 },
    () => 0,
    () => now,
  );
  assert.deepEqual(
    [1, 2, 3, 4, 5].map(() => backoff.next()),
    [100, 200, 400, 500, 500],
  );
  assert.equal(backoff.next(3000), 3000);
  now = 10_001;
  assert.equal(backoff.next(), 100);
});

test('jitter spreads waits over one to two times the step', () => {
  const waits = [0, 0.5, 0.999].map((random) =>
    new Backoff({ firstMs: 1000, maxMs: 30_000, resetMs: 1 }, () => random).next(),
  );
  assert.deepEqual(waits, [1000, 1500, 1999]);
});
