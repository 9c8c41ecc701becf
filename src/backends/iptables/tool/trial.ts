/** Tries rules out in a chain that no packet enters. */
import { IptablesError } from './errors.js';
import { chains, type TableName } from '../rules/names.js';
import { restoreInput } from './restore-input.js';
import type { IptablesTool } from './tool.js';

export type TrialRules = readonly (readonly [table: TableName, rules: readonly string[]])[];

/**
 * The chain stays, for the next trial: endTrials() deletes it.
 * @returns why the rules are rejected; undefined: they are not
 * @throws IptablesError when that can't be told
 */
export async function rejectionOf(tool: IptablesTool, trial: TrialRules): Promise<IptablesError | undefined> {
  try {
    await tool.restore(
      await restoreInput(
        trial.map(([table, rules]) => ({ table, written: [{ name: chains.probe, rules }], deleted: [] })),
      ),
    );
  } catch (error) {
    if (!(error instanceof IptablesError && error.code === 'IPTABLES_REJECTED')) throw error;
    return error;
  }
  return undefined;
}

/** Deletes what trials have left. */
export async function endTrials(
  tool: IptablesTool,
  tables: readonly TableName[] = ['nat', 'filter'],
): Promise<void> {
  await tool.restore(
    await restoreInput(tables.map((table) => ({ table, written: [], deleted: [chains.probe] }))),
  );
}
