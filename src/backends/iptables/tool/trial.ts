/** Tries rules out in a chain that no packet enters. */
import { IptablesError } from './errors.js';
import { chains, type TableName } from '../rules/names.js';
import { restoreInput } from './restore-input.js';
import type { IptablesTool } from './tool.js';

export type TrialRules = readonly (readonly [table: TableName, rules: readonly string[]])[];

/**
 * @returns why the rules are refused; undefined: they are not
 * @throws IptablesError when that can't be told
 */
export async function refusalOf(tool: IptablesTool, trial: TrialRules): Promise<IptablesError | undefined> {
  let refused: IptablesError | undefined;
  try {
    await tool.restore(
      await restoreInput(
        trial.map(([table, rules]) => ({ table, written: [{ name: chains.probe, rules }], deleted: [] })),
      ),
    );
  } catch (error) {
    if (!(error instanceof IptablesError && error.code === 'IPTABLES_REFUSED')) throw error;
    refused = error;
  }
  await tool.restore(
    await restoreInput(trial.map(([table]) => ({ table, written: [], deleted: [chains.probe] }))),
  );
  return refused;
}
