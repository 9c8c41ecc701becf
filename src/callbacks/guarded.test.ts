import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { guarded, reportCallbackFailures } from './guarded.js';

afterEach(() => {
  reportCallbackFailures(undefined);
});

test('what a callback throws, or its promise rejects with, is reported and goes no further', async () => {
  const reports: string[] = [];
  reportCallbackFailures((what, error) => reports.push(`${what}: ${String(error)}`));
  guarded('count', () => {
    throw new Error('one');
  })();
  guarded('count later', () => Promise.reject(new Error('two')))();
  await new Promise(setImmediate);
  assert.deepEqual(reports, ['count: Error: one', 'count later: Error: two']);
});

test('arguments are passed on', () => {
  const seen: unknown[] = [];
  const callback = guarded('see', (a: number, b: string) => seen.push(a, b));
  callback(1, 'b');
  assert.deepEqual(seen, [1, 'b']);
});

test('one that fails can say what happens then; that may fail, too', () => {
  const failures: unknown[] = [];
  const failing = (): never => {
    throw new Error('no');
  };
  guarded('fail', failing, (error) => failures.push(error))();
  assert.equal(failures.length, 1);
  guarded('fail', failing, failing)();
});
