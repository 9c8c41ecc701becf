/** The Kubernetes objects of a case, as an API server would serve them in JSON. */
import type { Family } from './addresses.js';
import { familyOf, nodeAddress } from './addresses.js';
import type { ClusterSpec, ServiceSpec, SliceSpec } from './cases.js';
import type { PortSpec } from './notation.js';
import { parseEndpoints, parsePort, parseSlicePort } from './notation.js';

export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly creationTimestamp?: string;
  readonly uid?: string;
}

/** Any object of the API: the runner only ever builds and stores them. */
export interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: ObjectMeta;
  readonly [field: string]: unknown;
}

export const testNamespace = 'orchard';

const creationTimestamp = '2026-01-02T03:04:05Z';

export function objectKey({ kind, metadata }: KubeObject): string {
  return `${kind} ${metadata.namespace ?? ''}/${metadata.name}`;
}

export function portsOf(spec: ServiceSpec): readonly PortSpec[] {
  const texts = spec.ports ?? [spec.port ?? '80/TCP'];
  return texts.map((text, index) => parsePort(text, index === 0 ? (spec.np ?? 0) : 0));
}

function serviceType(spec: ServiceSpec, ports: readonly PortSpec[]): string {
  if (spec.type !== undefined) return spec.type;
  if (spec.vip !== undefined) return 'LoadBalancer';
  return ports.some(({ nodePort }) => nodePort !== 0) ? 'NodePort' : 'ClusterIP';
}

function policy(letter: 'C' | 'L' | undefined): 'Local' | 'Cluster' {
  return letter === 'L' ? 'Local' : 'Cluster';
}

function ingress(text: string): Record<string, string> {
  const [where = '', ipMode] = text.split(' ');
  if (!/^[0-9a-f.:]+$/.test(where)) return { hostname: where };
  return { ip: where, ...(ipMode === undefined ? {} : { ipMode }) };
}

/** The name of the object behind a service of a case file: unique over all tests that may run at the same time. */
export function serviceName(name: string, spec: ServiceSpec, slug: string): string {
  const unique = `${name}-r${slug}`;
  return spec['long-names'] === true ? unique.padEnd(63, 'x') : unique;
}

function ipFamilyOf(address: string, family: Family): 'IPv4' | 'IPv6' {
  if (address.includes(':')) return 'IPv6';
  return address.includes('.') || family === 'v4' ? 'IPv4' : 'IPv6';
}

export function serviceObject(name: string, spec: ServiceSpec, family: Family): KubeObject {
  const ports = portsOf(spec);
  const type = serviceType(spec, ports);
  const addresses = spec.cip ?? ['None'];
  const families = spec.families ?? addresses.map((address) => ipFamilyOf(address, family));
  const object: KubeObject = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name,
      namespace: testNamespace,
      uid: `uid-${name}`,
      creationTimestamp,
      ...(spec.labels === undefined ? {} : { labels: spec.labels }),
      ...(spec.annotations === undefined ? {} : { annotations: spec.annotations }),
    },
    spec: {
      type,
      clusterIP: addresses[0] ?? '',
      clusterIPs: addresses.filter((address) => address !== ''),
      ipFamilies: families,
      ipFamilyPolicy: families.length > 1 ? 'RequireDualStack' : 'SingleStack',
      ports: ports.map((port) => ({
        ...(port.name === '' ? {} : { name: port.name }),
        protocol: port.protocol,
        port: port.port,
        targetPort: port.target,
        ...(port.nodePort === 0 ? {} : { nodePort: port.nodePort }),
      })),
      selector: { app: name },
      sessionAffinity: spec.sa === undefined ? 'None' : 'ClientIP',
      ...(spec.sa === undefined ? {} : { sessionAffinityConfig: { clientIP: { timeoutSeconds: spec.sa } } }),
      internalTrafficPolicy: policy(spec.itp),
      ...(type === 'ClusterIP' && spec.xip === undefined && spec.etp === undefined
        ? {}
        : { externalTrafficPolicy: policy(spec.etp) }),
      ...(spec.xip === undefined ? {} : { externalIPs: spec.xip }),
      ...(spec.sr === undefined ? {} : { loadBalancerSourceRanges: spec.sr }),
      ...(spec.hc === undefined ? {} : { healthCheckNodePort: spec.hc }),
      ...spec.spec,
    },
    status: { loadBalancer: spec.vip === undefined ? {} : { ingress: spec.vip.map(ingress) } },
  };
  return object;
}

function slicePorts(slice: SliceSpec, ports: readonly PortSpec[]): readonly Record<string, unknown>[] {
  if (slice.ports === undefined) {
    return ports.map(({ name, protocol, target }) => ({ name, protocol, port: target }));
  }
  return slice.ports.map(parseSlicePort).map(({ name, protocol, port }) => ({
    ...(name === undefined ? {} : { name }),
    protocol,
    ...(port === undefined ? {} : { port }),
  }));
}

function conditions(values: Readonly<Record<string, boolean | undefined>>): Record<string, boolean> {
  const known = Object.entries(values).filter((entry): entry is [string, boolean] => entry[1] !== undefined);
  return Object.fromEntries(known);
}

/** `slugOf` turns a service name of the case file into that of the object, for slices that name another service. */
export function sliceObject(
  service: string,
  slice: SliceSpec,
  spec: ServiceSpec,
  family: Family,
  objectNameOf: (service: string) => string,
): KubeObject {
  const named =
    slice.service === undefined ? service : slice.service === null ? null : objectNameOf(slice.service);
  const sliceFamily = slice.family ?? family;
  const addressType = { v4: 'IPv4', v6: 'IPv6', FQDN: 'FQDN' }[sliceFamily];
  const endpoints =
    sliceFamily === 'FQDN'
      ? [
          {
            addresses: ['backend.example.org'],
            conditions: { ready: true, serving: true, terminating: false },
          },
        ]
      : parseEndpoints(slice.eps, sliceFamily).map((endpoint) => ({
          addresses: endpoint.addresses,
          conditions: conditions({
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
          }),
          ...(endpoint.nodeName === undefined ? {} : { nodeName: endpoint.nodeName }),
          ...(endpoint.zoneHints.length + endpoint.nodeHints.length === 0
            ? {}
            : {
                hints: {
                  ...(endpoint.zoneHints.length === 0
                    ? {}
                    : { forZones: endpoint.zoneHints.map((zone) => ({ name: zone })) }),
                  ...(endpoint.nodeHints.length === 0
                    ? {}
                    : { forNodes: endpoint.nodeHints.map((node) => ({ name: node })) }),
                },
              }),
        }));
  const name = `${service}-${slice.name === '' ? '0' : slice.name}`;
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name,
      namespace: slice.namespace ?? testNamespace,
      uid: `uid-${name}`,
      creationTimestamp,
      labels: { ...(named === null ? {} : { 'kubernetes.io/service-name': named }), ...slice.labels },
      annotations: slice.annotations,
    },
    addressType,
    ports: slicePorts(slice, portsOf(spec)),
    endpoints,
  };
}

/** All slices of a service of a case file; none when its `eps` is null. */
export function slicesOf(spec: ServiceSpec): readonly SliceSpec[] {
  if (spec.slices !== undefined) return spec.slices;
  if (spec.eps === undefined || spec.eps === null) return [];
  return [{ name: '', eps: spec.eps, labels: {}, annotations: {} }];
}

export function nodeObject(cluster: ClusterSpec): KubeObject {
  const zone = cluster.zone === undefined ? 'mtl-1' : cluster.zone;
  const addresses = cluster['node-addresses'] ?? [nodeAddress.v4, nodeAddress.v6];
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: 'alder',
      uid: 'uid-alder',
      creationTimestamp,
      labels: {
        'kubernetes.io/hostname': 'alder',
        ...(zone === null ? {} : { 'topology.kubernetes.io/zone': zone }),
      },
    },
    spec: { podCIDR: '10.61.1.0/24', podCIDRs: ['10.61.1.0/24', 'fd61:0:0:1::/64'] },
    status: {
      addresses: [
        ...addresses.map((address) => ({ type: 'InternalIP', address })),
        { type: 'Hostname', address: 'alder' },
      ],
    },
  };
}

export function serviceCidrObject(name: string, cidrs: readonly string[]): KubeObject {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name, uid: `uid-${name}`, creationTimestamp },
    spec: { cidrs },
  };
}

export function defaultServiceCidrs(cluster: ClusterSpec): readonly KubeObject[] {
  const cidrs = cluster['service-cidrs'] ?? ['10.177.0.0/20', 'fd77::/112'];
  return cidrs.length === 0 ? [] : [serviceCidrObject('kubernetes', cidrs)];
}

/** Which family an object is about, from its first address. */
export function familyOfService(spec: ServiceSpec, fallback: Family): Family {
  const first = spec.cip?.[0];
  return first === undefined || !/[.:]/.test(first) ? fallback : familyOf(first);
}
