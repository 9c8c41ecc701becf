/**
 * What one EndpointSlice contributes (service-model.md 3): per port the backends, validated, canonical, in the
 * order of 'ip:port', each address once. A cluster holds hundreds of thousands of these, so a slice is a few
 * parallel arrays: the Endpoint objects that dataplanes will get, and beside them what only the selection needs.
 */
import type { EndpointSlice, IPFamily, Protocol, SliceEndpoint } from '../../sources/objects.js';
import { joinKey } from '../../sources/strings.js';
import { parseAddress, specialUse } from '../addresses/addresses.js';
import { localFirst, maxSlicePairs } from '../services/limits.js';
import { compact, sameList } from '../lists.js';
import { Problems, quoted } from '../services/problems.js';
import type { Endpoint } from '../types.js';

/** Bits of EndpointList.states. */
export const readyFlag = 1;
export const servingFlag = 2;
export const terminatingFlag = 4;
/** The endpoint has node hints at all. */
export const nodeHinted = 8;
/** One of the node hints names this node. */
export const hintsThisNode = 16;

/** Endpoints of one port, sorted by compareEndpoints(), each 'ip:port' once. The arrays run in parallel. */
export interface EndpointList {
  readonly endpoints: readonly Endpoint[];
  readonly states: readonly number[];
  /** undefined: no endpoint has zone hints. */
  readonly zoneHints: readonly (readonly string[])[] | undefined;
}

export interface SlicePort {
  readonly name: string;
  readonly protocol: Protocol;
  readonly list: EndpointList;
}

export interface Slice {
  /** 'namespace/name' of the Service it belongs to. */
  readonly service: string;
  readonly name: string;
  readonly family: IPFamily;
  readonly ports: readonly SlicePort[];
}

export interface SliceResult {
  /** undefined: the proxy has nothing to do with this slice. */
  readonly slice: Slice | undefined;
  readonly problems: Problems;
}

export interface SliceOptions {
  readonly nodeName: string;
  readonly families: readonly IPFamily[];
}

const noHints: readonly string[] = [];
const noEndpoints: readonly Endpoint[] = [];
const maxPort = 65535;
const maxInterned = 1024;

/** Shares hint lists between endpoints: a cluster has a handful of zones, and hundreds of thousands of hints. */
export class HintInterner {
  private readonly lists = new Map<string, readonly string[]>();

  intern(hints: readonly string[]): readonly string[] {
    if (hints.length === 0) return noHints;
    const key = hints.join('\0');
    const known = this.lists.get(key);
    if (known !== undefined) return known;
    // Hints are written by whoever may write slices: forgetting the lists costs sharing, never memory.
    if (this.lists.size >= maxInterned) this.lists.clear();
    const list = [...hints];
    this.lists.set(key, list);
    return list;
  }
}

/**
 * Of two endpoints with the same address and port the one with the higher rank stays: what is not terminating
 * before what is, and of the former the ready one (3.3). On equal terms the first one seen stays.
 */
export function duplicateRank(state: number): number {
  if ((state & terminatingFlag) !== 0) return 0;
  return (state & readyFlag) !== 0 ? 2 : 1;
}

/** Plain string order of 'ip:port' and '[ip]:port', without building the strings. */
export function compareEndpoints(a: Endpoint, b: Endpoint): number {
  if (a.ip !== b.ip) return compareIPs(a.ip, b.ip);
  if (a.port === b.port) return 0;
  return String(a.port) < String(b.port) ? -1 : 1;
}

/** The order that addresses of one family have in front of ':port' or ']:port'. */
function compareIPs(a: string, b: string): number {
  if (a === b) return 0;
  if (a.length < b.length && b.startsWith(a)) return terminator(a) < b.charCodeAt(a.length) ? -1 : 1;
  if (b.length < a.length && a.startsWith(b)) return a.charCodeAt(b.length) < terminator(b) ? -1 : 1;
  return a < b ? -1 : 1;
}

function terminator(ip: string): number {
  return (ip.includes(':') ? ']' : ':').charCodeAt(0);
}

export function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return (
    a === b || (a.port === b.port && a.ip === b.ip && a.local === b.local && a.nodeUnknown === b.nodeUnknown)
  );
}

/**
 * @param previous the slice as it was: whatever is still the same is taken over by identity, and if everything
 *   is, `previous` itself is returned
 */
export function readSlice(
  object: EndpointSlice,
  options: SliceOptions,
  interner: HintInterner,
  previous: Slice | undefined,
): SliceResult {
  const { namespace, name, serviceName, addressType, headless } = object;
  const problems = new Problems();
  const family = options.families.find((candidate) => candidate === addressType);
  if (family === undefined || headless) return { slice: undefined, problems };
  const report = (field: string, message: () => string): void => {
    problems.add(field, message);
  };
  if (serviceName === '' || namespace === '' || name === '') {
    const message = 'the slice names no Service, so it is left out';
    if (serviceName === '') report('metadata.labels[kubernetes.io/service-name]', () => message);
    return { slice: undefined, problems };
  }

  const all = readBackends(object, family, options.nodeName, interner, report);
  const most = Math.max(1, Math.floor(maxSlicePairs / Math.max(1, object.ports.length)));
  const backends = all.length > most ? localFirst(all, most).map((index) => all[index] as Backend) : all;
  if (all.length > most) {
    report(
      'endpoints',
      () => `${all.length} endpoints with ${object.ports.length} ports each are too many; ${most} are used`,
    );
  }
  const states = statesOf(backends);
  const zoneHints = backends.some((backend) => backend.zoneHints.length > 0)
    ? backends.map((backend) => backend.zoneHints)
    : undefined;
  const ports: SlicePort[] = [];
  const known = previous === undefined ? undefined : new PortIndex(previous.ports);
  for (let index = 0; index < object.ports.length; index++) {
    const port = object.ports[index];
    if (port === undefined) break;
    if (port.name === undefined || port.port === 0) continue;
    if (!Number.isInteger(port.port) || port.port < 0 || port.port > maxPort) {
      report(
        `ports[${index}].port`,
        () => `${port.port} is not a port number (1-65535); the port is left out`,
      );
      continue;
    }
    const before = known?.find(port.name, port.protocol);
    const endpoints = buildEndpoints(backends, port.port, before?.list.endpoints ?? noEndpoints);
    const list = keepList({ endpoints, states, zoneHints }, before?.list);
    ports.push(before?.list === list ? before : { name: port.name, protocol: port.protocol, list });
  }
  const slice: Slice = { service: joinKey(namespace, serviceName), name, family, ports: compact(ports) };
  const unchanged =
    previous?.service === slice.service &&
    previous.family === family &&
    sameList(previous.ports, ports, (a, b) => a === b);
  return { slice: unchanged ? previous : slice, problems };
}

/** From here on a list is looked up by its key; most lists have one item, and looking at it costs less. */
const indexedFrom = 8;

/** Finds ports of a slice by name and protocol. */
class PortIndex {
  private readonly byId: ReadonlyMap<string, SlicePort> | undefined;

  constructor(readonly ports: readonly SlicePort[]) {
    if (ports.length < indexedFrom) return;
    const byId = new Map<string, SlicePort>();
    for (const port of ports) {
      const id = slicePortId(port.name, port.protocol);
      if (!byId.has(id)) byId.set(id, port);
    }
    this.byId = byId;
  }

  find(name: string, protocol: Protocol): SlicePort | undefined {
    if (this.byId !== undefined) return this.byId.get(slicePortId(name, protocol));
    return this.ports.find((port) => port.name === name && port.protocol === protocol);
  }
}

/** Identity of a port within a slice, and how ports of Services and slices meet. */
export function slicePortId(name: string, protocol: Protocol): string {
  return `${protocol} ${name}`;
}

/** One address of a slice, before it meets a port. */
interface Backend {
  readonly ip: string;
  readonly local: boolean;
  readonly nodeUnknown: boolean;
  readonly state: number;
  readonly zoneHints: readonly string[];
}

/** Sorted, each address once. */
function readBackends(
  object: EndpointSlice,
  family: IPFamily,
  nodeName: string,
  interner: HintInterner,
  report: (field: string, message: () => string) => void,
): readonly Backend[] {
  const backends: Backend[] = [];
  for (let index = 0; index < object.endpoints.length; index++) {
    const endpoint = object.endpoints[index];
    if (endpoint === undefined) break;
    if (endpoint.address === '') continue;
    const address = parseAddress(endpoint.address);
    if (address?.family !== family) {
      report(
        `endpoints[${index}].addresses[0]`,
        () => `${quoted(endpoint.address)} is not an ${family} address; the endpoint is left out`,
      );
      continue;
    }
    const special = specialUse(address.ip);
    if (special !== undefined) {
      report(
        `endpoints[${index}].addresses[0]`,
        () => `${address.ip} is ${special}, where no endpoint can be; it is left out`,
      );
      continue;
    }
    backends.push({
      ip: address.ip,
      local: endpoint.nodeName === nodeName,
      nodeUnknown: endpoint.nodeName === undefined,
      state: stateOf(endpoint, nodeName),
      zoneHints: interner.intern(endpoint.zoneHints),
    });
  }
  // All have the same port, so the order of 'ip:port' is the order of the addresses with their terminator.
  backends.sort((a, b) => compareIPs(a.ip, b.ip));
  return withoutDuplicates(backends);
}

function stateOf(endpoint: SliceEndpoint, nodeName: string): number {
  return (
    (endpoint.ready ? readyFlag : 0) |
    (endpoint.serving ? servingFlag : 0) |
    (endpoint.terminating ? terminatingFlag : 0) |
    (endpoint.nodeHints.length > 0 ? nodeHinted : 0) |
    (endpoint.nodeHints.includes(nodeName) ? hintsThisNode : 0)
  );
}

/** Lists of nothing but one state, by the state and the length: what nearly all slices have. */
const uniformStates: (readonly number[])[][] = [];
const maxUniformLength = 128;

function statesOf(backends: readonly Backend[]): readonly number[] {
  const state = backends[0]?.state ?? 0;
  const { length } = backends;
  for (const backend of backends) if (backend.state !== state) return backends.map((each) => each.state);
  if (length > maxUniformLength) return new Array<number>(length).fill(state);
  const lists = (uniformStates[state] ??= []);
  return (lists[length] ??= new Array<number>(length).fill(state));
}

/** @param backends sorted, so that duplicates are neighbours, in the order in which the slice has them */
function withoutDuplicates(backends: readonly Backend[]): readonly Backend[] {
  if (backends.every((backend, index) => backend.ip !== backends[index - 1]?.ip)) return backends;
  const unique: Backend[] = [];
  for (const backend of backends) {
    const before = unique.at(-1);
    if (before?.ip !== backend.ip) unique.push(backend);
    else if (duplicateRank(backend.state) > duplicateRank(before.state)) unique[unique.length - 1] = backend;
  }
  return unique;
}

/** @param previous sorted like the backends; its objects, and it as a whole, are used again where they fit */
function buildEndpoints(
  backends: readonly Backend[],
  port: number,
  previous: readonly Endpoint[],
): readonly Endpoint[] {
  let at = 0;
  const endpoints = backends.map(({ ip, local, nodeUnknown }): Endpoint => {
    const endpoint = { ip, port, local, nodeUnknown };
    let known = previous[at];
    while (known !== undefined && compareIPs(known.ip, ip) < 0) known = previous[++at];
    return known !== undefined && sameEndpoint(known, endpoint) ? known : endpoint;
  });
  return sameList(endpoints, previous, Object.is) ? previous : endpoints;
}

/** `previous`, or as much of it as still holds. */
function keepList(list: EndpointList, previous: EndpointList | undefined): EndpointList {
  if (previous === undefined) return list;
  const states = sameList(list.states, previous.states, Object.is) ? previous.states : list.states;
  const zoneHints = sameHints(list.zoneHints, previous.zoneHints) ? previous.zoneHints : list.zoneHints;
  const { endpoints } = list;
  if (endpoints === previous.endpoints && states === previous.states && zoneHints === previous.zoneHints) {
    return previous;
  }
  return { endpoints, states, zoneHints };
}

function sameHints(a: EndpointList['zoneHints'], b: EndpointList['zoneHints']): boolean {
  if (a === undefined || b === undefined) return a === b;
  return sameList(a, b, (x, y) => sameList(x, y, Object.is));
}
