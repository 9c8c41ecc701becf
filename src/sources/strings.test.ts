import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inOnePiece, joinKey, StringTable } from './strings.js';

const texts = ['', 'a', 'node-1', 'ünïcode ☸', 'x'.repeat(63), 'x'.repeat(64), 'y'.repeat(5000)];

test('strings come out as they went in, however small the table', () => {
  for (const size of [1, 2, 1024]) {
    const table = new StringTable(size);
    for (let round = 0; round < 2; round++) {
      for (const text of texts) {
        const bytes = Buffer.from(`<${text}>`);
        assert.equal(table.fromBytes(bytes, 1, bytes.length - 1), text);
        assert.equal(table.fromString(text), text);
      }
      for (let i = 0; i < 5000; i++) {
        const bytes = Buffer.from(`name-${i}`);
        assert.equal(table.fromBytes(bytes, 0, bytes.length), `name-${i}`);
      }
    }
  }
});

test('keys', () => {
  assert.equal(joinKey('a', 'b'), 'a/b');
  assert.equal(joinKey('ü'.repeat(30), 'ö'.repeat(200)), `${'ü'.repeat(30)}/${'ö'.repeat(200)}`);
  assert.equal(joinKey('n', 'x'.repeat(4000)), `n/${'x'.repeat(4000)}`);
});

test('a string in one piece is the same string', () => {
  for (const text of texts)
    for (const tail of texts) assert.equal(inOnePiece(`${text}/${tail}`), `${text}/${tail}`);
});
