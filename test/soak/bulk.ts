/** A large and simple cluster, IPv4 only: so much of it that its start, a burst and a repair take a while. */
import type { Random } from '@kube-proxy-ts/netlink/testing';
import {
  serviceNameLabel,
  type Cluster,
  type EndpointSlice,
  type Node,
  type Service,
  type ServiceCIDR,
} from './objects.js';
import { clusterIP, keyOf, nodeIPs, pods, type Change } from './world.js';

const namespace = 'bulk';

export class Bulk implements Cluster {
  readonly services = new Map<string, Service>();
  readonly slices = new Map<string, EndpointSlice>();
  readonly nodes = new Map<string, Node>();
  readonly serviceCIDRs = new Map<string, ServiceCIDR>();

  /** @param size so many Services at first; a few more may come */
  constructor(
    private readonly random: Random,
    private readonly size: number,
  ) {}

  begin(): Change[] {
    const node: Node = {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: 'alder', labels: {} },
      status: { addresses: nodeIPs.alder.map((address) => ({ type: 'InternalIP', address })) },
    };
    const range: ServiceCIDR = {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'ServiceCIDR',
      metadata: { name: 'kubernetes' },
      spec: { cidrs: ['10.177.0.0/20'] },
    };
    this.nodes.set('alder', node);
    this.serviceCIDRs.set('kubernetes', range);
    const services = Array.from({ length: this.size }, (_, i) => this.add(i));
    return [{ put: node }, { put: range }, ...services.flat()];
  }

  /** So many Services change: other endpoints for most, some go or come. */
  change(count: number): Change[] {
    const changes: Change[] = [];
    const indices = new Set<number>();
    // A quarter as many more than there were may exist.
    while (indices.size < count) indices.add(this.random.below(Math.floor(this.size * 1.25)));
    for (const index of indices) {
      const key = `${namespace}/s${index}`;
      if (!this.services.has(key)) changes.push(...this.add(index));
      else if (this.random.below(4) === 0) changes.push(...this.remove(key));
      else changes.push(this.put(this.slice(index)));
    }
    return changes;
  }

  private put(object: Service | EndpointSlice): Change {
    if (object.kind === 'Service') this.services.set(keyOf(object), object);
    else this.slices.set(keyOf(object), object);
    return { put: object };
  }

  private add(index: number): Change[] {
    return [this.put(this.slice(index)), this.put(this.service(index))];
  }

  private remove(key: string): Change[] {
    this.services.delete(key);
    this.slices.delete(key);
    return [{ remove: { kind: 'Service', key } }, { remove: { kind: 'EndpointSlice', key } }];
  }

  private service(index: number): Service {
    const ip = clusterIP(index, 'IPv4');
    const hasNodePort = index % 10 === 0;
    return {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace, name: `s${index}`, creationTimestamp: '2026-01-02T03:04:05Z' },
      spec: {
        type: hasNodePort ? 'NodePort' : 'ClusterIP',
        clusterIP: ip,
        clusterIPs: [ip],
        ipFamilies: ['IPv4'],
        ports: [
          { name: 'web', protocol: 'TCP', port: 80, ...(hasNodePort ? { nodePort: 30_000 + index } : {}) },
        ],
        ...(index % 20 === 1
          ? { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 600 } } }
          : { sessionAffinity: 'None' }),
        internalTrafficPolicy: 'Cluster',
        ...(hasNodePort ? { externalTrafficPolicy: index % 20 === 0 ? 'Local' : 'Cluster' } : {}),
      },
      status: { loadBalancer: {} },
    };
  }

  private slice(index: number): EndpointSlice {
    const first = this.random.below(pods.length);
    const count = 3 + this.random.below(5);
    return {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        namespace,
        name: `s${index}`,
        labels: { [serviceNameLabel]: `s${index}` },
        creationTimestamp: '2026-01-02T03:04:05Z',
      },
      addressType: 'IPv4',
      ports: [{ name: 'web', protocol: 'TCP', port: 9000 }],
      endpoints: Array.from({ length: count }, (_, i) => {
        const { address, nodeName } = pods[(first + i * 5) % pods.length]!;
        return { addresses: [address.IPv4], nodeName, conditions: { ready: true } };
      }),
    };
  }
}
