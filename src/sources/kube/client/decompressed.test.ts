import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { decompressed } from './decompressed.js';

const text = 'what the server says, '.repeat(20);
const body = gzipSync(text);

/** @returns what was read, or that it failed, or that nothing happened */
async function read(stream: Readable): Promise<string> {
  const all = async (): Promise<string> => {
    const parts: Buffer[] = [];
    for await (const part of stream as AsyncIterable<Buffer>) parts.push(part);
    return Buffer.concat(parts).toString();
  };
  const outcome = all().catch(() => 'failed');
  return await Promise.race([outcome, sleep(2000, 'nothing happened', { ref: false })]);
}

test('a body that is complete', async () => {
  assert.equal(await read(decompressed(Readable.from([body.subarray(0, 9), body.subarray(9)]))), text);
});

for (const [what, bytes] of [
  ['nothing', 0],
  ['a part', 9],
  ['all', body.length],
] as const) {
  for (const when of ['before', 'while']) {
    test(`a source that is destroyed ${when} it is read, when ${what} and its end had come`, async () => {
      const source = new Readable({ read: () => undefined });
      const fill = (): void => {
        if (bytes > 0) source.push(body.subarray(0, bytes));
        source.push(null);
        source.destroy();
      };
      if (when === 'before') {
        fill();
        await new Promise((resolve) => source.once('close', resolve));
      }
      const result = read(decompressed(source));
      if (when === 'while') fill();
      assert.equal(await result, 'failed');
    });
  }
}

test('a source that fails', async () => {
  const source = new Readable({ read: () => undefined });
  const result = read(decompressed(source));
  source.destroy(new Error('cut'));
  assert.equal(await result, 'failed');
});

test('what is no gzip', async () => {
  assert.equal(await read(decompressed(Readable.from([Buffer.from('<html>')]))), 'failed');
});
