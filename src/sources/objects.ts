/**
 * The Kubernetes objects as the rest of the program sees them: only the fields the model needs, plain data.
 * Field meanings: spec of Service v1, EndpointSlice discovery.k8s.io/v1, Node v1, ServiceCIDR networking.k8s.io/v1.
 * Absent strings are '', absent lists are [], absent numbers are 0 unless the field says otherwise.
 */

export type Protocol = 'TCP' | 'UDP' | 'SCTP';
export type IPFamily = 'IPv4' | 'IPv6';

export interface ServicePortSpec {
  /** '' is a legal name (a Service with one unnamed port). */
  readonly name: string;
  readonly protocol: Protocol;
  readonly port: number;
  /** 0: none. */
  readonly nodePort: number;
}

export interface LoadBalancerIngress {
  /** '' when the entry has only a hostname. */
  readonly ip: string;
  /** 'VIP', 'Proxy', another string from a newer API, or '' when unset. */
  readonly ipMode: string;
}

export interface Service {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** RFC 3339, '' when unset. Decides which Service keeps a contested address. */
  readonly creationTimestamp: string;
  /** Value of label service.kubernetes.io/service-proxy-name; undefined when the label is absent. */
  readonly serviceProxyName: string | undefined;
  readonly type: string;
  readonly clusterIP: string;
  readonly clusterIPs: readonly string[];
  readonly ipFamilies: readonly string[];
  readonly ports: readonly ServicePortSpec[];
  readonly externalIPs: readonly string[];
  readonly loadBalancerIngress: readonly LoadBalancerIngress[];
  readonly loadBalancerSourceRanges: readonly string[];
  /** 'None' | 'ClientIP' | ''. */
  readonly sessionAffinity: string;
  /** sessionAffinityConfig.clientIP.timeoutSeconds; undefined when unset. */
  readonly affinityTimeoutSeconds: number | undefined;
  /** 'Cluster' | 'Local' | '' when unset. */
  readonly internalTrafficPolicy: string;
  readonly externalTrafficPolicy: string;
  readonly healthCheckNodePort: number;
}

export interface EndpointSlicePort {
  /** undefined: the field was null, the port is ignored. '' matches an unnamed Service port. */
  readonly name: string | undefined;
  readonly protocol: Protocol;
  /** 0 or absent: the port is ignored. */
  readonly port: number;
}

export interface SliceEndpoint {
  /** addresses[0]; '' when the list was empty. Other addresses are never used (service-model.md 3.1). */
  readonly address: string;
  /** Conditions with their defaults applied: ready true, serving true, terminating false when null. */
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  /** undefined when the slice does not say on which node the endpoint runs. */
  readonly nodeName: string | undefined;
  readonly zoneHints: readonly string[];
  readonly nodeHints: readonly string[];
}

export interface EndpointSlice {
  readonly namespace: string;
  readonly name: string;
  /** Value of label kubernetes.io/service-name, '' when absent. */
  readonly serviceName: string;
  /** Label service.kubernetes.io/headless is present. */
  readonly headless: boolean;
  /** 'IPv4' | 'IPv6' | 'FQDN'. */
  readonly addressType: string;
  readonly ports: readonly EndpointSlicePort[];
  readonly endpoints: readonly SliceEndpoint[];
  /** Annotation endpoints.kubernetes.io/last-change-trigger-time, '' when absent. */
  readonly triggerTime: string;
}

export interface NodeAddress {
  /** 'InternalIP', 'ExternalIP', 'Hostname', … */
  readonly type: string;
  readonly address: string;
}

export interface Node {
  readonly name: string;
  readonly uid: string;
  readonly addresses: readonly NodeAddress[];
  readonly podCIDRs: readonly string[];
  /** Label topology.kubernetes.io/zone; undefined when absent. */
  readonly zone: string | undefined;
  readonly taintKeys: readonly string[];
  readonly deleting: boolean;
}

export interface ServiceCIDR {
  readonly name: string;
  readonly cidrs: readonly string[];
}

export type ResourceKind = 'Service' | 'EndpointSlice' | 'Node' | 'ServiceCIDR';

/**
 * Where a source (API server or manifests) delivers what it learns. Calls are synchronous and in order.
 * `key` is 'namespace/name' for namespaced kinds, else 'name'. `undefined` means the object is gone.
 * A source delivers only differences: an object that a relist shows unchanged is not delivered again.
 */
export interface ClusterSink {
  service(key: string, object: Service | undefined): void;
  endpointSlice(key: string, object: EndpointSlice | undefined): void;
  node(key: string, object: Node | undefined): void;
  serviceCIDR(key: string, object: ServiceCIDR | undefined): void;
  /** The initial list of this kind is complete. Called once per kind. */
  synced(kind: ResourceKind): void;
  /** A group of deliveries that belong together is over (a page, a watch chunk): a good moment to program. */
  flush(): void;
}
