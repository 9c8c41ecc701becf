/** Brings differences between what is wanted and what the kernel holds into the kernel, in an order that no packet notices. */
import { performance } from 'node:perf_hooks';
import type { Logger } from '../../log/logger.js';
import { Turn } from '../../callbacks/turn.js';
import { isEmpty, type ChainChange } from './rules/chain-store.js';
import { loopbackGuard, type IptablesOptions } from './rules/layout.js';
import { chains, isOwnVolatileChain, type TableName } from './rules/names.js';
import { chainsInUse, deleteChains, removals, slices } from './removal.js';
import { childrenFirst, restoreInput, type Section } from './tool/restore-input.js';
import type { ObservedRules } from './tool/reading.js';
import type { RuleSet } from './rules/rule-set.js';
import type { IptablesTool } from './tool/tool.js';

/**
 * Chains of one run of the nf_tables kind: it looks up each among all that the run knows, one after the other (1.8.9: 24,000
 * chains take it 60 s at once, and 8 s in parts).
 */
const chainsPerRun = 1000;
/** Chains that a line of the log names. */
const namedAtMost = 10;

export interface WriteResult {
  /** Sections that iptables-restore committed. */
  transactions: number;
  rulesWritten: Record<'nat' | 'filter' | 'mangle', number>;
  rulesDeleted: number;
}

export function nothingWritten(): WriteResult {
  return { transactions: 0, rulesWritten: { nat: 0, filter: 0, mangle: 0 }, rulesDeleted: 0 };
}

export class RuleWriter {
  private reportedStaying = '';

  constructor(
    private readonly tool: Pick<IptablesTool, 'kind' | 'restore'>,
    private readonly options: IptablesOptions,
    private readonly log: Logger,
  ) {}

  /**
   * Writes what differs from what the kernel was left with: refusals that are new, then nat. Refusals that go wait for
   * deleteDeferred(), since packets that met nat as it was are still under way; those that have waited since `before` go now.
   * @throws IptablesError; what the kernel holds is then not known: compareAndWrite()
   */
  async writeChanges(rules: RuleSet, before: number, written: WriteResult): Promise<void> {
    const plan: Section[] = [];
    rules.release(before);
    rules.renderFilter();
    take(rules, 'filter', plan, written);
    rules.renderNat();
    take(rules, 'nat', plan, written);
    if (rules.releaseAtOnce()) {
      rules.renderFilter();
      take(rules, 'filter', plan, written);
    }
    await this.run(plan, written);
    rules.natWritten(performance.now());
  }

  /**
   * Deletes refusals that have not been wanted since `before` (performance.now()).
   * @throws IptablesError, as writeChanges()
   */
  async deleteDeferred(rules: RuleSet, before: number, written: WriteResult): Promise<void> {
    const plan: Section[] = [];
    rules.release(before);
    rules.renderFilter();
    take(rules, 'filter', plan, written);
    await this.run(plan, written);
  }

  /**
   * Writes what differs from what the kernel was found to hold, and the rules that lead to ours. Refusals come first, beside
   * those that were found; these wait for deleteDeferred().
   * @throws IptablesError
   */
  async compareAndWrite(rules: RuleSet, found: ObservedRules, written: WriteResult): Promise<void> {
    const { saved } = found;
    const turn = new Turn();
    rules.releaseAtOnce();
    rules.keepFormerRejections(saved.table('filter'));
    rules.renderNat();
    rules.renderFilter();
    const plan: Section[] = [];
    const obsolete: { readonly table: TableName; readonly chains: readonly string[] }[] = [];
    const stay: string[] = [];
    for (const table of ['mangle', 'filter', 'nat'] as const) {
      const store = rules.store(table);
      await store.compare(saved.table(table), isOwnVolatileChain, turn);
      const difference = store.difference();
      const inserted = found.missing.filter((jump) => jump.table === table);
      const surplus = found.surplus.filter((jump) => jump.table === table);
      const guard = table === 'filter' ? this.guard(found) : undefined;
      const declared = guard?.isNew === true ? [guard.change] : [];
      const appended = guard?.isNew === false ? [guard.change] : [];
      written.rulesDeleted += store.kernelRules(difference);
      store.commit(difference);
      const inUse = await chainsInUse(saved.table(table), difference.deleted, turn);
      stay.push(...inUse);
      obsolete.push({ table, chains: difference.deleted.filter((name) => !inUse.has(name)) });
      const emptied = [...inUse].filter((name) => saved.table(table).get(name)?.length !== 0);
      const section = {
        table,
        written: [...declared, ...difference.written, ...emptied.map((name) => ({ name, rules: [] }))],
        deleted: [],
        inserted,
        surplus,
        appended,
      };
      written.rulesDeleted += surplus.length;
      if (!isEmpty(section) || inserted.length + surplus.length + appended.length > 0) plan.push(section);
    }
    await this.run(plan, written);
    // By itself: what is in is in, whatever becomes of these.
    for (const { table, chains } of obsolete)
      stay.push(
        ...(await deleteChains(this.tool, table, chains, this.chainsPerRun, () => written.transactions++)),
      );
    this.reportStaying(stay);
    rules.natWritten(performance.now());
  }

  private reportStaying(chains: readonly string[]): void {
    const names = chains.join(' ');
    if (names !== this.reportedStaying && chains.length > 0)
      this.log.warn('Unused chains kept empty, rules of other programs lead to them', {
        family: this.options.family,
        chains: chains.length,
        names: chains.slice(0, namedAtMost),
      });
    this.reportedStaying = names;
  }

  /** KUBE-FIREWALL belongs to the kubelet, too: what it has put there stays. */
  private guard({
    saved,
    guarded,
  }: ObservedRules): { readonly isNew: boolean; readonly change: ChainChange } | undefined {
    if (this.options.guardLoopback !== true || guarded) return undefined;
    const isNew = saved.table('filter').get(chains.firewall) === undefined;
    return { isNew, change: { name: chains.firewall, rules: [loopbackGuard] } };
  }

  private get chainsPerRun(): number {
    return this.tool.kind === 'legacy' ? Infinity : chainsPerRun;
  }

  private async run(plan: readonly Section[], written: WriteResult): Promise<void> {
    if (plan.length === 0) return;
    const turn = new Turn();
    for (const sections of this.tool.kind === 'legacy' ? [plan] : await inParts(plan, turn)) {
      await this.tool.restore(await restoreInput(sections, turn));
      for (const { table, written: changes, inserted = [], appended = [] } of sections) {
        written.transactions++;
        for (const { rules } of [...changes, ...appended]) {
          written.rulesWritten[table] += rules.length;
          if (turn.isOver) await turn.next();
        }
        written.rulesWritten[table] += inserted.length;
      }
    }
  }
}

/** Adds a section with what differs in a table, and takes it for written. */
function take(rules: RuleSet, table: TableName, plan: Section[], written: WriteResult): void {
  const store = rules.store(table);
  const difference = store.difference();
  if (isEmpty(difference)) return;
  written.rulesDeleted += store.kernelRules(difference);
  store.commit(difference);
  plan.push({ table, ...difference });
}

/** Runs of bounded size. Within a table chains come before those that lead to them, and what is deleted comes last. */
async function inParts(plan: readonly Section[], turn: Turn): Promise<Section[][]> {
  const chainCount = plan.reduce((sum, { written, deleted }) => sum + written.length + deleted.length, 0);
  if (chainCount <= chainsPerRun) return [[...plan]];
  const runs: Section[][] = [];
  for (const section of plan) {
    const { table, deleted, inserted = [], surplus = [], appended = [] } = section;
    for (const written of slices(await childrenFirst(section.written, turn), chainsPerRun))
      runs.push([{ table, written, deleted: [] }]);
    if (inserted.length + surplus.length + appended.length > 0)
      runs.push([{ table, written: [], deleted: [], inserted, surplus, appended }]);
    for (const removal of removals(table, deleted, chainsPerRun)) runs.push([removal]);
  }
  return runs;
}
