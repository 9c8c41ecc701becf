/** Equal length, and equal item by item. */
export function sameList<T>(a: readonly T[], b: readonly T[], same: (x: T, y: T) => boolean): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) {
    // Both indices exist: the lists are equally long and have no holes.
    if (!same(a[i] as T, b[i] as T)) return false;
  }
  return true;
}

/**
 * A copy without slack. An array that grew item by item holds room for up to 16 more (or half as many again), which
 * counts when there is one per service port.
 */
export function compact<T>(list: readonly T[]): readonly T[] {
  return list.slice();
}
