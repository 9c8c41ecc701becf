/** The objects of the API that a soak writes, with the fields that it uses. */

export type Protocol = 'TCP' | 'UDP';
export type Policy = 'Cluster' | 'Local';
export type Family = 'IPv4' | 'IPv6';

export interface Metadata {
  readonly namespace: string;
  readonly name: string;
  readonly creationTimestamp: string;
  readonly labels?: Readonly<Record<string, string>>;
}

export interface Service {
  readonly apiVersion: 'v1';
  readonly kind: 'Service';
  readonly metadata: Metadata;
  readonly spec: {
    readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer';
    readonly clusterIP: string;
    readonly clusterIPs: readonly string[];
    readonly ipFamilies: readonly Family[];
    readonly ports: readonly {
      readonly name: string;
      readonly protocol: Protocol;
      readonly port: number;
      readonly nodePort?: number;
    }[];
    readonly externalIPs?: readonly string[];
    readonly loadBalancerSourceRanges?: readonly string[];
    readonly sessionAffinity: 'None' | 'ClientIP';
    readonly sessionAffinityConfig?: { readonly clientIP: { readonly timeoutSeconds: number } };
    readonly internalTrafficPolicy: Policy;
    readonly externalTrafficPolicy?: Policy;
  };
  readonly status: { readonly loadBalancer: { readonly ingress?: readonly { readonly ip: string }[] } };
}

export interface Endpoint {
  readonly addresses: readonly string[];
  readonly nodeName?: string;
  readonly conditions: {
    readonly ready?: boolean;
    readonly serving?: boolean;
    readonly terminating?: boolean;
  };
  readonly hints?: {
    readonly forZones?: readonly { readonly name: string }[];
    readonly forNodes?: readonly { readonly name: string }[];
  };
}

export interface EndpointSlice {
  readonly apiVersion: 'discovery.k8s.io/v1';
  readonly kind: 'EndpointSlice';
  /** Label kubernetes.io/service-name tells whose it is. */
  readonly metadata: Metadata;
  readonly addressType: Family;
  readonly ports: readonly { readonly name: string; readonly protocol: Protocol; readonly port: number }[];
  readonly endpoints: readonly Endpoint[];
}

export const serviceNameLabel = 'kubernetes.io/service-name';

export interface Node {
  readonly apiVersion: 'v1';
  readonly kind: 'Node';
  readonly metadata: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
  readonly status: {
    readonly addresses: readonly { readonly type: 'InternalIP'; readonly address: string }[];
  };
}

export interface ServiceCIDR {
  readonly apiVersion: 'networking.k8s.io/v1';
  readonly kind: 'ServiceCIDR';
  readonly metadata: { readonly name: string };
  readonly spec: { readonly cidrs: readonly string[] };
}

export type KubeObject = Service | EndpointSlice | Node | ServiceCIDR;

/** Another program serves a Service that has it. */
export const proxyNameLabel = 'service.kubernetes.io/service-proxy-name';
export const zoneLabel = 'topology.kubernetes.io/zone';

/** What the API server holds: Services and EndpointSlices by namespace/name, the others by name. */
export interface Cluster {
  readonly services: ReadonlyMap<string, Service>;
  readonly slices: ReadonlyMap<string, EndpointSlice>;
  readonly nodes: ReadonlyMap<string, Node>;
  readonly serviceCIDRs: ReadonlyMap<string, ServiceCIDR>;
}
