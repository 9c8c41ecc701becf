/** A whole set of manifests at once. A file that can't be used is named, and does not keep the others from being served. */
import { BrokenObjectError } from '../kube/errors.js';
import type { EndpointSlice, Node, Service, ServiceCIDR } from '../objects.js';
import { StringTable } from '../strings.js';
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
  /** One for each file that can't be used. */
  readonly errors: readonly ManifestError[];
  /** Kinds that were left out, e.g. 'ConfigMap (v1)'. */
  readonly ignored: readonly string[];
  /** Things that are allowed but probably not meant; with their place. */
  readonly warnings: readonly string[];
}

/** Reads the file or folder, as often as it changes: only changed files are read again. */
export class ManifestLoader {
  private readonly files = new ManifestFiles();
  /** What each file held when it could last be used. */
  private lastGood: ReadonlyMap<string, readonly ManifestObject[]> = new Map();

  /** @param nodeName the Node objects of other nodes are left out */
  constructor(
    private readonly root: string,
    private readonly nodeName: string,
  ) {}

  /**
   * Of a file that can't be used the last state that could is taken.
   * @throws ManifestError when the file or folder itself can't be read
   */
  load(): ManifestSet {
    const files = this.files.read(this.root);
    const collector = new Collector(this.nodeName);
    const good = new Map<string, readonly ManifestObject[]>();
    for (const { file, objects, error } of files) {
      const failure = error ?? collector.addFile(objects);
      if (failure === undefined) {
        good.set(file, objects);
        continue;
      }
      collector.failed(failure);
      const before = this.lastGood.get(file);
      if (before !== undefined && collector.addFile(before) === undefined) good.set(file, before);
    }
    this.lastGood = good;
    if (files.length === 0) collector.warnings.push(`${this.root} holds no .yaml, .yml or .json file`);
    return collector.finish(files.length);
  }
}

/** What files hold. */
class Held {
  readonly services = new Map<string, { service: Service; target: ServiceTarget; object: ManifestObject }>();
  readonly slices = new Map<string, EndpointSlice>();
  readonly nodes = new Map<string, Node>();
  readonly serviceCIDRs = new Map<string, ServiceCIDR>();
  readonly pods: Pod[] = [];
  readonly deployments: Deployment[] = [];
  /** Kind and key of each object. */
  readonly places = new Map<string, ManifestObject>();
  readonly ignored = new Set<string>();
  readonly warnings: string[] = [];

  add(more: Held): void {
    for (const name of ['services', 'slices', 'nodes', 'serviceCIDRs', 'places'] as const) {
      const into = this[name] as Map<string, unknown>;
      for (const [key, value] of more[name]) into.set(key, value);
    }
    for (const kind of more.ignored) this.ignored.add(kind);
    this.pods.push(...more.pods);
    this.deployments.push(...more.deployments);
    this.warnings.push(...more.warnings);
  }
}

class Collector {
  private readonly strings = new StringTable();
  private readonly held = new Held();
  private readonly errors: ManifestError[] = [];

  constructor(private readonly nodeName: string) {}

  get warnings(): string[] {
    return this.held.warnings;
  }

  /** All of the file, or nothing. @returns why nothing was added */
  addFile(objects: readonly ManifestObject[]): ManifestError | undefined {
    const held = new Held();
    try {
      for (const object of objects) this.addOne(object, held);
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error;
      return error;
    }
    this.held.add(held);
    return undefined;
  }

  /** A file can't be used. */
  failed(error: ManifestError): void {
    this.errors.push(error);
  }

  private addOne(object: ManifestObject, held: Held): void {
    try {
      this.read(object, held);
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

  private read(object: ManifestObject, held: Held): void {
    switch (`${object.apiVersion}/${object.kind}`) {
      case 'v1/Service': {
        const value = withNamespace(object.value);
        const service = readService(value, this.strings);
        const target = readServiceTarget(value, service);
        held.services.set(this.unique(object, held, service.namespace, service.name), {
          service,
          target,
          object,
        });
        if (service.type === 'NodePort' && service.ports.every((port) => port.nodePort === 0)) {
          held.warnings.push(
            `${placeText(object.place('spec.ports'))}: Service ${service.name} has type NodePort but no nodePort: ` +
              'manifests have no allocator, write the port',
          );
        }
        return;
      }
      case 'discovery.k8s.io/v1/EndpointSlice': {
        const slice = readEndpointSlice(withNamespace(object.value), this.strings);
        held.slices.set(this.unique(object, held, slice.namespace, slice.name), slice);
        if (slice.serviceName === '') {
          held.warnings.push(
            `${placeText(object.place('metadata'))}: EndpointSlice ${slice.name} belongs to no Service: ` +
              'it has no label kubernetes.io/service-name',
          );
        }
        return;
      }
      case 'v1/Node': {
        const node = readNode(withNamespace(object.value), this.strings);
        held.nodes.set(this.unique(object, held, '', node.name), node);
        return;
      }
      case 'networking.k8s.io/v1/ServiceCIDR': {
        const cidr = readServiceCIDR(withNamespace(object.value), this.strings);
        held.serviceCIDRs.set(this.unique(object, held, '', cidr.name), cidr);
        return;
      }
      case 'v1/Pod': {
        const pod = readPod(withNamespace(object.value));
        this.unique(object, held, pod.namespace, pod.name);
        held.pods.push(pod);
        return;
      }
      case 'apps/v1/Deployment': {
        const deployment = readDeployment(withNamespace(object.value));
        this.unique(object, held, deployment.namespace, deployment.name);
        held.deployments.push(deployment);
        return;
      }
      default:
        held.ignored.add(`${object.kind} (${object.apiVersion})`);
    }
  }

  /** The key of the object; an error when another one of its kind has it. */
  private unique(object: ManifestObject, held: Held, namespace: string, name: string): string {
    const key = namespace === '' ? name : `${namespace}/${name}`;
    const identity = `${object.kind} ${key}`;
    const other = held.places.get(identity) ?? this.held.places.get(identity);
    if (other !== undefined) {
      throw new ManifestError(
        'MANIFEST_INVALID',
        object.place('metadata.name'),
        'metadata.name',
        `${identity} is defined twice, before this at ${placeText(other.place('metadata.name'))}`,
      );
    }
    held.places.set(identity, object);
    return key;
  }

  finish(files: number): ManifestSet {
    const held = this.held;
    const served = new Set<string>();
    for (const slice of held.slices.values()) served.add(`${slice.namespace}/${slice.serviceName}`);

    const services = new Map<string, Service>();
    const endpointSlices = new Map<string, EndpointSlice>();
    for (const [key, slice] of held.slices) {
      if (!slice.headless) endpointSlices.set(key, slice);
    }
    for (const [key, { service, target, object }] of held.services) {
      if (service.clusterIP === 'None' || service.serviceProxyName !== undefined) continue;
      services.set(key, service);
      if (served.has(key) || target.selector.size === 0) continue;
      const slices = slicesFromPods(service, target, held.pods);
      for (const slice of slices) endpointSlices.set(`${slice.namespace}/${slice.name}`, slice);
      if (slices.length === 0) this.explainEmpty(service, target, object);
    }
    const own = held.nodes.get(this.nodeName);
    return {
      services,
      endpointSlices,
      nodes: own === undefined ? new Map() : new Map([[own.name, own]]),
      serviceCIDRs: held.serviceCIDRs,
      files,
      errors: this.errors,
      ignored: [...held.ignored].sort(),
      warnings: held.warnings,
    };
  }

  /** A Deployment says which Pods there are to be, but only Pods have addresses. */
  private explainEmpty(service: Service, target: ServiceTarget, object: ManifestObject): void {
    const deployment = this.held.deployments.find(
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
