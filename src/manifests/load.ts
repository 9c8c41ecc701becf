/** A whole set of manifests at once: it is either usable or not. */
import { BrokenObjectError } from '../kube/errors.js';
import type { EndpointSlice, Node, Service, ServiceCIDR } from '../kube/objects.js';
import { StringTable } from '../kube/strings.js';
import { ManifestFiles, type ManifestObject } from './documents.js';
import { selects, slicesFromPods } from './endpoints.js';
import { ManifestError, placeText } from './errors.js';
import {
  readDeployment,
  readEndpointSlice,
  readNode,
  readPod,
  readService,
  readServiceCIDR,
  readServiceTarget,
  withNamespace,
  type Deployment,
  type Pod,
  type ServiceTarget,
} from './objects.js';

/** What the sink is to hold, by key; filtered as the selectors of the API server source filter. */
export interface ManifestSet {
  readonly services: ReadonlyMap<string, Service>;
  readonly endpointSlices: ReadonlyMap<string, EndpointSlice>;
  readonly nodes: ReadonlyMap<string, Node>;
  readonly serviceCIDRs: ReadonlyMap<string, ServiceCIDR>;
  readonly files: number;
  /** Kinds that were left out, e.g. 'ConfigMap (v1)'. */
  readonly ignored: readonly string[];
  /** Things that are allowed but probably not meant; with their place. */
  readonly warnings: readonly string[];
}

/**
 * Read the file or folder.
 * @param nodeName the Node objects of other nodes are left out
 * @param source keep it from one load to the next, so that only changed files are read
 * @throws ManifestError for the first thing that is wrong
 */
export function loadManifests(root: string, nodeName: string, source = new ManifestFiles()): ManifestSet {
  const { files, objects } = source.read(root);
  const collector = new Collector(nodeName);
  for (const object of objects) collector.add(object);
  if (files === 0) collector.warnings.push(`${root} holds no .yaml, .yml or .json file`);
  return collector.finish(files);
}

class Collector {
  readonly #nodeName: string;
  readonly #strings = new StringTable();
  readonly #services = new Map<string, { service: Service; target: ServiceTarget; object: ManifestObject }>();
  readonly #slices = new Map<string, EndpointSlice>();
  readonly #nodes = new Map<string, Node>();
  readonly #serviceCIDRs = new Map<string, ServiceCIDR>();
  readonly #pods: Pod[] = [];
  readonly #deployments: Deployment[] = [];
  readonly #places = new Map<string, ManifestObject>();
  readonly #ignored = new Set<string>();
  readonly warnings: string[] = [];

  constructor(nodeName: string) {
    this.#nodeName = nodeName;
  }

  add(object: ManifestObject): void {
    try {
      this.#read(object);
    } catch (error) {
      if (!(error instanceof BrokenObjectError)) throw error;
      const { metadata } = object.value;
      const name = (metadata as { name?: unknown } | null | undefined)?.name;
      throw new ManifestError(
        'MANIFEST_INVALID',
        object.place(error.where),
        error.where,
        `${object.kind}${typeof name === 'string' ? ` ${name}` : ''}: ${error.message.replace(': ', ' ')}`,
        { cause: error },
      );
    }
  }

  #read(object: ManifestObject): void {
    switch (`${object.apiVersion}/${object.kind}`) {
      case 'v1/Service': {
        const value = withNamespace(object.value);
        const service = readService(value, this.#strings);
        const target = readServiceTarget(value, service);
        this.#services.set(this.#unique(object, service.namespace, service.name), {
          service,
          target,
          object,
        });
        if (service.type === 'NodePort' && service.ports.every((port) => port.nodePort === 0)) {
          this.warnings.push(
            `${placeText(object.place('spec.ports'))}: Service ${service.name} has type NodePort but no nodePort: ` +
              'manifests have no allocator, write the port',
          );
        }
        return;
      }
      case 'discovery.k8s.io/v1/EndpointSlice': {
        const slice = readEndpointSlice(withNamespace(object.value), this.#strings);
        this.#slices.set(this.#unique(object, slice.namespace, slice.name), slice);
        if (slice.serviceName === '') {
          this.warnings.push(
            `${placeText(object.place('metadata'))}: EndpointSlice ${slice.name} belongs to no Service: ` +
              'it has no label kubernetes.io/service-name',
          );
        }
        return;
      }
      case 'v1/Node': {
        const node = readNode(withNamespace(object.value), this.#strings);
        this.#nodes.set(this.#unique(object, '', node.name), node);
        return;
      }
      case 'networking.k8s.io/v1/ServiceCIDR': {
        const cidr = readServiceCIDR(withNamespace(object.value), this.#strings);
        this.#serviceCIDRs.set(this.#unique(object, '', cidr.name), cidr);
        return;
      }
      case 'v1/Pod': {
        const pod = readPod(withNamespace(object.value));
        this.#unique(object, pod.namespace, pod.name);
        this.#pods.push(pod);
        return;
      }
      case 'apps/v1/Deployment': {
        const deployment = readDeployment(withNamespace(object.value));
        this.#unique(object, deployment.namespace, deployment.name);
        this.#deployments.push(deployment);
        return;
      }
      default:
        this.#ignored.add(`${object.kind} (${object.apiVersion})`);
    }
  }

  /** The key of the object; an error when another one of its kind has it. */
  #unique(object: ManifestObject, namespace: string, name: string): string {
    const key = namespace === '' ? name : `${namespace}/${name}`;
    const identity = `${object.kind} ${key}`;
    const other = this.#places.get(identity);
    if (other !== undefined) {
      throw new ManifestError(
        'MANIFEST_INVALID',
        object.place('metadata.name'),
        'metadata.name',
        `${identity} is defined twice, before this at ${placeText(other.place('metadata.name'))}`,
      );
    }
    this.#places.set(identity, object);
    return key;
  }

  finish(files: number): ManifestSet {
    const served = new Set<string>();
    for (const slice of this.#slices.values()) served.add(`${slice.namespace}/${slice.serviceName}`);

    const services = new Map<string, Service>();
    const endpointSlices = new Map<string, EndpointSlice>();
    for (const [key, slice] of this.#slices) {
      if (!slice.headless) endpointSlices.set(key, slice);
    }
    for (const [key, { service, target, object }] of this.#services) {
      if (service.clusterIP === 'None' || service.serviceProxyName !== undefined) continue;
      services.set(key, service);
      if (served.has(key) || target.selector.size === 0) continue;
      const slices = slicesFromPods(service, target, this.#pods);
      for (const slice of slices) endpointSlices.set(`${slice.namespace}/${slice.name}`, slice);
      if (slices.length === 0) this.#explainEmpty(service, target, object);
    }
    const own = this.#nodes.get(this.#nodeName);
    return {
      services,
      endpointSlices,
      nodes: own === undefined ? new Map() : new Map([[own.name, own]]),
      serviceCIDRs: this.#serviceCIDRs,
      files,
      ignored: [...this.#ignored].sort(),
      warnings: this.warnings,
    };
  }

  /** A Deployment says which Pods there are to be, but only Pods have addresses. */
  #explainEmpty(service: Service, target: ServiceTarget, object: ManifestObject): void {
    const deployment = this.#deployments.find(
      (candidate) =>
        candidate.namespace === service.namespace && selects(target.selector, candidate.podLabels),
    );
    if (deployment === undefined) return;
    this.warnings.push(
      `${placeText(object.place('spec.selector'))}: Service ${service.name} selects the Pods of Deployment ` +
        `${deployment.name}, but a Deployment has no addresses: add its Pods with status.podIP, or an EndpointSlice`,
    );
  }
}
