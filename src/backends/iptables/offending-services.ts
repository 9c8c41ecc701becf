/** When rules are refused: which service ports are they of? */
import type { ServicePort } from '../../model/types.js';
import { footprintOf, type FootprintContext } from './rules/desired-rules.js';
import type { IptablesTool } from './tool/tool.js';
import { refusalOf, type TrialRules } from './tool/trial.js';

/** When there are so many that this does not suffice, those that are left are not told apart. */
const maxTrials = 200;

export interface Culprit {
  readonly port: ServicePort;
  readonly error: Error;
}

/**
 * Halves the service ports until each that is refused stands alone. The rules in force are not touched.
 * @returns none when it was not the rules of service ports that were refused
 */
export async function findCulprits(
  tool: IptablesTool,
  suspects: readonly ServicePort[],
  context: FootprintContext,
): Promise<Culprit[]> {
  const culprits: Culprit[] = [];
  let trials = 0;
  const search = async (ports: readonly ServicePort[]): Promise<void> => {
    if (ports.length === 0) return;
    trials++;
    const error = await refusalOf(tool, trialOf(ports, context));
    if (error === undefined) return;
    if (ports.length === 1 || trials > maxTrials) {
      culprits.push(...ports.map((port) => ({ port, error })));
      return;
    }
    const middle = ports.length >> 1;
    await search(ports.slice(0, middle));
    await search(ports.slice(middle));
  };
  await search(suspects);
  return culprits;
}

/** The rules of service ports, without their ways to other chains. */
function trialOf(ports: readonly ServicePort[], context: FootprintContext): TrialRules {
  const nat: string[] = [];
  const filter: string[] = [];
  for (const port of ports) {
    const { entries, chains } = footprintOf(port, context);
    for (const rules of chains.values()) nat.push(...rules);
    for (const { tree, rules } of entries)
      (tree === 'services' || tree === 'nodePorts' ? nat : filter).push(...rules);
  }
  const alone = (rules: readonly string[]): string[] =>
    rules.map((rule) => rule.replace(/ ?-[gj] KUBE-\S+$/, '')).filter((rule) => rule !== '');
  return [
    ['nat', alone(nat)],
    ['filter', alone(filter)],
  ];
}
