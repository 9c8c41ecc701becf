/**
 * Services that change all the time and can always serve everybody: each has at least one endpoint, one of them on this node, and its source
 * ranges let all senders in, in whatever words. So no flow may ever be refused, or pass by untranslated.
 */
import type { Random } from '@kube-proxy-ts/netlink/testing';
import type { EndpointSlice, Policy, Service } from '../soak/objects.js';
import { serviceNameLabel } from '../soak/objects.js';
import { nodeName } from '../proof/world.js';

const services = 6;
const namespace = 'flows';
const most = 8;
/** All of them permit every sender. */
const ranges = [
  undefined,
  ['198.51.100.0/24', '10.61.0.0/16', '100.64.10.0/24'],
  ['198.51.100.0/25', '198.51.100.128/25', '10.0.0.0/8', '100.64.0.0/10'],
  ['0.0.0.0/1', '128.0.0.0/1'],
];

interface Draft {
  endpoints: number[];
  /** Moves between nodes; at least one of the endpoints is here. */
  away: boolean;
  affinitySeconds: number;
  internal: Policy;
  external: Policy;
  ranges: readonly string[] | undefined;
  externalIP: number;
  loadBalancerIP: number;
  nodePort: number;
}

export class FlowsWorld {
  services = new Map<string, Service>();
  slices = new Map<string, EndpointSlice>();
  shrinks = 0;
  moves = 0;
  private readonly drafts: Draft[];

  constructor(private readonly random: Random) {
    this.drafts = Array.from({ length: services }, (_, i) => ({
      endpoints: [0, 1, 2],
      away: false,
      affinitySeconds: 0,
      internal: 'Cluster',
      external: 'Cluster',
      ranges: undefined,
      externalIP: i,
      loadBalancerIP: i,
      nodePort: i,
    }));
    this.write();
  }

  /** Where flows go: everything that is served from beginning to end. */
  targets(nodeAddress: string): { address: string; port: number }[] {
    return Array.from({ length: services }, (_, i) => i).flatMap((i) => [
      { address: `10.177.0.${50 + i}`, port: 80 },
      { address: `203.0.113.${1 + i}`, port: 80 },
      { address: `192.0.2.${1 + i}`, port: 80 },
      { address: nodeAddress, port: 30_000 + i },
    ]);
  }

  step(): void {
    const { random } = this;
    for (const draft of this.drafts) {
      const dice = random.below(10);
      if (dice < 4 && draft.endpoints.length > 1) this.shrink(draft);
      else if (dice < 7) this.grow(draft);
      else if (dice < 8) draft.endpoints = this.fresh(draft.endpoints);
    }
    const draft = this.drafts[random.below(services)];
    if (draft === undefined) return;
    const dice = random.below(16);
    if (dice === 0) draft.affinitySeconds = [0, 0, 60, 10_800][random.below(4)] ?? 0;
    if (dice === 1) draft.internal = random.below(3) === 0 ? 'Local' : 'Cluster';
    if (dice === 2) draft.external = random.below(2) === 0 ? 'Local' : 'Cluster';
    if (dice === 3) draft.ranges = ranges[random.below(ranges.length)];
    if (dice === 4) draft.away = !draft.away;
    if (dice === 5) this.rotate('externalIP');
    if (dice === 6) this.rotate('loadBalancerIP');
    if (dice === 7) this.rotate('nodePort');
    this.write();
  }

  private shrink(draft: Draft): void {
    this.shrinks++;
    const gone = new Set(
      Array.from({ length: 1 + this.random.below(draft.endpoints.length - 1) }, () =>
        this.random.below(draft.endpoints.length),
      ),
    );
    const left = draft.endpoints.filter((_, i) => !gone.has(i));
    draft.endpoints = left.length > 0 ? left : draft.endpoints.slice(0, 1);
  }

  private grow({ endpoints }: Draft): void {
    for (let i = 1 + this.random.below(3); i > 0 && endpoints.length < most; i--) {
      const pod = this.random.below(40);
      if (!endpoints.includes(pod)) endpoints.push(pod);
    }
  }

  /** All others than before. */
  private fresh(old: readonly number[]): number[] {
    const pods = Array.from({ length: 40 }, (_, pod) => pod).filter((pod) => !old.includes(pod));
    const from = this.random.below(pods.length - most);
    return pods.slice(from, from + 1 + this.random.below(most - 1));
  }

  private rotate(field: 'externalIP' | 'loadBalancerIP' | 'nodePort'): void {
    const values = this.drafts.map((draft) => draft[field]);
    this.drafts.forEach((draft, i) => (draft[field] = values[(i + 1) % services] ?? 0));
    this.moves += services;
  }

  private write(): void {
    const written = this.drafts.map((draft, i) => [this.service(i, draft), this.slice(i, draft)] as const);
    this.services = new Map(written.map(([service], i) => [`${namespace}/s${i}`, service]));
    this.slices = new Map(written.map(([, slice], i) => [`${namespace}/s${i}-a`, slice]));
  }

  private service(index: number, draft: Draft): Service {
    const { affinitySeconds } = draft;
    const clusterIP = `10.177.0.${50 + index}`;
    return {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { namespace, name: `s${index}`, creationTimestamp: '2026-01-02T03:04:05Z' },
      spec: {
        type: 'LoadBalancer',
        clusterIP,
        clusterIPs: [clusterIP],
        ipFamilies: ['IPv4'],
        ports: [{ name: 'p', protocol: 'UDP', port: 80, nodePort: 30_000 + draft.nodePort }],
        externalIPs: [`203.0.113.${1 + draft.externalIP}`],
        ...(draft.ranges === undefined ? {} : { loadBalancerSourceRanges: draft.ranges }),
        sessionAffinity: affinitySeconds > 0 ? 'ClientIP' : 'None',
        ...(affinitySeconds > 0
          ? { sessionAffinityConfig: { clientIP: { timeoutSeconds: affinitySeconds } } }
          : {}),
        internalTrafficPolicy: draft.internal,
        externalTrafficPolicy: draft.external,
      },
      status: { loadBalancer: { ingress: [{ ip: `192.0.2.${1 + draft.loadBalancerIP}` }] } },
    };
  }

  private slice(index: number, { endpoints, away }: Draft): EndpointSlice {
    return {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        namespace,
        name: `s${index}-a`,
        labels: { [serviceNameLabel]: `s${index}` },
        creationTimestamp: '2026-01-02T03:04:05Z',
      },
      addressType: 'IPv4',
      ports: [{ name: 'p', protocol: 'UDP', port: 9000 }],
      endpoints: endpoints.map((pod, i) => ({
        addresses: [`10.61.3.${100 + pod}`],
        nodeName: i === 0 || (pod % 2 === 0) !== away ? nodeName : 'birch',
        conditions: { ready: true },
      })),
    };
  }
}
