/** Random service ports for tests: a small world in which addresses, endpoints and numbers meet again and again. */
import type { Random } from '@kube-proxy-ts/netlink/testing';
import type {
  AddressKind,
  Cidr,
  Endpoint,
  Fallback,
  IPFamily,
  ServicePort,
  VirtualAddress,
} from '../../model/types.js';

const names = [
  'shop/cart:http',
  'shop/web:https',
  'shop/login',
  'dns/dns:dns',
  'db/pg',
  'a/b:c',
  'q/w:e',
  'z/y',
];
const affinityTimeouts = [0, 0, 0, 600, 10_800];
const prefixLengths: Readonly<Record<IPFamily, readonly number[]>> = {
  IPv4: [0, 8, 24, 32],
  IPv6: [0, 32, 64, 128],
};

export class World {
  readonly ports = new Map<string, ServicePort>();

  constructor(
    private readonly random: Random,
    readonly family: IPFamily,
  ) {}

  /** Changes one to three service ports; addresses may move between them. */
  step(): { upserted: ServicePort[]; removed: string[] } {
    const touched = new Set<string>();
    const removed = new Set<string>();
    for (let i = 1 + this.random.below(3); i > 0; i--) {
      const name = this.pick(names);
      const key = `${name}/${name === 'dns/dns:dns' ? 'UDP' : 'TCP'}`;
      if (this.ports.has(key) && this.random.below(5) === 0) {
        this.ports.delete(key);
        touched.delete(key);
        removed.add(key);
        continue;
      }
      const before = this.ports.get(key);
      const next = this.servicePort(key, name, before);
      // Whoever had one of its addresses has it no longer.
      const taken = new Set(next.addresses.map(addressId));
      for (const [other, port] of this.ports) {
        if (other === key || port.protocol !== next.protocol) continue;
        const kept = port.addresses.filter((address) => !taken.has(addressId(address)));
        if (kept.length === port.addresses.length) continue;
        this.ports.set(other, { ...port, addresses: kept });
        touched.add(other);
      }
      this.ports.set(key, next);
      touched.add(key);
      removed.delete(key);
    }
    const upserted = [...touched].map((key) => this.ports.get(key)).filter((port) => port !== undefined);
    return { upserted, removed: [...removed] };
  }

  private servicePort(key: string, name: string, before: ServicePort | undefined): ServicePort {
    const { random } = this;
    const [namespace = '', serviceName = ''] = name.split(/[/:]/);
    // Often only the endpoints change.
    const onlyEndpoints = before !== undefined && random.below(2) === 0;
    const clusterEndpoints = this.endpoints(before?.clusterEndpoints ?? []);
    const localEndpoints = clusterEndpoints.filter(({ local }) => local);
    const addresses = onlyEndpoints ? before.addresses : this.addresses();
    return {
      key,
      name,
      namespace,
      serviceName,
      family: this.family,
      protocol: key.endsWith('UDP') ? 'UDP' : 'TCP',
      clusterIP: before?.clusterIP ?? this.ip(177, random.below(4)),
      port: 80,
      addresses: addresses.map((address) => ({
        ...address,
        fallback: fallbackOf(address, clusterEndpoints, localEndpoints),
      })),
      clusterEndpoints,
      localEndpoints: addresses.some(({ policy }) => policy === 'Local') ? localEndpoints : [],
      affinitySeconds: onlyEndpoints ? before.affinitySeconds : this.pick(affinityTimeouts),
      servingEndpoints: [],
    };
  }

  private addresses(): Omit<VirtualAddress, 'fallback'>[] {
    const { random } = this;
    const external = this.pick(['Cluster', 'Local'] as const);
    const kinds: readonly AddressKind[] = ['ClusterIP', 'ExternalIP', 'LoadBalancerIP', 'NodePort'];
    const chosen = new Map<string, Omit<VirtualAddress, 'fallback'>>();
    for (let i = random.below(5); i > 0; i--) {
      const kind = this.pick(kinds);
      const internal = kind === 'ClusterIP';
      const address: Omit<VirtualAddress, 'fallback'> = {
        kind,
        ip: kind === 'NodePort' ? '' : this.ip(internal ? 177 : 99, random.below(4)),
        port: kind === 'NodePort' ? 30_000 + random.below(4) : 80 + random.below(2),
        scope: internal ? 'internal' : 'external',
        policy: internal ? this.pick(['Cluster', 'Cluster', 'Local'] as const) : external,
        sourceRanges: kind === 'LoadBalancerIP' && random.below(2) === 0 ? this.ranges() : undefined,
      };
      chosen.set(addressId(address), address);
    }
    return [...chosen.values()];
  }

  private ranges(): Cidr[] {
    return Array.from({ length: this.random.below(4) }, () => {
      const prefixLength = this.pick(prefixLengths[this.family]);
      const whole = prefixLength === (this.family === 'IPv4' ? 32 : 128);
      const zero = prefixLength === 0;
      if (this.family === 'IPv4') {
        return {
          ip: zero ? '0.0.0.0' : whole ? '198.51.100.7' : prefixLength === 8 ? '10.0.0.0' : '198.51.100.0',
          prefixLength,
        };
      }
      return { ip: zero ? '::' : whole ? '2001:db8::7' : '2001:db8::', prefixLength };
    });
  }

  /** Most of the old ones stay; some keep their address, and are on another node or their node becomes known. */
  private endpoints(before: readonly Endpoint[]): Endpoint[] {
    const kept = before
      .filter(() => this.random.below(6) > 0)
      .map((endpoint) =>
        this.random.below(10) > 0 ? endpoint : { ...endpoint, local: !endpoint.local, nodeUnknown: false },
      );
    const known = new Set(kept.map(({ ip, port }) => `${ip} ${port}`));
    for (let i = this.random.below(4); i > 0; i--) {
      const host = this.random.below(12);
      const endpoint = {
        ip: this.ip(61, host),
        port: 9000 + this.random.below(2),
        local: host < 4,
        nodeUnknown: host === 11,
      };
      const id = `${endpoint.ip} ${endpoint.port}`;
      if (!known.has(id)) kept.push(endpoint);
      known.add(id);
    }
    return this.random.below(12) === 0
      ? []
      : kept.sort((a, b) => (`${a.ip}:${a.port}` < `${b.ip}:${b.port}` ? -1 : 1));
  }

  private ip(net: number, host: number): string {
    return this.family === 'IPv4' ? `10.${net}.0.${host + 1}` : `fd00:${net}::${(host + 1).toString(16)}`;
  }

  private pick<T>(list: readonly T[]): T {
    const item = list[this.random.below(list.length)];
    if (item === undefined) throw new Error('an empty list');
    return item;
  }
}

function addressId({ kind, ip, port }: Pick<VirtualAddress, 'kind' | 'ip' | 'port'>): string {
  return kind === 'NodePort' ? `* ${port}` : `${ip} ${port}`;
}

function fallbackOf(
  { policy }: Pick<VirtualAddress, 'policy'>,
  cluster: readonly Endpoint[],
  local: readonly Endpoint[],
): Fallback {
  if (policy === 'Cluster') return cluster.length > 0 ? 'serve' : 'reject';
  if (local.length > 0) return 'serve';
  return cluster.length > 0 ? 'drop' : 'reject';
}
