/** What other programs and people do to our tables, as scripts for nft. */
import type { Random } from '@kube-proxy-ts/netlink/testing';
import { asText, isFields, isList, type Collection, type Json, type Ruleset, type Table } from './ruleset.js';

export interface Attack {
  /** Named in the report. */
  readonly kind: string;
  readonly script: string;
  /** The tables of others are gone, too. */
  readonly flushesAll: boolean;
  /** Traffic of Services that exist may be disturbed until it is repaired. */
  readonly disturbs: boolean;
}

const tables = ['ip kube-proxy', 'ip6 kube-proxy'] as const;

/** undefined: there is nothing that could be attacked so. */
type Make = (target: Target, random: Random) => string | undefined;

interface Target {
  /** 'ip kube-proxy' */
  readonly name: string;
  readonly table: Table;
}

function pick<T>(random: Random, values: readonly T[]): T | undefined {
  return values[random.below(Math.max(1, values.length))];
}

/** Of what the program fills; the kernel's memory of clients is of no interest to anybody. */
function collections({ table }: Target): readonly Collection[] {
  return [...table.collections.values()].filter(
    ({ name, elements }) => elements.size > 0 && name !== 'affinity',
  );
}

function someKeys(collection: Collection, random: Random, most: number): readonly string[] {
  const keys = [...collection.elements.keys()].filter((key) => !key.startsWith('{'));
  const first = random.below(Math.max(1, keys.length));
  return keys.slice(first, first + 1 + random.below(most));
}

/** A key as nft reads it. */
const written = (key: string): string => key.split(' ').join(' . ');

/** Data as nft reads it. */
function data(value: Json | undefined): string {
  if (isFields(value) && isList(value['concat'])) return value['concat'].map(asText).join(' . ');
  if (isFields(value) && isFields(value['goto'])) return `goto ${asText(value['goto']['target'])}`;
  return asText(value);
}

function element(collection: Collection, key: string, value: Json | undefined): string {
  return collection.isMap ? `${written(key)} : ${data(value)}` : written(key);
}

const deleteElements =
  (most: number): Make =>
  (target, random) => {
    const collection = pick(random, collections(target));
    if (collection === undefined) return undefined;
    const keys = someKeys(collection, random, most);
    if (keys.length === 0) return undefined;
    return `delete element ${target.name} ${collection.name} { ${keys.map(written).join(', ')} }`;
  };

/** Other maps of the same kind exist, so that the value has a meaning: another Service's. */
const changeElements: Make = (target, random) => {
  const maps = collections(target).filter(({ isMap, elements }) => isMap && elements.size > 1);
  const collection = pick(random, maps);
  if (collection === undefined) return undefined;
  const values = [...collection.elements.values()];
  const keys = someKeys(collection, random, 3);
  const lines = keys.flatMap((key) => {
    const before = data(collection.elements.get(key));
    const value = pick(
      random,
      values.filter((one) => data(one) !== before),
    );
    return value === undefined
      ? []
      : [
          `delete element ${target.name} ${collection.name} { ${written(key)} }`,
          `add element ${target.name} ${collection.name} { ${element(collection, key, value)} }`,
        ];
  });
  return lines.length === 0 ? undefined : lines.join('\n');
};

/** As a Service of somebody else's imagination. */
const addElements: Make = (target, random) => {
  const v6 = target.name.startsWith('ip6');
  const [address, pod] = v6 ? ['2001:db8:e::99', 'fd61:0:0:3::100'] : ['203.0.113.99', '10.61.3.100'];
  const lines = [
    `add element ${target.name} service-ips { ${address} . tcp . 80 : 1:1 }`,
    `add element ${target.name} endpoints { ${address} . tcp . 80 . 0 : ${pod} . 9000 }`,
    `add element ${target.name} rejected-ips { ${address} . udp . 80 }`,
    `add element ${target.name} cluster-ips { ${address} }`,
    `add element ${target.name} hairpin-connections { ${pod} . ${pod} . tcp . 77 }`,
    `add element ${target.name} nodeport-endpoints { tcp . 30999 . 0 : ${pod} . 9000 }`,
    `add element ${target.name} service-nodeports { tcp . 30999 : 2:1 }`,
    `add element ${target.name} nodeport-ips { ${address} }`,
  ];
  const first = random.below(lines.length);
  return lines.slice(first, first + 1 + random.below(3)).join('\n');
};

const chainNames = ({ table }: Target): readonly string[] => [...table.chains.keys()];
const baseChainNames = ({ table }: Target): readonly string[] =>
  [...table.chains.values()].filter(({ hook }) => hook !== undefined).map(({ name }) => name);

const attacks: Readonly<Record<string, Make>> = {
  'nft flush ruleset': () => 'flush ruleset',
  'table deleted': ({ name }) => `delete table ${name}`,
  'table asleep': ({ name }) => `add table ${name} { flags dormant; }`,
  'table replaced': ({ name }) =>
    `delete table ${name}\nadd table ${name}\nadd chain ${name} foreign-services`,
  'chain flushed': (target, random) =>
    `flush chain ${target.name} ${pick(random, chainNames(target)) ?? 'services'}`,
  'rule deleted': ({ name, table }, random) => {
    const rules = [...table.chains.values()].flatMap((chain) =>
      chain.rules.map(({ handle }) => `delete rule ${name} ${chain.name} handle ${handle}`),
    );
    return pick(random, rules);
  },
  'base chain deleted': (target, random) => {
    const chain = pick(random, baseChainNames(target));
    return chain === undefined ? undefined : `delete chain ${target.name} ${chain}`;
  },
  'map flushed': (target, random) => {
    const collection = pick(random, collections(target));
    if (collection === undefined) return undefined;
    return `flush ${collection.isMap ? 'map' : 'set'} ${target.name} ${collection.name}`;
  },
  'element deleted': deleteElements(1),
  'elements deleted': deleteElements(40),
  'elements changed': changeElements,
  'elements added': addElements,
  'rule added': (target, random) =>
    pick(random, [
      `insert rule ${target.name} services counter accept`,
      `add rule ${target.name} ${pick(random, chainNames(target)) ?? 'services'} counter`,
      `insert rule ${target.name} nat-prerouting return`,
    ]),
  'chain added': ({ name }) => `add chain ${name} foreign-chain\nadd rule ${name} foreign-chain counter`,
  'base chain added': ({ name }) =>
    `add chain ${name} foreign-hook { type filter hook forward priority 10; policy accept; }\nadd rule ${name} foreign-hook ct state new drop`,
  'set added': ({ name }) => `add set ${name} foreign-set { type inet_service; elements = { 80 }; }`,
};

export const attackKinds = Object.keys(attacks);

/**
 * @param kind one of attackKinds
 * @returns undefined when the ruleset has nothing of the kind that is attacked
 */
export function makeAttack(kind: string, ruleset: Ruleset, random: Random): Attack | undefined {
  // One family, the other, or both at once.
  const which = random.below(3);
  const names = tables.filter((_, i) => which === 2 || which === i);
  const scripts = names.flatMap((name) => {
    const table = ruleset.tables.get(name);
    const script = table === undefined ? undefined : attacks[kind]?.({ name, table }, random);
    return script === undefined ? [] : [script];
  });
  if (scripts.length === 0) return undefined;
  const flushesAll = kind === 'nft flush ruleset';
  const script = flushesAll ? 'flush ruleset' : scripts.join('\n');
  const harmless = ['elements added', 'chain added', 'set added'];
  return { kind, script: `${script}\n`, flushesAll, disturbs: !harmless.includes(kind) };
}
