/**
 * What to ask the kernel about the service ports under suspicion. Reading the whole table costs what the table holds;
 * a filter makes the kernel pass over what can't be stale (packages/netlink/src/conntrack/filter.ts). Each filter is a walk of its
 * own through the table, so beyond a handful it is cheaper to read all entries of the protocol once.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { formatIpPort } from '../model/addresses/addresses.js';
import { compareEndpoints } from '../model/endpoints/slice.js';
import type { IPFamily, ServicePort, VirtualAddress } from '../model/types.js';
import { parseAddress } from '@kube-proxy-ts/netlink';
import { kernelFiltersAddresses, type FlowFilter } from '@kube-proxy-ts/netlink/conntrack';
import { destination, type Candidates, type Candidate, type PendingQueries } from './candidates.js';

export interface Queries {
  /** What to read; empty: nothing can be stale. */
  readonly filters: readonly FlowFilter[];
  /** The one filter lets all entries of the protocol pass. */
  readonly whole: boolean;
  /** The service ports in question by destination: their keys. */
  readonly destinations: ReadonlyMap<string, string>;
}

/** Rough sizes of the table, to choose between several filters and one reading. */
export interface TableSize {
  readonly entries: number;
  readonly buckets: number;
}

/**
 * Measured on Linux 6.18 (docs/conntrack.md): to read and judge an entry costs as much as to walk past this many
 * entries or hash buckets.
 */
const entryCost = 40;
/** Walks for TCP: its entries in question vanish by themselves before long. */
const maxTcpWalks = 4;
/** In a table of up to so many entries, all of one port number are read where the kernel can't tell addresses apart. */
const smallTable = 20_000;
/** Service ports looked at in one turn of the event loop. */
const portsPerTurn = 500;

/** How many filters are cheaper than reading all `matching` entries of a protocol. */
export function affordableFilters(size: TableSize, matching: number): number {
  const walk = size.entries + size.buckets;
  return walk === 0 ? 1 : 1 + Math.floor((matching * entryCost) / walk);
}

/** What may be stale about one service port. */
interface PossiblyStale {
  /** Addresses whose entries may be from before they were the service port's, or before it had an endpoint. */
  readonly came: readonly VirtualAddress[];
  /** Endpoints that are no more among those that keep their flows. */
  readonly left: readonly string[];
}

export function possiblyStale(now: ServicePort, { versions, everything }: Candidate): PossiblyStale {
  // At the start there are very many of them.
  if (everything && versions.length === 0) return { came: now.addresses, left: [] };
  const left = new Set<string>();
  for (const version of versions) for (const endpoint of endpointsLeft(version, now)) left.add(endpoint);

  /** In how many versions an address was there already. */
  const seen = new Map<string, number>();
  for (const version of versions) {
    for (const { ip, port } of version.addresses) {
      const address = destination(ip, port);
      seen.set(address, (seen.get(address) ?? 0) + 1);
    }
  }
  const firstEndpoint = hasEndpoints(now) && !versions.every(hasEndpoints);
  const cameLate = ({ ip, port }: VirtualAddress): boolean =>
    (seen.get(destination(ip, port)) ?? 0) < versions.length;
  return {
    came: everything || firstEndpoint ? now.addresses : now.addresses.filter(cameLate),
    left: [...left],
  };
}

function hasEndpoints({
  protocol,
  clusterEndpoints,
  localEndpoints,
  servingEndpoints,
}: ServicePort): boolean {
  return protocol === 'TCP'
    ? clusterEndpoints.length > 0 || localEndpoints.length > 0
    : servingEndpoints.length > 0;
}

/** Those of endpointsOf() that only `before` has. Of 50,000 mostly one is different: the others are not even put into words. */
function endpointsLeft(before: ServicePort, now: ServicePort): readonly string[] {
  if (now.protocol !== 'TCP') return onlyIn(before.servingEndpoints, [now.servingEndpoints], compareText);
  const { clusterEndpoints: cluster, localEndpoints: local } = now;
  return [
    ...onlyIn(before.clusterEndpoints, [cluster, local], compareEndpoints),
    ...onlyIn(before.localEndpoints, [local, cluster], compareEndpoints),
  ].map(({ ip, port }) => formatIpPort(ip, port));
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

type Compare<T> = (a: T, b: T) => number;

/**
 * Items of `list` that are in none of `others`. All are in order, and what stayed is mostly the same object, so that little has to be
 * compared.
 */
function onlyIn<T>(list: readonly T[], others: readonly (readonly T[])[], compare: Compare<T>): readonly T[] {
  return others.reduce((left, other) => without(left, other, compare), list);
}

function without<T>(list: readonly T[], other: readonly T[], compare: Compare<T>): readonly T[] {
  if (list === other || list.length === 0) return [];
  const left: T[] = [];
  let at = 0;
  for (const item of list) {
    let order = 1;
    for (; at < other.length; at++) {
      order = other[at] === item ? 0 : compare(other[at] as T, item);
      if (order >= 0) break;
    }
    if (at === other.length || order > 0) left.push(item);
    else at++;
  }
  return left;
}

/** Filters without duplicates. */
class FilterList {
  private readonly filters = new Map<string, FlowFilter>();
  private readonly withAddress: boolean;

  constructor(
    family: IPFamily,
    private readonly protocol: number,
    private readonly limit: number,
  ) {
    this.withAddress = kernelFiltersAddresses[family === 'IPv4' ? 'ip' : 'ip6'];
  }

  /** @param ip '' for node ports */
  destination(ip: string, port: number): void {
    const { protocol } = this;
    if (ip === '' || !this.withAddress)
      this.add(`to ${port}`, () => ({ protocol, originalDestination: { port } }));
    else
      this.add(`to ${ip} ${port}`, () => ({
        protocol,
        originalDestination: { address: parseAddress(ip), port },
      }));
  }

  /** @param endpoint 'ip:port' or '[ip]:port' */
  endpoint(endpoint: string): void {
    const colon = endpoint.lastIndexOf(':');
    this.from(endpoint.slice(0, colon).replace(/[[\]]/g, ''), Number(endpoint.slice(colon + 1)));
  }

  /** Entries that were not translated: the address itself answers. @param ip '' for node ports */
  untranslated(ip: string, port: number): void {
    this.from(ip, port);
  }

  private from(ip: string, port: number): void {
    const { protocol } = this;
    if (ip === '' || !this.withAddress) this.add(`from ${port}`, () => ({ protocol, replySource: { port } }));
    else
      this.add(`from ${ip} ${port}`, () => ({
        protocol,
        replySource: { address: parseAddress(ip), port },
      }));
  }

  /** undefined: they are too many. */
  get all(): readonly FlowFilter[] | undefined {
    return this.filters.size > this.limit ? undefined : [...this.filters.values()];
  }

  private add(name: string, filter: () => FlowFilter): void {
    // One too many tells enough.
    if (this.filters.size <= this.limit && !this.filters.has(name)) this.filters.set(name, filter());
  }
}

/** The event loop gets its turn on the way. */
export async function queriesFor(
  family: IPFamily,
  candidates: Candidates,
  work: PendingQueries,
  size: TableSize,
): Promise<Queries> {
  const { number: protocol } = candidates.options;
  const tcp = protocol === 6;
  const limit = tcp ? maxTcpWalks : affordableFilters(size, candidates.matching ?? size.entries / 4);
  const destinations = new Map<string, string>();
  const filters = new FilterList(family, protocol, limit);
  let unanswered = false;
  let turn = 0;
  for (const [key, candidate] of work.pending) {
    if (++turn % portsPerTurn === 0) await nextTurn();
    const now = candidates.known.get(key);
    if (now === undefined) continue;
    const { came, left } = possiblyStale(now, candidate);
    if (came.length === 0 && left.length === 0) continue;
    for (const { ip, port } of now.addresses) destinations.set(destination(ip, port), key);
    const others = came.length === 0 ? now.addresses : now.addresses.filter((one) => !came.includes(one));
    if (tcp) {
      unanswered ||= came.length > 0;
      for (const endpoint of left) filters.endpoint(endpoint);
      // A packet may have met the rules in the moment of the change, and passed untranslated.
      if (left.length > 0) for (const { ip, port } of others) filters.untranslated(ip, port);
      continue;
    }
    for (const { ip, port } of came) filters.destination(ip, port);
    if (left.length === 0) continue;
    if (left.length <= others.length) {
      for (const endpoint of left) filters.endpoint(endpoint);
      for (const { ip, port } of others) filters.untranslated(ip, port);
    } else for (const { ip, port } of others) filters.destination(ip, port);
  }
  for (const address of work.retired.keys()) {
    const [ip = '', port = ''] = address.split(' ');
    filters.destination(ip, Number(port));
  }
  const few = filters.all;
  if (!tcp) return { destinations, filters: few ?? [{ protocol }], whole: few === undefined };

  // What was never answered is little. What was reset vanishes within seconds: not worth reading many connections.
  const never: FlowFilter = { protocol, unanswered: true };
  const selective = kernelFiltersAddresses[family === 'IPv4' ? 'ip' : 'ip6'] || size.entries <= smallTable;
  if (few === undefined || (few.length > 0 && !selective))
    return { destinations, filters: [never], whole: false };
  return { destinations, filters: unanswered ? [never, ...few] : few, whole: false };
}
