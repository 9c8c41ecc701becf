/**
 * The service model: objects in, changed service ports out (service-model.md 4). Pure and incremental: it does no
 * I/O and reads no clock; an event marks the one Service it concerns, and takeChanges() evaluates only what is
 * marked. The cost of an event depends on the size of its own Service, never on how many there are.
 */
import type { EndpointSlice, IPFamily, Service } from '../sources/objects.js';
import { Claims } from './services/claims.js';
import { endpointLimit } from './services/limits.js';
import { compact } from './lists.js';
import { Problems } from './services/problems.js';
import { EndpointsByPort } from './endpoints/endpoints-by-port.js';
import { limitedTo } from './endpoints/selection.js';
import { PortState, type Owner } from './services/service-port.js';
import { planService } from './services/service-plan.js';
import { samePlan, type PortPlan } from './services/plan.js';
import { ServiceEntry, updateHealth, type Collector } from './services/service-entry.js';
import { HintInterner, readSlice, type Slice } from './endpoints/slice.js';
import type { ModelChanges, ObjectProblems, PendingChanges, ServicePort, VirtualAddress } from './types.js';

export interface ModelConfig {
  /** This node's name as slices write it: decides which endpoints are local. */
  readonly nodeName: string;
  /** Used for source ranges that contain the node itself, and for nothing else. */
  readonly nodeIPs: { readonly IPv4?: string; readonly IPv6?: string };
  /** The families that are served; objects of another one are passed over in silence. */
  readonly families: readonly IPFamily[];
  /** Gate AllowServiceExternalIPs. */
  readonly externalIPs: boolean;
  /**
   * Slices that changed before this time (milliseconds since the epoch) tell nothing about how fast this process is:
   * their trigger times are left out. All count when absent.
   */
  readonly triggersSince?: number;
}

/** Stays empty. */
const noProblems = new Problems();
const noPorts = new Map<string, PortState>();

const familyNames: readonly IPFamily[] = ['IPv4', 'IPv6'];

/** Bits of ServiceEntry.dirty. */
const serviceDirty = 1;
const endpointsDirty: Readonly<Record<IPFamily, number>> = { IPv4: 2, IPv6: 4 };

export class ServiceModel {
  private readonly config: ModelConfig;
  /** By 'namespace/name': every Service with a plan, and every Service that some slice names. */
  private readonly services = new Map<string, ServiceEntry>();
  /** By 'namespace/name' of the slice. */
  private readonly sliceIndex = new Map<string, Slice>();
  /** Services whose endpoints have zone hints: all that a change of the zone can touch. */
  private readonly zoneHinted = new Set<ServiceEntry>();
  /** Those whose `dirty` is not 0; what changed last is programmed last. */
  private readonly dirtyServices = new Set<ServiceEntry>();
  private readonly claims = new Claims<PortState>();
  private readonly interner = new HintInterner();
  /** What was reported about objects that have problems, so that it is not repeated at each of their events. */
  private readonly reported = new Map<string, string>();
  /** By family and Service: what was reported of those that ask for too much. */
  private readonly cutShort = new Map<string, string>();
  /** To be reported, by object. */
  private readonly problems = new Map<string, ObjectProblems>();
  /** Trigger times of the slice events since the last takeChanges(). */
  private readonly triggers: Readonly<Record<IPFamily, Map<ServiceEntry, number[]>>> = {
    IPv4: new Map(),
    IPv6: new Map(),
  };
  private pendingSlices = 0;
  private zone: string | undefined;

  constructor(config: ModelConfig) {
    this.config = config;
  }

  /** @param key 'namespace/name' */
  setService(key: string, service: Service | undefined): void {
    const { plan, problems } =
      service === undefined ? { plan: undefined, problems: noProblems } : planService(service, this.config);
    this.report('Service', key, service, problems);
    const entry = plan === undefined ? this.services.get(key) : this.entryOf(key);
    if (entry !== undefined && service !== undefined) entry.uid = service.uid;
    if (entry === undefined || samePlan(entry.plan, plan)) return;
    entry.plan = plan;
    this.mark(entry, serviceDirty);
  }

  /** @param key 'namespace/name' of the slice */
  setEndpointSlice(key: string, object: EndpointSlice | undefined): void {
    const before = this.sliceIndex.get(key);
    const { slice, problems } =
      object === undefined
        ? { slice: undefined, problems: noProblems }
        : readSlice(object, this.config, this.interner, before);
    this.report('EndpointSlice', key, object, problems);
    if (slice === before) return;
    this.pendingSlices++;

    if (before !== undefined) {
      const entry = this.entryOf(before.service);
      entry.slices = compact(entry.slices.filter((other) => other !== before));
      // What a deletion was triggered by is unknown, so the times known for the Service mean nothing any more.
      if (slice === undefined) this.triggers[before.family].delete(entry);
      this.slicesChanged(entry, before.family);
    }
    if (slice === undefined) {
      this.sliceIndex.delete(key);
      return;
    }
    this.sliceIndex.set(key, slice);
    const entry = this.entryOf(slice.service);
    // By name, so that the choice between duplicates does not depend on the order of events.
    entry.slices =
      entry.slices.length === 0
        ? [slice]
        : entry.slices.concat(slice).sort((a, b) => (a.name < b.name ? -1 : 1));
    this.noteTrigger(entry, slice.family, Date.parse(object?.triggerTime ?? ''));
    this.slicesChanged(entry, slice.family);
  }

  /** @param time NaN: the slice does not say */
  private noteTrigger(entry: ServiceEntry, family: IPFamily, time: number): void {
    if (!(time > (this.config.triggersSince ?? -Infinity))) return;
    const times = this.triggers[family].get(entry);
    if (times === undefined) this.triggers[family].set(entry, [time]);
    else times.push(time);
  }

  /** @param zone label topology.kubernetes.io/zone of this node; undefined when it has none */
  setZone(zone: string | undefined): void {
    if (zone === this.zone) return;
    this.zone = zone;
    for (const entry of this.zoneHinted) {
      this.mark(entry, endpointsDirty.IPv4 | endpointsDirty.IPv6);
    }
  }

  /**
   * Whether takeChanges() may have something to say. Events that change nothing do not set it; changes that
   * cancel each other out do, and takeChanges() is then empty.
   */
  get hasChanges(): boolean {
    return this.dirtyServices.size > 0 || this.problems.size > 0;
  }

  get pending(): PendingChanges {
    let services = 0;
    for (const entry of this.dirtyServices) if ((entry.dirty & serviceDirty) !== 0) services++;
    return { services, endpointSlices: this.pendingSlices };
  }

  /**
   * What is different from what the last call left behind. An address may move: apply removals first.
   * @param most evaluates so many Services, the others at the next call: for the first calls, when all are new. Later two Services
   *   that swap an address would seem to contest it in between.
   */
  takeChanges(most = Infinity): ModelChanges {
    const collector: Collector = {
      upserted: { IPv4: [], IPv6: [] },
      removed: { IPv4: [], IPv6: [] },
      healthChecks: [],
      healthChecksRemoved: [],
    };
    const { upserted, removed, healthChecks, healthChecksRemoved } = collector;

    // Claims are settled in between, because the endpoints of one service port can decide the addresses of another.
    // May name a service port twice: what is built again is the same.
    const rebuild: PortState[] = [];
    const changed = { IPv4: new Set<Owner>(), IPv6: new Set<Owner>() };
    const taken = firstOf(this.dirtyServices, most);
    for (const entry of taken) this.evaluate(entry, rebuild, collector);
    const { affected, conflicts } = this.claims.settle();
    for (const port of affected) if (port.live) rebuild.push(port);
    for (const port of rebuild) {
      const output = port.build(this.claims.owned(port, port.plan.addresses));
      if (output === port.output) continue;
      port.output = output;
      upserted[port.family].push(output);
      if (this.triggers[port.family].size > 0) changed[port.family].add(port.owner);
    }

    const triggerTimes: Record<IPFamily, number[]> = { IPv4: [], IPv6: [] };
    for (const entry of taken) {
      this.dirtyServices.delete(entry);
      entry.dirty = 0;
      for (const family of ['IPv4', 'IPv6'] as const) {
        const times = this.triggers[family].get(entry);
        if (times === undefined) continue;
        this.triggers[family].delete(entry);
        if (changed[family].has(entry)) triggerTimes[family].push(...times);
      }
      if (entry.plan === undefined && entry.slices.length === 0) this.services.delete(entry.key);
    }
    this.pendingSlices = 0;
    const problems = [...this.problems.values()];
    this.problems.clear();
    const families = this.config.families.map((family) => ({
      family,
      upserted: upserted[family],
      removed: removed[family],
    }));
    return { families, healthChecks, healthChecksRemoved, conflicts, problems, triggerTimes };
  }

  /**
   * uid of a Service; '' when it is unknown.
   * @param key 'namespace/name'
   */
  uidOf(key: string): string {
    return this.services.get(key)?.uid ?? '';
  }

  /** Everything as of the last takeChanges(), for a dataplane that starts over. */
  *servicePorts(family: IPFamily): Generator<ServicePort, void, undefined> {
    for (const entry of this.services.values()) {
      for (const port of entry.ports) {
        if (port.family === family && port.output !== undefined) yield port.output;
      }
    }
  }

  private entryOf(key: string): ServiceEntry {
    let entry = this.services.get(key);
    if (entry === undefined) {
      entry = new ServiceEntry(key);
      this.services.set(key, entry);
    }
    return entry;
  }

  private mark(entry: ServiceEntry, what: number): void {
    if (entry.dirty !== 0) this.dirtyServices.delete(entry);
    this.dirtyServices.add(entry);
    entry.dirty |= what;
  }

  private slicesChanged(entry: ServiceEntry, family: IPFamily): void {
    let hinted = false;
    for (const slice of entry.slices) {
      for (const port of slice.ports) hinted ||= port.list.zoneHints !== undefined;
    }
    if (hinted) this.zoneHinted.add(entry);
    else this.zoneHinted.delete(entry);
    this.mark(entry, endpointsDirty[family]);
  }

  /** @param object undefined: it is gone, and its problems with it */
  private report(
    kind: 'Service' | 'EndpointSlice',
    key: string,
    object: { readonly namespace: string; readonly name: string; readonly uid?: string } | undefined,
    { list, more }: Problems,
  ): void {
    if (list.length === 0 && this.reported.size === 0) return;
    const id = `${kind} ${key}`;
    const now = list.map(({ field, message }) => `${field}: ${message}`).join('\n') + String(more);
    const before = this.reported.get(id);
    if (list.length === 0) {
      if (before === undefined) return;
      this.reported.delete(id);
    } else {
      if (before === now) return;
      this.reported.set(id, now);
    }
    const slash = key.indexOf('/');
    const { namespace = key.slice(0, slash), name = key.slice(slash + 1), uid = '' } = object ?? {};
    this.problems.set(id, { aspect: 'fields', kind, namespace, name, uid, problems: list, more });
  }

  /** Brings the service ports of one Service up to date, except for what depends on other Services. */
  private evaluate(entry: ServiceEntry, rebuild: PortState[], collector: Collector): void {
    const serviceChanged = (entry.dirty & serviceDirty) !== 0;
    if (serviceChanged) this.alignPorts(entry, collector);
    for (const family of this.config.families) {
      if (!serviceChanged && (entry.dirty & endpointsDirty[family]) === 0) continue;
      const healthPort = entry.plan?.[family]?.healthCheckNodePort ?? 0;
      const endpoints = new EndpointsByPort(entry, family);
      const most = endpointLimit(entry.plan?.[family]?.ports ?? []);
      let left = 0;
      for (const port of entry.ports) {
        if (port.family !== family) continue;
        const all = port.merge(endpoints.of(port.plan));
        const list = limitedTo(all, most);
        left += all.endpoints.length - list.endpoints.length;
        if (port.select(list, this.zone)) this.claims.rankChanged(port);
        rebuild.push(port);
      }
      // Counted only for a Service that has somewhere to report it.
      updateHealth(entry, family, healthPort, healthPort === 0 ? 0 : endpoints.localReady(), collector);
      this.reportSize(entry, family, left, most);
    }
  }

  /** @param left pairs of port and endpoint that are beyond what one Service may have */
  private reportSize(entry: ServiceEntry, family: IPFamily, left: number, most: number): void {
    const id = `${family} ${entry.key}`;
    const message =
      left === 0
        ? ''
        : `too many addresses, ports and endpoints for one Service; of each port ${most} are used`;
    if ((this.cutShort.get(id) ?? '') === message) return;
    if (message === '') this.cutShort.delete(id);
    else this.cutShort.set(id, message);
    const problems = familyNames.flatMap((each) => {
      const text = this.cutShort.get(`${each} ${entry.key}`);
      return text === undefined ? [] : [{ field: `${each} endpoints`, message: text }];
    });
    const { key, namespace, name, uid } = entry;
    this.problems.set(`size ${key}`, {
      aspect: 'size',
      kind: 'Service',
      namespace,
      name,
      uid,
      problems,
      more: 0,
    });
  }

  /** Makes the service ports and their claims those of the plan. */
  private alignPorts(entry: ServiceEntry, collector: Collector): void {
    const { plan } = entry;
    const created = plan?.created ?? Infinity;
    const aged = created !== entry.created;
    entry.created = created;
    // A Service is new far more often than it changes its ports: at the start, all of them are.
    const gone =
      entry.ports.length === 0
        ? noPorts
        : new Map(entry.ports.map((port) => [portId(port.family, port.plan), port]));
    const ports: PortState[] = [];
    for (const family of this.config.families) {
      for (const portPlan of plan?.[family]?.ports ?? []) {
        const known = gone.size === 0 ? undefined : gone.get(portId(family, portPlan));
        if (known !== undefined) gone.delete(portId(family, portPlan));
        const port = known ?? new PortState(entry, family, portPlan);
        port.plan = portPlan;
        ports.push(port);
        if (aged) this.claims.rankChanged(port);
      }
    }
    entry.ports = compact(ports);
    for (const port of gone.values()) {
      port.live = false;
      this.claim(port, []);
      if (port.output !== undefined) collector.removed[port.family].push(port.output.key);
    }
    for (const port of ports) this.claim(port, port.plan.addresses);
  }

  private claim(port: PortState, addresses: readonly VirtualAddress[]): void {
    const before = port.claimed;
    port.claimed = addresses;
    if (before === addresses) return;
    if (before.length === 0) {
      for (const address of addresses) this.claims.claim(port, address);
      return;
    }
    const idOf = ({ ip, port }: VirtualAddress): string => `${ip} ${port}`;
    const had = new Set(before.map(idOf));
    const has = new Set(addresses.map(idOf));
    for (const address of before) if (!has.has(idOf(address))) this.claims.release(port, address);
    for (const address of addresses) if (!had.has(idOf(address))) this.claims.claim(port, address);
  }
}

function portId(family: IPFamily, plan: PortPlan): string {
  return `${family} ${plan.portName}/${plan.protocol}`;
}

/** Without a copy of all, of which there may be many more. */
function firstOf<T>(items: ReadonlySet<T>, most: number): readonly T[] {
  if (most >= items.size) return [...items];
  const first: T[] = [];
  for (const item of items) if (first.push(item) >= most) break;
  return first;
}
