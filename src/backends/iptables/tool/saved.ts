/** What iptables-save prints, and whether a rule in it is one of ours. */
import { Turn } from '../../../callbacks/turn.js';
import type { TableName } from '../rules/names.js';

/** Rules by chain, as text without chain, in the order in which packets meet them. */
export type SavedTable = ReadonlyMap<string, readonly string[]>;

const linesPerPart = 500;

const nothing: SavedTable = new Map();

export class Saved {
  private readonly tables = new Map<string, Map<string, string[]>>();

  /** @param text the output of iptables-save, of one table or several; or, after a line `*TABLE`, that of `-S` for some chains */
  static async read(text: string, turn = new Turn()): Promise<Saved> {
    const saved = new Saved();
    const parts = saved.parts(text);
    while (parts.next().done !== true) if (turn.isOver) await turn.next();
    return saved;
  }

  /** Reads the lines, some at a time. */
  private *parts(text: string): Generator<undefined> {
    let table = new Map<string, string[]>();
    let from = 0;
    let lines = 0;
    while (from < text.length) {
      if (++lines % linesPerPart === 0) yield;
      let to = text.indexOf('\n', from);
      if (to < 0) to = text.length;
      const line = text.slice(from, to);
      from = to + 1;
      if (line.startsWith('*')) {
        table = new Map();
        this.tables.set(line.slice(1), table);
      } else if (line.startsWith(':')) {
        table.set(line.slice(1, endOfWord(line, 1)), []);
      } else if (line.startsWith('-N ')) {
        table.set(line.slice(3), []);
      } else if (line.startsWith('-A ')) {
        const end = endOfWord(line, 3);
        table.get(line.slice(3, end))?.push(line.slice(end + 1));
      }
    }
  }

  /** Whether one of our rules in that chain has these words in it. */
  mentions(table: TableName, chain: string, words: string): boolean {
    return (
      this.table(table)
        .get(chain)
        ?.some((rule) => rule.includes(words)) === true
    );
  }

  /** Empty when the kernel has no such table yet. */
  table(name: TableName): SavedTable {
    return this.tables.get(name) ?? nothing;
  }
}

function endOfWord(line: string, from: number): number {
  const end = line.indexOf(' ', from);
  return end < 0 ? line.length : end;
}

export function sameRules(found: readonly string[], wanted: readonly string[]): boolean {
  return found.length === wanted.length && found.every((rule, at) => sameRule(rule, wanted[at] ?? ''));
}

/** Also when versions of the tool print the rule in different words. */
export function sameRule(found: string, wanted: string): boolean {
  return found === wanted || canonical(found) === canonical(wanted);
}

/** Flags that set a mark, and the value and mask that each means (iptables-extensions(8)). */
const markFlags: Readonly<Record<string, (bits: string) => string>> = {
  '--set-xmark': (value) => (value.includes('/') ? value : `${value}/0xffffffff`),
  '--set-mark': (value) => (value.includes('/') ? value : `${value}/0xffffffff`),
  '--or-mark': (bits) => `${bits}/${bits}`,
  '--xor-mark': (bits) => `${bits}/0x0`,
};

/** One spelling for what old and new versions write differently. */
export function canonical(rule: string): string {
  const found = tokens(rule);
  const out: string[] = [];
  for (let at = 0; at < found.length; at++) {
    const token = found[at] ?? '';
    const next = found[at + 1] ?? '';
    const mark = markFlags[token];
    if (token === '--probability') {
      out.push(token, String(Math.round(Number(next) * 2 ** 31)));
      at++;
    } else if (mark !== undefined) {
      out.push('--set-xmark', mark(next.replace(/0x0+(?=[0-9a-f])/g, '0x')));
      at++;
    } else if (token === '--mask' && /^(255\.){3}255$|^(ffff:){7}ffff$/.test(next)) {
      at++;
    } else if (token !== '--rsource') {
      out.push(token);
    }
  }
  return out.join('\0');
}

/** Splits as the tool does: quotes hold words together, a backslash takes the next character as it is. */
export function tokens(rule: string): string[] {
  const out: string[] = [];
  for (const [, quoted, plain] of rule.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)) {
    out.push(quoted === undefined ? (plain ?? '') : quoted.replace(/\\(.)/g, '$1'));
  }
  return out;
}
