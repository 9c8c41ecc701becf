/**
 * From parsed JSON to the trimmed objects, for all kinds. The result equals what the protobuf readers yield for the
 * same object.
 */
import { emptyList } from '../decoded.js';
import { BrokenObjectError } from '../../errors.js';
import type {
  EndpointSlice,
  EndpointSlicePort,
  LoadBalancerIngress,
  Node,
  NodeAddress,
  Protocol,
  Service,
  ServiceCIDR,
  ServicePortSpec,
  SliceEndpoint,
} from '../../../objects.js';
import { joinKey, type StringTable } from '../../../strings.js';
import {
  integerAt,
  listAt,
  objectAt,
  objectItem,
  optionalBoolean,
  optionalInteger,
  optionalText,
  textAt,
  textItem,
  type JsonObject,
} from './fields.js';

export type JsonReader<T> = (object: JsonObject, strings: StringTable) => T;

/** @throws BrokenObjectError when metadata.name is missing. */
export function keyOf(object: JsonObject, strings: StringTable): string {
  const metadata = objectAt(object, 'metadata', '');
  const name = textAt(metadata, 'name', 'metadata.');
  const namespace = textAt(metadata, 'namespace', 'metadata.');
  if (name === '') throw new BrokenObjectError('metadata.name', 'is missing');
  return namespace === '' ? strings.fromString(name) : joinKey(namespace, name);
}

function mapList<T>(
  parent: JsonObject,
  key: string,
  path: string,
  read: (item: unknown, path: string) => T,
): readonly T[] {
  const list = listAt(parent, key, path);
  return list.length === 0 ? emptyList : list.map((item, i) => read(item, `${path}${key}[${i}]`));
}

function protocolAt(parent: JsonObject, path: string): Protocol {
  const text = textAt(parent, 'protocol', path);
  if (text === 'TCP' || text === 'UDP' || text === 'SCTP') return text;
  if (text === '') return 'TCP';
  throw new BrokenObjectError(`${path}protocol`, `unknown protocol ${JSON.stringify(text)}`);
}

export function serviceFromJson(object: JsonObject, strings: StringTable): Service {
  const share = (text: string): string => strings.fromString(text);
  const sharedItem = (item: unknown, path: string): string => share(textItem(item, path));
  const metadata = objectAt(object, 'metadata', '');
  const labels = objectAt(metadata, 'labels', 'metadata.');
  const spec = objectAt(object, 'spec', '');
  const affinity = objectAt(
    objectAt(spec, 'sessionAffinityConfig', 'spec.'),
    'clientIP',
    'spec.sessionAffinityConfig.',
  );
  const balancer = objectAt(objectAt(object, 'status', ''), 'loadBalancer', 'status.');
  return {
    namespace: share(textAt(metadata, 'namespace', 'metadata.')),
    name: share(textAt(metadata, 'name', 'metadata.')),
    uid: textAt(metadata, 'uid', 'metadata.'),
    creationTimestamp: share(textAt(metadata, 'creationTimestamp', 'metadata.')),
    serviceProxyName: optionalText(labels, 'service.kubernetes.io/service-proxy-name', 'metadata.labels.'),
    type: share(textAt(spec, 'type', 'spec.')),
    clusterIP: share(textAt(spec, 'clusterIP', 'spec.')),
    clusterIPs: mapList(spec, 'clusterIPs', 'spec.', sharedItem),
    ipFamilies: mapList(spec, 'ipFamilies', 'spec.', sharedItem),
    ports: mapList(spec, 'ports', 'spec.', (item, path): ServicePortSpec => {
      const port = objectItem(item, path);
      return {
        name: share(textAt(port, 'name', `${path}.`)),
        protocol: protocolAt(port, `${path}.`),
        port: integerAt(port, 'port', `${path}.`),
        nodePort: integerAt(port, 'nodePort', `${path}.`),
      };
    }),
    externalIPs: mapList(spec, 'externalIPs', 'spec.', sharedItem),
    loadBalancerIngress: mapList(
      balancer,
      'ingress',
      'status.loadBalancer.',
      (item, path): LoadBalancerIngress => {
        const ingress = objectItem(item, path);
        return {
          ip: textAt(ingress, 'ip', `${path}.`),
          ipMode: share(textAt(ingress, 'ipMode', `${path}.`)),
        };
      },
    ),
    loadBalancerSourceRanges: mapList(spec, 'loadBalancerSourceRanges', 'spec.', sharedItem),
    sessionAffinity: share(textAt(spec, 'sessionAffinity', 'spec.')),
    affinityTimeoutSeconds: optionalInteger(
      affinity,
      'timeoutSeconds',
      'spec.sessionAffinityConfig.clientIP.',
    ),
    internalTrafficPolicy: share(textAt(spec, 'internalTrafficPolicy', 'spec.')),
    externalTrafficPolicy: share(textAt(spec, 'externalTrafficPolicy', 'spec.')),
    healthCheckNodePort: integerAt(spec, 'healthCheckNodePort', 'spec.'),
  };
}

export function endpointSliceFromJson(object: JsonObject, strings: StringTable): EndpointSlice {
  const share = (text: string): string => strings.fromString(text);
  const metadata = objectAt(object, 'metadata', '');
  const labels = objectAt(metadata, 'labels', 'metadata.');
  const annotations = objectAt(metadata, 'annotations', 'metadata.');
  const hintName = (item: unknown, path: string): string =>
    share(textAt(objectItem(item, path), 'name', `${path}.`));
  return {
    namespace: share(textAt(metadata, 'namespace', 'metadata.')),
    name: share(textAt(metadata, 'name', 'metadata.')),
    serviceName: share(textAt(labels, 'kubernetes.io/service-name', 'metadata.labels.')),
    headless: optionalText(labels, 'service.kubernetes.io/headless', 'metadata.labels.') !== undefined,
    addressType: share(textAt(object, 'addressType', '')),
    ports: mapList(object, 'ports', '', (item, path): EndpointSlicePort => {
      const port = objectItem(item, path);
      const name = optionalText(port, 'name', `${path}.`);
      return {
        name: name === undefined ? undefined : share(name),
        protocol: protocolAt(port, `${path}.`),
        port: integerAt(port, 'port', `${path}.`),
      };
    }),
    endpoints: mapList(object, 'endpoints', '', (item, path): SliceEndpoint => {
      const endpoint = objectItem(item, path);
      const addresses = listAt(endpoint, 'addresses', `${path}.`);
      const conditions = objectAt(endpoint, 'conditions', `${path}.`);
      const nodeName = optionalText(endpoint, 'nodeName', `${path}.`);
      const hints = objectAt(endpoint, 'hints', `${path}.`);
      return {
        address: addresses.length === 0 ? '' : textItem(addresses[0], `${path}.addresses[0]`),
        ready: optionalBoolean(conditions, 'ready', `${path}.conditions.`) ?? true,
        serving: optionalBoolean(conditions, 'serving', `${path}.conditions.`) ?? true,
        terminating: optionalBoolean(conditions, 'terminating', `${path}.conditions.`) ?? false,
        nodeName: nodeName === undefined ? undefined : share(nodeName),
        zoneHints: mapList(hints, 'forZones', `${path}.hints.`, hintName),
        nodeHints: mapList(hints, 'forNodes', `${path}.hints.`, hintName),
      };
    }),
    triggerTime: textAt(
      annotations,
      'endpoints.kubernetes.io/last-change-trigger-time',
      'metadata.annotations.',
    ),
  };
}

export function nodeFromJson(object: JsonObject, strings: StringTable): Node {
  const share = (text: string): string => strings.fromString(text);
  const metadata = objectAt(object, 'metadata', '');
  const labels = objectAt(metadata, 'labels', 'metadata.');
  const spec = objectAt(object, 'spec', '');
  const podCIDR = textAt(spec, 'podCIDR', 'spec.');
  const podCIDRs = mapList(spec, 'podCIDRs', 'spec.', textItem);
  return {
    name: share(textAt(metadata, 'name', 'metadata.')),
    uid: textAt(metadata, 'uid', 'metadata.'),
    addresses: mapList(objectAt(object, 'status', ''), 'addresses', 'status.', (item, path): NodeAddress => {
      const address = objectItem(item, path);
      return {
        type: share(textAt(address, 'type', `${path}.`)),
        address: share(textAt(address, 'address', `${path}.`)),
      };
    }),
    podCIDRs: podCIDRs.length > 0 || podCIDR === '' ? podCIDRs : [podCIDR],
    zone: optionalText(labels, 'topology.kubernetes.io/zone', 'metadata.labels.'),
    taintKeys: mapList(spec, 'taints', 'spec.', (item, path) =>
      share(textAt(objectItem(item, path), 'key', `${path}.`)),
    ),
    deleting: optionalText(metadata, 'deletionTimestamp', 'metadata.') !== undefined,
  };
}

export function serviceCIDRFromJson(object: JsonObject, strings: StringTable): ServiceCIDR {
  return {
    name: strings.fromString(textAt(objectAt(object, 'metadata', ''), 'name', 'metadata.')),
    cidrs: mapList(objectAt(object, 'spec', ''), 'cidrs', 'spec.', textItem),
  };
}
