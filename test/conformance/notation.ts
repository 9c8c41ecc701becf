/** The shorthand of the case files: endpoint lists, packets and outcomes. docs/conformance.md explains it to authors. */
import type { Family } from './addresses.js';
import { familyOf, findActor, nodeOf } from './addresses.js';

export class NotationError extends Error {
  readonly code = 'ERR_CONFORMANCE_NOTATION';
}

/** undefined: the field is null in the object. */
export interface EndpointSpec {
  readonly addresses: readonly string[];
  readonly ready: boolean | undefined;
  readonly serving: boolean | undefined;
  readonly terminating: boolean | undefined;
  readonly nodeName: string | undefined;
  readonly zoneHints: readonly string[];
  readonly nodeHints: readonly string[];
}

/** `R11..R17` and `10.61.4.1..100`, spelled out. */
function spellOut(token: string): string[] {
  const match = /^(.*?)(\d+)\.\.(?:[A-Z]+)?(\d+)$/.exec(token);
  if (match === null) return [token];
  const [, head = '', first = '', last = ''] = match;
  const names: string[] = [];
  for (let index = Number(first); index <= Number(last); index++) names.push(`${head}${index}`);
  return names;
}

/** A name of the topology or a literal address, as an address of the family. */
export function addressOf(name: string, family: Family): string {
  const actor = findActor(name);
  return actor === undefined ? name : actor[family];
}

const endpointToken = /^([^[\]<>()~x!]+(?:\.\.\w+)?|\(\))([~x!]?)((?:\[[^\]]*\]|<[^>]*>|\([^)]*\))*)$/;

function condition(text: string): boolean | undefined {
  if (text === 'nil') return undefined;
  if (text === 'true' || text === 'false') return text === 'true';
  throw new NotationError(`a condition is true, false or nil, not '${text}'`);
}

/**
 * `L1 R1~ R2[mtl-2] L2<alder>` and so on:
 * `~` serving but terminating, `x` terminating and not serving, `!` neither ready, serving nor terminating;
 * `[zone,…]` zone hints, `<node,…>` node hints, `(ready=nil,node=Alder)` fields by name, `L1+L2` two addresses in one
 * endpoint, `()` an endpoint without addresses, `10.61.2.9@birch` an address that has no name.
 */
export function parseEndpoints(text: string, family: Family): readonly EndpointSpec[] {
  const tokens = text.split(/\s+/).filter((token) => token !== '' && token !== 'none');
  return tokens.flatMap((token) => {
    const match = endpointToken.exec(token);
    if (match === null) throw new NotationError(`'${token}' is not an endpoint`);
    const [, names = '', state = '', details = ''] = match;
    return spellOut(names).map((name) => parseEndpoint(name, state, details, family));
  });
}

function parseEndpoint(name: string, state: string, details: string, family: Family): EndpointSpec {
  const [who = '', atNode] = name.split('@');
  const members = who === '()' ? [] : who.split('+');
  const actor = findActor(members[0] ?? '');
  const literal = members[0] ?? '';
  let nodeName: string | undefined = atNode ?? (actor === undefined ? nodeOfLiteral(literal) : nodeOf(actor));
  const fields: Record<'ready' | 'serving' | 'terminating', boolean | undefined> = {
    ready: state === '',
    serving: state === '' || state === '~',
    terminating: state === '~' || state === 'x',
  };
  const zoneHints: string[] = [];
  const nodeHints: string[] = [];
  for (const [, zones, nodes, named] of details.matchAll(/\[([^\]]*)\]|<([^>]*)>|\(([^)]*)\)/g)) {
    if (zones !== undefined) zoneHints.push(...zones.split(','));
    if (nodes !== undefined) nodeHints.push(...nodes.split(','));
    for (const assignment of named?.split(',') ?? []) {
      const [field = '', value = ''] = assignment.split('=');
      if (field === 'node') nodeName = value === 'nil' ? undefined : value;
      else if (field === 'ready' || field === 'serving' || field === 'terminating')
        fields[field] = condition(value);
      else throw new NotationError(`'${field}' is not a field of an endpoint`);
    }
  }
  return {
    addresses: members.map((member) => addressOf(member, family)),
    ...fields,
    nodeName,
    zoneHints,
    nodeHints,
  };
}

function nodeOfLiteral(address: string): string {
  if (/^(10\.61\.2\.|fd61:0:0:2:)/.test(address)) return 'birch';
  if (/^(10\.61\.[34567]\.|fd61:0:0:[34567]:)/.test(address)) return 'cedar';
  return 'alder';
}

export type PacketProtocol = 'TCP' | 'UDP' | 'SCTP' | 'ICMP';

/** One line `PA -> CIP:80 UDP` before the names in it are looked up. */
export interface PacketSpec {
  readonly from: readonly string[];
  /** 'CIP', 'VIP', 'XIP', 'NP' of a service, or 'literal'. */
  readonly kind: 'CIP' | 'VIP' | 'XIP' | 'NP' | 'literal';
  /** Name of the service in the case file; '' is the row's first. */
  readonly service: string;
  /** Second VIP: VIP2. Counts from 1. */
  readonly ordinal: number;
  /** For 'literal': the address or the actor's name. */
  readonly address: string;
  readonly port: number | undefined;
  readonly protocol: PacketProtocol | undefined;
}

export function parsePacket(text: string): PacketSpec {
  const match = /^(\S+) -> (\S+)(?: (TCP|UDP|SCTP|ICMP))?$/.exec(text);
  if (match === null)
    throw new NotationError(`'${text}' is not a packet; write 'PA -> CIP:80' or 'XA -> 192.0.2.90:443 UDP'`);
  const [, from = '', to = '', protocol] = match;
  const common = {
    from: from.split(',').flatMap(spellOut),
    protocol: protocol as PacketProtocol | undefined,
  };
  const symbolic = /^(?:([a-z][a-z0-9-]*)\.)?(CIP|VIP|XIP|NP)(\d*)(?::(\d+))?$/.exec(to);
  if (symbolic !== null) {
    const [, service = '', kind, ordinal, port] = symbolic;
    return {
      ...common,
      kind: kind as 'CIP',
      service,
      ordinal: ordinal === '' ? 1 : Number(ordinal),
      address: '',
      port: port === undefined ? undefined : Number(port),
    };
  }
  const literal = /^(?:\[([0-9a-f:]+)\]|([^:[\]]+)|([0-9a-f:]*:[0-9a-f:]*))(?::(\d+))?$/.exec(to);
  if (literal === null) throw new NotationError(`'${to}' is not a target`);
  const [, bracketed, plain, bare, port] = literal;
  return {
    ...common,
    kind: 'literal',
    service: '',
    ordinal: 1,
    address: bracketed ?? plain ?? bare ?? '',
    port: port === undefined ? undefined : Number(port),
  };
}

/** keep: the endpoint saw the client's address. masq: it saw an address of alder. either: not asserted. */
export type SourceRule = 'keep' | 'masq' | 'either';

export interface ExpectedEndpoint {
  readonly name: string;
  readonly address: string;
  /** undefined: the backend port of the service port that the packet addressed. */
  readonly port: number | undefined;
  readonly source: SourceRule;
}

export type Outcome =
  /** all: every one must be seen. one: all connections of one client reach the same one. arrives: no answer is expected. */
  | {
      readonly kind: 'endpoints';
      readonly quantity: 'all' | 'one' | 'arrives';
      readonly endpoints: readonly ExpectedEndpoint[];
    }
  | { readonly kind: 'REJECT' }
  | { readonly kind: 'DROP' }
  /** Whoever owns the target address answers, and sees the client's own address. */
  | { readonly kind: 'PASS' }
  /** Compared with the endpoints that an earlier step saw, per client. */
  | { readonly kind: 'compared'; readonly how: 'same' | 'other' | 'partly other'; readonly with: string };

export function parseOutcome(text: string, family: Family): Outcome {
  if (text === 'REJECT' || text === 'DROP') return { kind: text };
  if (text === 'PASS' || text === 'PASS keep') return { kind: 'PASS' };
  const compared = /^(same as|partly other than|other than) (\w+)$/.exec(text);
  if (compared !== null) {
    const how = { 'same as': 'same', 'other than': 'other', 'partly other than': 'partly other' } as const;
    return { kind: 'compared', how: how[compared[1] as 'same as'], with: compared[2] ?? '' };
  }
  const match = /^(one of |arrives )?\{([^}]*)\}(?: (keep|masq))?$/.exec(text);
  if (match === null) {
    throw new NotationError(`'${text}' is not an outcome; write '{L1,R1} keep', 'REJECT', 'DROP' or 'PASS'`);
  }
  const [, prefix, list = '', source] = match;
  const endpoints = list.split(',').flatMap((item) => {
    const part = /^(\[[^\]]*\]|[^:\s]+|[0-9a-f:]+:[0-9a-f:.]+)(?::(\d+))?(?: (keep|masq))?$/.exec(
      item.trim(),
    );
    if (part === null) throw new NotationError(`'${item}' is not an expected endpoint`);
    const [, name = '', port, own] = part;
    return spellOut(name).map((each) => {
      const bare = each.replace(/[[\]]/g, '');
      const address = addressOf(bare, bare.includes(':') ? familyOf(bare) : family);
      const rule: SourceRule = (own ?? source ?? 'either') as SourceRule;
      return { name: bare, address, port: port === undefined ? undefined : Number(port), source: rule };
    });
  });
  const quantity = prefix === 'one of ' ? 'one' : prefix === 'arrives ' ? 'arrives' : 'all';
  return { kind: 'endpoints', quantity, endpoints };
}

/** `web 80/TCP np 31001 -> 9000`; name, node port and target are optional. */
export interface PortSpec {
  readonly name: string;
  readonly port: number;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly nodePort: number;
  readonly target: number;
}

export function parsePort(text: string, nodePort: number): PortSpec {
  const match = /^(?:([a-z0-9-]+) )?(\d+)\/(TCP|UDP|SCTP)(?: np (\d+))?(?: -> (\d+))?$/.exec(text);
  if (match === null)
    throw new NotationError(
      `'${text}' is not a service port; write '80/TCP' or 'web 80/TCP np 31001 -> 9000'`,
    );
  const [, name = '', port, protocol, np, target] = match;
  return {
    name,
    port: Number(port),
    protocol: protocol as PortSpec['protocol'],
    nodePort: np === undefined ? nodePort : Number(np),
    target: target === undefined ? 9000 : Number(target),
  };
}

/** `web 9000/TCP`, `9000/UDP`; `nil` in place of the name or the number leaves the field out. */
export interface SlicePortSpec {
  readonly name: string | undefined;
  readonly port: number | undefined;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
}

export function parseSlicePort(text: string): SlicePortSpec {
  const match = /^(?:([a-z0-9-]+) )?(\d+|nil)\/(TCP|UDP|SCTP)$/.exec(text);
  if (match === null)
    throw new NotationError(`'${text}' is not a slice port; write '9000/TCP' or 'web 9000/TCP'`);
  const [, name = '', port = '', protocol] = match;
  return {
    name: name === 'nil' ? undefined : name,
    port: port === 'nil' ? undefined : Number(port),
    protocol: protocol as SlicePortSpec['protocol'],
  };
}
