/**
 * Objects for the tests of this folder, in the shorthand and the topology of the conformance cases: the node is
 * alder (zone mtl-1), L1 and L2 are its pods, R1 runs on birch, R2 on cedar.
 */
import type { EndpointSlice, Service, ServicePortSpec, SliceEndpoint } from '../sources/objects.js';
import { ServiceModel, type ModelConfig } from './model.js';
import type { Endpoint, FamilyChanges, ModelChanges, ServicePort } from './types.js';

export const alder: ModelConfig = {
  nodeName: 'alder',
  nodeIPs: { IPv4: '100.64.10.11', IPv6: '2001:db8:a::11' },
  families: ['IPv4', 'IPv6'],
  externalIPs: true,
};

/** Pod name → addresses and node. */
export const pods = {
  L1: { IPv4: '10.61.1.31', IPv6: 'fd61:0:0:1::31', node: 'alder' },
  L2: { IPv4: '10.61.1.32', IPv6: 'fd61:0:0:1::32', node: 'alder' },
  R1: { IPv4: '10.61.2.41', IPv6: 'fd61:0:0:2::41', node: 'birch' },
  R2: { IPv4: '10.61.3.42', IPv6: 'fd61:0:0:3::42', node: 'cedar' },
} as const;

const conditionCases = {
  '': { ready: true, serving: true, terminating: false },
  '~': { ready: false, serving: true, terminating: true },
  x: { ready: false, serving: false, terminating: true },
  '!': { ready: false, serving: false, terminating: false },
} as const;

export function service(fields: Partial<Service> = {}): Service {
  return {
    namespace: 'default',
    name: 'pear',
    uid: '',
    creationTimestamp: '2026-01-01T00:00:00Z',
    serviceProxyName: undefined,
    type: 'ClusterIP',
    clusterIP: '10.177.0.50',
    clusterIPs: ['10.177.0.50'],
    ipFamilies: ['IPv4'],
    ports: [port()],
    externalIPs: [],
    loadBalancerIngress: [],
    loadBalancerSourceRanges: [],
    sessionAffinity: 'None',
    affinityTimeoutSeconds: undefined,
    internalTrafficPolicy: 'Cluster',
    externalTrafficPolicy: '',
    healthCheckNodePort: 0,
    ...fields,
  };
}

/** A Service of its own cluster IP. */
export function clusterIP(ip: string, fields: Partial<Service> = {}): Service {
  return service({ clusterIP: ip, clusterIPs: [ip], ...fields });
}

export function port(fields: Partial<ServicePortSpec> = {}): ServicePortSpec {
  return { name: '', protocol: 'TCP', port: 80, nodePort: 0, ...fields };
}

export function vip(ip: string, ipMode = ''): { ip: string; ipMode: string } {
  return { ip, ipMode };
}

/** @param text pods as in the conformance cases: 'L1 R1~ R2![mtl-2]<cedar>' */
export function endpoints(text: string, family: 'IPv4' | 'IPv6' = 'IPv4'): SliceEndpoint[] {
  return text
    .split(' ')
    .filter((word) => word !== '')
    .map((word) => {
      const match = /^(L1|L2|R1|R2)([~x!]?)((?:\[[^\]]*\]|<[^>]*>)*)$/.exec(word);
      if (match === null) throw new Error(`not an endpoint: '${word}'`);
      const [, name = '', suffix = '', hints = ''] = match;
      const pod = pods[name as keyof typeof pods];
      return {
        address: pod[family],
        ...conditionCases[suffix as keyof typeof conditionCases],
        nodeName: pod.node,
        zoneHints: /\[([^\]]*)\]/.exec(hints)?.[1]?.split(',') ?? [],
        nodeHints: /<([^>]*)>/.exec(hints)?.[1]?.split(',') ?? [],
      };
    });
}

export function endpoint(address: string, fields: Partial<SliceEndpoint> = {}): SliceEndpoint {
  return {
    address,
    ...conditionCases[''],
    nodeName: 'birch',
    zoneHints: [],
    nodeHints: [],
    ...fields,
  };
}

/** @param content pods in shorthand, or whole endpoints */
export function slice(
  content: string | readonly SliceEndpoint[],
  fields: Partial<EndpointSlice> = {},
): EndpointSlice {
  const addressType = fields.addressType === 'IPv6' ? 'IPv6' : 'IPv4';
  return {
    namespace: 'default',
    name: 'pear-1',
    serviceName: 'pear',
    headless: false,
    addressType,
    ports: [{ name: '', protocol: 'TCP', port: 9000 }],
    endpoints: typeof content === 'string' ? endpoints(content, addressType) : content,
    triggerTime: '',
    ...fields,
  };
}

export function newModel(config: Partial<ModelConfig> = {}): ServiceModel {
  const model = new ServiceModel({ ...alder, ...config });
  model.setZone('mtl-1');
  return model;
}

/** Delivers objects under their own keys. */
export function deliver(model: ServiceModel, ...objects: readonly (Service | EndpointSlice)[]): void {
  for (const object of objects) {
    const key = `${object.namespace}/${object.name}`;
    if ('addressType' in object) model.setEndpointSlice(key, object);
    else model.setService(key, object);
  }
}

/** The one service port of the family that these objects make, or undefined. */
export function only(
  objects: readonly (Service | EndpointSlice)[],
  family: 'IPv4' | 'IPv6' = 'IPv4',
  config: Partial<ModelConfig> = {},
): ServicePort | undefined {
  const model = newModel(config);
  deliver(model, ...objects);
  const { upserted } = changesOf(model.takeChanges(), family);
  if (upserted.length > 1) throw new Error(`${upserted.length} service ports where one was expected`);
  return upserted[0];
}

export function changesOf(changes: ModelChanges, family: 'IPv4' | 'IPv6' = 'IPv4'): FamilyChanges {
  return (
    changes.families.find((candidate) => candidate.family === family) ?? { family, upserted: [], removed: [] }
  );
}

/** Endpoints as pod names where they are pods, else addresses: 'L1 R1'. A port is printed when it is not 9000. */
export function printEndpoints(list: readonly Endpoint[]): string {
  return list
    .map(({ ip, port: number }) => {
      const pod = Object.entries(pods).find(([, { IPv4, IPv6 }]) => ip === IPv4 || ip === IPv6);
      return `${pod?.[0] ?? ip}${number === 9000 ? '' : `:${number}`}`;
    })
    .join(' ');
}
