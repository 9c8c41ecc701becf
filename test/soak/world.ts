/**
 * The cluster of a soak: Services and EndpointSlices that come, change and go at random. Every one that it can make is
 * something an API server would accept. Some Services last, with an endpoint each that never changes.
 */
import type { Random } from '@kube-proxy-ts/netlink/testing';
import { nodeAddress } from '../conformance/addresses.js';
import {
  proxyNameLabel,
  serviceNameLabel,
  zoneLabel,
  type Cluster,
  type Endpoint,
  type EndpointSlice,
  type Family,
  type KubeObject,
  type Node,
  type Protocol,
  type Service,
  type ServiceCIDR,
} from './objects.js';

export const families: readonly Family[] = ['IPv4', 'IPv6'];
const zones = ['mtl-1', 'mtl-2'];
/** The two nodes that are looked at; alder is that of test/conformance/topology.ts. */
export const nodeIPs = {
  alder: [nodeAddress.v4, nodeAddress.v6],
  birch: ['100.64.10.12', '2001:db8:a::12'],
} as const;
export const lastingServices = 3;

interface Pod {
  readonly address: Readonly<Record<Family, string>>;
  readonly nodeName: string;
}

/** Every address that an endpoint may have; a server answers there on both ports and protocols. */
export const pods: readonly Pod[] = [
  ...Array.from({ length: 12 }, (_, i) => ({
    address: { IPv4: `10.61.1.${32 + i}`, IPv6: `fd61:0:0:1::3${i.toString(16)}` },
    nodeName: 'alder',
  })),
  ...Array.from({ length: 24 }, (_, i) => ({
    address: { IPv4: `10.61.3.${100 + i}`, IPv6: `fd61:0:0:3::${100 + i}` },
    nodeName: i % 2 === 0 ? 'birch' : 'cedar',
  })),
];
export const targetPorts = [9000, 9001];

const portTemplates = [
  { name: 'web', protocol: 'TCP', port: 80, target: 9000 },
  { name: 'quic', protocol: 'UDP', port: 80, target: 9000 },
  { name: 'alt', protocol: 'TCP', port: 443, target: 9001 },
  { name: 'dns', protocol: 'UDP', port: 53, target: 9001 },
] as const satisfies readonly { name: string; protocol: Protocol; port: number; target: number }[];

const sourceRanges: readonly (readonly string[])[] = [
  ['198.51.100.0/26', '2001:db8:f::/121'],
  ['10.61.0.0/16', 'fd61::/48'],
  ['100.64.10.0/24', '2001:db8:a::/64', '198.51.100.192/26'],
  ['0.0.0.0/0', '::/0'],
  // Nothing for IPv6, so nobody.
  ['198.51.100.0/26'],
];

export type Change =
  | { readonly put: KubeObject }
  | { readonly remove: { readonly kind: KubeObject['kind']; readonly key: string } };

export class World implements Cluster {
  readonly services = new Map<string, Service>();
  readonly slices = new Map<string, EndpointSlice>();
  readonly nodes = new Map<string, Node>();
  readonly serviceCIDRs = new Map<string, ServiceCIDR>();

  /** @param most how many Services may be there beside those that last */
  constructor(
    private readonly random: Random,
    private readonly most: number,
  ) {}

  /** What is there when it begins. */
  *begin(): Generator<Change> {
    yield this.putNode('alder', zones[0]);
    yield this.putNode('birch', zones[1]);
    yield this.putServiceCIDR('kubernetes', ['10.177.0.0/20', 'fd77::/112']);
    for (let i = 0; i < lastingServices; i++) {
      yield this.put(lastingService(i));
      for (const family of families) yield this.put(lastingSlice(i, family));
    }
    for (let i = 0; i < this.most * 0.6; i++) yield* this.addService(i);
  }

  /** Something happens to one Service. Yields what the API server is to be told, in this order. */
  *change(): Generator<Change> {
    if (this.chance(4)) {
      yield this.changeAround();
      return;
    }
    const index = this.random.below(this.most);
    const key = serviceKey(index);
    const service = this.services.get(key);
    if (service === undefined) {
      yield* this.addService(index);
      return;
    }
    const dice = this.random.below(100);
    if (dice < 8) yield* this.removeService(key);
    else if (dice < 12) yield* this.moveEndpoints(key);
    else if (dice < 16) yield* this.empty(key);
    else if (dice < 28) yield this.put(this.service(index, service));
    else if (dice < 60) yield this.put(this.slice(index));
    else if (dice < 90) yield* this.nudge(key, index);
    else yield* this.removeSlice(key);
  }

  /** Services with an external IP pass it on to the next: addresses that move in one large change. */
  *passOn(): Generator<Change> {
    const owners = [...this.services.values()].filter(
      ({ metadata, spec }) => metadata.namespace !== 'stay' && (spec.externalIPs ?? []).length > 0,
    );
    for (const [i, owner] of owners.entries()) {
      const next = owners[(i + 1) % owners.length]?.spec.externalIPs ?? [];
      // Only addresses of families that it has.
      const externalIPs = next.filter((ip) =>
        owner.spec.ipFamilies.includes(ip.includes(':') ? 'IPv6' : 'IPv4'),
      );
      yield this.put({ ...owner, spec: { ...owner.spec, externalIPs } });
    }
  }

  private pick<T>(values: readonly T[]): T {
    const value = values[this.random.below(values.length)];
    if (value === undefined) throw new RangeError('nothing to choose from');
    return value;
  }

  private chance(percent: number): boolean {
    return this.random.below(100) < percent;
  }

  private put(object: Service | EndpointSlice): Change {
    const key = keyOf(object);
    if (object.kind === 'Service') this.services.set(key, object);
    else this.slices.set(key, object);
    return { put: object };
  }

  private remove(kind: 'Service' | 'EndpointSlice', key: string): Change {
    if (kind === 'Service') this.services.delete(key);
    else this.slices.delete(key);
    return { remove: { kind, key } };
  }

  /** Not a Service: the zone of a node, the ranges of cluster IPs. */
  private changeAround(): Change {
    if (this.chance(60)) {
      const zone = this.chance(30) ? undefined : this.pick(zones);
      return this.putNode(this.pick(['alder', 'birch'] as const), zone);
    }
    if (!this.serviceCIDRs.has('more')) return this.putServiceCIDR('more', ['10.178.0.0/24', 'fd78::/112']);
    this.serviceCIDRs.delete('more');
    return { remove: { kind: 'ServiceCIDR', key: 'more' } };
  }

  private putNode(name: 'alder' | 'birch', zone: string | undefined): Change {
    const object: Node = {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name, labels: zone === undefined ? {} : { [zoneLabel]: zone } },
      status: { addresses: nodeIPs[name].map((address) => ({ type: 'InternalIP', address })) },
    };
    this.nodes.set(name, object);
    return { put: object };
  }

  private putServiceCIDR(name: string, cidrs: readonly string[]): Change {
    const object: ServiceCIDR = {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'ServiceCIDR',
      metadata: { name },
      spec: { cidrs },
    };
    this.serviceCIDRs.set(name, object);
    return { put: object };
  }

  private *addService(index: number): Generator<Change> {
    const slices = this.chance(85) ? families.map((family) => this.slice(index, family, 'a')) : [];
    const service = this.service(index, undefined);
    // Either may come first.
    const objects = this.chance(50) ? [service, ...slices] : [...slices, service];
    for (const object of objects) yield this.put(object);
  }

  private *removeService(key: string): Generator<Change> {
    const slices = [...this.slices.values()].filter((slice) => ownerOf(slice) === key).map(keyOf);
    yield this.remove('Service', key);
    // The garbage collector may be late.
    if (this.chance(80)) for (const slice of slices) yield this.remove('EndpointSlice', slice);
  }

  private *removeSlice(key: string): Generator<Change> {
    const slices = [...this.slices.values()].filter((slice) => ownerOf(slice) === key);
    if (slices.length > 0) yield this.remove('EndpointSlice', keyOf(this.pick(slices)));
  }

  /** One endpoint of a slice changes, comes or goes, as in a rollout. */
  private *nudge(key: string, index: number): Generator<Change> {
    const slices = [...this.slices.values()].filter((slice) => ownerOf(slice) === key);
    if (slices.length === 0) {
      yield this.put(this.slice(index));
      return;
    }
    const slice = this.pick(slices);
    const endpoints = [...slice.endpoints];
    const at = this.random.below(endpoints.length + 1);
    const old = endpoints[at];
    const fresh = this.endpoint(slice.addressType);
    if (old === undefined) endpoints.push(fresh);
    else if (this.chance(30)) endpoints.splice(at, 1);
    else endpoints[at] = { ...old, conditions: fresh.conditions };
    yield this.put({ ...slice, endpoints: distinct(endpoints) });
  }

  /** Endpoints keep their addresses and are on other nodes, this one among them. */
  private *moveEndpoints(key: string): Generator<Change> {
    for (const slice of [...this.slices.values()].filter((one) => ownerOf(one) === key)) {
      const endpoints = slice.endpoints.map((endpoint) =>
        this.chance(60) ? { ...endpoint, nodeName: this.pick(['alder', 'birch', 'cedar']) } : endpoint,
      );
      yield this.put({ ...slice, endpoints });
    }
  }

  /** All endpoints go, and at times come back at once. */
  private *empty(key: string): Generator<Change> {
    const slices = [...this.slices.values()].filter((slice) => ownerOf(slice) === key);
    for (const slice of slices) yield this.put({ ...slice, endpoints: [] });
    if (this.chance(60)) for (const slice of slices) yield this.put(slice);
  }

  private service(index: number, before: Service | undefined): Service {
    const { random } = this;
    // A change of the kind is rare, since it changes everything.
    const type =
      before !== undefined && this.chance(60)
        ? before.spec.type
        : this.pick(['ClusterIP', 'ClusterIP', 'NodePort', 'LoadBalancer', 'LoadBalancer'] as const);
    const ports = portTemplates.filter(
      (_, i) => (index + (before === undefined ? 0 : random.below(2))) % 4 !== i,
    );
    const kept = ports.slice(0, 1 + random.below(3));
    const ipFamilies =
      index % 5 === 0 ? [this.pick(families)] : index % 2 === 0 ? families : [...families].reverse();
    const own = before === undefined ? ipFamilies : before.spec.ipFamilies;
    const clusterIPs = own.map((family) => clusterIP(index, family));
    const externalIPs = this.chance(20) ? own.map((family) => externalIP(random.below(4), family)) : [];
    const external = type !== 'ClusterIP' || externalIPs.length > 0;
    const ranges = type === 'LoadBalancer' && this.chance(35) ? this.pick(sourceRanges) : [];
    const vip = random.below(8);
    const seconds = 10 + random.below(50);
    return {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: {
        ...nameOf(index),
        ...(this.chance(4) ? { labels: { [proxyNameLabel]: 'somebody-else' } } : {}),
        creationTimestamp: before?.metadata.creationTimestamp ?? `2026-01-02T03:${10 + random.below(50)}:00Z`,
      },
      spec: {
        type,
        clusterIP: clusterIPs[0] ?? '',
        clusterIPs,
        ipFamilies: own,
        ports: kept.map(({ name, protocol, port }) => ({
          name,
          protocol,
          port,
          // A node port belongs to one protocol and port of one Service; so API servers hand them out.
          ...(type === 'ClusterIP' ? {} : { nodePort: 30_000 + index * 4 + nodePortOffset(name) }),
        })),
        ...(externalIPs.length > 0 ? { externalIPs } : {}),
        ...(ranges.length > 0 ? { loadBalancerSourceRanges: ranges } : {}),
        ...(this.chance(20)
          ? {
              sessionAffinity: 'ClientIP' as const,
              sessionAffinityConfig: { clientIP: { timeoutSeconds: seconds * 60 } },
            }
          : { sessionAffinity: 'None' as const }),
        internalTrafficPolicy: this.chance(20) ? 'Local' : 'Cluster',
        ...(external ? { externalTrafficPolicy: this.chance(45) ? 'Local' : 'Cluster' } : {}),
      },
      status: {
        loadBalancer:
          type === 'LoadBalancer'
            ? { ingress: own.map((family) => ({ ip: loadBalancerIP(vip, family) })) }
            : {},
      },
    };
  }

  private slice(
    index: number,
    family = this.pick(families),
    part = this.pick(['a', 'a', 'b']),
  ): EndpointSlice {
    const { namespace, name } = nameOf(index);
    const count = this.chance(10) ? 0 : this.chance(8) ? 5 + this.random.below(12) : 1 + this.random.below(4);
    return {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        namespace,
        name: `${name}-${family === 'IPv4' ? '4' : '6'}${part}`,
        labels: { [serviceNameLabel]: name },
        creationTimestamp: '2026-01-02T03:04:05Z',
      },
      addressType: family,
      ports: portTemplates.map((port) => ({ name: port.name, protocol: port.protocol, port: port.target })),
      endpoints: distinct(Array.from({ length: count }, () => this.endpoint(family))),
    };
  }

  private endpoint(family: Family): Endpoint {
    const { address, nodeName } = this.pick(pods);
    const dice = this.random.below(100);
    const conditions =
      dice < 70
        ? { ready: true }
        : dice < 78
          ? { ready: false }
          : dice < 92
            ? { ready: false, serving: true, terminating: true }
            : dice < 96
              ? { ready: false, serving: false, terminating: true }
              : {};
    return {
      addresses: [address[family]],
      nodeName,
      conditions,
      ...(this.chance(50)
        ? {
            hints: {
              forZones: [{ name: this.pick(zones) }],
              ...(this.chance(30) ? { forNodes: [{ name: nodeName }] } : {}),
            },
          }
        : {}),
    };
  }
}

/** A slice does not name an address twice. */
function distinct(endpoints: readonly Endpoint[]): Endpoint[] {
  return [...new Map(endpoints.map((endpoint) => [endpoint.addresses[0], endpoint])).values()];
}

export function keyOf({ metadata }: Service | EndpointSlice): string {
  return `${metadata.namespace}/${metadata.name}`;
}

export function ownerOf({ metadata }: EndpointSlice): string {
  return `${metadata.namespace}/${metadata.labels?.[serviceNameLabel] ?? ''}`;
}

function nameOf(index: number): { namespace: string; name: string } {
  return { namespace: index % 2 === 0 ? 'soak' : 'soup', name: `s${index}` };
}

function serviceKey(index: number): string {
  const { namespace, name } = nameOf(index);
  return `${namespace}/${name}`;
}

function nodePortOffset(portName: string): number {
  return portTemplates.findIndex(({ name }) => name === portName);
}

/** From 10.177.0.50 on, by sixteens in IPv6 as in IPv4: whatever the index, in the service range. */
export function clusterIP(index: number, family: Family): string {
  const number = 50 + index;
  return family === 'IPv4' ? `10.177.${number >> 8}.${number & 255}` : `fd77::${number.toString(16)}`;
}

function externalIP(index: number, family: Family): string {
  return family === 'IPv4' ? `203.0.113.${index + 1}` : `2001:db8:e::${index + 1}`;
}

function loadBalancerIP(index: number, family: Family): string {
  return family === 'IPv4' ? `192.0.2.${index + 1}` : `2001:db8:b::${index + 1}`;
}

/** Addresses that no Service ever has, of the range that is always there and of the one that comes and goes. */
export const unallocated: Readonly<Record<Family, readonly string[]>> = {
  IPv4: ['10.177.15.1', '10.178.0.200'],
  IPv6: ['fd77::f001', 'fd78::200'],
};

const lastingIndex = (i: number): number => 3000 + i;

/** A cluster IP, a node port with policy Cluster, a load balancer. */
function lastingService(i: number): Service {
  const index = lastingIndex(i);
  const type = (['ClusterIP', 'NodePort', 'LoadBalancer'] as const)[i % 3] ?? 'ClusterIP';
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { namespace: 'stay', name: `s${i}`, creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: {
      type,
      clusterIP: clusterIP(index, 'IPv4'),
      clusterIPs: families.map((family) => clusterIP(index, family)),
      ipFamilies: families,
      ports: [
        {
          name: 'web',
          protocol: 'TCP',
          port: 80,
          ...(type === 'ClusterIP' ? {} : { nodePort: 32_000 + 2 * i }),
        },
        {
          name: 'quic',
          protocol: 'UDP',
          port: 80,
          ...(type === 'ClusterIP' ? {} : { nodePort: 32_001 + 2 * i }),
        },
      ],
      sessionAffinity: 'None',
      internalTrafficPolicy: 'Cluster',
      ...(type === 'ClusterIP' ? {} : { externalTrafficPolicy: 'Cluster' }),
    },
    status: {
      loadBalancer:
        type === 'LoadBalancer'
          ? { ingress: families.map((family) => ({ ip: loadBalancerIP(100 + i, family) })) }
          : {},
    },
  };
}

function lastingSlice(i: number, family: Family): EndpointSlice {
  const pod = pods[i * 6];
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      namespace: 'stay',
      name: `s${i}-${family === 'IPv4' ? '4' : '6'}`,
      labels: { [serviceNameLabel]: `s${i}` },
      creationTimestamp: '2026-01-01T00:00:00Z',
    },
    addressType: family,
    ports: portTemplates.map((port) => ({ name: port.name, protocol: port.protocol, port: port.target })),
    endpoints:
      pod === undefined
        ? []
        : [{ addresses: [pod.address[family]], nodeName: pod.nodeName, conditions: { ready: true } }],
  };
}
