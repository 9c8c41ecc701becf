/**
 * A small cluster whose changes are those that packets in flight could suffer from: Services that shrink, grow and lose all
 * endpoints, endpoints that move between nodes, addresses that move between Services, affinity, policies and source ranges
 * that come and go. What an API server would never let happen at once may still reach a node as one change.
 */
import type { Random } from '@kube-proxy-ts/netlink/testing';
import {
  serviceNameLabel,
  type Cluster,
  type Endpoint,
  type EndpointSlice,
  type Family,
  type Node,
  type Policy,
  type Service,
  type ServiceCIDR,
} from '../soak/objects.js';

export const nodeName = 'alder';
export const namespace = 'proof';
const portName = 'p';

const text = (family: Family, v4: string, v6: string): string => (family === 'IPv4' ? v4 : v6);

export const nodeAddress = (family: Family): string => text(family, '100.64.10.11', '2001:db8:a::11');
export const podRange = (family: Family): string => text(family, '10.61.0.0/16', 'fd61::/48');
/** Where service addresses come from. */
export const serviceRange = (family: Family): string => text(family, '10.177.0.0/20', 'fd77::/112');

/** Who asks. Source ranges of the world permit some of them. */
export const clients = (
  family: Family,
): readonly { readonly address: string; readonly ownNode: boolean }[] => [
  { address: text(family, '10.61.1.200', 'fd61:0:0:1::200'), ownNode: false },
  { address: nodeAddress(family), ownNode: true },
  { address: text(family, '198.51.100.7', '2001:db8:f::7'), ownNode: false },
  { address: text(family, '198.51.100.200', '2001:db8:f::c8'), ownNode: false },
];

const rangeChoices = (family: Family): readonly (readonly string[])[] =>
  family === 'IPv4'
    ? [['198.51.100.0/26'], ['198.51.100.0/24', '10.61.0.0/16'], ['198.51.100.7/32', '100.64.10.0/24']]
    : [['2001:db8:f::/121'], ['2001:db8:f::/64', 'fd61::/48'], ['2001:db8:f::7/128', '2001:db8:a::/64']];

/** What a Service is made of. Addresses are numbers in small pools, so they meet again and again. */
interface Draft {
  readonly created: string;
  type: 'ClusterIP' | 'NodePort' | 'LoadBalancer';
  protocol: 'TCP' | 'UDP';
  clusterIP: number;
  nodePort: number;
  externalIP: number | undefined;
  loadBalancerIP: number;
  ranges: readonly string[] | undefined;
  affinitySeconds: number;
  internal: Policy;
  external: Policy;
  targetPort: number;
  endpoints: Map<number, Backend>;
}

interface Backend {
  readonly node: string | undefined;
  readonly state: 'ready' | 'not ready' | 'ending';
}

const pools = { services: 8, pods: 14, externalIPs: 4, loadBalancerIPs: 3 };
const affinityTimes = [600, 10_800];

export class ProofWorld implements Cluster {
  services = new Map<string, Service>();
  slices = new Map<string, EndpointSlice>();
  readonly nodes: ReadonlyMap<string, Node>;
  readonly serviceCIDRs: ReadonlyMap<string, ServiceCIDR>;
  private readonly drafts = new Map<number, Draft>();
  private made = 0;

  constructor(
    private readonly random: Random,
    readonly family: Family,
  ) {
    this.nodes = new Map([
      [
        nodeName,
        {
          apiVersion: 'v1',
          kind: 'Node',
          metadata: { name: nodeName, labels: {} },
          status: { addresses: [{ type: 'InternalIP', address: nodeAddress(family) }] },
        },
      ],
    ]);
    this.serviceCIDRs = new Map([
      [
        'kubernetes',
        {
          apiVersion: 'networking.k8s.io/v1',
          kind: 'ServiceCIDR',
          metadata: { name: 'kubernetes' },
          spec: { cidrs: [serviceRange(family)] },
        },
      ],
    ]);
    for (let i = 0; i < pools.services - 2; i++) this.create(i);
    this.write();
  }

  /** The objects as they are now; later changes leave it alone. */
  snapshot(): Cluster {
    return {
      services: new Map(this.services),
      slices: new Map(this.slices),
      nodes: this.nodes,
      serviceCIDRs: this.serviceCIDRs,
    };
  }

  /** Changes that reach the node as one. @returns what they are, in words */
  step(): string[] {
    const { random } = this;
    const count = random.below(6) === 0 ? 4 + random.below(5) : 1 + random.below(3);
    const words = Array.from({ length: count }, () => this.change());
    this.write();
    return words;
  }

  private change(): string {
    const { random } = this;
    const index = random.below(pools.services);
    const draft = this.drafts.get(index);
    if (draft === undefined) return this.create(index);
    const changes: readonly (readonly [weight: number, name: string, run: () => void])[] = [
      [10, 'loses endpoints', () => { this.shrink(draft); }],
      [8, 'gets endpoints', () => { this.grow(draft, 1 + random.below(4)); }],
      [5, 'gets other endpoints', () => { this.replaceEndpoints(draft); }],
      [4, 'loses all endpoints', () => { draft.endpoints.clear(); }],
      [6, 'has endpoints that move between nodes', () => { this.moveNodes(draft); }],
      [2, 'is served at another port', () => { draft.targetPort = 18_001 - draft.targetPort; }],
      [5, 'has endpoints that end', () => { this.end(draft); }],
      [6, 'gains or loses affinity', () => { draft.affinitySeconds = draft.affinitySeconds > 0 ? 0 : this.pick(affinityTimes); }],
      [2, 'has another affinity timeout', () => { if (draft.affinitySeconds > 0) draft.affinitySeconds = this.pick([...affinityTimes, 30]); }],
      [5, 'has another external policy', () => { draft.external = other(draft.external); }],
      [3, 'has another internal policy', () => { draft.internal = other(draft.internal); }],
      [5, 'has other source ranges', () => { draft.ranges = this.ranges(); }],
      [3, 'is of another type', () => { draft.type = this.type(); }],
      [2, 'speaks another protocol', () => { draft.protocol = draft.protocol === 'UDP' ? 'TCP' : 'UDP'; }],
      [4, 'is deleted', () => { this.drafts.delete(index); }],
      [3, 'is deleted, another one gets its addresses', () => { this.rename(index, draft); }],
      [5, 'has another external IP', () => { draft.externalIP = this.externalIP(); }],
      [4, 'gives its external IP to another one', () => { this.give(draft); }],
      [3, 'and all others pass on their external addresses', () => { this.rotate('externalIP'); this.rotate('loadBalancerIP'); }],
      [3, 'and all others pass on their node ports', () => { this.rotate('nodePort'); }],
      [3, 'and all others pass on their cluster IPs', () => { this.rotate('clusterIP'); }],
      [3, 'has another node port', () => { draft.nodePort = 30_000 + random.below(2 * pools.services); }],
    ]; // prettier-ignore
    let at = random.below(changes.reduce((sum, [weight]) => sum + weight, 0));
    const chosen = changes.find(([weight]) => (at -= weight) < 0);
    if (chosen === undefined) throw new RangeError('nothing to choose from');
    chosen[2]();
    return `s${index} ${chosen[1]}`;
  }

  private create(index: number): string {
    const { random } = this;
    const draft: Draft = {
      created: `2026-01-02T03:${10 + random.below(50)}:${10 + (this.made++ % 50)}Z`,
      type: this.type(),
      protocol: random.below(4) === 0 ? 'TCP' : 'UDP',
      clusterIP: index,
      nodePort: 30_000 + index,
      externalIP: this.externalIP(),
      loadBalancerIP: random.below(pools.loadBalancerIPs),
      ranges: this.ranges(),
      affinitySeconds: random.below(3) === 0 ? this.pick(affinityTimes) : 0,
      internal: random.below(5) === 0 ? 'Local' : 'Cluster',
      external: random.below(3) === 0 ? 'Local' : 'Cluster',
      targetPort: 9000,
      endpoints: new Map(),
    };
    const taken = new Set([...this.drafts.values()].map(({ clusterIP }) => clusterIP));
    while (taken.has(draft.clusterIP)) draft.clusterIP++;
    if (random.below(5) > 0) this.grow(draft, 1 + random.below(5));
    this.drafts.set(index, draft);
    return `s${index} is made`;
  }

  private shrink({ endpoints }: Draft): void {
    for (let count = 1 + this.random.below(3); count > 0 && endpoints.size > 0; count--)
      endpoints.delete(this.pick([...endpoints.keys()]));
  }

  private grow({ endpoints }: Draft, count: number): void {
    for (let i = 0; i < count; i++) endpoints.set(this.random.below(pools.pods), this.backend());
  }

  private replaceEndpoints(draft: Draft): void {
    const size = draft.endpoints.size;
    const old = new Set(draft.endpoints.keys());
    draft.endpoints.clear();
    for (let pod = 0; pod < pools.pods && draft.endpoints.size < size + this.random.below(2); pod++)
      if (!old.has(pod)) draft.endpoints.set(pod, this.backend());
  }

  private moveNodes({ endpoints }: Draft): void {
    for (const [pod, backend] of endpoints)
      if (this.random.below(2) === 0) endpoints.set(pod, { ...backend, node: this.node() });
  }

  private end({ endpoints }: Draft): void {
    for (const [pod, backend] of endpoints) {
      if (this.random.below(2) === 0)
        endpoints.set(pod, { ...backend, state: this.pick(['ready', 'not ready', 'ending'] as const) });
    }
  }

  private rename(index: number, draft: Draft): void {
    const free = Array.from({ length: pools.services }, (_, i) => i).find((i) => !this.drafts.has(i));
    this.drafts.delete(index);
    if (free === undefined) return;
    this.create(free);
    const successor = this.drafts.get(free);
    if (successor === undefined) return;
    const { type, protocol, clusterIP, nodePort, externalIP, loadBalancerIP } = draft;
    Object.assign(successor, { type, protocol, clusterIP, nodePort, externalIP, loadBalancerIP });
  }

  private give(draft: Draft): void {
    const heir = this.pick([...this.drafts.values()]);
    if (heir === draft) return;
    heir.externalIP = draft.externalIP;
    heir.protocol = draft.protocol;
    draft.externalIP = undefined;
  }

  private rotate(field: 'externalIP' | 'loadBalancerIP' | 'nodePort' | 'clusterIP'): void {
    const all = [...this.drafts.values()];
    const values = all.map((draft) => draft[field]);
    all.forEach((draft, i) => Object.assign(draft, { [field]: values[(i + 1) % all.length] }));
  }

  private backend(): Backend {
    const dice = this.random.below(10);
    const state = dice < 8 ? 'ready' : dice < 9 ? 'not ready' : 'ending';
    return { node: this.node(), state };
  }

  private node(): string | undefined {
    return this.pick([nodeName, nodeName, 'birch', 'birch', 'cedar', undefined]);
  }

  private type(): Draft['type'] {
    return this.pick(['ClusterIP', 'NodePort', 'LoadBalancer', 'LoadBalancer'] as const);
  }

  private externalIP(): number | undefined {
    return this.random.below(3) > 0 ? this.random.below(pools.externalIPs) : undefined;
  }

  private ranges(): readonly string[] | undefined {
    return this.random.below(3) === 0 ? this.pick(rangeChoices(this.family)) : undefined;
  }

  private pick<T>(values: readonly T[]): T {
    const value = values[this.random.below(values.length)];
    if (value === undefined && values.length === 0) throw new RangeError('nothing to choose from');
    return value as T;
  }

  /** Drafts become objects; what did not change stays the same object. */
  private write(): void {
    const services = new Map<string, Service>();
    const slices = new Map<string, EndpointSlice>();
    for (const [index, draft] of this.drafts) {
      const key = `${namespace}/s${index}`;
      services.set(key, same(this.services.get(key), this.service(index, draft)));
      slices.set(`${key}-a`, same(this.slices.get(`${key}-a`), this.slice(index, draft)));
    }
    this.services = services;
    this.slices = slices;
  }

  private service(index: number, draft: Draft): Service {
    const { family } = this;
    const { type, externalIP, ranges, affinitySeconds } = draft;
    const clusterIP = text(family, `10.177.0.${50 + draft.clusterIP}`, `fd77::${50 + draft.clusterIP}`);
    const external = type !== 'ClusterIP' || externalIP !== undefined;
    return {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace, name: `s${index}`, creationTimestamp: draft.created },
      spec: {
        type,
        clusterIP,
        clusterIPs: [clusterIP],
        ipFamilies: [family],
        ports: [
          {
            name: portName,
            protocol: draft.protocol,
            port: 80,
            ...(type === 'ClusterIP' ? {} : { nodePort: draft.nodePort }),
          },
        ],
        ...(externalIP === undefined
          ? {}
          : { externalIPs: [text(family, `203.0.113.${externalIP + 1}`, `2001:db8:e::${externalIP + 1}`)] }),
        ...(type === 'LoadBalancer' && ranges !== undefined ? { loadBalancerSourceRanges: ranges } : {}),
        sessionAffinity: affinitySeconds > 0 ? 'ClientIP' : 'None',
        ...(affinitySeconds > 0
          ? { sessionAffinityConfig: { clientIP: { timeoutSeconds: affinitySeconds } } }
          : {}),
        internalTrafficPolicy: draft.internal,
        ...(external ? { externalTrafficPolicy: draft.external } : {}),
      },
      status: {
        loadBalancer:
          type === 'LoadBalancer'
            ? {
                ingress: [
                  {
                    ip: text(
                      family,
                      `192.0.2.${draft.loadBalancerIP + 1}`,
                      `2001:db8:b::${draft.loadBalancerIP + 1}`,
                    ),
                  },
                ],
              }
            : {},
      },
    };
  }

  private slice(index: number, { endpoints, protocol, targetPort }: Draft): EndpointSlice {
    return {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        namespace,
        name: `s${index}-a`,
        labels: { [serviceNameLabel]: `s${index}` },
        creationTimestamp: '2026-01-02T03:04:05Z',
      },
      addressType: this.family,
      ports: [{ name: portName, protocol, port: targetPort }],
      endpoints: [...endpoints].map(([pod, backend]) => this.endpoint(pod, backend)),
    };
  }

  private endpoint(pod: number, { node, state }: Backend): Endpoint {
    return {
      addresses: [text(this.family, `10.61.3.${100 + pod}`, `fd61:0:0:3::${100 + pod}`)],
      ...(node === undefined ? {} : { nodeName: node }),
      conditions:
        state === 'ready'
          ? { ready: true }
          : state === 'ending'
            ? { ready: false, serving: true, terminating: true }
            : { ready: false, serving: false },
    };
  }
}

function other(policy: Policy): Policy {
  return policy === 'Local' ? 'Cluster' : 'Local';
}

function same<T>(before: T | undefined, now: T): T {
  return before !== undefined && JSON.stringify(before) === JSON.stringify(now) ? before : now;
}
