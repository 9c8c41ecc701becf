import assert from 'node:assert/strict';
import { test } from 'node:test';
import { printable } from './printable.js';

const rows: readonly (readonly [text: string, shown: string])[] = [
  ['pear', 'pear'],
  ['birne-größe 梨', 'birne-größe 梨'],
  ['a\u0000b\nc\u001b[31m', 'a\\u0000b\\u000ac\\u001b[31m'],
  ['abc\u202etxt.exe', 'abc\\u202etxt.exe'],
  ['half \ud83c pair', 'half \\ud83c pair'],
  ['whole 🍐', 'whole 🍐'],
  ['x'.repeat(10_240), `${'x'.repeat(20)}… (10240 characters)`],
];
for (const [text, shown] of rows) {
  test(`printable: ${JSON.stringify(text.slice(0, 30))}`, () => {
    assert.equal(printable(text, 20), shown);
  });
}
