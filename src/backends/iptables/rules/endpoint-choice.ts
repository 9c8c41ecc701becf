/**
 * How one of N endpoints is chosen: by rules that each match with a probability. Up to 16 endpoints are a line of rules
 * (8 are met on average). More are a tree of chains, each of which halves what is left twice, down to lines: 1,000
 * endpoints cost as many rules as 16.
 *
 * Where an endpoint hangs in the tree follows from a hash of it, so its neighbours stay when others come and go: a change
 * rewrites the chains from the root to one leaf, not all.
 */
import type { Endpoint } from '../../../model/types.js';
import { endpointText } from './names.js';
import { chance, words } from './rule-text.js';

const longestLine = 16;
const hashDigits = 16;

export interface Choice {
  /** For the chain in which the choice begins. The last one always matches. */
  readonly rules: readonly string[];
  /** Chains that these lead to, children before their parents. */
  readonly chains: readonly (readonly [name: string, rules: readonly string[]])[];
}

export interface ChoiceText {
  /** The rule that sends packets to an endpoint, with a match that decides whether it is the one. */
  readonly take: (endpoint: Endpoint, chance: string | undefined) => string;
  /** Name of the chain of the endpoints whose hash begins with these digits. */
  readonly groupChain: (digits: string) => string;
}

/** @param endpoints at least one */
export function choose(endpoints: readonly Endpoint[], text: ChoiceText): Choice {
  if (endpoints.length <= longestLine) return { rules: line(endpoints, text), chains: [] };
  const hashed = endpoints.map((endpoint) => ({ endpoint, digits: digitsOf(endpointText(endpoint)) }));
  hashed.sort((a, b) => (a.digits < b.digits ? -1 : a.digits > b.digits ? 1 : 0));
  const chains: [string, readonly string[]][] = [];
  const rules = split(hashed, 0, text, chains);
  return { rules, chains };
}

interface Hashed {
  readonly endpoint: Endpoint;
  readonly digits: string;
}

function line(endpoints: readonly Endpoint[], text: ChoiceText): string[] {
  return endpoints.map((endpoint, at) => text.take(endpoint, chance(1, endpoints.length - at)));
}

function split(
  hashed: readonly Hashed[],
  depth: number,
  text: ChoiceText,
  chains: [string, readonly string[]][],
): readonly string[] {
  if (hashed.length <= longestLine || depth === hashDigits) {
    return line(
      hashed.map(({ endpoint }) => endpoint),
      text,
    );
  }
  const rules: string[] = [];
  let from = 0;
  while (from < hashed.length) {
    const prefix = (hashed[from]?.digits ?? '').slice(0, depth + 1);
    let to = from + 1;
    while (hashed[to]?.digits.startsWith(prefix) === true) to++;
    const chain = text.groupChain(prefix);
    chains.push([chain, split(hashed.slice(from, to), depth + 1, text, chains)]);
    rules.push(words(chance(to - from, hashed.length - from), `-g ${chain}`));
    from = to;
  }
  return rules;
}

/** 32 bits (FNV-1a, then mixed so that the first digits depend on all of the text) as 16 base-4 digits. */
function digitsOf(text: string): string {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  hash ^= hash >>> 16;
  return (hash >>> 0).toString(4).padStart(hashDigits, '0');
}
