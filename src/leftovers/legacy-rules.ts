/**
 * Rules of an iptables of the legacy kind. They are taken out of the kernel's tables directly, so that it does not matter
 * whether the program iptables-legacy is at hand; all changes to a table happen at once.
 */
import { type Family, NetlinkError } from '@kube-proxy-ts/netlink';
import { xtables, type XtableName } from '../backends/owned.js';
import { count, type Report } from '../backends/removal-report.js';
import { planRemoval } from './removal-plan.js';
import { existingTables, isSupportedMachine, readTable, replaceTable } from '@kube-proxy-ts/netlink/xtables';
import { withXtablesLock } from '@kube-proxy-ts/netlink/xtables';
import { readChains, readEntries, withoutEntries, type TableEntry } from '@kube-proxy-ts/netlink/xtables';

/** Somebody who does not care for the lock may change a table between our reading and writing. */
const attempts = 5;

export class UnsupportedMachineError extends Error {
  readonly code = 'ERR_XTABLES_MACHINE';

  constructor() {
    super(
      `tables of iptables (legacy) can only be read on 64-bit machines, and this is ${process.arch}: ` +
        "look with 'iptables-legacy-save | grep KUBE-', and remove what is there",
    );
    this.name = 'UnsupportedMachineError';
  }
}

/** @param isLeftover whether a chain has to go */
export async function removeLegacyRules(
  isLeftover: (family: Family, table: XtableName, chain: string) => boolean,
  report: Report,
): Promise<void> {
  let tablesWithOurs = 0;
  const before = report.outcomes.length;
  for (const family of ['ip', 'ip6'] as const) {
    await report.attempt(`iptables (legacy) rules of family ${family}`, async () => {
      const existing = existingTables(family);
      const tables = xtables.filter((table) => existing.includes(table));
      if (tables.length === 0) return;
      if (!isSupportedMachine()) throw new UnsupportedMachineError();
      await withXtablesLock(() => {
        for (const table of tables)
          if (removeFromTable(family, table, (chain) => isLeftover(family, table, chain), report))
            tablesWithOurs++;
      });
    });
  }
  const unknown = report.outcomes.slice(before).some(({ kind }) => kind === 'failed' || kind === 'denied');
  if (tablesWithOurs === 0 && !unknown) report.absent('iptables (legacy) chains');
}

/** @returns whether there was anything of ours */
function removeFromTable(
  family: Family,
  name: XtableName,
  isOurs: (chain: string) => boolean,
  report: Report,
): boolean {
  const where = `iptables (legacy) table ${family} ${name}`;
  for (let attempt = 1; ; attempt++) {
    try {
      const table = readTable(family, name);
      const entries = readEntries(table);
      const chains = new Map(readChains(table, entries).map((chain) => [chain.name, chain]));
      const chainAt = new Map<number, string>();
      for (const { name: chain, builtIn, rules, entries: all } of chains.values()) {
        const first = rules[0] ?? all.at(-1);
        if (!builtIn && first !== undefined) chainAt.set(first.offset, chain);
      }
      const plan = planRemoval<TableEntry>(
        {
          chains: [...chains.values()],
          rulesOf: (chain) =>
            (chains.get(chain)?.rules ?? []).map((rule) => ({
              rule,
              target: rule.jump === undefined ? undefined : chainAt.get(rule.jump),
            })),
        },
        isOurs,
      );
      if (plan.jumps.length + plan.chains.length + plan.kept.length === 0) return false;
      const drop = new Set(plan.jumps.map(({ rule }) => rule.offset));
      for (const chain of plan.chains)
        for (const { offset } of chains.get(chain)?.entries ?? []) drop.add(offset);
      if (drop.size > 0) {
        const reduced = withoutEntries(table, drop, entries);
        replaceTable(table, reduced.table, reduced.indexes);
        report.removed(
          `${count(plan.chains.length, 'chain')} and ${count(plan.jumps.length, 'jump')} from ${where}`,
        );
      }
      for (const { chain, usedBy } of plan.kept)
        report.kept(`chain ${chain} in ${where}`, `chain ${usedBy}, which is not kube-proxy's, leads there`);
      return true;
    } catch (error) {
      if (!(error instanceof NetlinkError) || error.code !== 'EAGAIN' || attempt === attempts) throw error;
    }
  }
}
