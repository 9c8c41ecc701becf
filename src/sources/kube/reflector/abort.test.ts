import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { follow } from './abort.js';

test('aborts with the reason of the one that it follows', () => {
  const [leader, follower] = [new AbortController(), new AbortController()];
  follow(leader.signal, follower);
  assert.equal(follower.signal.aborted, false);
  leader.abort('enough');
  assert.equal(follower.signal.reason, 'enough');
});

test('aborts at once when it comes too late', () => {
  const follower = new AbortController();
  follow(AbortSignal.abort('before'), follower);
  assert.equal(follower.signal.reason, 'before');
});

test('what has ended is not aborted any more, and leaves no trace', () => {
  const leader = new AbortController();
  const followers = Array.from({ length: 100 }, () => new AbortController());
  for (const end of followers.map((follower) => follow(leader.signal, follower))) end();
  assert.deepEqual(getEventListeners(leader.signal, 'abort'), []);
  // What AbortSignal.any() would grow.
  const held = Object.getOwnPropertySymbols(leader.signal).map(
    (symbol) => (leader.signal as unknown as Readonly<Record<symbol, unknown>>)[symbol],
  );
  for (const value of held) assert.ok(!(value instanceof Set) || value.size === 0);
  leader.abort();
  assert.ok(followers.every(({ signal }) => !signal.aborted));
});
