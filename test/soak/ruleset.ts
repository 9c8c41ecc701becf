/**
 * The kernel's nf_tables rules as `nft -j list ruleset` tells them, ready to be walked (walk.ts). Nothing of the program is
 * used here: who checks it must not believe it.
 */
import { isIPv6 } from 'node:net';

/** A value in JSON as nft prints it. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

export interface Rule {
  readonly handle: number;
  readonly statements: readonly Json[];
}

export interface Chain {
  readonly name: string;
  /** Base chains only. */
  readonly hook: string | undefined;
  readonly type: string | undefined;
  readonly priority: number;
  readonly rules: Rule[];
}

/** A set or a map. */
export interface Collection {
  readonly name: string;
  readonly isMap: boolean;
  /** From key (see asText) to data; for a set undefined. */
  readonly elements: ReadonlyMap<string, Json | undefined>;
  /** Elements that are ranges: from and to, both included. */
  readonly ranges: readonly { readonly key: string; readonly from: bigint; readonly to: bigint }[];
}

export interface Table {
  /** It has flags, of which there is one that matters: dormant. (What nft 1.0.6 prints as its name is chance.) */
  readonly asleep: boolean;
  readonly chains: ReadonlyMap<string, Chain>;
  readonly collections: ReadonlyMap<string, Collection>;
}

export interface Ruleset {
  /** By family ('ip', 'ip6', 'inet', …) and name, with a space between. */
  readonly tables: ReadonlyMap<string, Table>;
  /** Everything of all other tables than `own`, as text; handles are left out. */
  readonly foreign: string;
}

export class RulesetError extends Error {
  readonly code = 'ERR_SOAK_RULESET';
}

type Fields = Readonly<Record<string, Json>>;

export function isFields(value: Json | undefined): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function isList(value: Json | undefined): value is readonly Json[] {
  return Array.isArray(value);
}

function text(fields: Fields, name: string): string {
  const value = fields[name];
  return typeof value === 'string' ? value : '';
}

/**
 * @param own tables that are not foreign, as 'ip kube-proxy'
 * @throws RulesetError also for what nft 1.0.6 may print of a table that is asleep: it breaks off
 */
export function parseRuleset(json: string, own: ReadonlySet<string>): Ruleset {
  let document: { readonly nftables: readonly Fields[] };
  try {
    document = JSON.parse(json) as { readonly nftables: readonly Fields[] };
  } catch (error) {
    throw new RulesetError(`nft -j does not print JSON: ${json.slice(-80)}`, { cause: error });
  }
  const chains = new Map<string, Map<string, Chain>>();
  const collections = new Map<string, Map<string, Collection>>();
  const tables = new Map<string, Table>();
  const foreign: string[] = [];
  for (const item of document.nftables) {
    const [kind = ''] = Object.keys(item);
    const fields = item[kind];
    if (kind === 'metainfo' || !isFields(fields)) continue;
    const table = `${text(fields, 'family')} ${text(fields, kind === 'table' ? 'name' : 'table')}`;
    if (!own.has(table)) {
      foreign.push(JSON.stringify({ kind, ...fields, handle: 0 }));
      continue;
    }
    switch (kind) {
      case 'table': {
        const content = {
          asleep: fields['flags'] !== undefined,
          chains: new Map<string, Chain>(),
          collections: new Map<string, Collection>(),
        };
        chains.set(table, content.chains);
        collections.set(table, content.collections);
        tables.set(table, content);
        break;
      }
      case 'chain': {
        const name = text(fields, 'name');
        chains.get(table)?.set(name, {
          name,
          hook: text(fields, 'hook') || undefined,
          type: text(fields, 'type') || undefined,
          priority: Number(fields['prio'] ?? 0),
          rules: [],
        });
        break;
      }
      case 'rule': {
        const statements = fields['expr'];
        chains
          .get(table)
          ?.get(text(fields, 'chain'))
          ?.rules.push({
            handle: Number(fields['handle']),
            statements: isList(statements) ? statements : [],
          });
        break;
      }
      case 'set':
      case 'map':
        collections.get(table)?.set(text(fields, 'name'), parseCollection(fields));
        break;
      default:
        // Anything else (counters, flow tables …) is not ours either.
        throw new RulesetError(`${table} holds a ${kind}: ${JSON.stringify(fields)}`);
    }
  }
  return { tables, foreign: foreign.join('\n') };
}

function parseCollection(fields: Fields): Collection {
  const elements = new Map<string, Json | undefined>();
  const ranges: { key: string; from: bigint; to: bigint }[] = [];
  const list = fields['elem'];
  for (const element of isList(list) ? list : []) {
    const [given, data] = fields['map'] !== undefined && isList(element) ? element : [element, undefined];
    const key = bare(given);
    const name = asText(key);
    elements.set(name, data);
    const range = rangeOf(key);
    if (range !== undefined) ranges.push({ key: name, ...range });
  }
  return { name: text(fields, 'name'), isMap: fields['map'] !== undefined, elements, ranges };
}

/** The key without comment, timeout, counter. */
function bare(key: Json | undefined): Json {
  if (isFields(key) && isFields(key['elem'])) return key['elem']['val'] ?? null;
  return key ?? null;
}

/** Values of one text are equal: the parts of a concatenation, a space between. */
export function asText(value: Json | undefined): string {
  if (isFields(value) && isList(value['concat'])) return value['concat'].map(asText).join(' ');
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function rangeOf(key: Json): { from: bigint; to: bigint } | undefined {
  if (!isFields(key)) return undefined;
  const { prefix, range } = key;
  if (isFields(prefix)) {
    const address = asText(prefix['addr']);
    const free = BigInt((isIPv6(address) ? 128 : 32) - Number(prefix['len']));
    const from = addressNumber(address);
    return { from, to: from | ((1n << free) - 1n) };
  }
  if (isList(range)) return { from: addressNumber(asText(range[0])), to: addressNumber(asText(range[1])) };
  return undefined;
}

/** An address as a number. */
export function addressNumber(address: string): bigint {
  if (!address.includes(':')) {
    return address.split('.').reduce((sum, part) => (sum << 8n) | BigInt(part), 0n);
  }
  const [head = '', tail] = address.split('::');
  const groups = (part: string): string[] => (part === '' ? [] : part.split(':'));
  const [front, back] = [groups(head), groups(tail ?? '')];
  const zeros = tail === undefined ? [] : Array<string>(8 - front.length - back.length).fill('0');
  return [...front, ...zeros, ...back].reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
}

/** Whether the address is in a CIDR ('10.0.0.0/8'). */
export function isWithin(address: string, cidr: string): boolean {
  const [network = '', length = ''] = cidr.split('/');
  if (isIPv6(address) !== isIPv6(network)) return false;
  const free = BigInt((isIPv6(network) ? 128 : 32) - Number(length));
  return addressNumber(address) >> free === addressNumber(network) >> free;
}
