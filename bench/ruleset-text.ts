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

/**
 * One chain per service with a map of its own, and a verdict map that leads to it: the layout of kube-proxy v1.36's
 * nftables mode for cluster IPs without affinity.
 */
export function chainPerService(table: string, size: RulesetSize): string {
  const lines = [
    `add table ip ${table}`,
    `add set ip ${table} cluster-ips { type ipv4_addr ; }`,
    `add map ip ${table} service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }`,
    `add chain ip ${table} services`,
    `add rule ip ${table} services ip daddr @cluster-ips ip saddr != 10.128.0.0/9 mark set mark or 0x00004000`,
    `add rule ip ${table} services ${key} vmap @service-ips`,
    `add chain ip ${table} nat-prerouting { type nat hook prerouting priority -100 ; }`,
    `add rule ip ${table} nat-prerouting jump services`,
    `add chain ip ${table} nat-output { type nat hook output priority -100 ; }`,
    `add rule ip ${table} nat-output jump services`,
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
