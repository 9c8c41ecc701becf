import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readdirSync } from 'node:fs';
import { r0, r1 } from '../register.js';
import * as codecs from './codecs.js';
import { describeExpression, expr, normaliseExpressions } from './index.js';

test('each expression is one file, in the table once, with a builder of its own', () => {
  const table = Object.values(codecs);
  const files = readdirSync(import.meta.dirname).flatMap((name) => /^(\w+)\.js$/.exec(name)?.[1] ?? []);
  assert.deepEqual(
    Object.keys(codecs).sort(),
    files.filter((name) => !['codec', 'codecs', 'index'].includes(name)).sort(),
  );
  for (const [file, codec] of Object.entries(codecs)) assert.equal(codec.name, file);
  const kinds = table.flatMap((codec): readonly string[] => codec.kinds);
  const builders = table.flatMap((codec) => Object.keys(codec.builders));
  assert.equal(new Set(kinds).size, kinds.length);
  assert.equal(new Set(builders).size, builders.length);
  assert.deepEqual(Object.keys(expr).sort(), builders.sort());
});

test('a form that a codec does not hold is kept as it came', () => {
  const data = Buffer.from('0800060000000001', 'hex');
  const shift = { kind: 'unknown', name: 'bitwise', data } as const;
  assert.deepEqual(normaliseExpressions([shift]), [shift]);
  assert.equal(describeExpression(shift), '[ bitwise 0800060000000001 ]');
});

const descriptions: readonly [ReturnType<typeof normaliseExpressions>[number], string][] = [
  [expr.counter(3n, 180n), '[ counter pkts 3 bytes 180 ]'],
  [expr.masquerade(), '[ masq ]'],
  [
    expr.dynset('update', 'clients', r0, { data: r1, timeoutMs: 1500, inverted: true }),
    '[ dynset update reg_key 1 set clients sreg_data 9 timeout 1500ms flags 0x1 ]',
  ],
  [
    expr.jhash(r1, 8, 4, r0, { seed: 0xdead, offset: 2 }),
    '[ hash reg 1 = jhash(reg 9, 8, 0xdead) % mod 4 offset 2 ]',
  ],
  [expr.byteorder('hton', r0, r0, 4, 2), '[ byteorder reg 1 = hton(reg 1, 2, 4) ]'],
];

for (const [expression, text] of descriptions) {
  test(`described: ${text}`, () => {
    assert.equal(describeExpression(expression), text);
  });
}
