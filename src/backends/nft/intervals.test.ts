import assert from 'node:assert/strict';
import { test } from 'node:test';
import { intervalElements } from './intervals.js';

const print = (cidrs: string[]): string =>
  intervalElements(
    cidrs.map((text) => ({ ip: text.split('/')[0] ?? '', prefixLength: Number(text.split('/')[1]) })),
  )
    .map(({ key, end }) => `${end ? ')' : '['}${[...Buffer.from(key, 'latin1')].join('.')}`)
    .join(' ');

const cases: [cidrs: string[], expected: string][] = [
  [[], ''],
  [['10.177.0.0/20'], '[10.177.0.0 )10.177.16.0'],
  [['10.178.0.0/24', '10.177.0.0/20'], '[10.177.0.0 )10.177.16.0 [10.178.0.0 )10.178.1.0'],
  [['10.177.0.0/20', '10.177.1.0/24'], '[10.177.0.0 )10.177.16.0'],
  [['10.0.0.0/25', '10.0.0.128/25'], '[10.0.0.0 )10.0.1.0'],
  [['255.255.255.0/24'], '[255.255.255.0'],
  [['0.0.0.0/0'], '[0.0.0.0'],
];
for (const [cidrs, expected] of cases) {
  test(`intervals of ${cidrs.join(', ') || 'nothing'}`, () => {
    assert.equal(print(cidrs), expected);
  });
}
