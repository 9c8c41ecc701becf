/**
 * The input of iptables-restore --noflush: one section per table. A chain that is declared is emptied and filled with what
 * follows; all others stay as they are. Within a table everything happens in one step.
 */
import { Turn } from '../../../callbacks/turn.js';
import type { ChainChange, TableChange } from '../rules/chain-store.js';
import type { Jump } from '../rules/layout.js';
import type { TableName } from '../rules/names.js';

const linesPerText = 500;

export interface Section extends TableChange {
  readonly table: TableName;
  /** Rules for the head of the kernel's chains, in this order: the last one comes to stand first. */
  readonly inserted?: readonly Jump[];
  /** Rules that stand there more than once; the first of each goes. */
  readonly surplus?: readonly Jump[];
  /** Rules for the end of chains that are shared with others, and not declared. */
  readonly appended?: readonly ChainChange[];
}

export async function restoreInput(sections: readonly Section[], turn = new Turn()): Promise<string> {
  // The whole is long, so it is put together from texts of some hundred lines.
  const texts: string[] = [];
  let lines: string[] = [];
  const isFull = (): boolean => {
    if (lines.length < linesPerText) return false;
    texts.push(lines.join('\n'));
    lines = [];
    return turn.isOver;
  };
  for (const { table, written, deleted, inserted = [], surplus = [], appended = [] } of sections) {
    lines.push(`*${table}`);
    for (const { name } of written) lines.push(`:${name} - [0:0]`);
    for (const name of deleted) lines.push(`:${name} - [0:0]`);
    for (const { name, rules } of [...written, ...appended]) {
      for (const rule of rules) lines.push(`-A ${name} ${rule}`);
      if (isFull()) await turn.next();
    }
    for (const { chain, rule } of surplus) lines.push(`-D ${chain} ${rule}`);
    for (const { chain, rule } of inserted) lines.push(`-I ${chain} ${rule}`);
    // They can go only when nothing leads to them any longer.
    for (const name of deleted) {
      lines.push(`-X ${name}`);
      if (isFull()) await turn.next();
    }
    lines.push('COMMIT');
  }
  texts.push(...(lines.length === 0 ? [] : [lines.join('\n')]));
  return texts.length === 0 ? '' : `${texts.join('\n')}\n`;
}

/** Chains, those to which another leads before it. Whoever writes them one by one never leads a packet into the void. */
export async function childrenFirst(
  changes: readonly ChainChange[],
  turn = new Turn(),
): Promise<ChainChange[]> {
  const byName = new Map(changes.map((change) => [change.name, change]));
  const ordered: ChainChange[] = [];
  const visit = (change: ChainChange): void => {
    if (!byName.delete(change.name)) return;
    for (const rule of change.rules) {
      const target = /-[gj] (\S+)$/.exec(rule)?.[1];
      const child = target === undefined ? undefined : byName.get(target);
      if (child !== undefined) visit(child);
    }
    ordered.push(change);
  };
  for (const change of changes) {
    visit(change);
    if (turn.isOver) await turn.next();
  }
  return ordered;
}
