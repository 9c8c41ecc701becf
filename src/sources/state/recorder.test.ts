/** What waits while the disk refuses. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ServiceCIDR } from '../objects.js';
import { createLogger } from '../../log/logger.js';
import { Recorder } from './recorder.js';

test('objects that come and go while the disk refuses leave nothing behind', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'kpp-recorder-'));
  t.after(() => {
    rmSync(folder, { recursive: true });
  });
  const place = join(folder, 'place');
  // Where a folder should be.
  writeFileSync(place, '');
  const recorder = new Recorder({
    path: join(place, 'state'),
    header: { node: 'alder', server: 'https://192.0.2.1', program: '1' },
    log: createLogger({ format: 'text', verbosity: 0, write: () => undefined }),
    intervalMs: 1,
    retryMs: 1,
    currentAt: () => 1,
  });
  recorder.completed();
  const object: ServiceCIDR = { name: 'stays', cidrs: ['10.96.0.0/16'] };
  recorder.put('ServiceCIDR', 'stays', object);
  for (let round = 0; round < 20; round++) {
    for (let n = 0; n < 1000; n++) {
      const key = `${round}-${n}`;
      recorder.put('ServiceCIDR', key, object);
      // Some of them while it tries to write.
      if (n % 100 === 0) await sleep(1);
      recorder.put('ServiceCIDR', key, undefined);
    }
  }
  await sleep(50);
  assert.ok(recorder.waiting <= 1, `${recorder.waiting} wait`);
  rmSync(place);
  await recorder.close();
  assert.equal(recorder.waiting, 0);
});
