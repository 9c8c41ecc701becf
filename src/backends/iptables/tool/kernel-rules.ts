/**
 * The tables of the nf_tables kind over netlink: what the program iptables can't tell of them once there is a rule in a table that
 * it can't print, and what it would need a process for.
 */
import { NetlinkError } from '@kube-proxy-ts/netlink';
import {
  Batch,
  canonicalExpressions,
  NftablesConnection,
  type RuleInfo,
} from '@kube-proxy-ts/netlink/nftables';
import type { IPFamily } from '../../../model/types.js';
import type { Jump } from '../rules/layout.js';
import type { TableName } from '../rules/names.js';
import { chainBehind, shapeOfRule, shapeOfText } from './rule-shape.js';

/** A rule by what names it in the kernel. */
export interface RuleHandle {
  readonly table: TableName;
  readonly chain: string;
  readonly handle: bigint;
}

export interface ObservedJumps {
  readonly missing: readonly Jump[];
  /** The same as another that stands before it. */
  readonly surplus: readonly RuleHandle[];
}

export class KernelRules {
  readonly family: 'ip' | 'ip6';
  private readonly connection = NftablesConnection.open();
  /** Rules that the tool made of jumps of ours, and that look otherwise than expected. */
  private readonly learned = new Set<string>();

  constructor(family: IPFamily) {
    this.family = family === 'IPv4' ? 'ip' : 'ip6';
  }

  /** Names our own changes in notifications. */
  get portId(): number {
    return this.connection.portId;
  }

  /** Without those of the kernel. */
  chainNames(table: TableName): string[] {
    return this.connection
      .listChains(this.family, table)
      .filter(({ base }) => base === undefined)
      .map(({ name }) => name);
  }

  /** The kernel's own, and those of others. */
  allChainNames(table: TableName): string[] {
    return this.connection.listChains(this.family, table).map(({ name }) => name);
  }

  rules(table: TableName, chain: string): RuleInfo[] {
    return this.connection.listRules(this.family, table, chain);
  }

  /** Whether a chain holds a rule that is made as this one. */
  holds(table: TableName, chain: string, rule: string): boolean {
    const wanted = shapeOfText(rule);
    return this.rules(table, chain).some((found) => shapeOfRule(found) === wanted);
  }

  findJumps(wanted: readonly Jump[]): ObservedJumps {
    const missing: Jump[] = [];
    const surplus: RuleHandle[] = [];
    for (const [place, jumps] of grouped(wanted, placeOf)) {
      const [first] = jumps;
      if (first === undefined) continue;
      const { table, chain } = first;
      const byTarget = grouped(this.rules(table, chain), chainBehind);
      for (const jump of jumps) {
        const expected = shapeOfText(jump.rule);
        const seen = new Set<string>();
        for (const rule of byTarget.get(targetOf(jump)) ?? []) {
          const text = canonicalExpressions(rule.expressions);
          if (shapeOfRule(rule) !== expected && !this.learned.has(place + text)) continue;
          if (seen.has(text)) surplus.push({ table, chain, handle: rule.handle });
          seen.add(text);
        }
        if (seen.size === 0) missing.push(jump);
      }
    }
    return { missing, surplus };
  }

  /**
   * Looks for jumps that have just been written.
   * @returns those that are not there
   */
  confirm(written: readonly Jump[]): readonly Jump[] {
    return this.findJumps(written).missing.filter((jump) => {
      const { table, chain } = jump;
      // Ours stand first.
      const made = this.rules(table, chain).find((rule) => chainBehind(rule) === targetOf(jump));
      if (made === undefined) return true;
      this.learned.add(placeOf(jump) + canonicalExpressions(made.expressions));
      return false;
    });
  }

  /** Rules that are gone already are no matter. */
  deleteRules(rules: readonly RuleHandle[]): void {
    for (const { table, chain, handle } of rules) {
      const batch = new Batch(this.family, table);
      batch.deleteRule(chain, handle);
      try {
        this.connection.commit(batch);
      } catch (error) {
        if (!(error instanceof NetlinkError) || error.code !== 'ENOENT') throw error;
      }
    }
  }

  close(): void {
    this.connection.close();
  }
}

function placeOf({ table, chain }: Jump): string {
  return `${table} ${chain} `;
}

function targetOf({ rule }: Jump): string {
  return rule.slice(rule.lastIndexOf(' ') + 1);
}

function grouped<T, K>(list: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const item of list) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}
