/**
 * What a mode keeps in the kernel, known by name: what stays while it runs, and what `--cleanup` and a start in another mode
 * remove. Of modes that upstream has too, upstream's is included.
 */
import type { Drain, Report } from './removal-report.js';

/** Tables of iptables in which a mode may have chains. */
export const xtables = ['nat', 'filter', 'mangle'] as const;
export type XtableName = (typeof xtables)[number];

export interface OwnedTable {
  readonly name: string;
  /** It is there for moments only: that it is absent is not worth a word. */
  readonly transient?: boolean;
}

export interface Owned {
  /** Tables of nf_tables, in both families. */
  readonly tables: readonly OwnedTable[];
  /** Chains in the tables of iptables, both kinds. */
  ownsChain(table: XtableName, name: string): boolean;
  readonly ipsets: ReadonlySet<string>;
  /**
   * Removes what is neither rule nor ipset, before these: they may tell what is kube-proxy's.
   * @param replaced another mode serves new connections, so that established ones may live on; else they end
   * @returns connections that are waited for, and with them the tables; undefined: none
   */
  end?(report: Report, replaced: boolean): Promise<Drain | undefined>;
}
