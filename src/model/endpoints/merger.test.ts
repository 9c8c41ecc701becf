/** Patching is held against merging everything. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { endpoint, slice } from '../fixtures.js';
import { ListMerger } from './merger.js';
import { mergeLists } from './selection.js';
import { HintInterner, readSlice, type EndpointList, type Slice } from './slice.js';

const interner = new HintInterner();

function listOf(
  addresses: readonly string[],
  notReady: ReadonlySet<string>,
  before: Slice | undefined,
): Slice {
  const object = slice(
    addresses.map((address) => endpoint(address, { ready: !notReady.has(address), nodeName: 'birch' })),
  );
  const read = readSlice(object, { nodeName: 'alder', families: ['IPv4'] }, interner, before).slice;
  assert.ok(read !== undefined);
  return read;
}

const listIn = (one: Slice): EndpointList => {
  const [port] = one.ports;
  assert.ok(port !== undefined);
  return port.list;
};

for (const seed of [1, 2, 3, 4]) {
  test(`a merger says what merging everything says, seed ${seed}`, () => {
    let state = seed;
    const below = (limit: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (state >>> 8) % limit;
    };
    const merger = new ListMerger();
    const notReady = new Set<string>();
    const members = Array.from({ length: 6 }, (_, i) =>
      Array.from({ length: 20 }, (_, j) => `10.61.${i}.${j + 1}`),
    );
    let slices = members.map((addresses) => listOf(addresses, notReady, undefined));
    for (let step = 0; step < 400; step++) {
      for (let changes = 1 + below(3); changes > 0; changes--) {
        const addresses = members[below(6)];
        assert.ok(addresses !== undefined);
        // Now and then one that another slice has, too.
        const address = `10.61.${below(8)}.${1 + below(25)}`;
        const at = addresses.indexOf(address);
        const what = below(10);
        if (what < 4 && at >= 0) addresses.splice(at, 1);
        else if (what < 8 && at < 0) addresses.push(address);
        else if (notReady.has(address)) notReady.delete(address);
        else notReady.add(address);
      }
      slices = members.map((addresses, i) => listOf(addresses, notReady, slices[i]));
      const lists = slices.map(listIn);
      assert.deepEqual(merger.merge(lists), mergeLists(lists), `step ${step}`);
    }
  });
}

test('one endpoint of 50,000 costs a small part of merging all', () => {
  const none = new Set<string>();
  const members = Array.from({ length: 50 }, (_, i) =>
    Array.from({ length: 1000 }, (_, j) => `10.${64 + (j >> 4)}.${(j & 15) * 16}.${i + 1}`),
  );
  const slices = members.map((addresses) => listOf(addresses, none, undefined));
  const merger = new ListMerger();
  merger.merge(slices.map(listIn));
  const timed = (work: () => void): number => {
    const begin = process.cpuUsage().user;
    work();
    return process.cpuUsage().user - begin;
  };
  let whole = 0;
  let patched = 0;
  for (let i = 0; i < 20; i++) {
    slices[i] = listOf((members[i] ?? []).slice(1), none, slices[i]);
    const lists = slices.map(listIn);
    whole += timed(() => mergeLists(lists));
    patched += timed(() => merger.merge(lists));
  }
  assert.ok(patched * 4 < whole, `${patched} µs against ${whole} µs`);
});
