import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDuration, parseDuration } from './duration.js';

const durations: [text: string, ms: number | undefined, printed?: string][] = [
  ['0', 0, '0s'],
  ['0s', 0],
  ['300ms', 300],
  ['5s', 5000],
  ['90s', 90_000, '1m30s'],
  ['2h22m', 8_520_000, '2h22m0s'],
  ['24h0m0s', 86_400_000],
  ['15m0s', 900_000],
  ['1.5s', 1500],
  ['1.s', 1000, '1s'],
  ['.5s', 500, '500ms'],
  ['1h0m0.5s', 3_600_500],
  ['1us', 0.001, '1µs'],
  ['1µs', 0.001],
  ['1.5µs', 0.0015],
  ['1ns', 0.000001],
  ['-5s', -5000],
  ['+5s', 5000, '5s'],
  ['-0s', 0, '0s'],
  ['2562047h', 2562047 * 3_600_000, '2562047h0m0s'],
  ['2562048h', undefined],
  ['30', undefined],
  ['', undefined],
  ['-', undefined],
  ['s', undefined],
  ['.s', undefined],
  ['5 s', undefined],
  ['5d', undefined],
  ['1s-1ms', undefined],
];
for (const [text, ms, printed = text] of durations) {
  test(`duration '${text}': ${ms ?? 'none'}`, () => {
    assert.equal(parseDuration(text), ms);
    if (ms !== undefined) assert.equal(formatDuration(ms), printed);
  });
}
