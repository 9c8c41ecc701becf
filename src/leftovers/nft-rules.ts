/**
 * Rules of an iptables of the nf_tables kind: its tables are nftables tables `ip nat`, `ip6 filter` and so on, its
 * chains nftables chains, so they are found and removed over netlink, without the program iptables.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Family, NetlinkError } from '@kube-proxy-ts/netlink';
import { Batch, type NftablesConnection, type RuleInfo } from '@kube-proxy-ts/netlink/nftables';
import { xtables, type XtableName } from '../backends/owned.js';
import { count, type Report } from '../backends/removal-report.js';
import { planRemoval, type RemovalPlan } from './removal-plan.js';

/** Somebody else may change rules between our reading and writing; how often that is taken. */
const attempts = 20;
/** Changes in one transaction, which holds up everybody else's: a few milliseconds. */
const batchSize = 2000;

/** @param isLeftover whether a chain has to go */
export async function removeNftRules(
  connection: NftablesConnection,
  isLeftover: (family: Family, table: XtableName, chain: string) => boolean,
  report: Report,
): Promise<void> {
  let tablesWithOurs = 0;
  const tables = new Set(connection.listTables().map(({ family, name }) => `${family ?? ''} ${name}`));
  for (const family of ['ip', 'ip6'] as const) {
    for (const table of xtables) {
      const what = `iptables (nf_tables) rules in table ${family} ${table}`;
      await report.attempt(what, async () => {
        if (!tables.has(`${family} ${table}`)) return;
        if (
          await removeFromTable(
            connection,
            family,
            table,
            (chain) => isLeftover(family, table, chain),
            report,
          )
        )
          tablesWithOurs++;
      });
    }
  }
  if (tablesWithOurs === 0) report.absent('iptables (nf_tables) chains');
}

/** @returns whether there was anything of ours */
async function removeFromTable(
  connection: NftablesConnection,
  family: Family,
  table: XtableName,
  isOurs: (chain: string) => boolean,
  report: Report,
): Promise<boolean> {
  const where = `iptables (nf_tables) table ${family} ${table}`;
  for (let attempt = 1; ; attempt++) {
    const generation = connection.getGeneration().id;
    const plan = planRemoval(view(connection, family, table), isOurs);
    if (plan.jumps.length + plan.chains.length + plan.kept.length === 0) return false;
    try {
      removeJumps(connection, family, table, plan, generation);
    } catch (error) {
      // Read again: the rules are not the ones that we have seen.
      const changed = error instanceof NetlinkError && ['ERESTART', 'ENOENT'].includes(error.code);
      if (changed && attempt < attempts) continue;
      throw error;
    }
    const busy = await removeChains(connection, family, table, plan.chains);
    const removed = plan.chains.length - busy.length;
    if (removed + plan.jumps.length > 0)
      report.removed(`${count(removed, 'chain')} and ${count(plan.jumps.length, 'jump')} from ${where}`);
    for (const { chain, usedBy } of plan.kept)
      report.kept(`chain ${chain} in ${where}`, `chain ${usedBy}, which is not kube-proxy's, leads there`);
    for (const chain of busy)
      report.kept(`chain ${chain} in ${where}`, "a rule that is not kube-proxy's leads there");
    return true;
  }
}

function view(connection: NftablesConnection, family: Family, table: XtableName) {
  return {
    chains: connection
      .listChains(family, table)
      .map(({ name, base }) => ({ name, builtIn: base !== undefined })),
    rulesOf: (chain: string) =>
      connection
        .listRules(family, table, chain)
        .map((rule) => ({ rule: rule.handle, target: targetOf(rule) })),
  };
}

function targetOf({ expressions }: RuleInfo): string | undefined {
  for (const e of expressions) if (e.kind === 'verdict' && 'chain' in e.verdict) return e.verdict.chain;
  return undefined;
}

/** Once they are gone, at one blow, no packet comes to our chains any more. */
function removeJumps(
  connection: NftablesConnection,
  family: Family,
  table: XtableName,
  { jumps }: RemovalPlan<bigint>,
  generation: number,
): void {
  const batch = new Batch(family, table);
  for (const { chain, rule } of jumps) batch.deleteRule(chain, rule);
  connection.commit(batch, { generation });
}

/** @returns chains that could not be deleted because something unknown leads to them */
async function removeChains(
  connection: NftablesConnection,
  family: Family,
  table: XtableName,
  chains: readonly string[],
): Promise<string[]> {
  // All rules first: the chains lead to each other.
  await inBatches(connection, family, table, chains, (batch, chain) => {
    batch.flushChain(chain);
  });
  return await inBatches(connection, family, table, chains, (batch, chain) => {
    batch.deleteChain(chain);
  });
}

/** @returns what was refused because it is in use */
async function inBatches(
  connection: NftablesConnection,
  family: Family,
  table: XtableName,
  chains: readonly string[],
  write: (batch: Batch, chain: string) => void,
): Promise<string[]> {
  const busy: string[] = [];
  for (let from = 0; from < chains.length; from += batchSize) {
    // A proxy that is running answers its probes and programs its changes in between.
    if (from > 0) await nextTurn();
    let part = chains.slice(from, from + batchSize);
    while (part.length > 0) {
      const batch = new Batch(family, table);
      for (const chain of part) write(batch, chain);
      try {
        connection.commit(batch);
        break;
      } catch (error) {
        const index = error instanceof NetlinkError ? error.messageIndex : undefined;
        const chain = index === undefined ? undefined : part[index];
        if (!(error instanceof NetlinkError) || chain === undefined) throw error;
        if (error.code === 'EBUSY') busy.push(chain);
        // ENOENT: somebody else has just removed it.
        else if (error.code !== 'ENOENT') throw error;
        part = part.filter((other) => other !== chain);
      }
    }
  }
  return busy;
}
