import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isFair, tallyOf } from './traffic.js';

test('outcomes are counted by pod and by error', () => {
  const tally = tallyOf([
    { startedAt: 1, pod: 'a' },
    { startedAt: 2, pod: 'b' },
    { startedAt: 3, pod: 'a' },
    { startedAt: 4, error: 'ECONNREFUSED' },
  ]);
  assert.deepEqual(tally, {
    answers: new Map([
      ['a', 2],
      ['b', 1],
    ]),
    answered: 3,
    failed: 1,
    errors: new Map([['ECONNREFUSED', 1]]),
  });
});

test('chance is told from an uneven draw', () => {
  const cases: [number[], boolean][] = [
    [[500, 500, 500], true],
    [[470, 520, 510], true],
    [[1500, 0, 0], false],
    [[750, 750, 0], false],
    [[650, 425, 425], false],
    [[1, 2, 0], true],
    [[1500], true],
  ];
  for (const [counts, fair] of cases) {
    const pods = counts.map((_, index) => `pod-${index}`);
    const answers = new Map(counts.map((times, index) => [`pod-${index}`, times]));
    const answered = counts.reduce((sum, times) => sum + times, 0);
    const tally = { answers, answered, failed: 0, errors: new Map<string, number>() };
    assert.equal(isFair(tally, pods), fair, counts.join());
  }
});
