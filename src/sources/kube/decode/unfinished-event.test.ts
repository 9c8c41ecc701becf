import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { UnfinishedEvent } from './unfinished-event.js';

test('an event that pauses is given up, one that goes on is not', async () => {
  let givenUp = 0;
  let end: (() => void) | undefined;
  const over = new Promise<void>((resolve) => (end = resolve));
  const event = new UnfinishedEvent(40, 10_000, () => {
    givenUp++;
    end?.();
  });
  for (let i = 0; i < 5; i++) {
    event.bytes(true, false);
    await sleep(10);
  }
  assert.equal(givenUp, 0);
  event.bytes(false, true);
  await sleep(60);
  assert.equal(givenUp, 0, 'it is complete');
  event.bytes(true, true);
  await Promise.race([over, sleep(2000)]);
  assert.equal(givenUp, 1);
});

test('an event that goes on and on is given up as well', async () => {
  let givenUp = 0;
  const event = new UnfinishedEvent(10_000, 60, () => givenUp++);
  for (let i = 0; i < 6 && givenUp === 0; i++) {
    event.bytes(true, false);
    await sleep(20);
  }
  assert.equal(givenUp, 1);
  event.end();
});
