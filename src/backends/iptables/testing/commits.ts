/**
 * What iptables-restore makes of its input, commit by commit: the states that packets may meet, and the ways they take when
 * they meet one table before a commit and the next table after it.
 */
import { outcomes, walk, type Chains, type Packet } from './walk.js';

/** Both tables between two commits. */
export interface TableState {
  readonly nat: Chains;
  readonly filter: Chains;
}

const empty: Chains = new Map();

/** The chains of filter that packets to a Service meet, in the order of the jumps. */
const filterChains = ['KUBE-PROXY-FIREWALL', 'KUBE-SERVICES', 'KUBE-EXTERNAL-SERVICES'];

/** Stands in for IptablesTool. */
export class FakeTool {
  /** The latest is the last. */
  readonly states: TableState[] = [{ nat: empty, filter: empty }];
  readonly inputs: string[] = [];

  constructor(readonly kind: 'nf_tables' | 'legacy' = 'nf_tables') {}

  get latest(): TableState {
    return this.states.at(-1) ?? { nat: empty, filter: empty };
  }

  /** iptables-save, as far as our own chains are concerned. */
  save(): string {
    const lines: string[] = [];
    for (const table of ['nat', 'filter'] as const) {
      lines.push(`*${table}`);
      const chains = this.latest[table];
      for (const name of chains.keys()) lines.push(`:${name} - [0:0]`);
      for (const [name, rules] of chains) lines.push(...rules.map((rule) => `-A ${name} ${rule}`));
      lines.push('COMMIT');
    }
    return `${lines.join('\n')}\n`;
  }

  restore(input: string): Promise<void> {
    this.inputs.push(input);
    let table = '';
    let chains = new Map<string, readonly string[]>();
    for (const line of input.split('\n')) {
      const [verb = '', name = '', ...rest] = line.split(' ');
      if (line.startsWith('*')) {
        table = line.slice(1);
        chains = new Map(table === 'nat' || table === 'filter' ? this.latest[table] : empty);
      } else if (line.startsWith(':')) {
        chains.set(verb.slice(1), []);
      } else if (verb === '-A') {
        chains.set(name, [...(chains.get(name) ?? []), rest.join(' ')]);
      } else if (verb === '-I') {
        chains.set(name, [rest.join(' '), ...(chains.get(name) ?? [])]);
      } else if (verb === '-X') {
        chains.delete(name);
      } else if (line === 'COMMIT' && (table === 'nat' || table === 'filter')) {
        this.states.push({ ...this.latest, [table]: chains });
      }
    }
    return Promise.resolve();
  }
}

/** What may become of a packet that meets nat in one state and filter in another. */
export function fate(nat: Chains, filter: Chains, packet: Packet): Set<string> {
  const fates = new Set<string>();
  for (const outcome of outcomes(walk(nat, 'KUBE-SERVICES', packet)).keys()) {
    const [, ip, port] = /--to-destination ([0-9.]+):(\d+)/.exec(outcome) ?? [];
    const isTranslated = ip !== undefined && port !== undefined;
    const arriving: Packet = isTranslated
      ? { ...packet, destination: ip, port: Number(port), toNode: ip === nodeIP }
      : packet;
    fates.add(filtered(filter, arriving) ?? (isTranslated ? outcome : 'passes untranslated'));
  }
  return fates;
}

/** Address of the node that runs the rules. */
export const nodeIP = '100.64.10.11';

function filtered(filter: Chains, packet: Packet): string | undefined {
  for (const chain of filterChains) {
    if (!filter.has(chain)) continue;
    for (const { verdict } of walk(filter, chain, packet)) if (verdict !== 'nothing') return verdict;
  }
  return undefined;
}

/**
 * Every fate of a packet while `states` follow each other: nat is met first, filter in the same state or a later one.
 * @param from index of the state at the beginning
 */
export function fatesDuring(states: readonly TableState[], from: number, packet: Packet): Set<string> {
  const fates = new Set<string>();
  for (let early = from; early < states.length; early++) {
    for (let late = early; late < states.length; late++) {
      const [nat, filter] = [states[early]?.nat, states[late]?.filter];
      if (nat === undefined || filter === undefined || !nat.has('KUBE-SERVICES')) continue;
      for (const one of fate(nat, filter, packet)) fates.add(one);
    }
  }
  return fates;
}
