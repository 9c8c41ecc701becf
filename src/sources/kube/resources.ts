/**
 * The four kinds of objects that are watched: where they are served, which of them are asked for
 * (service-model.md 1.1), and how they are read in either encoding.
 */
import type { Codec } from './decode/decoded.js';
import { JsonListDecoder } from './decode/json/list.js';
import {
  endpointSliceFromJson,
  nodeFromJson,
  serviceCIDRFromJson,
  serviceFromJson,
  type JsonReader,
} from './decode/json/objects.js';
import { JsonWatchDecoder } from './decode/json/watch.js';
import type { EndpointSlice, Node, ResourceKind, Service, ServiceCIDR } from '../objects.js';
import { readEndpointSlice } from './decode/protobuf/endpointslice.js';
import { ProtobufListDecoder } from './decode/protobuf/list.js';
import { readNode } from './decode/protobuf/node.js';
import type { ObjectReader } from './decode/protobuf/object.js';
import { readService } from './decode/protobuf/service.js';
import { readServiceCIDR } from './decode/protobuf/servicecidr.js';
import { ProtobufWatchDecoder } from './decode/protobuf/watch.js';
import type { StringTable } from '../strings.js';

export type ContentType = 'protobuf' | 'json';

export interface Resource<T> {
  readonly kind: ResourceKind;
  /** Path of the collection. */
  readonly path: string;
  /** As RBAC names it: 'services', 'endpointslices.discovery.k8s.io'. */
  readonly rbacName: string;
  readonly labelSelector: string;
  readonly fieldSelector: string;
  /** The server may not have it, or not let us see it: then there simply are none. */
  readonly optional: boolean;
  /** What it tells changes all the time, and traffic goes wrong without it. */
  readonly urgent: boolean;
  /** Of an object that every cluster makes for itself once: which cluster it is. '' for all others. */
  clusterIdentity?(key: string, object: T): string;
  codec(type: ContentType, strings: StringTable): Codec<T>;
}

const mediaTypes: Readonly<Record<ContentType, string>> = {
  protobuf: 'application/vnd.kubernetes.protobuf',
  json: 'application/json',
};

/** The Accept header for content types in the order of preference. */
export function acceptHeader(types: readonly ContentType[], watch: boolean): string {
  return types
    .map((type) => (watch && type === 'protobuf' ? `${mediaTypes[type]};stream=watch` : mediaTypes[type]))
    .join();
}

/**
 * What to ask for, best first. With nothing set, all that can be read is offered, the content type of the settings first:
 * a server without protobuf then answers in JSON.
 * @param acceptContentTypes as in clientConnection: media types separated by commas, in the order of preference; wildcards stand
 *   for what can be read. '' for none
 * @returns an empty list when none of them can be read
 */
export function acceptedTypes(acceptContentTypes: string, contentType: ContentType): readonly ContentType[] {
  const all: readonly ContentType[] = contentType === 'protobuf' ? ['protobuf', 'json'] : ['json'];
  if (acceptContentTypes.trim() === '') return all;
  const wanted = acceptContentTypes.split(',').flatMap((item): readonly ContentType[] => {
    const mediaType = item.split(';')[0]?.trim().toLowerCase();
    if (mediaType === mediaTypes.protobuf) return ['protobuf'];
    if (mediaType === mediaTypes.json) return ['json'];
    return mediaType === '*/*' || mediaType === 'application/*' ? all : [];
  });
  return [...new Set(wanted)];
}

function codecs<T>(kind: ResourceKind, protobuf: ObjectReader<T>, json: JsonReader<T>): Resource<T>['codec'] {
  return (type, strings) =>
    type === 'protobuf'
      ? {
          list: (handler) => new ProtobufListDecoder(protobuf, `${kind}List`, strings, handler),
          watch: () => new ProtobufWatchDecoder(protobuf, kind, strings),
        }
      : {
          list: (handler) => new JsonListDecoder(json, `${kind}List`, strings, handler),
          watch: () => new JsonWatchDecoder(json, kind, strings),
        };
}

export const services: Resource<Service> = {
  kind: 'Service',
  path: '/api/v1/services',
  rbacName: 'services',
  labelSelector: '!service.kubernetes.io/service-proxy-name',
  fieldSelector: 'spec.clusterIP!=None',
  optional: false,
  urgent: true,
  clusterIdentity: (key, { uid }) => (key === 'default/kubernetes' ? uid : ''),
  codec: codecs('Service', readService, serviceFromJson),
};

export const endpointSlices: Resource<EndpointSlice> = {
  kind: 'EndpointSlice',
  path: '/apis/discovery.k8s.io/v1/endpointslices',
  rbacName: 'endpointslices.discovery.k8s.io',
  labelSelector: '!service.kubernetes.io/headless',
  fieldSelector: '',
  optional: false,
  urgent: true,
  codec: codecs('EndpointSlice', readEndpointSlice, endpointSliceFromJson),
};

export function ownNode(nodeName: string): Resource<Node> {
  return {
    kind: 'Node',
    path: '/api/v1/nodes',
    rbacName: 'nodes',
    labelSelector: '',
    fieldSelector: `metadata.name=${nodeName}`,
    optional: false,
    urgent: false,
    codec: codecs('Node', readNode, nodeFromJson),
  };
}

export const serviceCIDRs: Resource<ServiceCIDR> = {
  kind: 'ServiceCIDR',
  path: '/apis/networking.k8s.io/v1/servicecidrs',
  rbacName: 'servicecidrs.networking.k8s.io',
  labelSelector: '',
  fieldSelector: '',
  optional: true,
  urgent: false,
  codec: codecs('ServiceCIDR', readServiceCIDR, serviceCIDRFromJson),
};
