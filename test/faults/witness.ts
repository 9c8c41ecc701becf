/**
 * Stands where the program stands, between a source and a dataplane, with the program's own state and model, and looks at
 * everything that passes: what a source delivers was true, in that order, and what lasts is never missing.
 */
import type {
  ClusterSink,
  EndpointSlice,
  Node,
  ResourceKind,
  Service,
  ServiceCIDR,
} from '../../src/sources/objects.js';
import { ServiceModel } from '../../src/model/model.js';
import type { ModelChanges, ServicePort } from '../../src/model/types.js';
import { ClusterState } from '../../src/app/cluster-state.js';
import { lasting, nodeName, serviceMark, type Cluster } from './cluster.js';

export class Witness implements ClusterSink {
  readonly violations: string[] = [];
  /** What a dataplane would hold, by family and key. */
  readonly ports = new Map<string, ServicePort>();
  /** Everything that is needed has been listed once. */
  begun = false;
  private readonly state: ClusterState;
  /** When what was delivered last was true, by kind and key. */
  private readonly seen = new Map<string, number>();
  private readonly model = new ServiceModel({
    nodeName,
    nodeIPs: { IPv4: '192.0.2.1' },
    families: ['IPv4', 'IPv6'],
    externalIPs: true,
  });

  /**
   * @param cluster undefined: everything is believed
   * @param program told of changes, once the state is complete
   */
  constructor(
    private readonly cluster: Cluster | undefined,
    private readonly program: (changes: ModelChanges) => void = () => undefined,
  ) {
    this.state = new ClusterState(nodeName, {
      changed: () => {
        this.sync();
      },
      nodeChanged: () => {
        this.begin();
      },
      serviceCIDRsChanged: () => undefined,
      synced: () => {
        this.begin();
      },
    });
  }

  /** The state in words, to be compared with another one's. */
  picture(): string {
    const cidrs = this.state.serviceCIDRs('IPv4').map(({ ip, prefixLength }) => `${ip}/${prefixLength}`);
    const ports = [...this.ports.keys()].sort().map((key) => JSON.stringify(this.ports.get(key)));
    return [cidrs.sort().join(), ...ports].join('\n');
  }

  private begin(): void {
    if (
      this.begun ||
      !(['Service', 'EndpointSlice', 'Node'] as const).every((kind) => this.state.hasSynced(kind))
    )
      return;
    this.begun = true;
    const handedOver = this.state.attach(this.model);
    if (handedOver === undefined) this.sync();
    else
      void handedOver.then(() => {
        this.sync();
      });
  }

  private sync(): void {
    if (!this.begun) return;
    const changes = this.model.takeChanges();
    for (const { family, upserted, removed } of changes.families) {
      for (const key of removed) this.ports.delete(`${family} ${key}`);
      for (const port of upserted) this.ports.set(`${family} ${port.key}`, port);
    }
    for (const { name, clusterIP, port, endpoint } of this.cluster === undefined ? [] : lasting) {
      const found = this.ports.get(`IPv4 ${name}/TCP`);
      const serves =
        found?.addresses.some((address) => address.ip === clusterIP && address.port === port) === true &&
        found.clusterEndpoints.some(({ ip }) => ip === endpoint);
      if (!serves) this.violations.push(`${name} is missing: ${JSON.stringify(found ?? null)}`);
    }
    this.program(changes);
  }

  /** An object is as it was at some time, and, unless the past comes back, never again as it was before that. */
  private check(kind: ResourceKind, key: string, mark: string | undefined): void {
    const { cluster } = this;
    if (mark === undefined || cluster === undefined) return;
    const id = `${kind} ${key}`;
    const at = cluster.whenTrue(kind, key, mark, cluster.restored ? 0 : (this.seen.get(id) ?? 0));
    if (at < 0) {
      const ever = cluster.whenTrue(kind, key, mark, 0) >= 0;
      this.violations.push(`${id} ${ever ? 'went back to' : 'never was'} ${mark}`);
      return;
    }
    this.seen.set(id, at);
  }

  service(key: string, object: Service | undefined): void {
    this.check(
      'Service',
      key,
      object === undefined ? undefined : serviceMark(object.clusterIP, object.ports[0]?.nodePort ?? -1),
    );
    this.state.service(key, object);
  }

  endpointSlice(key: string, object: EndpointSlice | undefined): void {
    this.check('EndpointSlice', key, object?.endpoints.map(({ address }) => address).join());
    this.state.endpointSlice(key, object);
  }

  node(key: string, object: Node | undefined): void {
    this.state.node(key, object);
  }

  serviceCIDR(key: string, object: ServiceCIDR | undefined): void {
    this.state.serviceCIDR(key, object);
  }

  synced(kind: ResourceKind): void {
    this.state.synced(kind);
  }

  flush(): void {
    this.state.flush();
  }
}
