import assert from 'node:assert/strict';
import { test } from 'node:test';
import { planRemoval, type RemovalPlan } from './removal-plan.js';

/** Chains with the chains that their rules lead to; '' is a rule that leads nowhere. Those in capitals are built in. */
function plan(
  table: Readonly<Record<string, readonly string[]>>,
): RemovalPlan<string> & { readonly read: string[] } {
  const read: string[] = [];
  const result = planRemoval<string>(
    {
      chains: Object.keys(table).map((name) => ({ name, builtIn: name === name.toUpperCase() })),
      rulesOf: (chain) => {
        read.push(chain);
        return (table[chain] ?? []).map((target, i) => ({
          rule: `${chain}/${i}`,
          target: target === '' ? undefined : target,
        }));
      },
    },
    (chain) => chain.startsWith('our'),
  );
  return { ...result, read };
}

const rulesOf = (jumps: readonly { rule: string }[]): string[] => jumps.map(({ rule }) => rule);

test('chains and the rules of built-in chains that lead there', () => {
  const { jumps, chains, kept } = plan({
    INPUT: ['', 'ours', 'theirs', 'ours-too', 'ours'],
    OUTPUT: ['theirs'],
    ours: ['ours-too', ''],
    'ours-too': ['theirs'],
    theirs: [''],
  });
  assert.deepEqual(rulesOf(jumps), ['INPUT/1', 'INPUT/3', 'INPUT/4']);
  assert.deepEqual(chains, ['ours', 'ours-too']);
  assert.deepEqual(kept, []);
});

test('a table without any of ours is not read', () => {
  const { jumps, chains, kept, read } = plan({ INPUT: ['theirs'], theirs: [''] });
  assert.deepEqual([jumps, chains, kept, read], [[], [], [], []]);
});

test('the rules of our own chains are not read, however many there are', () => {
  assert.deepEqual(plan({ INPUT: ['ours'], ours: ['ours-too'], 'ours-too': [], theirs: [] }).read, [
    'INPUT',
    'theirs',
  ]);
});

test("what another program's chain leads to stays, with all that follows; built-in chains no longer lead there", () => {
  const { jumps, chains, kept } = plan({
    INPUT: ['our-first', 'our-mark'],
    theirs: ['our-mark'],
    'our-first': ['our-mark', 'our-last'],
    'our-mark': ['our-deep'],
    'our-deep': ['our-mark', 'our-deepest'],
    'our-deepest': [],
    'our-last': [],
  });
  assert.deepEqual(rulesOf(jumps), ['INPUT/0', 'INPUT/1']);
  assert.deepEqual(chains, ['our-first', 'our-last']);
  assert.deepEqual(kept, [
    { chain: 'our-mark', usedBy: 'theirs' },
    { chain: 'our-deep', usedBy: 'our-mark' },
    { chain: 'our-deepest', usedBy: 'our-deep' },
  ]);
});

test('a built-in chain is nobody’s, whatever its name', () => {
  const { chains } = planRemoval<string>(
    { chains: [{ name: 'ours', builtIn: true }], rulesOf: () => [] },
    () => true,
  );
  assert.deepEqual(chains, []);
});
