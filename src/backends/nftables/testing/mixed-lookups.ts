/**
 * What may happen to a packet that is under way while a transaction is committed: its first lookups see the table as it
 * was, the others the table as it is. Shares no code with the dataplane; IPv4 without node port addresses of its own.
 */
import { isVerdict, type NftablesConnection } from '@kube-proxy-ts/netlink/nftables';

/** By set: key → value, latin1. Of verdict maps the value is the chain. */
export type Snapshot = ReadonlyMap<string, ReadonlyMap<string, string>>;

export function snapshot(connection: NftablesConnection): Snapshot {
  const sets = new Map<string, Map<string, string>>();
  for (const { name } of connection.listSets('ip', 'kube-proxy')) {
    const elements = new Map<string, string>();
    sets.set(name, elements);
    connection.listElements('ip', 'kube-proxy', name, (key, value) => {
      const text =
        value === undefined
          ? ''
          : isVerdict(value)
            ? 'chain' in value
              ? value.chain
              : ''
            : value.toString('latin1');
      elements.set(key.toString('latin1'), text);
    });
  }
  return sets;
}

/** Outcomes of mixed lookups that neither table has by itself, as text; none is right. */
export function strangeOutcomes(before: Snapshot, after: Snapshot): string[] {
  const strange: string[] = [];
  const keys = new Set<string>();
  for (const table of [before, after])
    for (const set of addressSets) for (const key of table.get(set)?.keys() ?? []) keys.add(key);
  const askers = ['pod', 'other'] as const;
  const alone = (key: string): string[] =>
    askers.flatMap((asker) => [
      ...walk(before, after, Infinity, key, asker),
      ...walk(before, after, 0, key, asker),
    ]);
  for (const key of keys) {
    const right = new Set(alone(key));
    // Refused instead of dropped: both are right where one of the tables does not serve everybody.
    if (['nobody', 'reject', 'drop'].some((outcome) => right.has(outcome))) right.add('reject').add('drop');
    for (const asker of askers) {
      for (let old = 1; old <= mostLookups; old++) {
        for (const outcome of walk(before, after, old, key, asker))
          if (!right.has(outcome) && !isServed(outcome))
            strange.push(`${hex(key)}, ${asker}, ${old} old lookups: ${outcome}`);
      }
    }
  }
  return strange;
}

/**
 * Which endpoint is not told apart: a Service may lose an address and change its endpoints in the same transaction. But one
 * that may reach itself has to be masqueraded for it (walk()).
 */
function isServed(outcome: string): boolean {
  return outcome.startsWith('to') && !outcome.endsWith('no longer to itself');
}

const hairpins = 'hairpin-connections';
const mostLookups = 16;
const addressSets = [
  'service-ips',
  'service-nodeports',
  'rejected-ips',
  'rejected-nodeports',
  'dropped-ips',
  'dropped-nodeports',
];
const hex = (text: string): string => Buffer.from(text, 'latin1').toString('hex');
const uint32 = (value: number): string => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes.toString('latin1');
};
const source = Buffer.from([198, 51, 100, 7]);

/** @param old so many lookups see `before` */
function walk(
  before: Snapshot,
  after: Snapshot,
  old: number,
  key: string,
  asker: 'pod' | 'other',
): Set<string> {
  const outcomes = new Set<string>();
  const onNode = key.length === 8;
  const get = (n: number, set: string, at: string): string | undefined =>
    (n < old ? before : after).get(set)?.get(at);
  const chainOf = (map: string, id: string): string =>
    before.get(map)?.get(id) ?? after.get(map)?.get(id) ?? '';
  const suffix = onNode ? 'nodeports' : 'ips';

  const filter = (n: number): void => {
    if (get(n, `dropped-${suffix}`, key) !== undefined) outcomes.add('drop');
    else if (get(n + 1, `rejected-${suffix}`, key) !== undefined) outcomes.add('reject');
    else outcomes.add('nobody');
  };
  const translated = (n: number, target: string): void => {
    // The endpoint asks itself: without masquerading it would not get its answer.
    const self =
      target.slice(0, 4) + target.slice(0, 4) + key.slice(onNode ? 0 : 4, onNode ? 4 : 8) + target.slice(4);
    const lost = get(n, hairpins, self) === undefined && before.get(hairpins)?.has(self) === true;
    outcomes.add(`to ${hex(target)}${lost ? ', no longer to itself' : ''}`);
  };
  const draw = (n: number, chain: string): void => {
    const match = /^(.+?)-(\d+)(-affinity-\d+)?$/.exec(chain);
    if (match === null) throw new Error(`no class: '${chain}'`);
    const [, kind = '', count] = match;
    const local = kind.endsWith('local');
    const withAffinity = match[3] !== undefined;
    const service = withAffinity ? get(n, `affinity-${suffix}`, key) : undefined;
    for (let slot = 0; slot < Number(count); slot++) {
      if (!withAffinity) {
        const map = `${onNode ? 'nodeport-' : ''}endpoints${local ? '-local' : ''}`;
        const target = get(n, map, key + uint32(slot));
        if (target === undefined) filter(n + 1);
        else translated(n + 1, target);
        continue;
      }
      const number =
        service === undefined
          ? undefined
          : get(n + 1, `affinity-slots${local ? '-local' : ''}`, service + uint32(slot));
      const target =
        number === undefined ? undefined : get(n + 2, `affinity-endpoints${local ? '-local' : ''}`, number);
      if (target === undefined) filter(n + 3);
      else translated(n + 3, target);
    }
  };

  let n = 0;
  if (!onNode && get(n++, 'firewall-ips', key) !== undefined) {
    const sets = [...before.keys(), ...after.keys()].filter((name) => name.startsWith('source-ranges-'));
    const allowed = [...new Set(sets)].some((set, i) => {
      const masked = Buffer.from(source);
      const bits = Number(set.slice('source-ranges-'.length));
      masked.writeUInt32BE(bits === 0 ? 0 : (masked.readUInt32BE() & (-1 << (32 - bits))) >>> 0);
      return get(n + i, set, masked.toString('latin1') + key) !== undefined;
    });
    n += new Set(sets).size;
    if (!allowed) return outcomes.add('drop');
  }
  const id = get(n++, `service-${suffix}`, key);
  if (id === undefined) {
    filter(n);
    return outcomes;
  }
  const chain = chainOf('service-classes', id);
  if (chain !== 'external-local' && chain !== 'nodeport-local') {
    draw(n, chain);
    return outcomes;
  }
  const picked = get(n++, `${asker === 'pod' ? 'short-circuit' : 'local'}-${suffix}`, key);
  if (picked === undefined) filter(n);
  else draw(n, chainOf('pick-classes', picked));
  return outcomes;
}
