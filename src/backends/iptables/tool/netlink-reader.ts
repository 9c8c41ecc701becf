/**
 * Reads the tables of the nf_tables kind. The ways into our chains are read over netlink; our chains as iptables prints them,
 * which is all at once, or chain by chain where a rule of somebody else in the table keeps iptables from reading it.
 */
import type { Logger } from '../../../log/logger.js';
import { IptablesError } from './errors.js';
import type { KernelRules, RuleHandle } from './kernel-rules.js';
import { jumps, loopbackGuard, type IptablesOptions } from '../rules/layout.js';
import { chains, type TableName } from '../rules/names.js';
import { foundIn, ourTables, type ObservedRules, type TableReader } from './reading.js';
import { Saved } from './saved.js';
import type { IptablesTool } from './tool.js';
import { kubernetesPrefix, UnreadableRules } from './unreadable-rules.js';

/** The tool looks for each chain among all that the run names, one after the other. */
const chainsPerRun = 500;
/** Stands for the rules of a chain that can't be read: it is the same as nothing that anybody wants. */
const unreadable = '(unreadable)';

export class NetlinkReader implements TableReader {
  private readonly unreadableRules: UnreadableRules;
  private surplus: readonly RuleHandle[] = [];

  constructor(
    private readonly tool: Pick<IptablesTool, 'save' | 'listChains'>,
    private readonly kernel: KernelRules,
    private readonly options: IptablesOptions,
    log: Logger,
  ) {
    this.unreadableRules = new UnreadableRules(kernel, log);
  }

  async read(): Promise<ObservedRules> {
    const texts: string[] = [];
    for (const table of ourTables) texts.push(await this.readTable(table));
    const { saved, guarded } = foundIn(await Saved.read(texts.join('')), this.options);
    const { missing, surplus } = this.kernel.findJumps(jumps(this.options));
    this.surplus = surplus;
    return {
      saved,
      missing,
      surplus: [],
      // Others have rules in there, too, and these may be of any kind.
      guarded: guarded || this.kernel.holds('filter', chains.firewall, loopbackGuard),
    };
  }

  finish({ missing }: ObservedRules): void {
    this.kernel.deleteRules(this.surplus);
    this.surplus = [];
    const lost = this.kernel.confirm(missing);
    if (lost.length === 0) return;
    throw new IptablesError(
      'IPTABLES_UNDONE',
      `rules that lead to ours were gone again as soon as they were written, the first in table ${this.kernel.family} ${lost[0]?.table ?? ''}, chain ${lost[0]?.chain ?? ''}: ` +
        "find out with 'nft monitor' which program deletes them; it is tried again",
    );
  }

  /**
   * Somebody has put a rule into a chain of others: can iptables still read the table?
   * @param by who
   */
  async examine(table: TableName, chain: string, by: string): Promise<void> {
    if (!this.unreadableRules.isSuspect(table, chain)) return;
    try {
      await this.tool.listChains(table, [chain]);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      this.unreadableRules.report(table, error.message, by);
    }
  }

  close(): void {
    this.kernel.close();
  }

  private async readTable(table: TableName): Promise<string> {
    try {
      return await this.tool.save(table);
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      const names = this.kernel.chainNames(table).filter((name) => name.startsWith(kubernetesPrefix));
      const texts = [`*${table}\n`];
      for (let from = 0; from < names.length; from += chainsPerRun)
        await this.listChains(table, names.slice(from, from + chainsPerRun), texts);
      this.unreadableRules.report(table, error.message);
      return texts.join('');
    }
  }

  /** Halves them until a chain that can't be read stands alone. */
  private async listChains(table: TableName, names: readonly string[], texts: string[]): Promise<void> {
    try {
      texts.push(await this.tool.listChains(table, names));
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      const [name = ''] = names;
      if (names.length === 1) {
        texts.push(`-N ${name}\n-A ${name} ${unreadable}\n`);
        return;
      }
      const middle = names.length >> 1;
      await this.listChains(table, names.slice(0, middle), texts);
      await this.listChains(table, names.slice(middle), texts);
    }
  }
}

/** The tool could not say what is there; that there is nothing is another matter. */
function isUnreadable(error: unknown): error is IptablesError {
  return (
    error instanceof IptablesError &&
    (error.code === 'IPTABLES_UNREADABLE' || error.code === 'IPTABLES_REJECTED')
  );
}
