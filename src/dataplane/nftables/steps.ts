/** Changes as steps that may end up in different transactions, each of which leaves a table that serves. Pure. */
import type { FamilyChanges, ServicePort } from '../../model/types.js';
import type { ServicePortState } from './footprint.js';

/** One service port and what becomes of it. */
export interface Step {
  readonly key: string;
  readonly name: string;
  /** undefined: it goes. */
  readonly next: ServicePort | undefined;
}

/**
 * Order: what is gone, then addresses that move from one service port to another leave the old one, then the rest.
 * So an address is never deleted after its new owner has added it, also when they land in different transactions.
 */
export function stepsOf(changes: FamilyChanges, states: ReadonlyMap<string, ServicePortState>): Step[] {
  const steps: Step[] = changes.removed.map((key) => ({
    key,
    name: states.get(key)?.port.name ?? key,
    next: undefined,
  }));
  for (const port of changes.upserted) {
    const before = states.get(port.key);
    if (before === undefined) continue;
    const id = (a: { kind: string; ip: string; port: number }): string =>
      a.kind === 'NodePort' ? `:${a.port}` : `${a.ip} ${a.port}`;
    const after = new Set(port.addresses.map(id));
    const kept = before.port.addresses.filter((address) => after.has(id(address)));
    if (kept.length < before.port.addresses.length) {
      steps.push({ key: port.key, name: port.name, next: { ...before.port, addresses: kept } });
    }
  }
  for (const port of changes.upserted) {
    const { key, name } = port;
    for (const next of growing(states.get(key)?.port, port)) steps.push({ key, name, next });
    steps.push({ key, name, next: port });
  }
  return steps;
}

/** A service port that gets more elements than this grows in several steps. */
const growthElements = 16_384;

/**
 * What a service port is on its way to far more endpoints than it had: everything of it already works, with the first of its
 * endpoints. So neither the kernel's lock nor our event loop is held for long; where there were none, it works
 * sooner, too.
 */
function* growing(
  before: ServicePort | undefined,
  next: ServicePort,
): Generator<ServicePort, void, undefined> {
  const sizeOf = ({ clusterEndpoints, localEndpoints }: ServicePort): number =>
    Math.max(clusterEndpoints.length, localEndpoints.length);
  const step = Math.max(1, Math.floor(growthElements / Math.max(1, next.addresses.length)));
  const first = (before === undefined ? 0 : sizeOf(before)) + step;
  for (let size = first; size < sizeOf(next); size += step) {
    yield {
      ...next,
      clusterEndpoints: next.clusterEndpoints.slice(0, size),
      localEndpoints: next.localEndpoints.slice(0, size),
    };
  }
}

/** About how many elements a service port has. */
export function extentOf(port: ServicePort | undefined): number {
  if (port === undefined) return 0;
  const { addresses, clusterEndpoints, localEndpoints } = port;
  let ranges = 0;
  for (const { sourceRanges } of addresses) ranges += sourceRanges?.length ?? 0;
  return 1 + ranges + addresses.length * (1 + clusterEndpoints.length + localEndpoints.length);
}
