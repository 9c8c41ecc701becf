/**
 * What a ruleset does to the first packet of a connection, found by going through its chains rule by rule as the kernel
 * would. It knows the statements of nft, not the program's layout; a statement that it does not know is an error, so a foreign
 * rule in a packet's way does not go unseen.
 */
import {
  addressNumber,
  asText,
  isFields,
  isList,
  isWithin,
  RulesetError,
  type Chain,
  type Collection,
  type Json,
  type Table,
} from './ruleset.js';

export interface Packet {
  readonly source: string;
  readonly destination: string;
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
}

/** Where the walk takes place. */
export interface Node {
  readonly family: 'ip' | 'ip6';
  /** Its own addresses. */
  readonly addresses: ReadonlySet<string>;
}

/** Each way that a packet may take. `to`: 'address port'. */
export type Outcome =
  | { readonly kind: 'dropped' | 'rejected' }
  /** Not translated, not held up. */
  | { readonly kind: 'passed'; readonly masqueraded: boolean }
  | { readonly kind: 'translated'; readonly to: string; readonly masqueraded: boolean };

/** One thing of the rules that a packet has met, for a report. */
export interface Look {
  /** A base chain that it entered, or a set or map that it was looked up in. */
  readonly in: string;
  readonly key: string;
  readonly found: boolean;
  readonly after: boolean;
}

/**
 * The rules as one packet sees them while a transaction goes in. nf_tables takes the generation of the rules at each base chain
 * (nft_do_chain), and that of elements at each lookup (nft_genmask_cur), so a packet may meet both states: all that it meets
 * before the transaction in the one, the rest in the other.
 */
class Sight {
  readonly looks: Look[] = [];
  /** The rules that its base chain goes by. */
  rules: Table;

  /** @param turn how many looks come before the transaction */
  constructor(
    private readonly before: Table,
    private readonly after: Table,
    private readonly turn: number,
  ) {
    this.rules = before;
  }

  /** Enters a base chain. */
  enter(hook: string): Table {
    this.rules = this.now();
    this.note(hook, '', true);
    return this.rules;
  }

  /** Where the next lookup takes place. */
  now(): Table {
    return this.looks.length < this.turn ? this.before : this.after;
  }

  note(where: string, key: string, found: boolean): void {
    this.looks.push({ in: where, key, found, after: this.looks.length >= this.turn });
  }

  get isAtRest(): boolean {
    return this.before === this.after;
  }

  /** A chain of which only the other state knows has no rules in this one. */
  isElsewhere(chain: string): boolean {
    return this.before.chains.has(chain) || this.after.chains.has(chain);
  }
}

/** Elements that packets have met. */
export class Touched {
  private readonly elements = new Map<string, Set<string>>();

  element(collection: string, key: string): void {
    let keys = this.elements.get(collection);
    if (keys === undefined) this.elements.set(collection, (keys = new Set()));
    keys.add(key);
  }

  has(collection: string, key: string): boolean {
    return this.elements.get(collection)?.has(key) === true;
  }
}

type Verdict = 'accept' | 'drop' | 'reject' | 'return' | 'next';

/** Addresses by number are needed for prefixes only, and are few. */
const numbers = new Map<string, bigint>();
function numberOf(address: string): bigint {
  let number = numbers.get(address);
  if (number === undefined) {
    if (numbers.size > 100_000) numbers.clear();
    numbers.set(address, (number = addressNumber(address)));
  }
  return number;
}

const classPattern = /^[0-9a-f]{1,4}:[0-9a-f]{1,4}$/;

/** What rules compute with: class ids become numbers, as they are in the kernel. */
function plain(value: Json): string | number {
  if (typeof value === 'number') return value;
  if (typeof value !== 'string') throw new RulesetError(`no value: ${JSON.stringify(value)}`);
  if (value === 'none') return 0;
  if (classPattern.test(value)) {
    const [major = '', minor = ''] = value.split(':');
    return parseInt(major, 16) * 0x10000 + parseInt(minor, 16);
  }
  return value;
}

/** A class id as nft prints it in elements. */
function classText(value: number): string {
  return value === 0
    ? 'none'
    : `${Math.floor(value / 0x10000).toString(16)}:${(value % 0x10000).toString(16)}`;
}

/** Drawn numbers of one way; the next way is another row of draws. */
class Draws {
  private position = 0;
  private readonly draws: { drawn: number; of: number }[] = [];

  draw(of: number): number {
    const known = this.draws[this.position];
    if (known === undefined) this.draws.push({ drawn: 0, of });
    this.position++;
    return known?.drawn ?? 0;
  }

  /** @returns false when all ways have been taken */
  next(): boolean {
    this.position = 0;
    for (let last = this.draws.at(-1); last !== undefined; last = this.draws.at(-1)) {
      if (++last.drawn < last.of) return true;
      this.draws.pop();
    }
    return false;
  }
}

const baseChains = new WeakMap<Table, Map<string, readonly Chain[]>>();

/** Base chains of a hook, in their order. */
function hooked(table: Table, hook: string): readonly Chain[] {
  let byHook = baseChains.get(table);
  if (byHook === undefined) baseChains.set(table, (byHook = new Map<string, readonly Chain[]>()));
  let found = byHook.get(hook);
  if (found === undefined) {
    found = [...table.chains.values()]
      .filter((chain) => chain.hook === hook)
      .sort((a, b) => a.priority - b.priority);
    byHook.set(hook, found);
  }
  return found;
}

class Walk {
  private destination: string;
  private port: number;
  private mark = 0;
  private priority = 0;
  private translated = false;
  private masqueraded = false;

  constructor(
    private readonly sight: Sight,
    private readonly node: Node,
    private readonly packet: Packet,
    private readonly draws: Draws,
    private readonly touched: Touched | undefined,
    /** What clients were given before: element of `affinity` to endpoint number. */
    private readonly memory: ReadonlyMap<string, string> | undefined,
  ) {
    this.destination = packet.destination;
    this.port = packet.port;
  }

  /** The hooks of a packet that is forwarded or comes in, or that a process of the node sends. */
  run(): Outcome {
    const fromHere = this.isLocal(this.packet.source);
    const hooks = fromHere ? ['output', 'postrouting'] : ['prerouting'];
    for (const hook of hooks) {
      const end = this.hook(hook, true);
      if (end !== undefined) return end;
    }
    const toHere = this.isLocal(this.destination);
    // What goes to the node itself passes the loopback interface; translation is settled by then.
    const more = toHere
      ? fromHere
        ? ['prerouting', 'input']
        : ['input']
      : fromHere
        ? []
        : ['forward', 'postrouting'];
    for (const hook of more) {
      const end = this.hook(hook, !fromHere);
      if (end !== undefined) return end;
    }
    // While a transaction goes in, the mark of one packet may be left behind.
    if (this.priority !== 0 && this.sight.isAtRest)
      throw new RulesetError(`meta priority is left at ${classText(this.priority)}`);
    if (!this.translated) return { kind: 'passed', masqueraded: this.masqueraded };
    return { kind: 'translated', to: `${this.destination} ${this.port}`, masqueraded: this.masqueraded };
  }

  private isLocal(address: string): boolean {
    return this.node.addresses.has(address) || address === '::1' || address.startsWith('127.');
  }

  private hook(hook: string, translates: boolean): Outcome | undefined {
    for (const { name, type } of hooked(this.sight.rules, hook)) {
      if (type === 'nat' && !translates) continue;
      const chain = this.sight.enter(name).chains.get(name);
      if (chain === undefined) throw new RulesetError(`base chain ${name} comes or goes`);
      const verdict = this.chain(chain, 0);
      if (verdict === 'drop') return { kind: 'dropped' };
      if (verdict === 'reject') return { kind: 'rejected' };
    }
    return undefined;
  }

  private chain(chain: Chain, depth: number): Verdict {
    if (depth > 16) throw new RulesetError(`a loop of jumps through ${chain.name}`);
    for (const rule of chain.rules) {
      const verdict = this.rule(rule.statements, depth, chain.name);
      // The end of a chain that was jumped to is the next rule here; of a base chain its policy, which is to accept.
      if (verdict === 'return') return 'next';
      if (verdict !== 'next') return verdict;
    }
    return 'next';
  }

  private rule(statements: readonly Json[], depth: number, chain: string): Verdict {
    for (const statement of statements) {
      const verdict = this.statement(statement, depth, chain);
      if (verdict === 'no match') return 'next';
      if (verdict !== 'next') return verdict;
    }
    return 'next';
  }

  private statement(statement: Json, depth: number, chain: string): Verdict | 'no match' {
    // How nft prints what clients are remembered with. It changes no packet.
    if (typeof statement === 'string' && /^(update|delete) @affinity \{/.test(statement)) return 'next';
    if (!isFields(statement)) throw new RulesetError(`unknown in ${chain}: ${JSON.stringify(statement)}`);
    const [name = ''] = Object.keys(statement);
    const body = statement[name] ?? null;
    switch (name) {
      case 'accept':
      case 'drop':
      case 'return':
        return name;
      case 'reject':
        if (isFields(body) && body['expr'] === 'port-unreachable') return 'reject';
        break;
      case 'jump':
      case 'goto':
        return this.go(name, body, depth);
      case 'match':
        if (isFields(body)) return this.match(body) ? 'next' : 'no match';
        break;
      case 'mangle':
        if (isFields(body)) return this.mangle(body);
        break;
      case 'vmap':
        if (isFields(body)) {
          const verdict = this.lookUp(body['data'], this.value(body['key']));
          if (verdict === undefined) return 'no match';
          return this.statement(verdict, depth, chain);
        }
        break;
      case 'dnat':
        if (isFields(body)) return this.translate(body);
        break;
      case 'masquerade':
        this.masqueraded = true;
        return 'accept';
    }
    throw new RulesetError(`unknown in ${chain}: ${JSON.stringify(statement)}`);
  }

  private go(how: 'jump' | 'goto', body: Json, depth: number): Verdict {
    const target = isFields(body) ? asText(body['target']) : '';
    const chain = this.sight.rules.chains.get(target);
    if (chain === undefined && this.sight.isElsewhere(target)) return how === 'goto' ? 'return' : 'next';
    if (chain === undefined) throw new RulesetError(`${how} to ${target}, which is not there`);
    const verdict = this.chain(chain, depth + 1);
    return how === 'goto' && verdict === 'next' ? 'return' : verdict;
  }

  private match(body: Readonly<Record<string, Json>>): boolean {
    const { op, left, right } = body;
    if (isFields(left) && isFields(left['ct'])) {
      // It is the first packet of its connection.
      if (left['ct']['key'] === 'state' && op === 'in' && right === 'new') return true;
      if (left['ct']['key'] === 'status' && op === 'in' && right === 'dnat') return this.translated;
      throw new RulesetError(`unknown match: ${JSON.stringify(body)}`);
    }
    const value = this.value(left);
    const equal = this.fits(value, right ?? null);
    if (op === '==') return equal;
    if (op === '!=') return !equal;
    throw new RulesetError(`unknown match: ${JSON.stringify(body)}`);
  }

  private fits(value: string | number | undefined, right: Json): boolean {
    if (value === undefined) return false;
    if (typeof right === 'string' && right.startsWith('@')) return this.find(right, value) !== undefined;
    if (isFields(right) && isFields(right['prefix'])) {
      return isWithinPrefix(String(value), right['prefix']);
    }
    return value === plain(right);
  }

  private mangle(body: Readonly<Record<string, Json>>): Verdict | 'no match' {
    const { key, value } = body;
    const what = isFields(key) && isFields(key['meta']) ? key['meta']['key'] : undefined;
    const result = this.value(value);
    if (result === undefined) return 'no match';
    if (what === 'priority') this.priority = Number(result);
    else if (what === 'mark') this.mark = Number(result);
    else throw new RulesetError(`sets what it should not: ${JSON.stringify(body)}`);
    return 'next';
  }

  private translate(body: Readonly<Record<string, Json>>): Verdict | 'no match' {
    const { addr } = body;
    const map = isFields(addr) ? addr['map'] : undefined;
    if (!isFields(map)) throw new RulesetError(`unknown translation: ${JSON.stringify(body)}`);
    const data = this.lookUp(map['data'], this.value(map['key']));
    if (data === undefined) return 'no match';
    const parts = isFields(data) ? data['concat'] : undefined;
    if (!isList(parts)) throw new RulesetError(`no address and port: ${JSON.stringify(data)}`);
    this.destination = asText(parts[0]);
    this.port = Number(parts[1]);
    this.translated = true;
    return 'accept';
  }

  /** undefined: a map does not have it, so the rule ends. */
  private value(expression: Json | undefined): string | number | undefined {
    if (!isFields(expression)) return plain(expression ?? null);
    const [name = ''] = Object.keys(expression);
    const body = expression[name] ?? null;
    if (isList(body)) {
      if (name === 'concat') {
        const parts = body.map((part) => this.printed(part));
        return parts.includes(undefined) ? undefined : parts.join(' ');
      }
      const [left, right] = [this.value(body[0]), this.value(body[1])];
      if (left === undefined || right === undefined) return undefined;
      if (name === '&' && typeof left === 'string') return masked(left, String(right));
      if (typeof left === 'number' && typeof right === 'number') {
        if (name === '&') return (left & right) >>> 0;
        if (name === '|') return (left | right) >>> 0;
        if (name === '^') return (left ^ right) >>> 0;
      }
    } else if (isFields(body)) {
      switch (name) {
        case 'payload':
          return this.field(body);
        case 'meta':
          if (body['key'] === 'l4proto') return this.packet.protocol;
          if (body['key'] === 'priority') return this.priority;
          if (body['key'] === 'mark') return this.mark;
          break;
        case 'numgen':
          if (body['mode'] === 'random' && body['offset'] === 0) return this.draws.draw(Number(body['mod']));
          break;
        case 'fib':
          if (body['result'] === 'type' && isList(body['flags'])) {
            const address = body['flags'].includes('saddr') ? this.packet.source : this.destination;
            return this.isLocal(address) ? 'local' : 'unicast';
          }
          break;
        case 'map': {
          const found = this.lookUp(body['data'], this.value(body['key']));
          return found === undefined ? undefined : plain(found);
        }
      }
    }
    throw new RulesetError(`unknown expression: ${JSON.stringify(expression)}`);
  }

  /** A part of a key, as nft prints it in elements. */
  private printed(expression: Json): string | number | undefined {
    const value = this.value(expression);
    return typeof value === 'number' && isClass(expression) ? classText(value) : value;
  }

  private field({ protocol, field }: Readonly<Record<string, Json>>): string | number {
    if (protocol === 'th' && field === 'dport') return this.port;
    if (protocol === this.node.family && field === 'saddr') return this.packet.source;
    if (protocol === this.node.family && field === 'daddr') return this.destination;
    throw new RulesetError(`unknown field: ${asText(protocol)} ${asText(field)}`);
  }

  private lookUp(data: Json | undefined, key: string | number | undefined): Json | undefined {
    if (typeof data !== 'string') throw new RulesetError(`no named map: ${JSON.stringify(data)}`);
    return key === undefined ? undefined : this.find(data, key)?.data;
  }

  private find(reference: string, key: string | number): { readonly data: Json | undefined } | undefined {
    const name = reference.slice(1);
    // What clients were given before is not looked at: this one is new, or brings its own.
    if (name === 'affinity') {
      const remembered = this.memory?.get(String(key));
      return remembered === undefined ? undefined : { data: remembered };
    }
    const collection = this.sight.now().collections.get(name) ?? this.sight.rules.collections.get(name);
    if (collection === undefined) throw new RulesetError(`${reference} is not there`);
    const text = this.elementKey(collection, key);
    this.sight.note(name, String(key), text !== undefined);
    if (text === undefined) return undefined;
    this.touched?.element(name, text);
    return { data: collection.elements.get(text) };
  }

  private elementKey(collection: Collection, key: string | number): string | undefined {
    const text = String(key);
    if (collection.elements.has(text)) return text;
    if (typeof key === 'number' && collection.elements.has(classText(key))) return classText(key);
    if (collection.ranges.length === 0) return undefined;
    const number = numberOf(text);
    return collection.ranges.find(({ from, to }) => from <= number && number <= to)?.key;
  }
}

const within = new WeakMap<object, Map<string, boolean>>();

/** The same few sources are asked about again and again. */
function isWithinPrefix(address: string, prefix: Readonly<Record<string, Json>>): boolean {
  let known = within.get(prefix);
  if (known === undefined) within.set(prefix, (known = new Map<string, boolean>()));
  let result = known.get(address);
  if (result === undefined) {
    result = isWithin(address, `${asText(prefix['addr'])}/${asText(prefix['len'])}`);
    known.set(address, result);
  }
  return result;
}

const classes = new WeakMap<object, boolean>();

/** Whether an expression is about a class id, which nft prints as two numbers. */
function isClass(expression: Json): boolean {
  if (typeof expression !== 'object' || expression === null) return false;
  let known = classes.get(expression);
  if (known === undefined) {
    known = JSON.stringify(expression).includes('"priority"');
    classes.set(expression, known);
  }
  return known;
}

const maskedAddresses = new Map<string, string>();

/** An address cut by a mask, both as text. */
function masked(address: string, mask: string): string {
  const key = `${address} ${mask}`;
  let result = maskedAddresses.get(key);
  if (result === undefined) {
    result = addressText(addressNumber(address) & addressNumber(mask), address.includes(':'));
    maskedAddresses.set(key, result);
  }
  return result;
}

/** As nft prints it: the longest row of zero groups is cut out. */
export function addressText(number: bigint, v6: boolean): string {
  if (!v6) return [24n, 16n, 8n, 0n].map((shift) => String((number >> shift) & 255n)).join('.');
  const groups = Array.from({ length: 8 }, (_, i) =>
    ((number >> BigInt(112 - 16 * i)) & 0xffffn).toString(16),
  );
  let [best, length] = [0, 0];
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (groups[end] === '0') end++;
    if (end - i > length) [best, length] = [i, end - i];
  }
  if (length < 2) return groups.join(':');
  return `${groups.slice(0, best).join(':')}::${groups.slice(best + length).join(':')}`;
}

/** All that may become of the packet; the order is that of the draws. */
export function walk(table: Table, node: Node, packet: Packet, touched: Touched): Outcome[] {
  const outcomes: Outcome[] = [];
  const draws = new Draws();
  do outcomes.push(new Walk(new Sight(table, table, 0), node, packet, draws, touched, undefined).run());
  while (draws.next());
  return outcomes;
}

export interface Way {
  readonly outcome: Outcome;
  readonly looks: readonly Look[];
}

/**
 * All that may become of the packet while one transaction goes in, by all draws and wherever on the packet's way it comes.
 * @param memory endpoint numbers that the client was given before, by element of `affinity`
 */
export function* walkBetween(
  before: Table,
  after: Table,
  node: Node,
  packet: Packet,
  memory?: ReadonlyMap<string, string>,
): Generator<Way, void, undefined> {
  for (let turn = 0, most = 1; turn <= most; turn++) {
    const draws = new Draws();
    do {
      const sight = new Sight(before, after, turn);
      const outcome = new Walk(sight, node, packet, draws, undefined, memory).run();
      most = Math.max(most, sight.looks.length);
      yield { outcome, looks: sight.looks };
    } while (draws.next());
  }
}
