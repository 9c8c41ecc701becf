/**
 * What the model tells a dataplane: service ports, each with its virtual addresses and the endpoints that may
 * serve them. Every decision of service-model.md that does not depend on the packet is already made here.
 */
import type { IPFamily, Protocol } from '../sources/objects.js';

export type { IPFamily, Protocol };

/** One backend of a service port. Objects are shared between lists and must not be changed. */
export interface Endpoint {
  /** Canonical text form (no leading zeros; IPv6 compressed lower case). */
  readonly ip: string;
  readonly port: number;
  /** The slice names this node as the endpoint's node. */
  readonly local: boolean;
  /** The slice names no node: it may be a pod of this node all the same (hairpin). */
  readonly nodeUnknown: boolean;
}

export type AddressKind = 'ClusterIP' | 'ExternalIP' | 'LoadBalancerIP' | 'NodePort';

export interface Cidr {
  /** Network address, canonical text, host bits cleared. */
  readonly ip: string;
  readonly prefixLength: number;
}

/**
 * What happens to a packet that no endpoint list took.
 * 'serve': the list is not empty, nothing is left over. 'reject': no usable endpoint in the cluster (ICMP port
 * unreachable). 'drop': there are endpoints, but none on this node and the policy is Local.
 */
export type Fallback = 'serve' | 'reject' | 'drop';

export interface VirtualAddress {
  readonly kind: AddressKind;
  /** Canonical text; '' for a node port, which lives on the node's own addresses. */
  readonly ip: string;
  readonly port: number;
  /**
   * Scope of ClusterIP is 'internal' (masquerade only what does not come from a local pod, see LocalDetector);
   * all others are 'external'.
   *
   * policy 'Cluster': served from `clusterEndpoints`; external traffic is always masqueraded.
   * policy 'Local', internal: served from `localEndpoints`.
   * policy 'Local', external: a pod (per detector) is served from clusterEndpoints, source kept; a process of
   * this node from clusterEndpoints, masqueraded; anyone else from localEndpoints, source kept.
   */
  readonly scope: 'internal' | 'external';
  readonly policy: 'Cluster' | 'Local';
  readonly fallback: Fallback;
  /** Who may use the address. undefined: everybody. An empty list: nobody. Only on LoadBalancerIP. */
  readonly sourceRanges: readonly Cidr[] | undefined;
}

/** One (Service, port) pair of one family: the unit of change. */
export interface ServicePort {
  /** Unique within a family: 'namespace/name:portName/PROTOCOL'. */
  readonly key: string;
  /** As printed for people: 'namespace/name:portName', or 'namespace/name' for an unnamed port. */
  readonly name: string;
  readonly namespace: string;
  readonly serviceName: string;
  readonly family: IPFamily;
  readonly protocol: Protocol;
  /** Cluster IP of this family and service port number: the service port's identity for affinity. */
  readonly clusterIP: string;
  readonly port: number;
  /** Only the addresses this service port owns: an address claimed by two has one stable owner. */
  readonly addresses: readonly VirtualAddress[];
  /** C of service-model.md 5.1, ordered by 'ip:port'. */
  readonly clusterEndpoints: readonly Endpoint[];
  /** L of service-model.md 5.1, ordered by 'ip:port'. Empty when no address has policy Local. */
  readonly localEndpoints: readonly Endpoint[];
  /** ClientIP affinity timeout in seconds; 0: no affinity. */
  readonly affinitySeconds: number;
  /**
   * UDP and SCTP, else empty: 'ip:port' ('[ip]:port' for IPv6) of every endpoint that keeps the flows it has, whatever
   * the policy: those that are ready or serving; for SCTP all that there are. A conntrack entry whose reply
   * comes from one of these is never stale.
   */
  readonly servingEndpoints: readonly string[];
}

/** An address that the kernel led to endpoints, although it is no service port's now. */
export interface ReleasedAddress {
  readonly protocol: Protocol;
  /** Canonical text; '' for a node port on all addresses that serve them. */
  readonly ip: string;
  readonly port: number;
  /** 'ip:port' ('[ip]:port' for IPv6) of the endpoints. */
  readonly endpoints: readonly string[];
}

/** The health check node port of one Service in one family (service-model.md 8.1). */
export interface HealthCheckPort {
  /** 'namespace/name'. */
  readonly service: string;
  readonly namespace: string;
  readonly name: string;
  readonly port: number;
  /** Number of distinct IPs of local Ready endpoints over all ports of the Service's slices. */
  readonly localReadyEndpoints: number;
}

/** An address claimed by more than one service port. */
export interface AddressConflict {
  readonly family: IPFamily;
  /** As printed: '203.0.113.200:80/TCP' or 'node port 31110/TCP'. */
  readonly address: string;
  /** Names of the service ports. */
  readonly owner: string;
  /** Without the owner; empty: nobody contests the address any more. */
  readonly others: readonly string[];
  /** The Services of `others`, each as often as it has a service port among them. */
  readonly losers: readonly ServiceName[];
}

export interface ServiceName {
  readonly namespace: string;
  readonly name: string;
  /** '' when unknown. */
  readonly uid: string;
}

/** A field of an object that had to be left out; the rest of the object is served. */
export interface ModelProblem {
  /** Field path, e.g. 'spec.externalIPs[1]'. */
  readonly field: string;
  readonly message: string;
}

/** What is wrong with one object now. */
export interface ObjectProblems {
  /** 'fields': some can't be used. 'size': it asks for more than one object may have. */
  readonly aspect: 'fields' | 'size';
  readonly kind: 'Service' | 'EndpointSlice';
  readonly namespace: string;
  readonly name: string;
  /** '' when unknown. */
  readonly uid: string;
  /** The first of them; none: what was wrong is right again. */
  readonly problems: readonly ModelProblem[];
  /** How many there are beside those. */
  readonly more: number;
}

/** What changed in one family since the last call of takeChanges(). */
export interface FamilyChanges {
  readonly family: IPFamily;
  /** New or changed service ports, whole. */
  readonly upserted: readonly ServicePort[];
  /** Keys of service ports that are gone. */
  readonly removed: readonly string[];
}

/** What waits for takeChanges(). */
export interface PendingChanges {
  /** Services that changed. */
  readonly services: number;
  /** EndpointSlice events that changed something. */
  readonly endpointSlices: number;
}

export interface ModelChanges {
  readonly families: readonly FamilyChanges[];
  /** Health check node ports that appeared or changed, by family. */
  readonly healthChecks: readonly { readonly family: IPFamily; readonly check: HealthCheckPort }[];
  /** Health check node ports that are gone. */
  readonly healthChecksRemoved: readonly { readonly family: IPFamily; readonly service: string }[];
  /** Contests that are new, decided otherwise, or over. */
  readonly conflicts: readonly AddressConflict[];
  /** Objects whose problems are others than at the last call. */
  readonly problems: readonly ObjectProblems[];
  /**
   * When what led to these changes happened (annotation endpoints.kubernetes.io/last-change-trigger-time of the slices),
   * milliseconds since the epoch, one per slice event. Only of services whose service ports changed.
   */
  readonly triggerTimes: Readonly<Record<IPFamily, readonly number[]>>;
}

/** How a packet's source is recognised as a pod (service-model.md 12). undefined: nobody is. */
export type LocalDetector =
  | { readonly kind: 'cidr'; readonly cidr: Cidr }
  | { readonly kind: 'interface'; readonly name: string }
  | { readonly kind: 'interfacePrefix'; readonly prefix: string };

/** How node ports on loopback addresses work, see docs/nftables.md. */
export interface LocalhostNodePorts {
  /** Loopback addresses that serve node ports. IPv4: parts of 127.0.0.0/8, needs route_localnet. IPv6: ::1. */
  readonly ranges: readonly Cidr[];
  /**
   * IPv6 only: address of this node that stands for ::1 while a packet is on its way, since the kernel routes no reply to
   * ::1 that comes in on another interface.
   */
  readonly standIn?: string;
}
