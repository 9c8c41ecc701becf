import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { profilingRoutes } from './profiling.js';
import type { Answer } from './routes.js';

async function heapSnapshot(peer: string | undefined): Promise<Answer> {
  const path = '/debug/pprof/heapsnapshot';
  const route = profilingRoutes().find((candidate) => candidate.path === path);
  assert.ok(route !== undefined);
  return await route.answer({
    method: 'GET',
    path,
    query: new URLSearchParams(),
    headers: {},
    peer,
    read: () => Promise.resolve(''),
    signal: new AbortController().signal,
  });
}

test('a heap snapshot has credentials in it: only clients on this machine get one', async () => {
  for (const peer of ['10.61.1.31', '::ffff:10.61.1.31', 'fd00::127.0.0.1', undefined])
    assert.equal((await heapSnapshot(peer)).status, 403, String(peer));
});

test('one heap snapshot at a time', async () => {
  for (const peer of ['127.0.0.1', '::1', '::ffff:127.0.0.1']) {
    const first = await heapSnapshot(peer);
    assert.equal(first.status, 200);
    assert.equal((await heapSnapshot(peer)).status, 500);
    assert.ok(first.body instanceof Readable);
    assert.match(await text(first.body), /^\{"snapshot"/);
    await new Promise(setImmediate);
  }
});
