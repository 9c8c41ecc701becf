/** Fills in what a real API server would, so that short test objects become whole ones. */
import { isIPv6 } from 'node:net';

export type Json = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function objectIn(parent: Json, key: string): Json {
  const value = parent[key];
  return isObject(value) ? value : {};
}

/** '' for anything that is not text. */
export function textIn(parent: Json, key: string): string {
  const value = parent[key];
  return typeof value === 'string' ? value : '';
}

function listIn(parent: Json, key: string): readonly unknown[] {
  const value = parent[key];
  return Array.isArray(value) ? value : [];
}

/** Objects of a list with a default protocol. */
function withProtocol(ports: readonly unknown[], more: Json = {}): readonly unknown[] {
  return ports.map((port) => (isObject(port) ? { ...more, protocol: 'TCP', ...port } : port));
}

export function withDefaults(kind: string, object: Json): Json {
  if (kind === 'Service') return { ...object, spec: serviceSpec(objectIn(object, 'spec')) };
  if (kind === 'EndpointSlice' && Array.isArray(object['ports'])) {
    return { ...object, ports: withProtocol(object['ports'], { name: '' }) };
  }
  return object;
}

function serviceSpec(spec: Json): Json {
  const type = spec['type'] ?? 'ClusterIP';
  const given = listIn(spec, 'clusterIPs');
  const clusterIP = spec['clusterIP'] ?? given[0];
  const clusterIPs =
    given.length > 0 ? given : typeof clusterIP === 'string' && clusterIP !== '' ? [clusterIP] : [];
  const families = clusterIPs
    .filter((ip) => ip !== 'None')
    .map((ip) => (isIPv6(String(ip)) ? 'IPv6' : 'IPv4'));
  const external =
    type === 'NodePort' ||
    type === 'LoadBalancer' ||
    (type === 'ClusterIP' && listIn(spec, 'externalIPs').length > 0);
  const affinity = spec['sessionAffinity'] ?? 'None';
  return {
    type,
    ...(clusterIP === undefined ? {} : { clusterIP }),
    ...(clusterIPs.length === 0 ? {} : { clusterIPs }),
    ...(families.length === 0 ? {} : { ipFamilies: families }),
    sessionAffinity: affinity,
    ...(affinity === 'ClientIP' ? { sessionAffinityConfig: { clientIP: { timeoutSeconds: 10800 } } } : {}),
    ...(type === 'ExternalName' ? {} : { internalTrafficPolicy: 'Cluster' }),
    ...(external ? { externalTrafficPolicy: 'Cluster' } : {}),
    ...spec,
    ports: withProtocol(listIn(spec, 'ports')),
  };
}
