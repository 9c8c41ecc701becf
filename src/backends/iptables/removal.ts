/**
 * Deletes chains that nobody needs any longer. They lead to each other, so all are emptied first, and the kernel refuses those to
 * which a rule of somebody else leads: these stay, empty, and the others go.
 */
import { Turn } from '../../callbacks/turn.js';
import { IptablesError } from './tool/errors.js';
import type { TableName } from './rules/names.js';
import { restoreInput, type Section } from './tool/restore-input.js';
import type { SavedTable } from './tool/saved.js';
import type { IptablesTool } from './tool/tool.js';

/** Chains to which a rule of a chain leads that stays. */
export async function chainsInUse(
  found: SavedTable,
  deleted: readonly string[],
  turn = new Turn(),
): Promise<Set<string>> {
  const going = new Set(deleted);
  const used = new Set<string>();
  for (const [chain, rules] of found) {
    if (turn.isOver) await turn.next();
    if (going.size === 0) break;
    // Ours are written anew before anything is deleted. Where others have such a name the kernel refuses.
    if (going.has(chain) || chain.startsWith('KUBE-')) continue;
    for (const rule of rules) {
      const target = / ?-[gj] (\S+)$/.exec(rule)?.[1];
      if (target !== undefined && going.has(target)) used.add(target);
    }
  }
  return used;
}

/**
 * Runs that delete chains, so many at a time. Only when all are empty the first is deleted.
 * @param chainsPerRun Infinity: they go in one run
 */
export function* removals(
  table: TableName,
  chains: readonly string[],
  chainsPerRun: number,
): Generator<Section> {
  if (chains.length > chainsPerRun)
    for (const part of slices(chains, chainsPerRun))
      yield { table, written: part.map((name) => ({ name, rules: [] })), deleted: [] };
  for (const deleted of slices(chains, chainsPerRun)) yield { table, written: [], deleted };
}

/**
 * Deletes chains; those that are refused are left out.
 * @returns the names of these
 * @throws IptablesError when it is not for single chains that it fails
 */
export async function deleteChains(
  tool: Pick<IptablesTool, 'restore'>,
  table: TableName,
  chains: readonly string[],
  chainsPerRun: number,
  onRun: (section: Section) => void,
): Promise<string[]> {
  const refused: string[] = [];
  for (const section of removals(table, chains, chainsPerRun)) {
    let rest = section;
    for (;;) {
      if (rest.written.length + rest.deleted.length === 0) break;
      try {
        await tool.restore(await restoreInput([rest]));
        onRun(rest);
        break;
      } catch (error) {
        const named = namedIn(error, rest.deleted);
        if (named.length === 0) throw error;
        refused.push(...named);
        rest = { ...rest, deleted: rest.deleted.filter((chain) => !named.includes(chain)) };
      }
    }
  }
  return refused;
}

/** The nf_tables kind names every chain that the kernel refuses, the legacy kind the line of the first. */
function namedIn(error: unknown, chains: readonly string[]): string[] {
  if (!(error instanceof IptablesError) || error.code !== 'IPTABLES_REJECTED') return [];
  const words = new Set(error.message.split(/[^\w./-]+/));
  return chains.filter((chain) => words.has(chain));
}

export function* slices<T>(list: readonly T[], length: number): Generator<readonly T[]> {
  for (let from = 0; from < list.length; from += length) yield list.slice(from, from + length);
}
