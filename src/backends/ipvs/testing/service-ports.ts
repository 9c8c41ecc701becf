/** Service ports for tests, in shorthand. */
import type { Endpoint, ServicePort, VirtualAddress } from '../../../model/types.js';

/** @param text '10.61.1.31:9000 local' */
export function endpoint(text: string): Endpoint {
  const [where = '', local] = text.split(' ');
  const colon = where.lastIndexOf(':');
  return {
    ip: where.slice(0, colon).replace(/^\[|\]$/g, ''),
    port: Number(where.slice(colon + 1)),
    local: local === 'local',
    nodeUnknown: false,
  };
}

export const L1 = endpoint('10.61.1.31:9000 local');
export const L2 = endpoint('10.61.1.32:9000 local');
export const R1 = endpoint('10.61.2.41:9000');
export const R2 = endpoint('10.61.3.42:9000');

export function address(fields: Partial<VirtualAddress> = {}): VirtualAddress {
  const kind = fields.kind ?? 'ClusterIP';
  return {
    kind,
    ip: kind === 'NodePort' ? '' : '10.96.0.1',
    port: 80,
    scope: kind === 'ClusterIP' ? 'internal' : 'external',
    policy: 'Cluster',
    fallback: 'serve',
    sourceRanges: undefined,
    ...fields,
  };
}

/** 'shop/web', TCP 10.96.0.1:80 with L1 and R1. */
export function servicePort(fields: Partial<ServicePort> = {}): ServicePort {
  const name = fields.name ?? 'shop/web';
  const protocol = fields.protocol ?? 'TCP';
  const [namespace = '', serviceName = ''] = name.split(/[/:]/);
  return {
    key: `${name}/${protocol}`,
    name,
    namespace,
    serviceName,
    family: 'IPv4',
    protocol,
    clusterIP: '10.96.0.1',
    port: 80,
    addresses: [address()],
    clusterEndpoints: [L1, R1],
    localEndpoints: [],
    affinitySeconds: 0,
    servingEndpoints: [],
    ...fields,
  };
}
