/** Tables put together by hand from linux/netfilter_ipv4/ip_tables.h; rules.kernel.test.ts has the kernel's own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { writeHostU16, writeHostU32 } from '../endian.js';
import { Random } from '../testing/random.js';
import {
  readChains,
  readEntries,
  readOutline,
  TableFormatError,
  withoutEntries,
  type KernelTable,
} from './table.js';

const header = { ip: 112, ip6: 168 } as const;
const match = { ip: 84, ip6: 136 } as const;
const ACCEPT = -2;
const RETURN = -5;

/** What a rule does; `to` is the number of the entry that it leads to. */
type Target =
  | { readonly verdict: number }
  | { readonly to: number }
  | { readonly name: string }
  | { readonly head: string };

interface Built {
  readonly table: KernelTable;
  readonly offsets: readonly number[];
}

/** @param extra bytes of matches per entry, so that entries differ in size */
function build(
  family: 'ip' | 'ip6',
  targets: readonly Target[],
  input: readonly [first: number, policy: number],
): Built {
  const sizes = targets.map((target, i) => header[family] + (i % 3) * 8 + ('head' in target ? 64 : 40));
  const offsets = sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + size, 0));
  const entries = Buffer.alloc(sizes.reduce((sum, size) => sum + size, 0));
  for (const [i, target] of targets.entries()) {
    const at = offsets[i] ?? 0;
    const contents = header[family] + (i % 3) * 8;
    entries.writeUInt32BE(0xaa000000 + i, at);
    writeHostU16(entries, at + match[family] + 4, contents);
    writeHostU16(entries, at + match[family] + 6, sizes[i] ?? 0);
    writeHostU16(entries, at + contents, (sizes[i] ?? 0) - contents);
    if ('name' in target) entries.write(target.name, at + contents + 2, 'latin1');
    else if ('head' in target) {
      entries.write('ERROR', at + contents + 2, 'latin1');
      entries.write(target.head, at + contents + 32, 'latin1');
    } else
      writeHostU32(
        entries,
        at + contents + 32,
        ('to' in target ? (offsets[target.to] ?? 0) : target.verdict) >>> 0,
      );
  }
  const hook = (entry: number): number[] => [0, offsets[entry] ?? 0, 0, 0, 0];
  return {
    table: {
      family,
      name: 'filter',
      validHooks: 1 << 1,
      hookEntry: hook(input[0]),
      underflow: hook(input[1]),
      entryCount: targets.length,
      entries,
    },
    offsets,
  };
}

/** INPUT: nothing, jump to ours, jump to theirs; two chains of two rules. */
const targets: readonly Target[] = [
  { to: 1 }, // 0: no target, so it goes on with the entry behind it
  { to: 6 }, // 1: to OURS
  { to: 10 }, // 2: to THEIRS
  { name: 'LOG' }, // 3
  { verdict: ACCEPT }, // 4: the policy
  { head: 'OURS' }, // 5
  { to: 10 }, // 6
  { verdict: RETURN }, // 7
  { verdict: RETURN }, // 8: the end
  { head: 'THEIRS' }, // 9
  { name: 'REJECT' }, // 10
  { verdict: RETURN }, // 11: the end
  { head: 'ERROR' }, // 12
];

for (const family of ['ip', 'ip6'] as const) {
  const { table, offsets } = build(family, targets, [0, 4]);

  test(`${family}: chains and where rules lead`, () => {
    const chains = readChains(table);
    assert.deepEqual(
      chains.map(({ name, builtIn, rules, entries }) => [
        name,
        builtIn,
        rules.map(({ index }) => index),
        entries.map(({ index }) => index),
      ]),
      [
        ['INPUT', true, [0, 1, 2, 3], [0, 1, 2, 3, 4]],
        ['OURS', false, [6, 7], [5, 6, 7, 8]],
        ['THEIRS', false, [10], [9, 10, 11]],
      ],
    );
    assert.deepEqual(
      readEntries(table).map(({ jump }) => (jump === undefined ? undefined : offsets.indexOf(jump))),
      [1, 6, 10, undefined, undefined, undefined, 10, ...Array.from({ length: 6 }, () => undefined)],
    );
  });

  test(`${family}: the outline of its chains`, () => {
    assert.deepEqual(Object.fromEntries(readOutline(table)), {
      INPUT: { rules: 4, leadsTo: ['OURS', 'THEIRS'] },
      OURS: { rules: 2, leadsTo: [] },
      THEIRS: { rules: 1, leadsTo: [] },
    });
  });

  test(`${family}: without some entries, every other leads where it led`, () => {
    const drop = new Set([1, 5, 6, 7, 8].map((entry) => offsets[entry] ?? -1));
    const reduced = withoutEntries(table, drop);
    assert.deepEqual(reduced.indexes, [0, 2, 3, 4, 9, 10, 11, 12]);
    const left = readEntries(reduced.table);
    const marks = left.map(({ offset }) => reduced.table.entries.readUInt32BE(offset) - 0xaa000000);
    assert.deepEqual(marks, reduced.indexes, 'contents are those of the entries before');
    const at = (jump: number | undefined): number | undefined =>
      left.find(({ offset }) => offset === jump)?.index;
    assert.equal(at(left[0]?.jump), 1, 'a rule without a target goes on with the next that is there');
    assert.equal(at(left[1]?.jump), 5);
    assert.deepEqual(
      readChains(reduced.table).map(({ name, rules }) => [name, rules.length]),
      [
        ['INPUT', 3],
        ['THEIRS', 1],
      ],
    );
  });

  test(`${family}: a block that makes no sense is refused`, () => {
    const cases: Partial<KernelTable>[] = [
      { entryCount: 4 },
      { entries: table.entries.subarray(0, -8) },
      { hookEntry: [0, 4, 0, 0, 0] },
      { underflow: [0, 1 << 20, 0, 0, 0] },
    ];
    for (const change of cases) assert.throws(() => readChains({ ...table, ...change }), TableFormatError);
  });

  test(`${family}: damaged blocks are refused or read, never anything else`, () => {
    const random = new Random(7);
    let refused = 0;
    for (let i = 0; i < 2000; i++) {
      const entries = Buffer.from(table.entries);
      for (let n = 1 + random.below(4); n > 0; n--) entries[random.below(entries.length)] = random.next();
      try {
        const damaged = { ...table, entries };
        readOutline(damaged);
        readChains(damaged);
        withoutEntries(damaged, new Set([offsets[1] ?? 0]));
      } catch (error) {
        if (!(error instanceof TableFormatError)) throw error;
        refused++;
      }
    }
    assert.ok(refused > 0);
  });
}
