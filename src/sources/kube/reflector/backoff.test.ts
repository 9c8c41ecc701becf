import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OutageBackoff } from './backoff.js';

test('waits grow with the outage up to the limit, and a success ends it', () => {
  let now = 0;
  const backoff = new OutageBackoff(
    { firstMs: 800, maxMs: 32_000 },
    () => 0,
    () => now,
  );
  const waits = [0, 1000, 5000, 10_000, 30_000, 60_000, 600_000].map((at) => {
    now = at;
    return backoff.next();
  });
  assert.deepEqual(waits, [800, 800, 1500, 2400, 2400, 26_400, 32_000]);
  backoff.succeeded();
  assert.equal(backoff.next(), 800);
});

test('jitter spreads waits over one to two times the step', () => {
  const waits = [0, 0.5, 0.999].map((random) =>
    new OutageBackoff({ firstMs: 1000, maxMs: 30_000 }, () => random).next(),
  );
  assert.deepEqual(waits, [1000, 1500, 1999]);
});
