/**
 * Whether the tables of the legacy kind hold what we have left there. The kernel tells of no change there, but for how many entries
 * a table has, and where its chains begin: only when that differs from the last look, the table itself is read, without a
 * process. Not as closely as by a comparison: the rules that lead to ours, and the number of rules in each chain of ours.
 */
import { performance } from 'node:perf_hooks';
import type { IPFamily } from '../../../model/types.js';
import { readTable, readTableInfo } from '@kube-proxy-ts/netlink/xtables';
import { readOutline, type ChainOutline } from '@kube-proxy-ts/netlink/xtables';
import type { Jump } from '../rules/layout.js';
import type { TableName } from '../rules/names.js';
import type { RuleSet } from '../rules/rule-set.js';

/** Table mangle holds nothing that a packet meets. */
const tables: readonly TableName[] = ['filter', 'nat'];
/** Looking takes at most such a share of the time: others may change a large table all the while. */
const restFactor = 20;

export class LegacyLook {
  private readonly family: 'ip' | 'ip6';
  /** What the kernel said of the tables that were found to be in order. */
  private readonly known = new Map<TableName, Buffer>();
  private restUntil = -Infinity;

  constructor(family: IPFamily) {
    this.family = family === 'IPv4' ? 'ip' : 'ip6';
  }

  /** There is something to be looked at. */
  isDue(): boolean {
    if (performance.now() < this.restUntil) return false;
    return tables.some((table) => this.known.get(table)?.equals(readTableInfo(this.family, table)) !== true);
  }

  /** @returns what is lacking, for people; undefined: nothing */
  lacking(rules: RuleSet, jumps: readonly Jump[]): string | undefined {
    const start = performance.now();
    try {
      return this.find(rules, jumps);
    } finally {
      const end = performance.now();
      this.restUntil = end + restFactor * (end - start);
    }
  }

  private find(rules: RuleSet, jumps: readonly Jump[]): string | undefined {
    for (const table of tables) {
      const info = readTableInfo(this.family, table);
      if (this.known.get(table)?.equals(info) === true) continue;
      const outline = readOutline(readTable(this.family, table));
      const lacking =
        missingJump(
          outline,
          jumps.filter((jump) => jump.table === table),
        ) ?? changedChain(outline, rules.store(table).held());
      if (lacking !== undefined) return `table ${table}: ${lacking}`;
      this.known.set(table, info);
    }
    return undefined;
  }
}

function missingJump(outline: ReadonlyMap<string, ChainOutline>, jumps: readonly Jump[]): string | undefined {
  const missing = jumps.find(
    ({ chain, rule }) => outline.get(chain)?.leadsTo.includes(rule.slice(rule.lastIndexOf(' ') + 1)) !== true,
  );
  return missing === undefined ? undefined : `-A ${missing.chain} ${missing.rule}`;
}

function changedChain(
  outline: ReadonlyMap<string, ChainOutline>,
  held: Iterable<readonly [name: string, rules: number]>,
): string | undefined {
  for (const [name, rules] of held) {
    const found = outline.get(name);
    if (found === undefined) return `chain ${name}`;
    if (found.rules !== rules) return `rules of chain ${name}, ${found.rules} in place of ${rules}`;
  }
  return undefined;
}
