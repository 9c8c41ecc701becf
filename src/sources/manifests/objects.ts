/**
 * Manifest objects as the rest of the program knows them, with the defaults that the API server fills in
 * (k8s.io/kubernetes pkg/apis/core/v1/defaults.go and pkg/apis/discovery/v1/defaults.go, as facts).
 */
import { isIP, isIPv6 } from 'node:net';
import { BrokenObjectError } from '../kube/errors.js';
import {
  integerAt,
  listAt,
  objectAt,
  objectItem,
  optionalBoolean,
  optionalText,
  textAt,
  type JsonObject,
} from '../kube/decode/json/fields.js';
import {
  endpointSliceFromJson,
  nodeFromJson,
  serviceCIDRFromJson,
  serviceFromJson,
} from '../kube/decode/json/objects.js';
import type { EndpointSlice, Node, Protocol, Service, ServiceCIDR } from '../objects.js';
import type { StringTable } from '../strings.js';

export type Labels = ReadonlyMap<string, string>;

/** What only the making of endpoints needs to know about a Service. */
export interface ServiceTarget {
  /** Empty: the Service selects nothing. */
  readonly selector: Labels;
  readonly publishNotReady: boolean;
  readonly ports: readonly {
    readonly name: string;
    readonly protocol: Protocol;
    /** Number, or name of a container port. */
    readonly target: number | string;
  }[];
}

export interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  readonly nodeName: string | undefined;
  readonly ips: readonly string[];
  /** The Ready condition; true when the manifest does not say. */
  readonly ready: boolean;
  readonly terminating: boolean;
  /** Succeeded or Failed: it never serves again. */
  readonly finished: boolean;
  readonly ports: readonly { readonly name: string; readonly protocol: string; readonly port: number }[];
}

export interface Deployment {
  readonly namespace: string;
  readonly name: string;
  readonly podLabels: Labels;
}

function fail(field: string, message: string): never {
  throw new BrokenObjectError(field, message);
}

/** Manifests may leave the namespace out; names are required. */
export function withNamespace(object: JsonObject): JsonObject {
  const metadata = objectAt(object, 'metadata', '');
  if (textAt(metadata, 'name', 'metadata.') === '') fail('metadata.name', 'is missing');
  const namespace = textAt(metadata, 'namespace', 'metadata.');
  return { ...object, metadata: { ...metadata, namespace: namespace === '' ? 'default' : namespace } };
}

function labelsOf(parent: JsonObject, key: string, path: string): Labels {
  const object = objectAt(parent, key, path);
  const labels = new Map<string, string>();
  for (const name of Object.keys(object)) labels.set(name, textAt(object, name, `${path}${key}.`));
  return labels;
}

function portNumber(port: number, field: string): void {
  if (port < 1 || port > 65535) fail(field, `must be 1 to 65535, not ${port}`);
}

function oneOf(value: string, allowed: readonly string[], field: string): void {
  if (value !== '' && !allowed.includes(value)) {
    fail(field, `must be ${allowed.join(', ')}, not ${JSON.stringify(value)}`);
  }
}

/** Leading zeros are tolerated, as everywhere in the service model. */
function looksLikeAddress(text: string): boolean {
  return isIP(text.replaceAll(/(^|\.)0+(?=\d)/g, '$1')) !== 0;
}

/** @throws BrokenObjectError */
export function readService(object: JsonObject, strings: StringTable): Service {
  const given = serviceFromJson(object, strings);
  const spec = objectAt(object, 'spec', '');
  const type = given.type === '' ? 'ClusterIP' : given.type;
  oneOf(type, ['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'], 'spec.type');
  oneOf(given.sessionAffinity, ['None', 'ClientIP'], 'spec.sessionAffinity');
  oneOf(given.internalTrafficPolicy, ['Cluster', 'Local'], 'spec.internalTrafficPolicy');
  oneOf(given.externalTrafficPolicy, ['Cluster', 'Local'], 'spec.externalTrafficPolicy');

  const clusterIP = given.clusterIP === '' ? (given.clusterIPs[0] ?? '') : given.clusterIP;
  if (clusterIP === '' && type !== 'ExternalName') {
    fail(
      'spec.clusterIP',
      'is missing: manifests have no address allocator, so write the address, or None for a headless Service',
    );
  }
  const clusterIPs = given.clusterIPs.length > 0 || clusterIP === '' ? given.clusterIPs : [clusterIP];
  if (clusterIPs.length > 0 && clusterIPs[0] !== clusterIP) {
    fail('spec.clusterIPs[0]', `must equal spec.clusterIP (${clusterIP})`);
  }
  if (clusterIP !== '' && clusterIP !== 'None') {
    clusterIPs.forEach((ip, i) => {
      if (!looksLikeAddress(ip)) {
        const field = given.clusterIPs.length > 0 ? `spec.clusterIPs[${i}]` : 'spec.clusterIP';
        fail(field, `must be an IP address or None, not ${JSON.stringify(ip)}`);
      }
    });
  }

  if (given.ports.length === 0 && type !== 'ExternalName' && clusterIP !== 'None') {
    fail('spec.ports', 'is missing: a Service needs at least one port');
  }
  given.ports.forEach((port, i) => {
    portNumber(port.port, `spec.ports[${i}].port`);
    if (port.nodePort !== 0) portNumber(port.nodePort, `spec.ports[${i}].nodePort`);
    if (port.name === '' && given.ports.length > 1) {
      fail(`spec.ports[${i}].name`, 'is missing: a Service with several ports names each of them');
    }
    if (given.ports.findIndex((other) => other.name === port.name) < i) {
      fail(`spec.ports[${i}].name`, `${JSON.stringify(port.name)} is used twice`);
    }
  });
  // Read for their types only; the values matter in readServiceTarget().
  labelsOf(spec, 'selector', 'spec.');

  const sessionAffinity = given.sessionAffinity === '' ? 'None' : given.sessionAffinity;
  const timeout =
    sessionAffinity === 'ClientIP' ? (given.affinityTimeoutSeconds ?? 10800) : given.affinityTimeoutSeconds;
  if (timeout !== undefined && (timeout < 1 || timeout > 86400)) {
    fail('spec.sessionAffinityConfig.clientIP.timeoutSeconds', `must be 1 to 86400, not ${timeout}`);
  }
  const external =
    type === 'NodePort' || type === 'LoadBalancer' || (type === 'ClusterIP' && given.externalIPs.length > 0);
  return {
    ...given,
    type,
    clusterIP,
    clusterIPs,
    ipFamilies:
      given.ipFamilies.length > 0 || clusterIP === '' || clusterIP === 'None'
        ? given.ipFamilies
        : clusterIPs.map((ip) => (isIPv6(ip) ? 'IPv6' : 'IPv4')),
    loadBalancerIngress: given.loadBalancerIngress.map((ingress) =>
      ingress.ip !== '' && ingress.ipMode === '' ? { ...ingress, ipMode: 'VIP' } : ingress,
    ),
    sessionAffinity,
    affinityTimeoutSeconds: timeout,
    internalTrafficPolicy:
      given.internalTrafficPolicy === '' && type !== 'ExternalName' ? 'Cluster' : given.internalTrafficPolicy,
    externalTrafficPolicy:
      given.externalTrafficPolicy === '' && external ? 'Cluster' : given.externalTrafficPolicy,
  };
}

/** @throws BrokenObjectError */
export function readServiceTarget(object: JsonObject, service: Service): ServiceTarget {
  const spec = objectAt(object, 'spec', '');
  const ports = listAt(spec, 'ports', 'spec.');
  return {
    selector: labelsOf(spec, 'selector', 'spec.'),
    publishNotReady: optionalBoolean(spec, 'publishNotReadyAddresses', 'spec.') ?? false,
    ports: service.ports.map((port, i) => {
      const given = objectItem(ports[i], `spec.ports[${i}]`)['targetPort'];
      const field = `spec.ports[${i}].targetPort`;
      let target: number | string = port.port;
      if (typeof given === 'number') {
        portNumber(given, field);
        target = given;
      } else if (typeof given === 'string' && given !== '') {
        target = given;
      } else if (given !== undefined && given !== null) {
        fail(field, 'must be a port number or the name of a container port');
      }
      return { name: port.name, protocol: port.protocol, target };
    }),
  };
}

/** @throws BrokenObjectError */
export function readEndpointSlice(object: JsonObject, strings: StringTable): EndpointSlice {
  const given = endpointSliceFromJson(object, strings);
  if (given.addressType === '') fail('addressType', 'is missing: write IPv4, IPv6 or FQDN');
  oneOf(given.addressType, ['IPv4', 'IPv6', 'FQDN'], 'addressType');
  given.ports.forEach((port, i) => {
    if (port.port !== 0) portNumber(port.port, `ports[${i}].port`);
  });
  return { ...given, ports: given.ports.map((port) => ({ ...port, name: port.name ?? '' })) };
}

export function readNode(object: JsonObject, strings: StringTable): Node {
  return nodeFromJson(object, strings);
}

export function readServiceCIDR(object: JsonObject, strings: StringTable): ServiceCIDR {
  return serviceCIDRFromJson(object, strings);
}

/** @throws BrokenObjectError */
export function readPod(object: JsonObject): Pod {
  const metadata = objectAt(object, 'metadata', '');
  const spec = objectAt(object, 'spec', '');
  const status = objectAt(object, 'status', '');
  const podIP = textAt(status, 'podIP', 'status.');
  const podIPs = listAt(status, 'podIPs', 'status.').map((item, i) =>
    textAt(objectItem(item, `status.podIPs[${i}]`), 'ip', `status.podIPs[${i}].`),
  );
  const ips = [...new Set([podIP, ...podIPs])].filter((ip) => ip !== '');
  ips.forEach((ip) => {
    if (!looksLikeAddress(ip)) {
      fail(
        ip === podIP ? 'status.podIP' : 'status.podIPs',
        `must hold IP addresses, not ${JSON.stringify(ip)}`,
      );
    }
  });
  const phase = textAt(status, 'phase', 'status.');
  oneOf(phase, ['Pending', 'Running', 'Succeeded', 'Failed', 'Unknown'], 'status.phase');
  const conditions = listAt(status, 'conditions', 'status.').map((item, i) => {
    const condition = objectItem(item, `status.conditions[${i}]`);
    return {
      type: textAt(condition, 'type', `status.conditions[${i}].`),
      status: textAt(condition, 'status', `status.conditions[${i}].`),
    };
  });
  const readyCondition = conditions.find((condition) => condition.type === 'Ready');
  const ports = listAt(spec, 'containers', 'spec.').flatMap((item, i) => {
    const container = objectItem(item, `spec.containers[${i}]`);
    return listAt(container, 'ports', `spec.containers[${i}].`).map((entry, j) => {
      const path = `spec.containers[${i}].ports[${j}]`;
      const port = objectItem(entry, path);
      const number = integerAt(port, 'containerPort', `${path}.`);
      portNumber(number, `${path}.containerPort`);
      const protocol = textAt(port, 'protocol', `${path}.`);
      return {
        name: textAt(port, 'name', `${path}.`),
        protocol: protocol === '' ? 'TCP' : protocol,
        port: number,
      };
    });
  });
  return {
    namespace: textAt(metadata, 'namespace', 'metadata.'),
    name: textAt(metadata, 'name', 'metadata.'),
    labels: labelsOf(metadata, 'labels', 'metadata.'),
    nodeName: optionalText(spec, 'nodeName', 'spec.'),
    ips,
    ready: (phase === '' || phase === 'Running') && (readyCondition?.status ?? 'True') === 'True',
    terminating: isSet(metadata['deletionTimestamp']),
    finished: phase === 'Succeeded' || phase === 'Failed',
    ports,
  };
}

/** YAML reads an unquoted time as text; whatever is there, it is set. */
function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== '';
}

/** @throws BrokenObjectError */
export function readDeployment(object: JsonObject): Deployment {
  const metadata = objectAt(object, 'metadata', '');
  const template = objectAt(objectAt(object, 'spec', ''), 'template', 'spec.');
  const templateMetadata = objectAt(template, 'metadata', 'spec.template.');
  return {
    namespace: textAt(metadata, 'namespace', 'metadata.'),
    name: textAt(metadata, 'name', 'metadata.'),
    podLabels: labelsOf(templateMetadata, 'labels', 'spec.template.metadata.'),
  };
}
