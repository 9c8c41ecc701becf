/**
 * Who takes part in the conformance topology, with both addresses of everybody, and the fixed mapping that turns a
 * case written for IPv4 into its IPv6 twin.
 */

export type Family = 'v4' | 'v6';

/** A network namespace of the topology. `alder` is the node under test; all others have it as their only gateway. */
export type Place =
  | 'alder'
  | 'local-clients'
  | 'local-pods'
  | 'bridge-pods'
  | 'birch'
  | 'outside'
  | 'remote-pods'
  | 'elsewhere';

export const places: readonly Place[] = [
  'alder',
  'local-clients',
  'local-pods',
  'bridge-pods',
  'birch',
  'outside',
  'remote-pods',
  'elsewhere',
];

export interface Actor {
  readonly name: string;
  readonly place: Place;
  /** Source addresses. '' lets the kernel choose (a process of alder). */
  readonly v4: string;
  readonly v6: string;
  /** What it is, for `--list-actors` and the documentation. */
  readonly role: string;
}

export const nodeAddress = { v4: '100.64.10.11', v6: '2001:db8:a::11' } as const;
/** The node's second address, which is not in the status of the Node object. */
export const secondAddress = { v4: '100.64.77.11', v6: '2001:db8:77::11' } as const;

const actorList: readonly Actor[] = [
  { name: 'PA', place: 'local-clients', v4: '10.61.1.20', v6: 'fd61:0:0:1::20', role: 'pod on alder' },
  { name: 'PA2', place: 'local-clients', v4: '10.61.1.21', v6: 'fd61:0:0:1::21', role: 'pod on alder' },
  {
    name: 'PBR',
    place: 'bridge-pods',
    v4: '10.61.1.25',
    v6: 'fd61:0:0:1::25',
    role: 'pod on alder behind bridge br-pods',
  },
  { name: 'PB', place: 'birch', v4: '10.61.2.20', v6: 'fd61:0:0:2::20', role: 'pod on birch' },
  { name: 'HA', place: 'alder', v4: '', v6: '', role: 'process of alder, source chosen by the kernel' },
  { name: 'LO', place: 'alder', v4: '127.0.0.1', v6: '::1', role: 'process of alder, loopback source' },
  { name: 'NB', place: 'birch', v4: '100.64.10.12', v6: '2001:db8:a::12', role: 'process of birch' },
  {
    name: 'NX',
    place: 'birch',
    v4: '100.64.10.99',
    v6: '2001:db8:a::99',
    role: 'neighbour on the wire of eth0',
  },
  {
    name: 'XA',
    place: 'outside',
    v4: '198.51.100.7',
    v6: '2001:db8:f::7',
    role: 'external, inside 198.51.100.0/26',
  },
  { name: 'XC', place: 'outside', v4: '198.51.100.8', v6: '2001:db8:f::8', role: 'external, next to XA' },
  { name: 'XB', place: 'outside', v4: '198.51.100.200', v6: '2001:db8:f::200', role: 'external, outside it' },
  { name: 'L1', place: 'local-pods', v4: '10.61.1.31', v6: 'fd61:0:0:1::31', role: 'endpoint on alder' },
  { name: 'L2', place: 'local-pods', v4: '10.61.1.32', v6: 'fd61:0:0:1::32', role: 'endpoint on alder' },
  { name: 'R1', place: 'remote-pods', v4: '10.61.2.41', v6: 'fd61:0:0:2::41', role: 'endpoint on birch' },
  { name: 'R2', place: 'remote-pods', v4: '10.61.3.42', v6: 'fd61:0:0:3::42', role: 'endpoint on cedar' },
];

/** Seven remote endpoints and many pod clients, for the rows that count: R11..R99 on cedar, P1..P200 on alder. */
function numbered(name: string): Actor | undefined {
  const match = /^([PR])(\d+)$/.exec(name);
  if (match === null) return undefined;
  const index = Number(match[2]);
  if (match[1] === 'P' && index >= 1 && index <= 199) {
    const last = 50 + index;
    return {
      name,
      place: 'local-clients',
      v4: `10.61.1.${last}`,
      v6: `fd61:0:0:1::${last}`,
      role: 'pod on alder',
    };
  }
  if (match[1] === 'R' && index >= 11 && index <= 99) {
    return {
      name,
      place: 'remote-pods',
      v4: `10.61.3.${index + 100}`,
      v6: `fd61:0:0:3::${index + 100}`,
      role: 'endpoint on cedar',
    };
  }
  return undefined;
}

const actorsByName = new Map(actorList.map((actor) => [actor.name, actor]));

export function findActor(name: string): Actor | undefined {
  return actorsByName.get(name) ?? numbered(name);
}

/** The name of whoever has this address; the address itself if nobody has a name for it. */
export function nameOf(address: string): string {
  const named = actorList.find((actor) => sameAddress(actor.v4, address) || sameAddress(actor.v6, address));
  if (named !== undefined) return named.name;
  const last = Number(/[.:](\d+)$/.exec(address)?.[1] ?? '0');
  const candidate = numbered(`R${last - 100}`);
  return candidate?.v4 === address || candidate?.v6 === address ? candidate.name : address;
}

/** On which node an endpoint of this name runs, as the slice's nodeName says it. */
export function nodeOf(actor: Actor): string {
  if (actor.place === 'remote-pods') return actor.name === 'R1' ? 'birch' : 'cedar';
  return actor.place === 'birch' ? 'birch' : 'alder';
}

/**
 * What each place answers for, as routes of type local: every address in the range exists there without being
 * configured. `elsewhere` stands for the rest of the world: alder's default route ends in it.
 */
export const ownedPrefixes: Readonly<
  Record<Place, { readonly v4: readonly string[]; readonly v6: readonly string[] }>
> = {
  alder: { v4: [], v6: [] },
  'local-clients': {
    v4: ['10.61.1.20/31', '10.61.1.48/28', '10.61.1.64/26', '10.61.1.128/25'],
    v6: [
      'fd61:0:0:1::20/127',
      'fd61:0:0:1::50/124',
      'fd61:0:0:1::60/123',
      'fd61:0:0:1::80/121',
      'fd61:0:0:1::100/120',
      'fd61:0:0:1::200/120',
    ],
  },
  'local-pods': { v4: ['10.61.1.31/32', '10.61.1.32/28'], v6: ['fd61:0:0:1::30/124'] },
  'bridge-pods': { v4: ['10.61.1.25/32'], v6: ['fd61:0:0:1::25/128'] },
  birch: {
    v4: ['100.64.10.12/31', '100.64.10.99/32', '10.61.2.20/32'],
    v6: ['2001:db8:a::12/127', '2001:db8:a::99/128', 'fd61:0:0:2::20/128'],
  },
  outside: {
    v4: ['198.51.100.0/27', '198.51.100.192/26'],
    v6: ['2001:db8:f::/123', '2001:db8:f::200/120'],
  },
  'remote-pods': {
    v4: ['10.61.2.40/29', '10.61.2.48/28', '10.61.3.0/24', '10.61.4.0/22'],
    v6: ['fd61:0:0:2::40/122', 'fd61:0:0:3::/64', 'fd61:0:0:4::/62'],
  },
  elsewhere: {
    v4: ['10.177.0.0/16', '10.178.0.0/16', '192.0.2.0/24', '203.0.113.0/24', '198.51.100.53/32'],
    v6: ['fd77::/16', 'fd78::/16', '2001:db8:b::/48', '2001:db8:e::/48', '2001:db8:f::53/128'],
  },
};

function inV4(prefix: string, address: number): boolean {
  const [network, length] = prefix.split('/') as [string, string];
  const mask = Number(length) === 0 ? 0 : (~0 << (32 - Number(length))) >>> 0;
  return (v4ToNumber(network) & mask) >>> 0 === (address & mask) >>> 0;
}

function v4ToNumber(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** An IPv6 address as 128 bits. Only the forms that the cases use: hexadecimal groups and one '::'. */
export function v6ToNumber(address: string): bigint {
  const [head = '', tail] = address.split('::');
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':'));
  const front = groups(head);
  const back = tail === undefined ? [] : groups(tail);
  const middle = tail === undefined ? [] : Array<string>(8 - front.length - back.length).fill('0');
  return [...front, ...middle, ...back].reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
}

/** Two texts of one address compare equal: fd61:0:0:1::31 and fd61:0:0:1:0:0:0:31. */
export function sameAddress(a: string, b: string): boolean {
  if (a === b) return true;
  if (!a.includes(':') || !b.includes(':')) return false;
  return v6ToNumber(a) === v6ToNumber(b);
}

/** A key under which all texts of one address fall together. */
export function addressKey(address: string): string {
  return address.includes(':') ? v6ToNumber(address).toString(16) : address;
}

export function familyOf(address: string): Family {
  return address.includes(':') ? 'v6' : 'v4';
}

/** Where packets to this address end if nobody translates them. */
export function placeOf(address: string): Place {
  if (address.includes(':')) {
    const value = v6ToNumber(address);
    if (value === 1n) return 'alder';
    for (const place of places) {
      for (const prefix of ownedPrefixes[place].v6) {
        const [network = '', length] = prefix.split('/');
        const shift = 128n - BigInt(length ?? '128');
        if (value >> shift === v6ToNumber(network) >> shift) return place;
      }
    }
    return sameAddress(address, nodeAddress.v6) || sameAddress(address, secondAddress.v6)
      ? 'alder'
      : 'elsewhere';
  }
  if (address.startsWith('127.')) return 'alder';
  const value = v4ToNumber(address);
  for (const place of places) {
    if (ownedPrefixes[place].v4.some((prefix) => inV4(prefix, value))) return place;
  }
  return address === nodeAddress.v4 || address === secondAddress.v4 ? 'alder' : 'elsewhere';
}

interface Mapping {
  readonly v4: RegExp;
  readonly v6: (rest: readonly number[]) => string;
  /** Prefix length in IPv6 of the whole IPv4 range, and the IPv4 length it corresponds to. */
  readonly lengths: Readonly<Record<number, number>>;
}

/** Decimal digits are reused as hexadecimal ones, so that twins look alike: .31 and ::31. */
const mappings: readonly Mapping[] = [
  {
    v4: /^10\.61\.(\d+)\.(\d+)$/,
    v6: ([a, b]) => `fd61:0:0:${a}::${b === 0 ? '' : b}`,
    lengths: { 16: 48, 24: 64 },
  },
  {
    v4: /^10\.177\.(\d+)\.(\d+)$/,
    // fd77::/112 holds the 16 low bits; what lies outside 10.177.0.0/20 must lie outside it as well.
    v6: ([a = 0, b = 0]) => {
      if (a >= 16) return `fd77::1:${b}`;
      if (a === 0) return `fd77::${b === 0 ? '' : b}`;
      return `fd77::${((a << 12) | b).toString(16)}`;
    },
    lengths: { 20: 112 },
  },
  { v4: /^10\.178\.0\.(\d+)$/, v6: ([b]) => `fd78::${b === 0 ? '' : b}`, lengths: { 24: 112 } },
  { v4: /^198\.51\.100\.(\d+)$/, v6: ([b]) => `2001:db8:f::${b === 0 ? '' : b}`, lengths: { 24: 64 } },
  { v4: /^192\.0\.2\.(\d+)$/, v6: ([b]) => `2001:db8:b::${b === 0 ? '' : b}`, lengths: { 24: 64 } },
  { v4: /^203\.0\.113\.(\d+)$/, v6: ([b]) => `2001:db8:e::${b === 0 ? '' : b}`, lengths: { 24: 64 } },
  { v4: /^100\.64\.10\.(\d+)$/, v6: ([b]) => `2001:db8:a::${b === 0 ? '' : b}`, lengths: { 24: 64 } },
  {
    v4: /^100\.64\.(77|88)\.(\d+)$/,
    v6: ([a, b]) => `2001:db8:${a}::${b === 0 ? '' : b}`,
    lengths: { 24: 64 },
  },
  { v4: /^127\.0\.0\.1$/, v6: () => '::1', lengths: {} },
  { v4: /^172\.16\.0\.0$/, v6: () => 'fc00::', lengths: { 12: 16 } },
];

/** The IPv6 twin of an IPv4 address or CIDR of the cases. Anything else is returned as it is. */
export function toV6(text: string): string {
  if (text === '0.0.0.0/0') return '::/0';
  if (text === '127.0.0.0/8') return '::1/128';
  const [address = '', length] = text.split('/');
  for (const mapping of mappings) {
    const match = mapping.v4.exec(address);
    if (match === null) continue;
    const twin = mapping.v6(match.slice(1).map(Number));
    if (length === undefined) return twin;
    const bits = Number(length);
    return `${twin}/${mapping.lengths[bits] ?? bits + 96}`;
  }
  return text;
}

const v4Text = /\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?:\/\d{1,3})?(?::\d+)?\b/g;

/** Every IPv4 address in a line of a case becomes its IPv6 twin; `address:port` becomes `[address]:port`. */
export function translateText(text: string): string {
  return text.replace(v4Text, (found) => {
    const [address = '', port] = found.split(':');
    const twin = toV6(address);
    return port === undefined ? twin : `[${twin}]:${port}`;
  });
}
