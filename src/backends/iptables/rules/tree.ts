/**
 * A prefix tree of rules, kept as chains. A packet meets the rules on one path through it: two or three per level
 * and those of one leaf, however many entries there are.
 *
 * Keys are strings of base-4 digits (two bits each) of one length. The shape follows from the entries alone, not from their
 * history: a node is a leaf while it has at most `leafRules` rules, else it branches at the first digit in which its
 * keys differ. So a restarted process builds the chains that it finds, and a change touches the nodes on its path.
 *
 * The chain of a node is named after the prefix that leads to it, the digits up to its parent's branch and one more.
 * Whatever the shape, before and after a change, a chain of that name holds exactly the keys with that prefix: chains can be
 * rewritten one after the other, children first, and no packet misses its rule.
 */

export interface TreeEntry {
  readonly key: string;
  /** Who put it there: only the owner takes it away again. */
  readonly owner: string;
  /** Rules as text, without chain. They must match nothing but packets of the key. */
  readonly rules: readonly string[];
}

/** What the keys mean. */
export interface KeySpace {
  /** Name of the chain that holds the keys with this prefix. */
  chainName(prefix: string): string;
  /**
   * Matches that packets of all keys from `first` to `last` (and as few others as possible) pass.
   * @param known digits that are certain to be those of `first` already
   */
  match(first: string, last: string, known: number): string;
}

/** A chain that is to be written (its rules) or deleted (undefined). */
export type ChainSink = (name: string, rules: readonly string[] | undefined) => void;

/** Rules of a leaf, and of a leaf so small that it stays in its parent's chain. */
const leafRules = 16;
const inlineRules = 2;

interface NodeBase {
  /** Rules in and below the node. */
  weight: number;
  changed: boolean;
  /** The chain that was written for it. */
  chain: string | undefined;
}

interface Leaf extends NodeBase {
  readonly kind: 'leaf';
  /** Ordered by key. */
  readonly entries: TreeEntry[];
}

interface Branch extends NodeBase {
  readonly kind: 'branch';
  /** The digits that all keys share. */
  readonly prefix: string;
  readonly children: (Node | undefined)[];
}

type Node = Leaf | Branch;

export class ChainTree {
  private root: Node = leafOf([]);
  private readonly owners = new Map<string, string>();
  /** Chains that are there, by the node that fills them. */
  private readonly live = new Map<string, Node>();
  private readonly orphans = new Set<string>();

  constructor(private readonly space: KeySpace) {}

  get size(): number {
    return this.owners.size;
  }

  /** Rules in the tree, without those that lead from chain to chain. */
  get weight(): number {
    return this.root.weight;
  }

  has(key: string): boolean {
    return this.owners.has(key);
  }

  set(entry: TreeEntry): void {
    this.owners.set(entry.key, entry.owner);
    this.root = this.put(this.root, entry);
  }

  /** Nothing happens when the key has passed to another owner meanwhile. */
  delete(key: string, owner: string): void {
    if (this.owners.get(key) !== owner) return;
    this.owners.delete(key);
    this.root = this.take(this.root, key) ?? leafOf([]);
    this.root.changed = true;
  }

  /** The first and the last key between two bounds, both of which count. */
  bounds(low: string, high: string): readonly [first: string | undefined, last: string | undefined] {
    return [firstFrom(this.root, low, high), lastUpTo(this.root, low, high)];
  }

  /**
   * Hands out every chain that differs since the last call, and those that are no longer used.
   * @returns the rules that stand for the whole tree in the chain from which it is entered
   */
  flush(sink: ChainSink): readonly string[] {
    this.drop(this.root);
    const rules = this.render(this.root, 0, '-j', sink);
    for (const name of this.orphans) if (!this.live.has(name)) sink(name, undefined);
    this.orphans.clear();
    return rules;
  }

  // ---- shape

  private put(node: Node, entry: TreeEntry): Node {
    node.changed = true;
    if (node.kind === 'leaf') {
      const at = position(node.entries, entry.key);
      const before = node.entries[at];
      const replaces = before?.key === entry.key;
      node.entries.splice(at, replaces ? 1 : 0, entry);
      node.weight += entry.rules.length - (replaces ? before.rules.length : 0);
      return node.weight > leafRules && node.entries.length > 1 ? this.replaced(node, node.entries) : node;
    }
    const shared = sharedDigits(node.prefix, entry.key);
    if (shared < node.prefix.length) {
      const above = branchAt(entry.key.slice(0, shared));
      setChild(above, node.prefix.charCodeAt(shared), node);
      setChild(above, entry.key.charCodeAt(shared), leafOf([entry]));
      return above;
    }
    const digit = entry.key.charCodeAt(shared);
    const child = childOf(node, digit);
    setChild(node, digit, child === undefined ? leafOf([entry]) : this.put(child, entry));
    return this.shrunk(node);
  }

  private take(node: Node, key: string): Node | undefined {
    node.changed = true;
    if (node.kind === 'leaf') {
      const at = position(node.entries, key);
      const [gone] = node.entries.splice(at, 1);
      node.weight -= gone?.rules.length ?? 0;
      if (node.entries.length > 0) return node;
      this.drop(node);
      return undefined;
    }
    const digit = key.charCodeAt(node.prefix.length);
    const child = childOf(node, digit);
    if (child === undefined) return node;
    setChild(node, digit, this.take(child, key));
    const [only, second] = node.children.filter((other) => other !== undefined);
    if (second !== undefined) return this.shrunk(node);
    this.drop(node);
    return only;
  }

  /** A branch that has lost so many rules that it is to be a leaf. */
  private shrunk(node: Branch): Node {
    if (node.weight > leafRules) return node;
    const entries: TreeEntry[] = [];
    collect(node, entries);
    return this.replaced(node, entries);
  }

  private replaced(node: Node, entries: readonly TreeEntry[]): Node {
    this.dropAll(node);
    return build(entries);
  }

  private drop(node: Node): void {
    if (node.chain === undefined) return;
    this.orphans.add(node.chain);
    if (this.live.get(node.chain) === node) this.live.delete(node.chain);
    node.chain = undefined;
  }

  private dropAll(node: Node): void {
    this.drop(node);
    if (node.kind === 'leaf') return;
    for (const child of node.children) if (child !== undefined) this.dropAll(child);
  }

  // ---- text

  /** The rules of a node's chain; writes the chains below it. */
  private render(node: Node, known: number, verb: '-j' | '-g', sink: ChainSink): readonly string[] {
    node.changed = false;
    if (node.kind === 'leaf') return node.entries.flatMap(({ rules }) => rules);
    const rules: string[] = [];
    for (const child of node.children) {
      if (child === undefined) continue;
      if (child.kind === 'leaf' && child.weight <= inlineRules) {
        this.drop(child);
        rules.push(...this.render(child, known, '-g', sink));
        continue;
      }
      const depth = node.prefix.length;
      const first = firstKey(child);
      const chain = this.space.chainName(first.slice(0, depth + 1));
      if (child.changed || child.chain !== chain) {
        if (child.chain !== chain) {
          this.drop(child);
          child.chain = chain;
        }
        this.live.set(chain, child);
        const below = child.kind === 'branch' ? child.prefix.length : depth + 1;
        sink(chain, this.render(child, below, '-g', sink));
      }
      rules.push(`${this.space.match(first, lastKey(child), known)} ${verb} ${chain}`);
    }
    return rules;
  }
}

function leafOf(entries: TreeEntry[]): Leaf {
  return { kind: 'leaf', entries, weight: weightOf(entries), changed: true, chain: undefined };
}

function branchAt(prefix: string): Branch {
  const children = new Array<Node | undefined>(4).fill(undefined);
  return { kind: 'branch', prefix, children, weight: 0, changed: true, chain: undefined };
}

/** @param entries ordered by key */
function build(entries: readonly TreeEntry[]): Node {
  const first = entries[0];
  const last = entries.at(-1);
  if (first === undefined || last === undefined || first === last || weightOf(entries) <= leafRules)
    return leafOf([...entries]);
  const depth = sharedDigits(first.key, last.key);
  const branch = branchAt(first.key.slice(0, depth));
  let from = 0;
  while (from < entries.length) {
    const digit = entries[from]?.key.charCodeAt(depth) ?? 0;
    let to = from + 1;
    while (entries[to]?.key.charCodeAt(depth) === digit) to++;
    setChild(branch, digit, build(entries.slice(from, to)));
    from = to;
  }
  return branch;
}

function weightOf(entries: readonly TreeEntry[]): number {
  return entries.reduce((sum, { rules }) => sum + rules.length, 0);
}

const zero = '0'.charCodeAt(0);

function childOf(node: Branch, digit: number): Node | undefined {
  return node.children[digit - zero];
}

function setChild(node: Branch, digit: number, child: Node | undefined): void {
  node.children[digit - zero] = child;
  node.weight = node.children.reduce((sum, other) => sum + (other?.weight ?? 0), 0);
}

function collect(node: Node, into: TreeEntry[]): void {
  if (node.kind === 'leaf') into.push(...node.entries);
  else for (const child of node.children) if (child !== undefined) collect(child, into);
}

function firstKey(node: Node): string {
  if (node.kind === 'leaf') return node.entries[0]?.key ?? '';
  const child = node.children.find((candidate) => candidate !== undefined);
  return child === undefined ? node.prefix : firstKey(child);
}

function lastKey(node: Node): string {
  if (node.kind === 'leaf') return node.entries.at(-1)?.key ?? '';
  const child = node.children.findLast((candidate) => candidate !== undefined);
  return child === undefined ? node.prefix : lastKey(child);
}

function firstFrom(node: Node, low: string, high: string): string | undefined {
  if (node.kind === 'leaf') return node.entries.find(({ key }) => key >= low && key <= high)?.key;
  for (const child of node.children) {
    if (child === undefined || lastKey(child) < low) continue;
    return firstKey(child) > high ? undefined : firstFrom(child, low, high);
  }
  return undefined;
}

function lastUpTo(node: Node, low: string, high: string): string | undefined {
  if (node.kind === 'leaf') return node.entries.findLast(({ key }) => key >= low && key <= high)?.key;
  for (const child of node.children.toReversed()) {
    if (child === undefined || firstKey(child) > high) continue;
    return lastKey(child) < low ? undefined : lastUpTo(child, low, high);
  }
  return undefined;
}

/** Where a key stands, or would stand. */
function position(entries: readonly TreeEntry[], key: string): number {
  const at = entries.findIndex((entry) => entry.key >= key);
  return at < 0 ? entries.length : at;
}

export function sharedDigits(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  let at = 0;
  while (at < length && a.charCodeAt(at) === b.charCodeAt(at)) at++;
  return at;
}
