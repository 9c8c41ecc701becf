/**
 * The slots of an endpoint list: positions 0..N-1, one endpoint each, of which the kernel draws one at random.
 * An endpoint keeps its slot for as long as it can, so that a change of the list touches few map elements.
 */
import type { Endpoint } from '../../model/types.js';

export function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a === b || (a.ip === b.ip && a.port === b.port);
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
 * @returns one endpoint per slot; the same array object as `current` when nothing moved.
 */
export function assignSlots(current: readonly Endpoint[], wanted: readonly Endpoint[]): readonly Endpoint[] {
  if (current === wanted || sameOrder(current, wanted)) return current;
  if (current.length === 0) return wanted;

  const byKey = new Map<string, Endpoint>();
  for (const endpoint of wanted) byKey.set(endpointKey(endpoint), endpoint);
  const count = byKey.size;
  const slots = new Array<Endpoint | undefined>(count);
  for (let slot = 0; slot < Math.min(current.length, count); slot++) {
    const holder = current[slot];
    if (holder === undefined) continue;
    const key = endpointKey(holder);
    const survivor = byKey.get(key);
    if (survivor === undefined) continue;
    slots[slot] = survivor;
    byKey.delete(key);
  }
  const rest = byKey.values();
  const filled = Array.from({ length: count }, (_, slot) => slots[slot] ?? rest.next().value);
  const assigned = filled.filter((endpoint) => endpoint !== undefined);
  return sameOrder(current, assigned) ? current : assigned;
}
