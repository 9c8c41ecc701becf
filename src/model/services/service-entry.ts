/** One Service by name, as the model keeps it between events, and what it says of its health check node port. */
import type { IPFamily } from '../../sources/objects.js';
import type { Slice } from '../endpoints/slice.js';
import type { HealthCheckPort, ServicePort } from '../types.js';
import type { ServicePlan } from './plan.js';
import type { PortState } from './service-port.js';

type HealthByFamily = Readonly<Record<IPFamily, HealthCheckPort | undefined>>;
const noHealth: HealthByFamily = { IPv4: undefined, IPv6: undefined };

/** One Service by name: what it asks for, what its slices offer, and the service ports that come of it. */
export class ServiceEntry {
  readonly namespace: string;
  readonly name: string;
  plan: ServicePlan | undefined;
  uid = '';
  /** Creation of the Service that the ports belong to. */
  created = Infinity;
  /** Ordered by name. */
  slices: readonly Slice[] = [];
  /** Both families. */
  ports: readonly PortState[] = [];
  /** What was handed out last. */
  health: HealthByFamily = noHealth;
  dirty = 0;

  /** @param key 'namespace/name' */
  constructor(readonly key: string) {
    const slash = key.indexOf('/');
    this.namespace = key.slice(0, slash);
    this.name = key.slice(slash + 1);
  }
}

/** ModelChanges while it is being put together. */
export interface Collector {
  readonly upserted: Readonly<Record<IPFamily, ServicePort[]>>;
  readonly removed: Readonly<Record<IPFamily, string[]>>;
  readonly healthChecks: { family: IPFamily; check: HealthCheckPort }[];
  readonly healthChecksRemoved: { family: IPFamily; service: string }[];
}

/** @param port 0: the Service has no health check in this family */
export function updateHealth(
  entry: ServiceEntry,
  family: IPFamily,
  port: number,
  localReadyEndpoints: number,
  { healthChecks, healthChecksRemoved }: Collector,
): void {
  const before = entry.health[family];
  if (port === 0) {
    if (before === undefined) return;
    entry.health = { ...entry.health, [family]: undefined };
    healthChecksRemoved.push({ family, service: entry.key });
    return;
  }
  if (before?.port === port && before.localReadyEndpoints === localReadyEndpoints) return;
  const { key: service, namespace, name } = entry;
  const check: HealthCheckPort = { service, namespace, name, port, localReadyEndpoints };
  entry.health = { ...entry.health, [family]: check };
  healthChecks.push({ family, check });
}
