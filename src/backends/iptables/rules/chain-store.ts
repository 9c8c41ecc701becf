/**
 * The chains of one table as they are wanted and as they are in the kernel; their difference is what is written next.
 * Rules are kept as the lines of one text per chain.
 */
import { Turn } from '../../../callbacks/turn.js';
import { sameRules, type SavedTable } from '../tool/saved.js';

export interface ChainChange {
  readonly name: string;
  readonly rules: readonly string[];
}

export interface TableChange {
  /** To be emptied and filled; all of them exist afterwards. */
  readonly written: readonly ChainChange[];
  readonly deleted: readonly string[];
}

export function isEmpty({ written, deleted }: TableChange): boolean {
  return written.length === 0 && deleted.length === 0;
}

export class ChainStore {
  private readonly wanted = new Map<string, string>();
  private readonly kernel = new Map<string, string>();
  private readonly dirty = new Set<string>();
  private desiredRuleLines = 0;

  /** Rules that are wanted. */
  get rules(): number {
    return this.desiredRuleLines;
  }

  has(name: string): boolean {
    return this.wanted.has(name);
  }

  /** The lines of a wanted chain. */
  rulesOf(name: string): readonly string[] {
    return lines(this.wanted.get(name));
  }

  set(name: string, rules: readonly string[]): void {
    const before = this.wanted.get(name);
    const text = rules.join('\n');
    if (before === text) return;
    this.desiredRuleLines += rules.length - countLines(before);
    // A text that the kernel has already need not be kept twice.
    const held = this.kernel.get(name);
    this.wanted.set(name, held === text ? held : text);
    this.dirty.add(name);
  }

  delete(name: string): void {
    this.desiredRuleLines -= countLines(this.wanted.get(name));
    this.wanted.delete(name);
    this.dirty.add(name);
  }

  /** Only what differs from the kernel. */
  difference(): TableChange {
    const written: ChainChange[] = [];
    const deleted: string[] = [];
    for (const name of this.dirty) {
      const [wanted, kernel] = [this.wanted.get(name), this.kernel.get(name)];
      if (wanted === kernel) continue;
      if (wanted === undefined) deleted.push(name);
      else written.push(new WrittenChain(name, wanted));
    }
    return { written, deleted };
  }

  /** The kernel has made this change. */
  commit({ written, deleted }: TableChange): void {
    for (const { name } of written) {
      this.kernel.set(name, this.wanted.get(name) ?? '');
      this.dirty.delete(name);
    }
    for (const name of deleted) {
      this.kernel.delete(name);
      this.dirty.delete(name);
    }
  }

  /** How many rules the kernel holds in these chains. */
  kernelRules({ written, deleted }: TableChange): number {
    let count = 0;
    for (const { name } of written) count += countLines(this.kernel.get(name));
    for (const name of deleted) count += countLines(this.kernel.get(name));
    return count;
  }

  /** Every chain that was left in the kernel, with the number of its rules. */
  *held(): Generator<readonly [name: string, rules: number]> {
    for (const [name, text] of this.kernel) yield [name, countLines(text)];
  }

  /**
   * Starts over with what the kernel was found to hold, of the wanted chains and of those that `isOurs`. Chains in the
   * kernel that nobody wants are to be deleted.
   */
  async compare(found: SavedTable, isOurs: (name: string) => boolean, turn = new Turn()): Promise<void> {
    this.kernel.clear();
    this.dirty.clear();
    for (const [name, text] of this.wanted) {
      if (turn.isOver) await turn.next();
      const rules = found.get(name);
      if (rules !== undefined && sameRules(rules, lines(text))) {
        this.kernel.set(name, text);
        continue;
      }
      if (rules !== undefined) this.kernel.set(name, rules.join('\n'));
      this.dirty.add(name);
    }
    for (const [name, rules] of found) {
      if (turn.isOver) await turn.next();
      if (this.wanted.has(name) || !isOurs(name)) continue;
      this.kernel.set(name, rules.join('\n'));
      this.dirty.add(name);
    }
  }
}

/** The lines of a chain that is written; they are taken apart when they are needed. */
class WrittenChain implements ChainChange {
  constructor(
    readonly name: string,
    private readonly text: string,
  ) {}

  get rules(): readonly string[] {
    return lines(this.text);
  }
}

function countLines(text: string | undefined): number {
  if (text === undefined || text === '') return 0;
  let count = 1;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) count++;
  return count;
}

function lines(text: string | undefined): readonly string[] {
  return text === undefined || text === '' ? [] : text.split('\n');
}
