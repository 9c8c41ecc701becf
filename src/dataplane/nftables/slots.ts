/**
 * The slots of an endpoint list: positions 0..N-1, one endpoint each, of which the kernel draws one at random.
 * An endpoint keeps its slot for as long as it can, so that a change of the list touches few map elements.
 */
import type { Endpoint } from '../../model/types.js';

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

function isBeginning(current: readonly Endpoint[], wanted: readonly Endpoint[]): boolean {
  return current.length < wanted.length && sameOrder(current, wanted.slice(0, current.length));
}
