/**
 * Walks a packet through rules as the kernel would, from their text alone: every way it may take, how likely that is, and how
 * many rules it meets on it. Shares no code with what writes the rules.
 */

export interface Packet {
  readonly source: string;
  readonly destination: string;
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly port: number;
  /** The source or the destination is an address of this node. */
  readonly fromNode?: boolean;
  readonly toNode?: boolean;
  readonly interface?: string;
  /** It comes marked for masquerading, or with another destination than it was sent to. */
  readonly marked?: boolean;
  readonly translated?: boolean;
  /** Lists of match recent that have its source. */
  readonly remembered?: ReadonlySet<string>;
}

/** '-j DNAT --to-destination …' and so on without '-j '; 'nothing' when the packet leaves as it came. */
export interface Way {
  readonly verdict: string;
  /** Marked for masquerading. */
  readonly marked: boolean;
  readonly probability: number;
  readonly rulesMet: number;
}

export type Chains = ReadonlyMap<string, readonly string[]>;

interface State {
  readonly probability: number;
  readonly marked: boolean;
  readonly rulesMet: number;
}

const chainTarget = /^KUBE-/;

/** All ways of a packet that enters `chain`. */
export function walk(chains: Chains, chain: string, packet: Packet): Way[] {
  const ways: Way[] = [];
  const state = { probability: 1, marked: packet.marked === true, rulesMet: 0 };
  const left = enter(chains, chain, packet, state, ways);
  for (const state of left) ways.push({ verdict: 'nothing', ...state });
  return ways;
}

/** Ways with the same outcome, together: `VERDICT` or `VERDICT masq` → probability. */
export function outcomes(ways: readonly Way[]): Map<string, number> {
  const sum = new Map<string, number>();
  for (const { verdict, marked, probability } of ways) {
    const name = verdict + (marked ? ' masq' : '');
    sum.set(name, (sum.get(name) ?? 0) + probability);
  }
  return sum;
}

/** Rules that a packet meets on average. */
export function averageRules(ways: readonly Way[]): number {
  return ways.reduce((sum, { probability, rulesMet }) => sum + probability * rulesMet, 0);
}

/** @returns the states in which the packet comes back out of the chain */
function enter(chains: Chains, chain: string, packet: Packet, state: State, ways: Way[]): State[] {
  const rules = chains.get(chain);
  if (rules === undefined) throw new Error(`a rule leads to ${chain}, which is not there`);
  const returned: State[] = [];
  let states: State[] = [state];
  for (const rule of rules) {
    const next: State[] = [];
    for (const before of states) {
      const here = { ...before, rulesMet: before.rulesMet + 1 };
      const { chance, verb, target } = read(rule, packet, before.marked);
      if (chance < 1) next.push({ ...here, probability: here.probability * (1 - chance) });
      if (chance === 0) continue;
      const matched = { ...here, probability: here.probability * chance };
      const mark = /^MARK --set-xmark (\w+)\/(\w+)$/.exec(target);
      if (target === 'KUBE-MARK-MASQ') next.push({ ...matched, marked: true });
      else if (mark !== null) next.push({ ...matched, marked: mark[1] === mark[2] });
      else if (verb === '-g') returned.push(...enter(chains, target, packet, matched, ways));
      else if (chainTarget.test(target)) next.push(...enter(chains, target, packet, matched, ways));
      else if (target === 'RETURN') returned.push(matched);
      else ways.push({ verdict: target, ...matched });
    }
    states = next;
  }
  return [...returned, ...states];
}

interface Reading {
  /** That the rule matches. */
  readonly chance: number;
  readonly verb: '-j' | '-g';
  readonly target: string;
}

function read(rule: string, packet: Packet, marked: boolean): Reading {
  const words = wordsOf(rule);
  let chance = 1;
  let not = false;
  const test = (holds: boolean): void => {
    if (holds === not) chance = 0;
    not = false;
  };
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? '';
    const value = words[at + 1] ?? '';
    switch (word) {
      case '!':
        not = true;
        continue;
      case '-s':
        test(inRange(packet.source, value));
        break;
      case '-d':
        test(inRange(packet.destination, value));
        break;
      case '-i':
        test(
          value.endsWith('+')
            ? (packet.interface ?? '').startsWith(value.slice(0, -1))
            : packet.interface === value,
        );
        break;
      case '-p':
        test(packet.protocol === value);
        break;
      case '--dport': {
        const [low = NaN, high = low] = value.split(':').map(Number);
        test(packet.port >= low && packet.port <= high);
        break;
      }
      case '--src-type':
        test(packet.fromNode === true);
        break;
      case '--dst-type':
        test(packet.toNode === true);
        break;
      case '--probability':
        chance *= Number(value);
        break;
      case '--ctstate':
        // It is the first of its connection.
        test(value.split(',').some((one) => one === 'NEW' || (one === 'DNAT' && packet.translated === true)));
        break;
      case '--mark':
        test(marked);
        break;
      case '--bytecode':
        // The one program that there is looks for packets that go back to where they came from.
        test(packet.source === packet.destination);
        break;
      case '--update':
        test(packet.remembered?.has(words[words.indexOf('--name') + 1] ?? '') === true);
        continue;
      case '-j':
      case '-g':
        return { chance, verb: word, target: words.slice(at + 1).join(' ') };
      case '-m':
      case '--comment':
      case '--mode':
      case '--name':
      case '--mask':
      case '--seconds':
        break;
      case '--set':
      case '--reap':
      case '--rsource':
        continue;
      default:
        throw new Error(`'${word}' is not understood, in '${rule}'`);
    }
    at++;
  }
  throw new Error(`no target in '${rule}'`);
}

const knownRules = new Map<string, readonly string[]>();

/** The same rules are met again and again. */
function wordsOf(rule: string): readonly string[] {
  let words = knownRules.get(rule);
  if (words === undefined) {
    words = [...rule.matchAll(/"[^"]*"|\S+/g)].map(([word]) => word);
    if (knownRules.size > 100_000) knownRules.clear();
    knownRules.set(rule, words);
  }
  return words;
}

function inRange(address: string, range: string): boolean {
  const [network = '', length = ''] = range.split('/');
  return bits(address).startsWith(bits(network).slice(0, Number(length)));
}

const known = new Map<string, string>();

function bits(address: string): string {
  let found = known.get(address);
  if (found === undefined) {
    found = address.includes(':') ? bitsIPv6(address) : bitsIPv4(address);
    known.set(address, found);
  }
  return found;
}

function bitsIPv4(address: string): string {
  return address
    .split('.')
    .map((part) => Number(part).toString(2).padStart(8, '0'))
    .join('');
}

function bitsIPv6(address: string): string {
  const [head = '', tail] = address.split('::');
  const groups = (text: string | undefined): string[] =>
    text === undefined || text === '' ? [] : text.split(':');
  const [left, right] = [groups(head), groups(tail)];
  const middle = new Array<string>(tail === undefined ? 0 : 8 - left.length - right.length).fill('0');
  return [...left, ...middle, ...right]
    .map((group) => parseInt(group, 16).toString(2).padStart(16, '0'))
    .join('');
}
