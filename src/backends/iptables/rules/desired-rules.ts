/**
 * The footprint of a service port: every rule that is there because of it. Pure; the difference between two footprints is
 * what has to be written.
 */
import type {
  Cidr,
  Endpoint,
  IPFamily,
  LocalDetector,
  ServicePort,
  VirtualAddress,
} from '../../../model/types.js';
import { choose } from './endpoint-choice.js';
import { addressKey, portKey } from './keys.js';
import {
  chainPrefixes,
  chains,
  endpointChain,
  endpointGroupChain,
  protocolWord,
  servicePortHash,
} from './names.js';
import { comment, from, fromPod, host, toAddress, words } from './rule-text.js';

/** The prefix trees (tree.ts), each entered from one of upstream's chains. */
export type TreeName =
  /** nat KUBE-SERVICES, by address */
  | 'services'
  /** nat KUBE-NODEPORTS, by port */
  | 'nodePorts'
  /** filter KUBE-SERVICES: cluster IPs without endpoints */
  | 'refused'
  /** filter KUBE-EXTERNAL-SERVICES: other addresses without endpoints */
  | 'refusedExternal'
  /** filter KUBE-EXTERNAL-SERVICES: node ports without endpoints */
  | 'refusedNodePorts'
  /** filter KUBE-PROXY-FIREWALL: what source ranges keep out */
  | 'firewall';

export interface DesiredEntry {
  readonly tree: TreeName;
  readonly key: string;
  readonly rules: readonly string[];
}

export interface DesiredRules {
  readonly entries: readonly DesiredEntry[];
  /** Chains of table nat that belong to the service port alone, by name; a chain comes after those it leads to. */
  readonly chains: ReadonlyMap<string, readonly string[]>;
  /** Addresses of endpoints that may be pods of this node: they may meet themselves. */
  readonly hairpins: ReadonlySet<string>;
}

export interface RuleContext {
  readonly family: IPFamily;
  readonly masqueradeAll: boolean;
  readonly detector: LocalDetector | undefined;
  /** false: the kernel lacks the target REJECT. */
  readonly reject?: boolean;
}

/** What clients of an address without endpoints get. */
export const rejectWith: Readonly<Record<IPFamily, string>> = {
  IPv4: 'icmp-port-unreachable',
  IPv6: 'icmp6-port-unreachable',
};

export const noRules: DesiredRules = {
  entries: [],
  chains: new Map(),
  hairpins: new Set(),
};

/** So few endpoints need no chain of their own: their rules stand where the address is looked up. */
const inlineEndpoints = 2;
/** From this many external addresses on, a chain for what they have in common takes fewer rules. */
const manyAddresses = 3;

const mark = `-j ${chains.markMasquerade}`;

export function desiredRules(port: ServicePort, context: RuleContext): DesiredRules {
  return new Builder(port, context).build();
}

class Builder {
  private readonly entries: DesiredEntry[] = [];
  private readonly chains = new Map<string, readonly string[]>();
  private readonly hash: string;
  private readonly external: readonly VirtualAddress[];

  constructor(
    private readonly port: ServicePort,
    private readonly context: RuleContext,
  ) {
    this.hash = servicePortHash(port);
    this.external = port.addresses.filter(({ scope }) => scope === 'external');
  }

  build(): DesiredRules {
    const { port } = this;
    if (!this.serveDirectly()) {
      for (const address of port.addresses) {
        if (address.scope === 'internal') this.serveInternal(address);
        else this.serveExternal(address);
      }
    }
    for (const address of port.addresses) this.refuse(address);
    const hairpins = new Set<string>();
    for (const list of [port.clusterEndpoints, port.localEndpoints]) {
      for (const endpoint of list) if (endpoint.local || endpoint.nodeUnknown) hairpins.add(endpoint.ip);
    }
    return { entries: this.entries, chains: this.chains, hairpins };
  }

  // ---- addresses

  /** A cluster IP and one or two endpoints, as most Services are. */
  private serveDirectly(): boolean {
    const { port } = this;
    const [address, second] = port.addresses;
    if (address?.scope !== 'internal' || second !== undefined || port.affinitySeconds > 0) return false;
    const endpoints = this.endpoints(address.policy);
    if (endpoints.length === 0 || endpoints.length > inlineEndpoints) return false;
    const { rules } = choose(endpoints, {
      take: (endpoint, chance) => words(chance, this.dnat(endpoint)),
      groupChain: () => '',
    });
    const described = `${port.name} cluster IP`;
    this.put('services', address, [
      ...this.masquerade(address),
      ...rules.map((rule, at) => `${this.to(address, at === 0 ? described : undefined)} ${rule}`),
    ]);
    return true;
  }

  private serveInternal(address: VirtualAddress): void {
    if (this.endpoints(address.policy).length === 0) return;
    const chain = this.endpointsChain(address.policy);
    this.put('services', address, [`${this.to(address, `${this.port.name} cluster IP`)} -g ${chain}`]);
  }

  private serveExternal(address: VirtualAddress): void {
    const { port } = this;
    // A packet that nothing takes goes back to where it came from, so only what always ends may be a goto.
    if (!this.anyEndpoint(address)) return;
    const tree = address.kind === 'NodePort' ? 'nodePorts' : 'services';
    const described = this.to(address, this.describe(address));
    if (address.sourceRanges !== undefined) {
      const { sourceRanges } = address;
      if (sourceRanges.length > 0) {
        const chain = chainPrefixes.firewall + this.hash;
        this.chains.set(chain, this.firewallRules(sourceRanges));
        this.put(tree, address, [`${described} -j ${chain}`]);
      }
      this.put('firewall', address, [
        `${this.to(address, `${port.name} traffic not accepted by ${chainPrefixes.firewall}${this.hash}`)} -j DROP`,
      ]);
    } else if (this.needsExternalChain()) {
      this.put(tree, address, [`${described} -j ${this.externalChain()}`]);
    } else {
      const chain = this.endpointsChain('Cluster');
      this.put(tree, address, [`${described} ${mark}`, `${this.to(address)} -g ${chain}`]);
    }
  }

  /** What nobody serves is answered in table filter, where its address is still that of the service. */
  private refuse(address: VirtualAddress): void {
    const { fallback, scope, kind } = address;
    if (fallback === 'serve') return;
    const { name } = this.port;
    const { family, reject = true } = this.context;
    const verdict =
      fallback === 'drop' || !reject ? '-j DROP' : `-j REJECT --reject-with ${rejectWith[family]}`;
    const why = fallback === 'drop' ? 'has no local endpoints' : 'has no endpoints';
    const onNode = kind === 'NodePort';
    const tree = onNode ? 'refusedNodePorts' : scope === 'internal' ? 'refused' : 'refusedExternal';
    this.put(tree, address, [
      words(this.to(address, `${name} ${why}`), onNode ? '-m addrtype --dst-type LOCAL' : undefined, verdict),
    ]);
  }

  private put(tree: TreeName, address: VirtualAddress, rules: readonly string[]): void {
    const { protocol } = this.port;
    const key =
      address.kind === 'NodePort'
        ? portKey(protocol, address.port)
        : addressKey(address.ip, protocol, address.port);
    this.entries.push({ tree, key, rules });
  }

  // ---- chains

  /** KUBE-SVC- or KUBE-SVL-: chooses an endpoint. Made when first asked for. */
  private endpointsChain(policy: 'Cluster' | 'Local'): string {
    const chain = (policy === 'Cluster' ? chainPrefixes.cluster : chainPrefixes.local) + this.hash;
    if (this.chains.has(chain)) return chain;
    const internal = this.port.addresses.filter(
      (address) => address.scope === 'internal' && address.policy === policy,
    );
    this.chains.set(chain, [
      ...internal.flatMap((address) => this.masquerade(address)),
      ...this.choice(policy),
    ]);
    return chain;
  }

  private needsExternalChain(): boolean {
    return (
      this.external.length >= manyAddresses ||
      this.external.some(({ policy, sourceRanges }) => policy === 'Local' || sourceRanges !== undefined)
    );
  }

  /** KUBE-EXT-: who asks, and what that means. */
  private externalChain(): string {
    const chain = chainPrefixes.external + this.hash;
    if (this.chains.has(chain)) return chain;
    const rules = this.external.some(({ policy }) => policy === 'Local')
      ? this.externalLocalRules()
      : [
          `${comment(`masquerade traffic for ${this.port.name} external destinations`)} ${mark}`,
          `-g ${this.endpointsChain('Cluster')}`,
        ];
    this.chains.set(chain, rules);
    return chain;
  }

  /** Pods and processes of this node may go anywhere, others only to endpoints of this node. */
  private externalLocalRules(): string[] {
    const { name } = this.port;
    const rules: string[] = [];
    if (this.endpoints('Cluster').length > 0) {
      const chain = this.endpointsChain('Cluster');
      const pod = fromPod(this.context.detector, false);
      if (pod !== undefined) {
        rules.push(
          words(
            pod.beforeDestination,
            pod.afterDestination,
            comment(`pod traffic for ${name} external destinations`),
            `-g ${chain}`,
          ),
        );
      }
      const own = '-m addrtype --src-type LOCAL';
      rules.push(
        `${comment(`masquerade LOCAL traffic for ${name} external destinations`)} ${own} ${mark}`,
        `${comment(`route LOCAL traffic for ${name} external destinations`)} ${own} -g ${chain}`,
      );
    }
    if (this.endpoints('Local').length === 0) return rules;
    const shared = this.port.addresses.some(
      ({ scope, policy }) => scope === 'internal' && policy === 'Local',
    );
    if (shared) rules.push(`-g ${this.endpointsChain('Local')}`);
    else rules.push(...this.choice('Local'));
    return rules;
  }

  private firewallRules(ranges: readonly Cidr[]): string[] {
    const described = comment(`${this.port.name} loadbalancer IP`);
    const chain = this.externalChain();
    return ranges.map((range) => words(from(range), described, `-g ${chain}`));
  }

  // ---- rules

  private to(address: VirtualAddress, description?: string): string {
    return toAddress(
      this.context.family,
      address,
      this.port.protocol,
      description === undefined ? {} : { comment: description },
    );
  }

  private describe({ kind }: VirtualAddress): string {
    const { name } = this.port;
    switch (kind) {
      case 'ClusterIP':
        return `${name} cluster IP`;
      case 'ExternalIP':
        return `${name} external IP`;
      case 'LoadBalancerIP':
        return `${name} loadbalancer IP`;
      case 'NodePort':
        return name;
    }
  }

  /** Marks packets to a cluster IP that do not come from a pod; the endpoint could not answer past this node. */
  private masquerade(address: VirtualAddress): string[] {
    const { family, masqueradeAll, detector } = this.context;
    const { protocol } = this.port;
    if (masqueradeAll) return [`${toAddress(family, address, protocol)} ${mark}`];
    const source = fromPod(detector, true);
    return source === undefined ? [] : [`${toAddress(family, address, protocol, { source })} ${mark}`];
  }

  private choice(policy: 'Cluster' | 'Local'): string[] {
    const { port } = this;
    const endpoints = this.endpoints(policy);
    const protocol = `-p ${protocolWord(port.protocol)}`;
    const bound = port.affinitySeconds > 0;
    const { rules, chains: groups } = choose(endpoints, {
      take: (endpoint, chance) =>
        words(protocol, chance, bound ? this.remember(endpoint) : undefined, this.dnat(endpoint)),
      groupChain: (digits) => endpointGroupChain(port, policy === 'Cluster' ? 'cluster' : 'local', digits),
    });
    for (const [name, list] of groups) this.chains.set(name, list);
    if (!bound) return [...rules];
    const remembered = endpoints.map((endpoint) =>
      words(
        protocol,
        `-m recent --update --seconds ${port.affinitySeconds} --reap ${this.list(endpoint)}`,
        this.dnat(endpoint),
      ),
    );
    return [...remembered, ...rules];
  }

  private remember(endpoint: Endpoint): string {
    return `-m recent --set ${this.list(endpoint)}`;
  }

  /** The list of clients bound to an endpoint. */
  private list(endpoint: Endpoint): string {
    const mask =
      this.context.family === 'IPv4' ? '255.255.255.255' : 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff';
    return `--name ${endpointChain(this.port, endpoint)} --mask ${mask} --rsource`;
  }

  private dnat({ ip, port }: Endpoint): string {
    return `-j DNAT --to-destination ${ip.includes(':') ? `[${ip}]` : ip}:${port}`;
  }

  private endpoints(policy: 'Cluster' | 'Local'): readonly Endpoint[] {
    return policy === 'Cluster' ? this.port.clusterEndpoints : this.port.localEndpoints;
  }

  private anyEndpoint({ policy }: VirtualAddress): boolean {
    return this.endpoints('Cluster').length > 0 || (policy === 'Local' && this.endpoints('Local').length > 0);
  }
}

/** `-s IP -d IP`: a packet that goes back to where it came from. */
export function hairpinRule(family: IPFamily, ip: string): string {
  return words(`-s ${host(family, ip)}`, `-d ${host(family, ip)}`, '-m conntrack --ctstate DNAT', mark);
}
