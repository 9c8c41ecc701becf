/**
 * Which endpoints of a service port may be used (service-model.md 3.3 and 5): the slices' lists merged, then the
 * cluster set C, the local set L, and whether anything is usable at all.
 */
import { formatIpPort } from './addresses.js';
import {
  compareEndpoints,
  duplicateRank,
  HINTS_THIS_NODE,
  NODE_HINTED,
  READY,
  SERVING,
  TERMINATING,
  type EndpointList,
} from './slice.js';
import type { Endpoint } from './types.js';

export interface Selection {
  /** C of 5.1. */
  readonly cluster: readonly Endpoint[];
  /** L of 5.1. */
  readonly local: readonly Endpoint[];
  /** Some endpoint of the cluster is usable: Ready, or serving while terminating. */
  readonly any: boolean;
}

export const NO_ENDPOINTS: readonly Endpoint[] = [];
const NO_HINTS: readonly string[] = [];
const EMPTY: EndpointList = { endpoints: NO_ENDPOINTS, states: [], zoneHints: undefined };

/**
 * @param lists in the order of the slices' names: of equal duplicates the first stays
 * @returns one sorted list without duplicates; the list itself when there is only one
 */
export function mergeLists(lists: readonly EndpointList[]): EndpointList {
  const [first, second] = lists;
  if (first === undefined) return EMPTY;
  if (second === undefined) return first;
  if (lists.length === 2) return mergeTwo(first, second);
  // By halves, so that each endpoint is moved log2(slices) times.
  const middle = lists.length >> 1;
  return mergeTwo(mergeLists(lists.slice(0, middle)), mergeLists(lists.slice(middle)));
}

export function selectEndpoints(
  list: EndpointList,
  uses: { readonly usesCluster: boolean; readonly usesLocal: boolean },
  zone: string | undefined,
): Selection {
  const { endpoints, states } = list;
  const any = states.some((state) => (state & READY) !== 0 || isServingTerminating(state));
  return {
    cluster: uses.usesCluster && any ? selectCluster(list, zone) : NO_ENDPOINTS,
    local:
      uses.usesLocal && any
        ? readyElseTerminating(endpoints, states, (index) => endpoints[index]?.local === true)
        : NO_ENDPOINTS,
    any,
  };
}

/** 'ip:port' of every endpoint whose serving condition holds (11). */
export function servingEndpoints({ endpoints, states }: EndpointList): readonly string[] {
  const serving: string[] = [];
  for (const [index, { ip, port }] of endpoints.entries()) {
    if (((states[index] ?? 0) & SERVING) !== 0) serving.push(formatIpPort(ip, port));
  }
  return serving;
}

/** Adds the IPs of local Ready endpoints (8.1). */
export function collectLocalReady({ endpoints, states }: EndpointList, into: Set<string>): void {
  for (const [index, { ip, local }] of endpoints.entries()) {
    if (local && ((states[index] ?? 0) & READY) !== 0) into.add(ip);
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
    if (hinted) zoneHints.push(from.zoneHints?.[index] ?? NO_HINTS);
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
  return { endpoints, states, zoneHints: hinted ? zoneHints : undefined };
}

function selectCluster(
  { endpoints, states, zoneHints }: EndpointList,
  zone: string | undefined,
): readonly Endpoint[] {
  const allowed = hintFilter(states, zoneHints, zone);
  // Hints are read for Ready endpoints only: the fallback to terminating ones ignores them.
  return readyElseTerminating(endpoints, states, undefined, allowed);
}

type IndexFilter = (index: number) => boolean;

/** 5.2: the first hint mode that holds for the whole list; undefined when hints are not to be used. */
function hintFilter(
  states: readonly number[],
  zoneHints: EndpointList['zoneHints'],
  zone: string | undefined,
): IndexFilter | undefined {
  let allNodeHinted = true;
  let thisNode = false;
  let allZoneHinted = zoneHints !== undefined;
  let thisZone = false;
  for (const [index, state] of states.entries()) {
    if ((state & READY) === 0) continue;
    if ((state & NODE_HINTED) === 0) allNodeHinted = false;
    if ((state & HINTS_THIS_NODE) !== 0) thisNode = true;
    const hints = zoneHints?.[index] ?? NO_HINTS;
    if (hints.length === 0) allZoneHinted = false;
    if (zone !== undefined && hints.includes(zone)) thisZone = true;
  }
  if (allNodeHinted && thisNode) return (index) => ((states[index] ?? 0) & HINTS_THIS_NODE) !== 0;
  if (allZoneHinted && thisZone && zone !== undefined)
    return (index) => zoneHints?.[index]?.includes(zone) === true;
  return undefined;
}

/**
 * Ready endpoints, else those that still serve while they terminate.
 *
 * @param of whom to consider at all
 * @param ready restricts the Ready ones further
 */
function readyElseTerminating(
  endpoints: readonly Endpoint[],
  states: readonly number[],
  of: IndexFilter | undefined,
  ready?: IndexFilter,
): readonly Endpoint[] {
  const pick = (usable: (state: number) => boolean, filter: IndexFilter | undefined): readonly Endpoint[] => {
    const picked = endpoints.filter(
      (_, index) => usable(states[index] ?? 0) && of?.(index) !== false && filter?.(index) !== false,
    );
    return picked.length === endpoints.length ? endpoints : picked;
  };
  const picked = pick((state) => (state & READY) !== 0, ready);
  return picked.length > 0 ? picked : pick(isServingTerminating, undefined);
}

function isServingTerminating(state: number): boolean {
  return (state & (READY | SERVING | TERMINATING)) === (SERVING | TERMINATING);
}
