import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { withXtablesLock } from './lock.js';

const folder = mkdtempSync(path.join(tmpdir(), 'xtables-lock-'));
after(() => {
  rmSync(folder, { recursive: true });
});
const file = path.join(folder, 'lock');

test('one after the other, while the event loop turns', async () => {
  const order: string[] = [];
  let inner: Promise<void> | undefined;
  await withXtablesLock(
    () => {
      // Its first try comes before the lock is released, whatever is scheduled.
      inner = withXtablesLock(() => void order.push('second'), { file });
      order.push('first');
    },
    { file },
  );
  order.push('released');
  await inner;
  assert.deepEqual(order, ['first', 'released', 'second']);
});

test('released after a failure, too', async () => {
  const failing = withXtablesLock(
    () => {
      throw new Error('no');
    },
    { file },
  );
  await assert.rejects(failing, { message: 'no' });
  assert.equal(await withXtablesLock(() => 7, { file, waitMs: 0 }), 7);
});

test('given up when others do not let go', async () => {
  let waiting: Promise<void> | undefined;
  await withXtablesLock(
    () => {
      waiting = withXtablesLock(() => undefined, { file, waitMs: 0 });
      // So that it is known to be handled before it rejects.
      waiting.catch(() => undefined);
    },
    { file },
  );
  await assert.rejects(waiting ?? Promise.resolve(), { code: 'ERR_XTABLES_LOCKED' });
});

test('where no lock can be made, work goes on without', async () => {
  const nowhere = path.join(folder, 'none', 'lock');
  assert.equal(await withXtablesLock(() => 'done', { file: nowhere }), 'done');
  assert.equal(existsSync(nowhere), false);
});
