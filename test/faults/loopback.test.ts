/** Sequences of faults over real connections: TLS, HTTP/2 and HTTP/1.1, compressed lists, and the computer's own time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeCertificates } from '../apiserver/certificates.js';
import { runSequence, type Outcome } from './sequence.js';
import { onLoopback } from './settings.js';

const count = 40;
/** Most of a sequence is waiting. */
const atOnce = 8;

test(`${count} sequences of faults over loopback`, async () => {
  const setting = onLoopback(makeCertificates());
  const seeds = Array.from({ length: count }, (_, i) => 3001 + i);
  const bad: Outcome[] = [];
  const worker = async (): Promise<void> => {
    for (let seed = seeds.shift(); seed !== undefined && bad.length < 3; seed = seeds.shift()) {
      const outcome = await runSequence(seed, { setting });
      if (outcome.violations.length > 0) bad.push(outcome);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  const report = bad.map(({ seed, story, violations }) =>
    [`--- ${seed}`, ...story, ...violations].join('\n'),
  );
  assert.equal(bad.length, 0, report.join('\n'));
});
