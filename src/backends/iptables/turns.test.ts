/** What takes long is done in many turns of the event loop. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChainStore } from './rules/chain-store.js';
import { childrenFirst, restoreInput } from './tool/restore-input.js';
import { Saved } from './tool/saved.js';

const chainCount = 10_000;
const name = (at: number): string => `KUBE-SVC-${at}`;
const rulesOf = (at: number): string[] =>
  Array.from(
    { length: 10 },
    (_, rule) => `-p tcp -j DNAT --to-destination 10.61.${at >> 8}.${at & 255}:${rule}`,
  );

/** @returns how many others had their turn meanwhile */
async function turnsOf(work: () => Promise<unknown>): Promise<number> {
  let turns = 0;
  const count = (): void => {
    turns++;
    next = setImmediate(count);
  };
  let next = setImmediate(count);
  await work();
  clearImmediate(next);
  return turns;
}

test('reading, comparing and writing 100,000 rules', async () => {
  const store = new ChainStore();
  for (let at = 0; at < chainCount; at++) store.set(name(at), rulesOf(at));
  const { written } = store.difference();
  let text = '';
  const turns: Record<string, number> = {};
  turns['writing'] = await turnsOf(async () => {
    text = await restoreInput([{ table: 'nat', written, deleted: [] }]);
  });
  turns['ordering'] = await turnsOf(() => childrenFirst(written));
  let saved: Saved | undefined;
  turns['reading'] = await turnsOf(async () => {
    saved = await Saved.read(text);
  });
  turns['comparing'] = await turnsOf(async () => {
    if (saved !== undefined) await store.compare(saved.table('nat'), () => true);
  });
  assert.deepEqual(store.difference(), { written: [], deleted: [] });
  for (const [what, count] of Object.entries(turns)) assert.ok(count >= 2, `${what}: ${count}`);
});
