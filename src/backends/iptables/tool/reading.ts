/** What the kernel holds, as far as it concerns this mode; each kind of the tool has its way of finding out. */
import { chains, type TableName } from '../rules/names.js';
import { jumps, loopbackGuard, type IptablesOptions, type Jump } from '../rules/layout.js';
import { Saved, sameRule } from './saved.js';
import type { IptablesTool } from './tool.js';

/** Of iptables that we write, in the order in which they are read. */
export const ourTables: readonly TableName[] = ['mangle', 'filter', 'nat'];

export interface ObservedRules {
  readonly saved: Saved;
  /** Rules that lead to our chains, and are not there. */
  readonly missing: readonly Jump[];
  /** Such rules that are there more than once, each as often as it is too much. */
  readonly surplus: readonly Jump[];
  /** KUBE-FIREWALL holds our rule. */
  readonly guarded: boolean;
}

export interface TableReader {
  /** @throws IptablesError, NetlinkError when it can't be told what the kernel holds */
  read(): Promise<ObservedRules>;
  /**
   * What was missing in `found` has been written.
   * @throws IptablesError IPTABLES_UNDONE when it is not there all the same
   */
  finish(found: ObservedRules): void;
  close(): void;
}

/** Reads what iptables-save prints: the legacy kind prints everything that there can be. */
export class SavedReader implements TableReader {
  constructor(
    private readonly tool: Pick<IptablesTool, 'save'>,
    private readonly options: IptablesOptions,
  ) {}

  async read(): Promise<ObservedRules> {
    const texts: string[] = [];
    for (const table of ourTables) texts.push(await this.tool.save(table));
    return foundIn(await Saved.read(texts.join('')), this.options);
  }

  finish(): void {
    // What the tool prints is what it takes for the same rule.
  }

  close(): void {
    // Nothing is open.
  }
}

/** Everything told from the text alone. */
export function foundIn(saved: Saved, options: IptablesOptions): ObservedRules {
  const missing: Jump[] = [];
  const surplus: Jump[] = [];
  for (const jump of jumps(options)) {
    const { table, chain, rule } = jump;
    const count = countOf(saved.table(table).get(chain) ?? [], rule);
    if (count === 0) missing.push(jump);
    for (let more = 1; more < count; more++) surplus.push(jump);
  }
  const guard = saved.table('filter').get(chains.firewall) ?? [];
  return { saved, missing, surplus, guarded: guard.some((rule) => sameRule(rule, loopbackGuard)) };
}

function countOf(found: readonly string[], rule: string): number {
  const target = rule.slice(rule.lastIndexOf(' '));
  return found.filter((candidate) => candidate.endsWith(target) && sameRule(candidate, rule)).length;
}
