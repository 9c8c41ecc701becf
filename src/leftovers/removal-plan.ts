/**
 * What to take out of one table of iptables: all chains of ours, and the rules of built-in chains that lead to them. A rule
 * of another program that leads to a chain of ours keeps that chain, and what it leads to, alive: deleting it would
 * break the other program, and the kernel refuses it.
 */

/** One table as it is. R stands for whatever names a rule. */
export interface TableView<R> {
  readonly chains: readonly { readonly name: string; readonly builtIn: boolean }[];
  /** The rules of a chain with the chain that each leads to, if any. */
  rulesOf(chain: string): Iterable<{ readonly rule: R; readonly target: string | undefined }>;
}

export interface RemovalPlan<R> {
  /** Rules of built-in chains, in their order. */
  readonly jumps: readonly { readonly chain: string; readonly rule: R }[];
  readonly chains: readonly string[];
  /** Chains of ours that stay. */
  readonly kept: readonly KeptChain[];
}

export interface KeptChain {
  readonly chain: string;
  /** The chain whose rule leads here. */
  readonly usedBy: string;
}

export function planRemoval<R>(table: TableView<R>, isOurs: (chain: string) => boolean): RemovalPlan<R> {
  const ours = new Set(
    table.chains.filter(({ builtIn, name }) => !builtIn && isOurs(name)).map(({ name }) => name),
  );
  if (ours.size === 0) return { jumps: [], chains: [], kept: [] };
  const jumps: { chain: string; rule: R }[] = [];
  const kept = new Map<string, string>();
  for (const { name: chain, builtIn } of table.chains) {
    if (ours.has(chain)) continue;
    for (const { rule, target } of table.rulesOf(chain)) {
      if (target === undefined || !ours.has(target)) continue;
      if (builtIn) jumps.push({ chain, rule });
      else kept.set(target, chain);
    }
  }
  // Grows while it is walked: what a kept chain leads to is kept, too.
  for (const chain of kept.keys()) {
    for (const { target } of table.rulesOf(chain)) {
      if (target !== undefined && ours.has(target) && !kept.has(target)) kept.set(target, chain);
    }
  }
  return {
    jumps,
    chains: [...ours].filter((chain) => !kept.has(chain)),
    kept: [...kept].map(([chain, usedBy]) => ({ chain, usedBy })),
  };
}
