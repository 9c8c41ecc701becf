/**
 * The endpoints of one service port out of many slices. When few endpoints of few slices changed, what was merged before is
 * patched: of 50,000 endpoints in 50 slices one then costs two copies of an array, where merging compares each six times.
 */
import { mergeLists } from './selection.js';
import { compareEndpoints, type EndpointList } from './slice.js';
import type { Endpoint } from '../types.js';

/** From so many slices on it pays to keep what was merged. */
export const worthwhile = 4;
/** With more changed endpoints, or slices, all are merged anew. */
const maxChanges = 128;
const maxLists = 4;

interface Change {
  readonly endpoint: Endpoint;
  /** undefined: it is gone. */
  readonly state: number | undefined;
}

export class ListMerger {
  private lists: readonly EndpointList[] = [];
  private merged: EndpointList | undefined;

  /** @param lists as mergeLists() takes them; @returns what it returns */
  merge(lists: readonly EndpointList[]): EndpointList {
    const merged = this.patched(lists) ?? mergeLists(lists);
    this.lists = lists;
    this.merged = merged;
    return merged;
  }

  private patched(lists: readonly EndpointList[]): EndpointList | undefined {
    const { merged } = this;
    if (merged === undefined || lists.length !== this.lists.length) return undefined;
    const changes: Change[] = [];
    let changed = 0;
    let before = 0;
    for (const [index, list] of lists.entries()) {
      const known = this.lists[index];
      if (known === undefined || list.zoneHints !== undefined || known.zoneHints !== undefined)
        return undefined;
      before += known.endpoints.length;
      if (known === list) continue;
      if (++changed > maxLists || !addChanges(known, list, changes)) return undefined;
    }
    // Where a slice hid an endpoint of another one, its place is not known here.
    if (before !== merged.endpoints.length) return undefined;
    return changes.length === 0 ? merged : patch(merged, changes);
  }
}

/** @returns false when they are too many */
function addChanges(before: EndpointList, now: EndpointList, changes: Change[]): boolean {
  let i = 0;
  let j = 0;
  while (i < before.endpoints.length || j < now.endpoints.length) {
    const old = before.endpoints[i];
    const next = now.endpoints[j];
    const order =
      old === next ? 0 : old === undefined ? 1 : next === undefined ? -1 : compareEndpoints(old, next);
    if (order < 0 && old !== undefined) changes.push({ endpoint: old, state: undefined });
    else if (next !== undefined && (old !== next || before.states[i] !== now.states[j])) {
      if (order === 0 && old !== undefined) changes.push({ endpoint: old, state: undefined });
      changes.push({ endpoint: next, state: now.states[j] ?? 0 });
    }
    if (changes.length > maxChanges) return false;
    if (order <= 0) i++;
    if (order >= 0) j++;
  }
  return true;
}

/** @returns undefined when one came that another slice has, too */
function patch(merged: EndpointList, changes: readonly Change[]): EndpointList | undefined {
  const endpoints = merged.endpoints.slice();
  const states = merged.states.slice();
  // What goes first: an endpoint may move from one slice to another.
  for (const { endpoint, state } of changes) {
    if (state !== undefined) continue;
    const at = placeOf(endpoints, endpoint);
    endpoints.splice(at, 1);
    states.splice(at, 1);
  }
  for (const { endpoint, state } of changes) {
    if (state === undefined) continue;
    const at = placeOf(endpoints, endpoint);
    const there = endpoints[at];
    if (there !== undefined && compareEndpoints(there, endpoint) === 0) return undefined;
    endpoints.splice(at, 0, endpoint);
    states.splice(at, 0, state);
  }
  return { endpoints, states, zoneHints: undefined };
}

/** Index of the first that is not before `endpoint`. */
function placeOf(endpoints: readonly Endpoint[], endpoint: Endpoint): number {
  let from = 0;
  let to = endpoints.length;
  while (from < to) {
    const middle = (from + to) >>> 1;
    const other = endpoints[middle];
    if (other !== undefined && compareEndpoints(other, endpoint) < 0) from = middle + 1;
    else to = middle;
  }
  return from;
}
