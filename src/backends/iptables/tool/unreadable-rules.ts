/**
 * Rules that the program iptables (nf_tables) can't read: somebody has put them into a table of iptables with nft, or by netlink.
 * It then calls the whole table incompatible, or ends in the middle of it. Each is told once, with the table and the rule.
 */
import type { Logger } from '../../../log/logger.js';
import type { Expression, RuleInfo } from '@kube-proxy-ts/netlink/nftables';
import type { KernelRules } from './kernel-rules.js';
import type { TableName } from '../rules/names.js';

/** Chains of Kubernetes are read by themselves, whatever is in them. */
export const kubernetesPrefix = 'KUBE-';

/** Expressions that iptables writes itself, but for those of meta; its source calls them supported. */
const readable: ReadonlySet<string> = new Set([
  'match',
  'target',
  'payload',
  'payloadSet',
  'cmp',
  'bitwise',
  'counter',
  'immediate',
  'verdict',
  'lookup',
  'range',
  'limit',
]);
const readableMeta: ReadonlySet<string> = new Set([
  'iif',
  'oif',
  'iifname',
  'oifname',
  'l4proto',
  'protocol',
  'mark',
  'nftrace',
]);

export class UnreadableRules {
  /** By table: the words of the last warning. */
  private readonly reported = new Map<TableName, string>();

  constructor(
    private readonly kernel: KernelRules,
    private readonly log: Logger,
  ) {}

  /** Whether a chain of others holds what iptables, by all we know, can't read. */
  isSuspect(table: TableName, chain: string): boolean {
    return this.kernel.rules(table, chain).some(isUnreadable);
  }

  /**
   * The table can't be read.
   * @param problem what iptables says
   * @param by who has changed it, where that is known
   */
  report(table: TableName, problem: string, by?: string): void {
    const found = this.find(table);
    const words = JSON.stringify(found);
    if (this.reported.get(table) === words) return;
    this.reported.set(table, words);
    this.log.warn(
      'A table holds a rule that iptables cannot read; only the chains of Kubernetes are read in it',
      {
        table: `${this.kernel.family} ${table}`,
        ...found,
        ...(by === undefined ? {} : { by }),
        problem,
      },
    );
  }

  private find(table: TableName): { readonly chain: string; readonly rule: string } | undefined {
    for (const chain of this.kernel.allChainNames(table)) {
      if (chain.startsWith(kubernetesPrefix)) continue;
      const rule = this.kernel.rules(table, chain).find(isUnreadable);
      if (rule !== undefined) return { chain, rule: wordsOf(rule) };
    }
    return undefined;
  }
}

function isUnreadable({ expressions }: RuleInfo): boolean {
  return expressions.some((e) => {
    const name = e.kind === 'unknown' ? e.name : e.kind;
    return e.kind === 'meta' || e.kind === 'metaSet' ? !readableMeta.has(e.key) : !readable.has(name);
  });
}

/** As far as a person needs it to find the rule: `nft -a list chain` shows handles. */
function wordsOf({ expressions, handle, comment }: RuleInfo): string {
  const words = expressions.map(wordOf).filter((word) => word !== '');
  return `${words.join(' ')}${comment === undefined ? '' : ` comment ${comment}`} handle ${handle}`;
}

function wordOf(e: Expression): string {
  switch (e.kind) {
    case 'unknown':
      return e.name;
    case 'verdict':
      return 'chain' in e.verdict ? `${e.verdict.verdict} ${e.verdict.chain}` : e.verdict.verdict;
    case 'ct':
    case 'ctSet':
    case 'meta':
    case 'metaSet':
      return `${e.kind.replace('Set', '')} ${e.key}`;
    case 'bitwise':
    case 'cmp':
    case 'payload':
    case 'immediate':
      return '';
    default:
      return e.kind;
  }
}
