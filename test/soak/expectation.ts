/**
 * What has to become of a connection, told from the API's objects alone: the rules of Kubernetes for Services, one after the
 * other, without regard to speed. It shares no code with the program.
 *
 * Covered: cluster IPs, external IPs, load balancer addresses with source ranges, node ports; TCP and UDP; both families;
 * internalTrafficPolicy and externalTrafficPolicy; readiness, serving and terminating endpoints; zone hints; several slices
 * per Service; addresses that two Services claim; masquerading; refused and dropped connections; ports that a cluster IP does
 * not have; addresses that no Service has.
 */
import { isIPv6 } from 'node:net';
import {
  proxyNameLabel,
  serviceNameLabel,
  zoneLabel,
  type Cluster,
  type Endpoint,
  type EndpointSlice,
  type Family,
  type Protocol,
  type Service,
} from './objects.js';
import { isWithin } from './ruleset.js';

/** The node's own circumstances. */
export interface Circumstances {
  readonly nodeName: string;
  /** The node's addresses that serve node ports. */
  readonly nodePortIPs: readonly string[];
  /** --cluster-cidr: who comes from here is a pod. */
  readonly podRanges: readonly string[];
  readonly masqueradeAll: boolean;
}

/** Who asks. */
export interface Source {
  readonly address: string;
  /** A process of the node. */
  readonly ownNode: boolean;
}

export interface Destination {
  readonly address: string;
  readonly protocol: Protocol;
  readonly port: number;
}

export type Expected =
  | { readonly kind: 'dropped' | 'rejected' | 'passed' }
  /** One of `endpoints` ('address port'); the source is kept, or becomes the node's. */
  | { readonly kind: 'translated'; readonly endpoints: readonly string[]; readonly masqueraded: boolean };

/** One port of one Service in one family, with its addresses. */
export interface ServicePort {
  readonly service: Service;
  readonly family: Family;
  readonly portName: string;
  readonly protocol: Protocol;
  readonly destinations: readonly {
    readonly to: Destination;
    readonly kind: 'cluster IP' | 'external IP' | 'load balancer' | 'node port';
  }[];
  readonly endpoints: readonly KnownEndpoint[];
}

interface KnownEndpoint {
  /** 'address port' */
  readonly target: string;
  readonly ready: boolean;
  /** Not ready, but still served while it ends. */
  readonly lastResort: boolean;
  readonly terminating: boolean;
  readonly local: boolean;
  /** On this node, or nobody knows where. */
  readonly maybeHere: boolean;
  /** Whether an exchange of datagrams that goes on may stay with it. */
  readonly serving: boolean;
  /** Hints. */
  readonly zones: readonly string[];
  readonly nodes: readonly string[];
}

export const destinationKey = ({ address, protocol, port }: Destination): string =>
  `${address} ${protocol} ${port}`;

const isOf = (family: Family) => (address: string) => isIPv6(address) === (family === 'IPv6');

export class Expectation {
  readonly ports: readonly ServicePort[];
  /** Who serves an address. */
  readonly owners = new Map<string, ServicePort>();
  private readonly clusterIPs = new Set<string>();
  private readonly zone: string | undefined;
  private readonly nodeIPs: readonly string[];
  private readonly serviceRanges: readonly string[];

  constructor(
    cluster: Cluster,
    readonly circumstances: Circumstances,
  ) {
    const node = cluster.nodes.get(circumstances.nodeName);
    this.zone = node?.metadata.labels[zoneLabel];
    this.nodeIPs = (node?.status.addresses ?? []).map(({ address }) => address);
    this.serviceRanges = [...cluster.serviceCIDRs.values()].flatMap(({ spec }) => spec.cidrs);
    const slices = new Map<string, EndpointSlice[]>();
    for (const slice of cluster.slices.values()) {
      const owner = `${slice.metadata.namespace}/${slice.metadata.labels?.[serviceNameLabel] ?? ''}`;
      slices.set(owner, [...(slices.get(owner) ?? []), slice]);
    }
    const ours = [...cluster.services].filter(
      ([, { metadata }]) => metadata.labels?.[proxyNameLabel] === undefined,
    );
    this.ports = ours.flatMap(([key, service]) =>
      service.spec.ipFamilies.flatMap((family) =>
        this.portsOf(
          service,
          family,
          (slices.get(key) ?? []).filter((slice) => slice.addressType === family),
        ),
      ),
    );
    for (const port of this.ports) {
      for (const { to, kind } of port.destinations) {
        if (kind === 'cluster IP') this.clusterIPs.add(to.address);
        const key = destinationKey(to);
        const other = this.owners.get(key);
        if (other === undefined || isBefore(port, other)) this.owners.set(key, port);
      }
    }
  }

  of(to: Destination, from: Source): Expected {
    const port = this.owners.get(destinationKey(to));
    if (port !== undefined) return this.served(port, to, from);
    if (this.clusterIPs.has(to.address)) return { kind: 'rejected' };
    const reserved = this.serviceRanges.some((range) => isWithin(to.address, range));
    return { kind: reserved ? 'dropped' : 'passed' };
  }

  private served(port: ServicePort, to: Destination, from: Source): Expected {
    const { spec } = port.service;
    const { podRanges, masqueradeAll } = this.circumstances;
    const kind = port.destinations.find((one) => destinationKey(one.to) === destinationKey(to))?.kind;
    if (kind === 'load balancer' && !this.mayUse(port, to.address, from.address)) return { kind: 'dropped' };
    const isPod = podRanges.some((range) => isWithin(from.address, range));
    const everywhere = this.everywhere(port);
    const here = onThisNode(port);
    if (!port.endpoints.some(({ ready, lastResort }) => ready || lastResort)) return { kind: 'rejected' };
    if (kind === 'cluster IP') {
      const endpoints = spec.internalTrafficPolicy === 'Local' ? here : everywhere;
      return endpoints.length === 0
        ? { kind: 'dropped' }
        : { kind: 'translated', endpoints, masqueraded: masqueradeAll || !isPod };
    }
    if (!isExternallyLocal(port.service)) {
      return { kind: 'translated', endpoints: everywhere, masqueraded: true };
    }
    // Who is part of the cluster may use any endpoint, as if it had gone there directly.
    if (isPod) return { kind: 'translated', endpoints: everywhere, masqueraded: false };
    if (from.ownNode) return { kind: 'translated', endpoints: everywhere, masqueraded: true };
    return here.length === 0
      ? { kind: 'dropped' }
      : { kind: 'translated', endpoints: here, masqueraded: false };
  }

  /** The endpoints for traffic without a Local policy. */
  everywhere({ endpoints }: ServicePort): readonly string[] {
    const ready = endpoints.filter((endpoint) => endpoint.ready);
    if (ready.length === 0) return targets(endpoints.filter((endpoint) => endpoint.lastResort));
    // A kind of hint counts when all have it, and some name this place.
    const { nodeName } = this.circumstances;
    const onNode = ready.filter(({ nodes }) => nodes.includes(nodeName));
    if (onNode.length > 0 && ready.every(({ nodes }) => nodes.length > 0)) return targets(onNode);
    const inZone = ready.filter(({ zones }) => this.zone !== undefined && zones.includes(this.zone));
    if (inZone.length > 0 && ready.every(({ zones }) => zones.length > 0)) return targets(inZone);
    return targets(ready);
  }

  private mayUse({ service, family }: ServicePort, address: string, source: string): boolean {
    const ranges = service.spec.loadBalancerSourceRanges ?? [];
    if (ranges.length === 0) return true;
    const own = ranges.filter((range) => isOf(family)(range.split('/')[0] ?? ''));
    if (own.some((range) => isWithin(source, range))) return true;
    // The node itself may use the address as its source when it has it.
    return source === address && this.nodeIPs.some((ip) => own.some((range) => isWithin(ip, range)));
  }

  private portsOf(service: Service, family: Family, slices: readonly EndpointSlice[]): ServicePort[] {
    const { spec, status } = service;
    const here = isOf(family);
    return spec.ports.map((port) => {
      const { name, protocol } = port;
      const at = (address: string): Destination => ({ address, protocol, port: port.port });
      const { nodePort } = port;
      return {
        service,
        family,
        portName: name,
        protocol,
        destinations: [
          ...spec.clusterIPs.filter(here).map((ip) => ({ kind: 'cluster IP' as const, to: at(ip) })),
          ...(spec.externalIPs ?? [])
            .filter(here)
            .map((ip) => ({ kind: 'external IP' as const, to: at(ip) })),
          ...(status.loadBalancer.ingress ?? [])
            .filter(({ ip }) => here(ip))
            .map(({ ip }) => ({ kind: 'load balancer' as const, to: at(ip) })),
          ...(nodePort === undefined ? [] : this.circumstances.nodePortIPs.filter(here)).map((ip) => ({
            kind: 'node port' as const,
            to: { address: ip, protocol, port: nodePort ?? 0 },
          })),
        ],
        endpoints: this.endpointsOf(slices, name, protocol),
      };
    });
  }

  private endpointsOf(
    slices: readonly EndpointSlice[],
    portName: string,
    protocol: Protocol,
  ): KnownEndpoint[] {
    const found = new Map<string, KnownEndpoint>();
    const inOrder = [...slices].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
    for (const slice of inOrder) {
      for (const port of slice.ports) {
        if (port.name !== portName || port.protocol !== protocol) continue;
        for (const endpoint of slice.endpoints) {
          const next = this.known(endpoint, port.port);
          const other = found.get(next.target);
          // What ends yields to what does not, what is not ready to what is.
          if (other === undefined || rank(next) < rank(other)) found.set(next.target, next);
        }
      }
    }
    return [...found.values()];
  }

  private known({ addresses, nodeName, conditions, hints }: Endpoint, port: number): KnownEndpoint {
    const { ready = true, serving = true, terminating = false } = conditions;
    return {
      target: `${addresses[0] ?? ''} ${port}`,
      ready,
      lastResort: !ready && serving && terminating,
      terminating,
      local: nodeName === this.circumstances.nodeName,
      maybeHere: nodeName === undefined || nodeName === this.circumstances.nodeName,
      serving,
      zones: (hints?.forZones ?? []).map(({ name }) => name),
      nodes: (hints?.forNodes ?? []).map(({ name }) => name),
    };
  }
}

function rank({ ready, terminating }: KnownEndpoint): number {
  return (terminating ? 2 : 0) + (ready ? 0 : 1);
}

function targets(endpoints: readonly KnownEndpoint[]): readonly string[] {
  return endpoints.map(({ target }) => target).sort();
}

/** The endpoints for traffic with a Local policy. */
export function onThisNode({ endpoints }: ServicePort): readonly string[] {
  const local = endpoints.filter((endpoint) => endpoint.local);
  const ready = local.filter((endpoint) => endpoint.ready);
  return targets(ready.length > 0 ? ready : local.filter((endpoint) => endpoint.lastResort));
}

function isExternallyLocal({ spec }: Service): boolean {
  return (
    spec.externalTrafficPolicy === 'Local' &&
    (spec.type !== 'ClusterIP' || (spec.externalIPs ?? []).length > 0)
  );
}

/** Who of two claimants has an address: one with endpoints, else the older, else by name. */
function isBefore(a: ServicePort, b: ServicePort): boolean {
  const order = (port: ServicePort): readonly (string | number)[] => [
    port.endpoints.some(({ ready, lastResort }) => ready || lastResort) ? 0 : 1,
    port.service.metadata.creationTimestamp,
    port.service.metadata.namespace,
    port.service.metadata.name,
    port.portName,
  ];
  const [first, second] = [order(a), order(b)];
  const differs = first.findIndex((part, i) => part !== second[i]);
  return differs >= 0 && (first[differs] ?? '') < (second[differs] ?? '');
}
