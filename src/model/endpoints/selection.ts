/**
 * Which endpoints of a service port may be used (service-model.md 3.3 and 5): the slices' lists merged, then the
 * cluster set C, the local set L, and whether anything is usable at all.
 */
import { formatIpPort } from '../addresses/addresses.js';
import { localFirst } from '../services/limits.js';
import { compact } from '../lists.js';
import {
  compareEndpoints,
  duplicateRank,
  hintsThisNode,
  nodeHinted,
  readyFlag,
  servingFlag,
  terminatingFlag,
  type EndpointList,
} from './slice.js';
import type { Endpoint } from '../types.js';

export interface Selection {
  /** C of 5.1. */
  readonly cluster: readonly Endpoint[];
  /** L of 5.1. */
  readonly local: readonly Endpoint[];
  /** Some endpoint of the cluster is usable: Ready, or serving while terminating. */
  readonly any: boolean;
}

export const noEndpoints: readonly Endpoint[] = [];
const noHints: readonly string[] = [];
const empty: EndpointList = { endpoints: noEndpoints, states: [], zoneHints: undefined };

/**
 * @param lists in the order of the slices' names: of equal duplicates the first stays
 * @returns one sorted list without duplicates; the list itself when there is only one
 */
export function mergeLists(lists: readonly EndpointList[]): EndpointList {
  const [first, second] = lists;
  if (first === undefined) return empty;
  if (second === undefined) return first;
  if (lists.length === 2) return mergeTwo(first, second);
  // By halves, so that each endpoint is moved log2(slices) times.
  const middle = lists.length >> 1;
  return mergeTwo(mergeLists(lists.slice(0, middle)), mergeLists(lists.slice(middle)));
}

/** The list, or so many of its endpoints. */
export function limitedTo(list: EndpointList, most: number): EndpointList {
  const { endpoints, states, zoneHints } = list;
  if (endpoints.length <= most) return list;
  const used = localFirst(endpoints, most);
  const at = <T>(all: readonly T[]): readonly T[] => used.map((index) => all[index] as T);
  return {
    endpoints: at(endpoints),
    states: at(states),
    zoneHints: zoneHints === undefined ? undefined : at(zoneHints),
  };
}

export function selectEndpoints(
  list: EndpointList,
  uses: { readonly usesCluster: boolean; readonly usesLocal: boolean },
  zone: string | undefined,
): Selection {
  let allReady = true;
  let any = false;
  for (const state of list.states) {
    if (isReady(state)) any = true;
    else {
      allReady = false;
      any ||= isServingTerminating(state);
    }
  }
  // The usual case: nothing to choose, so that the slice's array is shared.
  if (any && allReady && !uses.usesLocal && uses.usesCluster && !isHinted(list))
    return { cluster: list.endpoints, local: noEndpoints, any };
  return {
    cluster: uses.usesCluster && any ? selectCluster(list, zone) : noEndpoints,
    local: uses.usesLocal && any ? selectLocal(list) : noEndpoints,
    any,
  };
}

/**
 * 'ip:port' of every endpoint that keeps the flows it has. UDP: those that may be chosen, which ready ones are whatever their
 * serving condition says, and those that serve (11). SCTP: all that there are, since an association can't move to another
 * endpoint, as a TCP connection can't.
 */
export function servingEndpoints(
  { endpoints, states }: EndpointList,
  protocol: 'UDP' | 'SCTP',
): readonly string[] {
  const serving = endpoints.filter(
    (_, index) => protocol === 'SCTP' || (stateAt(states, index) & (readyFlag | servingFlag)) !== 0,
  );
  return serving.map(({ ip, port }) => formatIpPort(ip, port));
}

/** Adds the IPs of local Ready endpoints (8.1). */
export function collectLocalReady({ endpoints, states }: EndpointList, into: Set<string>): void {
  for (const [index, { ip, local }] of endpoints.entries()) {
    if (local && isReady(stateAt(states, index))) into.add(ip);
  }
}

function mergeTwo(a: EndpointList, b: EndpointList): EndpointList {
  const endpoints: Endpoint[] = [];
  const states: number[] = [];
  const hinted = a.zoneHints !== undefined || b.zoneHints !== undefined;
  const zoneHints: (readonly string[])[] = [];
  const take = (from: EndpointList, index: number, endpoint: Endpoint): void => {
    endpoints.push(endpoint);
    states.push(from.states[index] ?? 0);
    if (hinted) zoneHints.push(from.zoneHints?.[index] ?? noHints);
  };
  let i = 0;
  let j = 0;
  for (;;) {
    const left = a.endpoints[i];
    const right = b.endpoints[j];
    if (left === undefined && right === undefined) break;
    if (right === undefined) {
      if (left !== undefined) take(a, i++, left);
      continue;
    }
    if (left === undefined) {
      take(b, j++, right);
      continue;
    }
    const order = compareEndpoints(left, right);
    if (order < 0) take(a, i++, left);
    else if (order > 0) take(b, j++, right);
    else {
      const replaces = duplicateRank(b.states[j] ?? 0) > duplicateRank(a.states[i] ?? 0);
      if (replaces) take(b, j, right);
      else take(a, i, left);
      i++;
      j++;
    }
  }
  return { endpoints: compact(endpoints), states, zoneHints: hinted ? zoneHints : undefined };
}

/** Hints are read for Ready endpoints only: the fallback to terminating ones ignores them. */
function selectCluster(list: EndpointList, zone: string | undefined): readonly Endpoint[] {
  const { endpoints, states } = list;
  const allowed = hintFilter(list, zone);
  const ready = pick(endpoints, (at) => isReady(stateAt(states, at)) && allowed?.(at) !== false);
  return ready.length > 0 ? ready : pick(endpoints, (at) => isServingTerminating(stateAt(states, at)));
}

function selectLocal({ endpoints, states }: EndpointList): readonly Endpoint[] {
  const local = (at: number): boolean => endpoints[at]?.local === true;
  const ready = pick(endpoints, (at) => local(at) && isReady(stateAt(states, at)));
  return ready.length > 0
    ? ready
    : pick(endpoints, (at) => local(at) && isServingTerminating(stateAt(states, at)));
}

/** Some hint may restrict the choice. */
function isHinted({ states, zoneHints }: EndpointList): boolean {
  return zoneHints !== undefined || (stateAt(states, 0) & nodeHinted) !== 0;
}

type IndexFilter = (index: number) => boolean;

/** 5.2: the first hint mode that holds for the whole list; undefined when hints are not to be used. */
function hintFilter({ states, zoneHints }: EndpointList, zone: string | undefined): IndexFilter | undefined {
  let allNodeHinted = true;
  let thisNode = false;
  let allZoneHinted = zoneHints !== undefined;
  let thisZone = false;
  for (let at = 0; at < states.length && (allNodeHinted || allZoneHinted); at++) {
    const state = stateAt(states, at);
    if (!isReady(state)) continue;
    if ((state & nodeHinted) === 0) allNodeHinted = false;
    if ((state & hintsThisNode) !== 0) thisNode = true;
    const hints = zoneHints?.[at] ?? noHints;
    if (hints.length === 0) allZoneHinted = false;
    if (zone !== undefined && hints.includes(zone)) thisZone = true;
  }
  if (allNodeHinted && thisNode) return (at) => (stateAt(states, at) & hintsThisNode) !== 0;
  if (allZoneHinted && thisZone && zone !== undefined)
    return (at) => zoneHints?.[at]?.includes(zone) === true;
  return undefined;
}

/** The list itself when all are accepted, so that the usual case shares the slice's array. */
function pick(endpoints: readonly Endpoint[], accepts: IndexFilter): readonly Endpoint[] {
  if (endpoints.every((_, at) => accepts(at))) return endpoints;
  return compact(endpoints.filter((_, at) => accepts(at)));
}

function stateAt(states: readonly number[], at: number): number {
  return states[at] ?? 0;
}

function isReady(state: number): boolean {
  return (state & readyFlag) !== 0;
}

function isServingTerminating(state: number): boolean {
  return (state & (readyFlag | servingFlag | terminatingFlag)) === (servingFlag | terminatingFlag);
}
