/**
 * Objects as they stand in the state file: Kubernetes JSON that holds the fields this program uses and nothing else. So
 * what the API decoder reads is what is read here, and a person finds familiar objects. Absent fields are left
 * out, except where absent means something (a nil endpoint slice port name).
 */
import type { EndpointSlice, Node, ResourceKind, Service, ServiceCIDR } from '../objects.js';
import type { JsonObject } from '../kube/decode/json/fields.js';
import {
  endpointSliceFromJson,
  nodeFromJson,
  serviceCIDRFromJson,
  serviceFromJson,
  type JsonReader,
} from '../kube/decode/json/objects.js';

export interface ObjectOf {
  readonly Service: Service;
  readonly EndpointSlice: EndpointSlice;
  readonly Node: Node;
  readonly ServiceCIDR: ServiceCIDR;
}

export const kinds: readonly ResourceKind[] = ['Service', 'EndpointSlice', 'Node', 'ServiceCIDR'];

/** undefined where JSON.stringify is to leave the field out. */
const text = (value: string): string | undefined => (value === '' ? undefined : value);
const number = (value: number): number | undefined => (value === 0 ? undefined : value);
const list = <T>(values: readonly T[]): readonly T[] | undefined =>
  values.length === 0 ? undefined : values;
const mapped = <T>(values: readonly T[], write: (value: T) => unknown): readonly unknown[] | undefined =>
  values.length === 0 ? undefined : values.map(write);

function writeService(service: Service): JsonObject {
  return {
    metadata: {
      namespace: text(service.namespace),
      name: service.name,
      uid: text(service.uid),
      creationTimestamp: text(service.creationTimestamp),
      labels:
        service.serviceProxyName === undefined
          ? undefined
          : { 'service.kubernetes.io/service-proxy-name': service.serviceProxyName },
    },
    spec: {
      type: text(service.type),
      clusterIP: text(service.clusterIP),
      clusterIPs: list(service.clusterIPs),
      ipFamilies: list(service.ipFamilies),
      ports: mapped(service.ports, ({ name, protocol, port, nodePort }) => ({
        name: text(name),
        protocol,
        port,
        nodePort: number(nodePort),
      })),
      externalIPs: list(service.externalIPs),
      loadBalancerSourceRanges: list(service.loadBalancerSourceRanges),
      sessionAffinity: text(service.sessionAffinity),
      sessionAffinityConfig:
        service.affinityTimeoutSeconds === undefined
          ? undefined
          : { clientIP: { timeoutSeconds: service.affinityTimeoutSeconds } },
      internalTrafficPolicy: text(service.internalTrafficPolicy),
      externalTrafficPolicy: text(service.externalTrafficPolicy),
      healthCheckNodePort: number(service.healthCheckNodePort),
    },
    status:
      service.loadBalancerIngress.length === 0
        ? undefined
        : {
            loadBalancer: {
              ingress: service.loadBalancerIngress.map(({ ip, ipMode }) => ({
                ip: text(ip),
                ipMode: text(ipMode),
              })),
            },
          },
  };
}

function writeEndpointSlice(slice: EndpointSlice): JsonObject {
  return {
    metadata: {
      namespace: text(slice.namespace),
      name: slice.name,
      labels: {
        'kubernetes.io/service-name': text(slice.serviceName),
        'service.kubernetes.io/headless': slice.headless ? '' : undefined,
      },
      annotations:
        slice.triggerTime === ''
          ? undefined
          : { 'endpoints.kubernetes.io/last-change-trigger-time': slice.triggerTime },
    },
    addressType: text(slice.addressType),
    ports: mapped(slice.ports, ({ name, protocol, port }) => ({ name, protocol, port: number(port) })),
    endpoints: mapped(slice.endpoints, (endpoint) => {
      const { ready, serving, terminating, zoneHints, nodeHints } = endpoint;
      const named = (name: string): JsonObject => ({ name });
      return {
        addresses: endpoint.address === '' ? undefined : [endpoint.address],
        conditions:
          ready && serving && !terminating
            ? undefined
            : {
                ready: ready ? undefined : false,
                serving: serving ? undefined : false,
                terminating: terminating ? true : undefined,
              },
        nodeName: endpoint.nodeName,
        hints:
          zoneHints.length === 0 && nodeHints.length === 0
            ? undefined
            : { forZones: mapped(zoneHints, named), forNodes: mapped(nodeHints, named) },
      };
    }),
  };
}

function writeNode(node: Node): JsonObject {
  return {
    metadata: {
      name: node.name,
      uid: text(node.uid),
      labels: node.zone === undefined ? undefined : { 'topology.kubernetes.io/zone': node.zone },
      // Only that it is being deleted is known, not when that began.
      deletionTimestamp: node.deleting ? '' : undefined,
    },
    spec: { podCIDRs: list(node.podCIDRs), taints: mapped(node.taintKeys, (key) => ({ key })) },
    status: { addresses: mapped(node.addresses, ({ type, address }) => ({ type, address })) },
  };
}

function writeServiceCIDR(object: ServiceCIDR): JsonObject {
  return { metadata: { name: object.name }, spec: { cidrs: list(object.cidrs) } };
}

/** By kind: to and from JSON. */
export const codecs: {
  readonly [K in ResourceKind]: {
    readonly write: (object: ObjectOf[K]) => JsonObject;
    readonly read: JsonReader<ObjectOf[K]>;
  };
} = {
  Service: { write: writeService, read: serviceFromJson },
  EndpointSlice: { write: writeEndpointSlice, read: endpointSliceFromJson },
  Node: { write: writeNode, read: nodeFromJson },
  ServiceCIDR: { write: writeServiceCIDR, read: serviceCIDRFromJson },
};
