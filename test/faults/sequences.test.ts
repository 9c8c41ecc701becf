/**
 * A thousand random sequences of faults and changes, in a world without network and clock, so that each is the same at
 * every run. Source, HTTP client, state and model are the program's own, with the pauses and limits it has in life.
 * FAULT_SEED=N runs one of them, and shows what happened in it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { catalogue } from './catalogue.js';
import { runSequence, type Outcome } from './sequence.js';
import { inMemory } from './settings.js';

const only = process.env['FAULT_SEED'];
const count = 1000;

test(`${only === undefined ? `${count} sequences` : `sequence ${only}`} of faults and changes`, async () => {
  const seeds = only === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(only)];
  const used = new Set<string>();
  const outcomes: Outcome[] = [];
  for (const seed of seeds) {
    const outcome = await inMemory(new Random(~seed), (setting) => runSequence(seed, { setting }));
    for (const name of outcome.used) used.add(name);
    if (outcome.violations.length > 0 || only !== undefined) outcomes.push(outcome);
    if (outcomes.length === 5) break;
  }
  const report = outcomes.map(({ seed, story, violations }) =>
    [`--- FAULT_SEED=${seed}`, ...story, ...violations.slice(0, 5)].join('\n'),
  );
  if (only !== undefined) process.stdout.write(`${report.join('\n')}\n`);
  assert.ok(
    outcomes.every(({ violations }) => violations.length === 0),
    report.join('\n'),
  );
  if (only === undefined) {
    const unused = [...Object.keys(catalogue), 'a database set back'].filter((name) => !used.has(name));
    assert.deepEqual(unused, [], 'every fault has its turn');
  }
});
