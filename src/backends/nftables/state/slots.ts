/**
 * The slots of an endpoint list: positions 0..N-1, one endpoint each, of which the kernel draws one at random.
 * An endpoint keeps its slot for as long as it can, so that a change of the list touches few map elements.
 */
import type { Endpoint } from '../../../model/types.js';

/** All that the rules depend on: also where it is, which decides whether it may reach itself through the Service. */
export function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return (
    a === b || (a.ip === b.ip && a.port === b.port && a.local === b.local && a.nodeUnknown === b.nodeUnknown)
  );
}

/** 'ip:port' without brackets: an identity within one family, not for people. */
export function endpointKey(endpoint: Endpoint): string {
  return `${endpoint.ip}:${endpoint.port}`;
}

function sameOrder(a: readonly Endpoint[], b: readonly Endpoint[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) {
    const x = a[i];
    const y = b[i];
    if (x === undefined || y === undefined || !sameEndpoint(x, y)) return false;
  }
  return true;
}

/**
 * Assigns `wanted` to slots, given the slots in use. Survivors below the new length stay where they are; those
 * above it and newcomers fill the holes in order. So removing one of N endpoints writes at most two elements
 * (the last moves into the hole), adding one writes one.
 *
 * The model keeps the objects of endpoints that stay, so most survivors are known by identity; text is made only for the others.
 *
 * @param wanted each endpoint once
 * @returns one endpoint per slot, as `wanted` has it; the same array object as `current` when all are the same.
 */
export function assignSlots(current: readonly Endpoint[], wanted: readonly Endpoint[]): readonly Endpoint[] {
  if (current === wanted || sameOrder(current, wanted)) return current;
  if (current.length === 0 || isBeginning(current, wanted)) return wanted;

  const count = wanted.length;
  const below = Math.min(current.length, count);
  const slots = new Array<Endpoint | undefined>(count).fill(undefined);
  const homeless = new Set(wanted);
  const unknown: number[] = [];
  for (let slot = 0; slot < below; slot++) {
    const holder = current[slot];
    if (holder === undefined) continue;
    if (homeless.delete(holder)) slots[slot] = holder;
    else unknown.push(slot);
  }
  if (unknown.length > 0) {
    const byKey = new Map<string, Endpoint>();
    for (const endpoint of homeless) byKey.set(endpointKey(endpoint), endpoint);
    for (const slot of unknown) {
      const holder = current[slot];
      const survivor = holder === undefined ? undefined : byKey.get(endpointKey(holder));
      if (survivor === undefined) continue;
      slots[slot] = survivor;
      homeless.delete(survivor);
    }
  }
  const rest = homeless.values();
  const assigned: Endpoint[] = [];
  for (const held of slots) {
    const endpoint = held ?? rest.next().value;
    if (endpoint !== undefined) assigned.push(endpoint);
  }
  return sameOrder(current, assigned) ? current : assigned;
}

/** What two lists differ in. */
export interface Difference {
  readonly gone: readonly Endpoint[];
  readonly come: readonly Endpoint[];
}

/** So many endpoints that came or went in a row are seen as such. */
const longestRun = 64;

/**
 * Compares by identity, both lists in one walk: the model keeps the order of the list and the objects of endpoints that stay.
 * @returns undefined when there are more than `limit` differences
 */
export function differenceOf(
  before: readonly Endpoint[],
  next: readonly Endpoint[],
  limit: number,
): Difference | undefined {
  if (Math.abs(before.length - next.length) > limit) return undefined;
  const [gone, come]: [Endpoint[], Endpoint[]] = [[], []];
  let [i, j] = [0, 0];
  while (i < before.length || j < next.length) {
    const [old, now] = [before[i], next[j]];
    if (old === now) {
      i++;
      j++;
      continue;
    }
    let [went, came] = [old === undefined ? 0 : 1, now === undefined ? 0 : 1];
    for (let run = 1; old !== undefined && now !== undefined && run <= longestRun; run++) {
      if (before[i + run] === now) [went, came] = [run, 0];
      else if (next[j + run] === old) [went, came] = [0, run];
      else continue;
      break;
    }
    gone.push(...before.slice(i, i + went));
    come.push(...next.slice(j, j + came));
    i += went;
    j += came;
    if (gone.length + come.length > limit) return undefined;
  }
  // What came to another place is no difference.
  const [left, arrived] = [new Set(gone), new Set(come)];
  return {
    gone: gone.filter((endpoint) => !arrived.has(endpoint)),
    come: come.filter((endpoint) => !left.has(endpoint)),
  };
}

/** What came into slots, and what is in none any more, by identity; most slots hold what they held. */
export function slotDifference(before: readonly Endpoint[], now: readonly Endpoint[]): Difference {
  if (before === now) return noDifference;
  const gone = new Set<Endpoint>();
  const come = new Set<Endpoint>();
  for (let slot = 0; slot < before.length || slot < now.length; slot++) {
    const [old, next] = [before[slot], now[slot]];
    if (old === next) continue;
    if (old !== undefined) gone.add(old);
    if (next !== undefined) come.add(next);
  }
  // What only moved is no difference.
  for (const endpoint of gone) if (come.delete(endpoint)) gone.delete(endpoint);
  return { gone: [...gone], come: [...come] };
}

const noDifference: Difference = { gone: [], come: [] };

/** Endpoints that came and went. */
const fewChanges = 256;

/**
 * The same as assignSlots() for a small change of a long list: without a set of all endpoints.
 * @param before the list that stands in the slots `current`
 * @returns undefined when the change is too large, or other objects stand in the slots
 */
export function assignFew(
  current: readonly Endpoint[],
  before: readonly Endpoint[],
  wanted: readonly Endpoint[],
): readonly Endpoint[] | undefined {
  if (current.length !== before.length) return undefined;
  const difference = differenceOf(before, wanted, fewChanges);
  if (difference === undefined) return undefined;
  const gone = new Set(difference.gone);
  const holes: number[] = [];
  for (let slot = 0; slot < current.length && holes.length < gone.size; slot++) {
    const holder = current[slot];
    if (holder !== undefined && gone.has(holder)) holes.push(slot);
  }
  if (holes.length < gone.size) return undefined;
  const slots = current.slice(0, wanted.length);
  // One that is only known anew, say because it is on another node, keeps its slot.
  const come = new Map(difference.come.map((endpoint) => [endpointKey(endpoint), endpoint]));
  const empty: number[] = [];
  for (const hole of holes) {
    const holder = current[hole];
    const key = holder === undefined ? '' : endpointKey(holder);
    const again = come.get(key);
    if (again !== undefined && hole < wanted.length) {
      slots[hole] = again;
      come.delete(key);
    } else if (hole < wanted.length) {
      empty.push(hole);
    }
  }
  const homeless = [
    ...current.slice(wanted.length).filter((endpoint) => !gone.has(endpoint)),
    ...come.values(),
  ].values();
  for (const hole of empty) {
    const next = homeless.next().value;
    if (next === undefined) return undefined;
    slots[hole] = next;
  }
  slots.push(...homeless);
  return slots.length === wanted.length ? slots : undefined;
}

function isBeginning(current: readonly Endpoint[], wanted: readonly Endpoint[]): boolean {
  return current.length < wanted.length && sameOrder(current, wanted.slice(0, current.length));
}
