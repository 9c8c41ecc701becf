/**
 * Two independent accounts of what the table holds, as lines of text that a test can compare: what the kernel has
 * (`readLines`), and what service ports ask for (`desiredLines`). Neither uses the code that writes the table: keys are
 * taken apart here by hand, class numbers are followed to their chains, slots have to be dense, affinity numbers are
 * replaced by what they stand for.
 */
import { formatAddress } from '@kube-proxy-ts/netlink';
import { isVerdict, type NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import type { Endpoint, IPFamily, ServicePort, VirtualAddress } from '../../../model/types.js';

const protocols = new Map([
  [6, 'TCP'],
  [17, 'UDP'],
  [132, 'SCTP'],
]);

const addressMaps: Readonly<Record<string, string>> = {
  'service-ips': 'class',
  'service-nodeports': 'class',
  'short-circuit-ips': 'short circuit',
  'short-circuit-nodeports': 'short circuit',
  'local-ips': 'local',
  'local-nodeports': 'local',
};
const slotMaps: Readonly<Record<string, 'cluster' | 'local'>> = {
  endpoints: 'cluster',
  'endpoints-local': 'local',
  'nodeport-endpoints': 'cluster',
  'nodeport-endpoints-local': 'local',
};
const addressSets: Readonly<Record<string, string>> = {
  'firewall-ips': 'guarded',
  'rejected-ips': 'rejected',
  'rejected-nodeports': 'rejected',
  'dropped-ips': 'dropped',
  'dropped-nodeports': 'dropped',
};

/** Everything of the table but chains and rules. */
export function readLines(connection: NftablesConnection, family: IPFamily): string[] {
  const nft = family === 'IPv4' ? 'ip' : 'ip6';
  const size = family === 'IPv4' ? 4 : 16;
  const lines: string[] = [];
  const classes = new Map<number, string>();
  const pickClasses = new Map<number, string>();
  const slots = new Map<string, string[]>();
  const rangeKeys: [string, string][] = [];
  const affinityOf = new Map<string, number>();
  const affinitySlots = new Map<string, number[]>();
  const affinityEndpoints = new Map<string, string>();

  const at = (bytes: Buffer, from: number): string => formatAddress(bytes.subarray(from, from + size));
  const service = (bytes: Buffer, from: number, hasAddress: boolean): string => {
    const rest = hasAddress ? from + size : from;
    const ip = hasAddress ? at(bytes, from) : '*';
    return `${ip} ${bytes.readUInt16BE(rest + 4)}/${protocols.get(bytes[rest] ?? 0) ?? '?'}`;
  };
  const target = (bytes: Buffer): string => `${at(bytes, 0)} ${bytes.readUInt16BE(size)}`;
  const put = <T>(map: Map<string, T[]>, key: string, slot: number, value: T): void => {
    const list = map.get(key) ?? [];
    if (list[slot] !== undefined) lines.push(`${key}: slot ${slot} twice`);
    list[slot] = value;
    map.set(key, list);
  };
  const each = (
    set: string,
    take: (key: Buffer, value: Buffer, comment: string | undefined) => void,
  ): void => {
    for (const { key, value, comment } of elementsOf(connection, nft, set)) take(key, value, comment);
  };
  const verdicts = (set: string, into: Map<number, string>): void => {
    connection.listElements(nft, 'kube-proxy', set, (key, value) => {
      const verdict =
        value !== undefined && isVerdict(value) && 'chain' in value ? value.chain : 'not a chain';
      into.set(key.readUInt32LE(), verdict);
    });
  };

  const names = connection.listSets(nft, 'kube-proxy').map(({ name }) => name);
  verdicts('service-classes', classes);
  verdicts('pick-classes', pickClasses);
  for (const name of names) {
    const nodePort = name.includes('nodeport');
    const range = /^source-ranges-(\d+)$/.exec(name)?.[1];
    if (range !== undefined) {
      each(name, (key) => rangeKeys.push([service(key, size, true), `${at(key, 0)}/${range}`]));
    } else if (addressMaps[name] !== undefined) {
      const what = addressMaps[name];
      each(name, (key, value, comment) => {
        const id = value.readUInt32LE();
        const chain = (what === 'class' ? classes : pickClasses).get(id) ?? `no chain for ${id.toString(16)}`;
        lines.push(
          `${service(key, 0, !nodePort)}: ${what} ${chain}${comment === undefined ? '' : ` of ${comment}`}`,
        );
      });
    } else if (slotMaps[name] !== undefined) {
      const what = slotMaps[name];
      each(name, (key, value) => {
        const end = key.length - 4;
        put(slots, `${service(key, 0, !nodePort)}: ${what}`, key.readUInt32LE(end), target(value));
      });
    } else if (addressSets[name] !== undefined) {
      const what = addressSets[name];
      each(name, (key, _, comment) => lines.push(`${service(key, 0, !nodePort)}: ${what}, ${comment ?? ''}`));
    } else if (name === 'affinity-ips' || name === 'affinity-nodeports') {
      each(name, (key, value) => affinityOf.set(service(key, 0, !nodePort), value.readUInt32LE()));
    } else if (name === 'affinity-slots' || name === 'affinity-slots-local') {
      const what = name === 'affinity-slots' ? 'cluster' : 'local';
      each(name, (key, value) => {
        put(affinitySlots, `${key.readUInt32LE()} ${what}`, key.readUInt32LE(4), value.readUInt32LE());
      });
    } else if (name === 'affinity-endpoints' || name === 'affinity-endpoints-local') {
      const what = name === 'affinity-endpoints' ? 'cluster' : 'local';
      each(name, (key, value) => affinityEndpoints.set(`${key.readUInt32LE()} ${what}`, target(value)));
    } else if (name === 'cluster-ips' || name === 'nodeport-ips') {
      each(name, (key) => lines.push(`${name}: ${at(key, 0)}`));
    } else if (name === 'hairpin-connections') {
      each(name, (key) => {
        if (at(key, 0) !== at(key, size)) lines.push('hairpin: two addresses');
        lines.push(`hairpin: ${service(key, size, true)}`);
      });
    } else if (name === 'service-cidrs') {
      connection.listElements(nft, 'kube-proxy', name, (key, _, info) => {
        lines.push(`service-cidrs: ${info.intervalEnd ? 'before' : 'from'} ${at(key, 0)}`);
      });
    } else if (!['service-classes', 'pick-classes', 'affinity'].includes(name)) {
      lines.push(`unknown set ${name}`);
    }
  }
  for (const [key, list] of slots) lines.push(`${key} ${dense(list).sort().join(', ')}`);
  const ranges = new Map<string, string[]>();
  for (const [key, cidr] of rangeKeys) ranges.set(key, [...(ranges.get(key) ?? []), cidr]);
  for (const [key, list] of ranges) lines.push(`${key}: from ${list.sort().join(', ')}`);

  // A group: the service port behind an affinity number.
  const groups = new Map<number, string[]>();
  for (const [key, number] of affinityOf) groups.set(number, [...(groups.get(number) ?? []), key]);
  for (const [number, keys] of groups) {
    const name = keys.sort().join(' = ');
    lines.push(`affinity ${name}`);
    for (const what of ['cluster', 'local'] as const) {
      const minors = dense(affinitySlots.get(`${number} ${what}`) ?? []);
      affinitySlots.delete(`${number} ${what}`);
      const targets = minors.map((minor) => {
        const found = affinityEndpoints.get(`${minor} ${what}`) ?? `no endpoint ${minor.toString(16)}`;
        affinityEndpoints.delete(`${minor} ${what}`);
        return minor >>> 16 === number >>> 16 ? found : `${found} of another service port`;
      });
      if (targets.length > 0) lines.push(`affinity ${name}: ${what} ${targets.sort().join(', ')}`);
    }
  }
  for (const key of affinitySlots.keys()) lines.push(`affinity slots of nobody: ${key}`);
  for (const key of affinityEndpoints.keys()) lines.push(`affinity endpoints of nobody: ${key}`);
  return lines.sort();
}

interface Found {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly comment: string | undefined;
}

const dumpAttempts = 400;
const dumpPauseMs = 25;

/**
 * While the kernel moves a set that has just grown to a larger hash table, a dump brings some elements twice and
 * leaves out others (NftablesConnection.listElements): then it is taken again.
 */
function elementsOf(connection: NftablesConnection, nft: 'ip' | 'ip6', set: string): Found[] {
  for (let attempt = 0; attempt < dumpAttempts; attempt++) {
    const found = new Map<string, Found>();
    let delivered = 0;
    const count = connection.getSet(nft, 'kube-proxy', set)?.count ?? 0;
    connection.listElements(nft, 'kube-proxy', set, (key, value, { comment }) => {
      delivered++;
      const bytes = value === undefined || isVerdict(value) ? Buffer.alloc(0) : Buffer.from(value);
      found.set(key.toString('hex'), { key: Buffer.from(key), value: bytes, comment });
    });
    if (found.size === delivered && found.size >= count) return [...found.values()];
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, dumpPauseMs);
  }
  throw new Error(`every dump of ${set} was disturbed`);
}

function dense<T>(list: readonly (T | undefined)[]): T[] {
  return Array.from(list, (item, slot) => {
    if (item === undefined) throw new Error(`slot ${slot} of ${list.length} is empty`);
    return item;
  });
}

/** Fixed sets beside the service ports. */
export interface TableContext {
  readonly nodePortIPs?: readonly string[];
  /** As readLines prints them: 'from 10.96.0.0', 'before 10.112.0.0'. */
  readonly serviceCIDRs?: readonly string[];
}

export function desiredLines(ports: Iterable<ServicePort>, around: TableContext = {}): string[] {
  const lines = new Set<string>();
  for (const ip of around.nodePortIPs ?? []) lines.add(`nodeport-ips: ${ip}`);
  for (const edge of around.serviceCIDRs ?? []) lines.add(`service-cidrs: ${edge}`);
  for (const port of ports) for (const line of linesOf(port)) lines.add(line);
  return [...lines].sort();
}

function linesOf(port: ServicePort): string[] {
  const { clusterEndpoints: cluster, localEndpoints: local, protocol } = port;
  const text = (list: readonly Endpoint[]): string =>
    list
      .map(({ ip, port: n }) => `${ip} ${n}`)
      .sort()
      .join(', ');
  const lines = [`cluster-ips: ${port.clusterIP}`];
  for (const endpoint of [...cluster, ...local]) {
    if (endpoint.local || endpoint.nodeUnknown)
      lines.push(`hairpin: ${endpoint.ip} ${endpoint.port}/${protocol}`);
  }
  const keyOf = ({ kind, ip, port: number }: VirtualAddress): string =>
    `${kind === 'NodePort' ? '*' : ip} ${number}/${protocol}`;
  const chain = (kind: string, list: readonly Endpoint[]): string =>
    `${kind}-${list.length}${port.affinitySeconds > 0 ? `-affinity-${port.affinitySeconds}` : ''}`;

  for (const address of port.addresses) {
    const key = keyOf(address);
    const node = address.kind === 'NodePort' ? 'nodeport' : undefined;
    const external = address.scope === 'external';
    const useCluster = address.policy === 'Cluster' || external;
    const useLocal = address.policy === 'Local';
    const whose = `of ${port.name}`;
    if (external && useLocal) {
      if (cluster.length + local.length > 0) lines.push(`${key}: class ${node ?? 'external'}-local ${whose}`);
      if (cluster.length > 0)
        lines.push(`${key}: short circuit ${chain(node === undefined ? 'pick' : 'nodeport-pick', cluster)}`);
      if (local.length > 0)
        lines.push(
          `${key}: local ${chain(node === undefined ? 'pick-local' : 'nodeport-pick-local', local)}`,
        );
    } else if (useLocal) {
      if (local.length > 0) lines.push(`${key}: class ${chain('cluster-local', local)} ${whose}`);
    } else if (cluster.length > 0) {
      lines.push(`${key}: class ${chain(external ? (node ?? 'external') : 'cluster', cluster)} ${whose}`);
    }
    if (port.affinitySeconds === 0) {
      if (useCluster && cluster.length > 0) lines.push(`${key}: cluster ${text(cluster)}`);
      if (useLocal && local.length > 0) lines.push(`${key}: local ${text(local)}`);
    }
    if (address.fallback === 'reject') lines.push(`${key}: rejected, ${port.name}`);
    if (address.fallback === 'drop') lines.push(`${key}: dropped, ${port.name}`);
    const { sourceRanges } = address;
    if (sourceRanges === undefined) continue;
    lines.push(`${key}: guarded, ${port.name}`);
    const ranges = new Set(sourceRanges.map(({ ip, prefixLength }) => `${ip}/${prefixLength}`));
    if (ranges.size > 0) lines.push(`${key}: from ${[...ranges].sort().join(', ')}`);
  }
  if (port.affinitySeconds > 0 && port.addresses.length > 0) {
    const group = port.addresses.map(keyOf).sort().join(' = ');
    lines.push(`affinity ${group}`);
    if (cluster.length > 0) lines.push(`affinity ${group}: cluster ${text(cluster)}`);
    if (local.length > 0) lines.push(`affinity ${group}: local ${text(local)}`);
  }
  return lines;
}
