import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../log/logger.js';
import { ConntrackPressure, type TableState } from './pressure.js';

const calm: TableState = { entries: 100, max: 1000, drop: 5, earlyDrop: 6 };

function begin() {
  const lines: string[] = [];
  const state: { stats: TableState | undefined; now: number } = { stats: calm, now: 0 };
  const pressure = new ConntrackPressure({
    read: () => state.stats,
    log: createLogger({ format: 'json', verbosity: 0, now: () => 0, write: (line) => lines.push(line) }),
    repeatMs: 1000,
    now: () => state.now,
  });
  /** @returns what was logged about it */
  const at = (now: number, stats: Partial<TableState> | undefined): unknown[] => {
    lines.length = 0;
    state.now = now;
    state.stats = stats === undefined ? undefined : { ...calm, ...stats };
    pressure.check();
    return lines.map((line) => {
      const { severity, percent, entries, dropped } = JSON.parse(line) as Record<string, unknown>;
      return { severity, percent, entries, dropped };
    });
  };
  return { at, lines };
}

const info = { severity: undefined, percent: undefined, dropped: undefined };
const warning = { severity: 'warning', percent: undefined, dropped: undefined };

test('a full table: told at once, repeated seldom, and told when it is over', () => {
  const { at, lines } = begin();
  assert.deepEqual(at(0, {}), []);
  assert.deepEqual(at(1, { entries: 900 }), [], 'not more than 90 %');
  assert.deepEqual(at(2, { entries: 955 }), [{ ...warning, percent: 95, entries: 955 }]);
  assert.match(lines.join(''), /nearly full.*raise conntrack\.min or conntrack\.maxPerCore/);
  assert.deepEqual(at(3, { entries: 999 }), []);
  assert.deepEqual(at(500, { entries: 850 }), [], 'neither full nor over');
  assert.deepEqual(at(1002, { entries: 999 }), [{ ...warning, percent: 99, entries: 999 }]);
  assert.deepEqual(at(1003, { entries: 700 }), [{ ...info, entries: 700 }]);
  assert.deepEqual(at(1004, { entries: 700 }), []);
  assert.deepEqual(at(1005, { entries: 1000 }), [{ ...warning, percent: 100, entries: 1000 }]);
});

test('drops: those since the last warning, not those from before the start', () => {
  const { at } = begin();
  assert.deepEqual(at(0, {}), []);
  assert.deepEqual(at(1, { drop: 8, earlyDrop: 10 }), [{ ...warning, dropped: 7, entries: 100 }]);
  assert.deepEqual(at(2, { drop: 9, earlyDrop: 10 }), []);
  assert.deepEqual(at(1500, { drop: 9, earlyDrop: 12 }), [{ ...warning, dropped: 3, entries: 100 }]);
  assert.deepEqual(at(3000, { drop: 9, earlyDrop: 12 }), []);
  assert.deepEqual(at(4500, { drop: 1, earlyDrop: 12 }), [], 'counters that began anew');
  assert.deepEqual(at(4501, { drop: 2, earlyDrop: 12 }), [{ ...warning, dropped: 1, entries: 100 }]);
});

test('no limit, and nothing to be read', () => {
  const { at } = begin();
  assert.deepEqual(at(0, { max: 0, entries: 1_000_000 }), []);
  assert.deepEqual(at(0, { max: undefined, entries: 1_000_000 }), []);
  assert.deepEqual(at(1, undefined), []);
  assert.deepEqual(at(2, { drop: 6 }), [{ ...warning, dropped: 1, entries: 100 }], 'since the last look');
});
