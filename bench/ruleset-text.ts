/** Rulesets as text for `nft -f`: what our own elements are fed to as a peer, and the shape that upstream gives its rules. */
import { createHash } from 'node:crypto';

export interface RulesetSize {
  readonly services: number;
  /** Per service. */
  readonly endpoints: number;
}

function address(base: number, index: number): string {
  const number = base + index;
  return [24, 16, 8, 0].map((shift) => (number >>> shift) & 255).join('.');
}

const serviceAddress = (service: number): string => address(0x0a600000, service + 1);
const podAddress = (pod: number): string => address(0x0b000000, pod + 1);

const key = 'ip daddr . meta l4proto . th dport';

/** The elements of bareBatch() (netlink-batch.ts), as an operator would write them down. */
export function sharedMaps(table: string, size: RulesetSize): string {
  const services: string[] = [];
  const endpoints: string[] = [];
  for (let service = 0; service < size.services; service++) {
    const ip = serviceAddress(service);
    services.push(`${ip} . tcp . 80 : 1:${size.endpoints.toString(16)}`);
    for (let slot = 0; slot < size.endpoints; slot++) {
      const pod = podAddress(service * size.endpoints + slot);
      endpoints.push(`${ip} . tcp . 80 . ${slot} : ${pod} . 8080`);
    }
  }
  return `table ip ${table} {
  map service-ips { typeof ${key} : meta priority
    elements = { ${services.join(', ')} } }
  map endpoints { typeof ${key} . numgen random mod 2 : ip daddr . th dport
    elements = { ${endpoints.join(', ')} } }
}
`;
}

/** Upstream's name of the chain of a service port: hash, then what was hashed. */
function chainOf(service: number): string {
  const name = `team-${service % 50}/web-${service}/tcp/http`;
  const digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  const digest = createHash('sha256').update(name).digest().readBigUInt64BE();
  const hash = Array.from({ length: 8 }, (_, i) => digits[Number((digest >> BigInt(59 - 5 * i)) & 31n)]);
  return `service-${hash.join('')}-${name}`;
}

function drawRule(service: number, size: RulesetSize, endpoints: number): string {
  const targets = Array.from({ length: endpoints }, (_, slot) => {
    const pod = podAddress(service * size.endpoints + slot);
    return `${slot} : ${pod} . 8080`;
  });
  return `meta l4proto tcp dnat ip addr . port to numgen random mod ${endpoints} map { ${targets.join(' , ')} }`;
}

/** A service of one's own among the made-up ones, with an address of each kind. */
export interface ExtraService {
  readonly clusterIP: string;
  readonly loadBalancerIP: string;
  readonly port: number;
  readonly nodePort: number;
  /** The node's address that serves node ports. */
  readonly nodeIP: string;
  readonly server: { readonly ip: string; readonly port: number };
  readonly podCIDR: { readonly ip: string; readonly prefixLength: number };
}

/**
 * One chain per service with a map of its own, and a verdict map that leads to it: the layout of kube-proxy v1.36's
 * nftables mode without affinity, with all its base chains. The made-up services have a cluster IP each.
 */
export function chainPerService(table: string, size: RulesetSize, extra?: ExtraService): string {
  const pods = extra === undefined ? '10.128.0.0/9' : `${extra.podCIDR.ip}/${extra.podCIDR.prefixLength}`;
  const chain = (name: string, ...rules: string[]): string[] => [
    `add chain ip ${table} ${name}`,
    ...rules.map((rule) => `add rule ip ${table} ${name} ${rule}`),
  ];
  const base = (name: string, hook: string, ...rules: string[]): string[] => [
    `add chain ip ${table} ${name} { type ${hook} ; }`,
    ...rules.map((rule) => `add rule ip ${table} ${name} ${rule}`),
  ];
  const ifNew = 'ct state new jump';
  const lines = [
    `add table ip ${table}`,
    `add set ip ${table} cluster-ips { type ipv4_addr ; }`,
    `add set ip ${table} nodeport-ips { type ipv4_addr ; }`,
    `add set ip ${table} hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto . inet_service ; }`,
    ...['service-ips', 'no-endpoint-services', 'firewall-ips'].map(
      (map) => `add map ip ${table} ${map} { type ipv4_addr . inet_proto . inet_service : verdict ; }`,
    ),
    ...['service-nodeports', 'no-endpoint-nodeports'].map(
      (map) => `add map ip ${table} ${map} { type inet_proto . inet_service : verdict ; }`,
    ),
    ...chain('firewall-check', `${key} vmap @firewall-ips`),
    ...chain(
      'services',
      `ip daddr @cluster-ips ip saddr != ${pods} mark set mark or 0x00004000`,
      `${key} vmap @service-ips`,
      'ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports',
    ),
    ...chain('service-endpoints-check', `${key} vmap @no-endpoint-services`),
    ...chain(
      'nodeport-endpoints-check',
      'ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports',
    ),
    ...chain('cluster-ips-check', 'ip daddr @cluster-ips reject'),
    ...chain(
      'masquerading',
      'mark and 0x00004000 != 0 mark set mark xor 0x00004000 masquerade fully-random',
      'ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random',
    ),
    ...base('filter-prerouting-pre-dnat', 'filter hook prerouting priority -110', `${ifNew} firewall-check`),
    ...base('filter-output-pre-dnat', 'filter hook output priority -110', `${ifNew} firewall-check`),
    ...base(
      'filter-input',
      'filter hook input priority 0',
      `${ifNew} nodeport-endpoints-check`,
      `${ifNew} service-endpoints-check`,
    ),
    ...['forward', 'output'].flatMap((hook) =>
      base(
        `filter-${hook}`,
        `filter hook ${hook} priority 0`,
        `${ifNew} service-endpoints-check`,
        `${ifNew} cluster-ips-check`,
      ),
    ),
    ...base('nat-prerouting', 'nat hook prerouting priority -100', 'jump services'),
    ...base('nat-output', 'nat hook output priority -100', 'jump services'),
    ...base('nat-postrouting', 'nat hook postrouting priority 100', 'jump masquerading'),
  ];
  for (let service = 0; service < size.services; service++) {
    const chain = chainOf(service);
    const ip = serviceAddress(service);
    lines.push(
      `add chain ip ${table} ${chain}`,
      `add element ip ${table} cluster-ips { ${ip} }`,
      `add element ip ${table} service-ips { ${ip} . tcp . 80 : goto ${chain} }`,
      `add rule ip ${table} ${chain} ${drawRule(service, size, size.endpoints)}`,
    );
  }
  if (extra !== undefined) {
    const { clusterIP, loadBalancerIP, port, nodePort, nodeIP, server } = extra;
    const target = `0 : ${server.ip} . ${server.port}`;
    lines.push(
      ...chain(
        'service-extra',
        `meta l4proto tcp dnat ip addr . port to numgen random mod 1 map { ${target} }`,
      ),
      ...chain('external-extra', 'mark set mark or 0x00004000', 'goto service-extra'),
      `add element ip ${table} cluster-ips { ${clusterIP} }`,
      `add element ip ${table} nodeport-ips { ${nodeIP} }`,
      `add element ip ${table} service-ips { ${clusterIP} . tcp . ${port} : goto service-extra }`,
      `add element ip ${table} service-ips { ${loadBalancerIP} . tcp . ${port} : goto external-extra }`,
      `add element ip ${table} service-nodeports { tcp . ${nodePort} : goto external-extra }`,
    );
  }
  return `${lines.join('\n')}\n`;
}

/** What such a layout writes when one endpoint of one service goes or comes back: the chain anew. */
export function changedChain(table: string, service: number, size: RulesetSize, endpoints: number): string {
  const chain = chainOf(service);
  return `add chain ip ${table} ${chain}
flush chain ip ${table} ${chain}
add rule ip ${table} ${chain} ${drawRule(service, size, endpoints)}
`;
}
