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
