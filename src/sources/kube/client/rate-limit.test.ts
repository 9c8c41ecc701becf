import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeError } from '../errors.js';
import { RateLimiter } from './rate-limit.js';

const never = new AbortController().signal;

test('a burst at once, then one by one', async () => {
  let now = 0;
  const limiter = new RateLimiter({ qps: 100, burst: 3 }, () => now);
  const waits: number[] = [];
  const take = async (): Promise<void> => {
    waits.push(Math.round((await limiter.take(never)) ?? -1));
  };
  await Promise.all([take(), take(), take(), take(), take()]);
  assert.deepEqual(waits, [0, 0, 0, 10, 20], 'milliseconds waited');
  // The two that waited are paid for 20 ms later; the bucket never holds more than the burst.
  now = 20;
  await take();
  now = 10_000;
  await Promise.all([take(), take(), take(), take()]);
  assert.deepEqual(waits.slice(5), [10, 0, 0, 0, 10]);
});

for (const qps of [-1, 0]) {
  test(`qps ${qps} is no limit`, async () => {
    const limiter = new RateLimiter({ qps, burst: 0 });
    for (let i = 0; i < 100; i++) assert.equal(await limiter.take(never), undefined);
  });
}

test('who gives up leaves its token to others', async () => {
  const limiter = new RateLimiter({ qps: 1, burst: 1 }, () => 0);
  await limiter.take(never);
  const abort = new AbortController();
  const given = limiter.take(abort.signal);
  abort.abort();
  await assert.rejects(given, KubeError);
  await assert.rejects(limiter.take(abort.signal), KubeError);
  // Were the tokens lost, this would be the third second.
  const soon = new AbortController();
  const waiting = limiter.take(soon.signal);
  setTimeout(() => {
    soon.abort();
  }, 1200);
  assert.equal(await waiting, 1000);
});

test('a limit that lets nothing through is refused', () => {
  assert.throws(() => new RateLimiter({ qps: 5, burst: 0 }), /at least 1/);
});
