/** Resource versions. Those of one kind can be compared (Kubernetes API concepts, resource versions). */

/** Versions are decimal numbers of any length; of anything else nothing is known. */
export function isOlder(version: string, than: string): boolean {
  if (!/^\d+$/.test(version) || !/^\d+$/.test(than)) return false;
  return version.length === than.length ? version < than : version.length < than.length;
}
