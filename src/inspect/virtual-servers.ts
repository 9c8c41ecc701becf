/**
 * The virtual servers of IPVS as the kernel has them, with the names that our tables and the cluster know. Needs no running
 * kube-proxy: names of service ports are comments in the tables of mode ipvs.
 */
import type { OnNamedServer } from '../backends/ipvs/leftovers/tables.js';
import {
  FORWARDING,
  IPVS_SVC_F,
  type IpvsStats,
  type IpvsListOptions,
  type RealServer,
  type VirtualServer,
  type VirtualServerKey,
} from '@kube-proxy-ts/netlink/ipvs';
import { describeKey } from '@kube-proxy-ts/netlink/ipvs';
import type { PodNames } from './pod-names.js';

/** Traffic since the virtual server or endpoint was made. */
export interface Traffic {
  readonly connections: number;
  readonly packetsIn: number;
  readonly packetsOut: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
}

export interface EndpointView {
  readonly address: string;
  readonly port: number;
  /** 'namespace/name'; undefined: not known, or no pod. */
  readonly pod: string | undefined;
  readonly weight: number;
  /** 'draining': weight 0, so it keeps its connections and gets no new ones. */
  readonly state: 'serving' | 'draining';
  readonly activeConnections: number;
  /** Closing ones, and all of UDP. */
  readonly inactiveConnections: number;
  /** Clients that affinity leads here. */
  readonly persistentConnections: number;
  /** 'masquerade' is kube-proxy's. */
  readonly forwarding: string;
  readonly traffic: Traffic | undefined;
}

export interface VirtualServerView {
  readonly family: 'IPv4' | 'IPv6';
  /** 'TCP', 'UDP', 'SCTP', a number; '' for one that is known by a mark. */
  readonly protocol: string;
  /** '' for one that is known by a mark. */
  readonly address: string;
  readonly port: number;
  /** Of packets from pods and this node to an address with externalTrafficPolicy Local; undefined: known by address. */
  readonly mark: number | undefined;
  /** 'namespace/name:port', or 'namespace/name' when the port has no name; undefined: not known. */
  readonly servicePort: string | undefined;
  readonly owner: 'kube-proxy' | 'other';
  readonly scheduler: string;
  /** Words of ipvsadm(8): 'ops', 'sh-fallback', 'sh-port', 'mh-fallback', 'mh-port', 'flag-1' and so on. */
  readonly schedulerFlags: readonly string[];
  /** Session affinity: how long a client stays with its endpoint; 0: there is none. */
  readonly affinitySeconds: number;
  readonly traffic: Traffic | undefined;
  readonly endpoints: readonly EndpointView[];
}

/** What is read from; IpvsConnection is one. */
export interface IpvsReader {
  listServices(options?: IpvsListOptions): VirtualServer[];
  listDestinations(service: VirtualServerKey, options?: IpvsListOptions): RealServer[];
}

export interface ReadOptions {
  readonly isOurs: (key: VirtualServerKey) => boolean;
  /** See readTableServers(). */
  readonly readNames: (onServer: OnNamedServer) => void;
  readonly pods: PodNames;
  /** Only this namespace's; undefined: all. */
  readonly namespace?: string | undefined;
  /** Only this Service's; undefined: all. */
  readonly service?: string | undefined;
}

/** Reads what the kernel has, ordered by family, address and port; those by mark last. @throws NetlinkError */
export function readVirtualServers(ipvs: IpvsReader, options: ReadOptions): VirtualServerView[] {
  const names = new Map<string, string | undefined>();
  options.readNames((key, name) => names.set(describeKey(key), name));
  const views: VirtualServerView[] = [];
  for (const server of ipvs.listServices({ counters: true }).sort(byKey)) {
    const name = names.get(describeKey(server.key));
    if (!isWanted(name, options)) continue;
    let destinations: RealServer[];
    try {
      destinations = ipvs.listDestinations(server.key, { counters: true });
    } catch (error) {
      // Deleted meanwhile.
      if (error instanceof Error && 'code' in error && (error.code === 'ESRCH' || error.code === 'ENOENT'))
        continue;
      throw error;
    }
    views.push(viewOf(server, destinations, name, options));
  }
  return views;
}

function isWanted(name: string | undefined, { namespace, service }: ReadOptions): boolean {
  if (namespace === undefined && service === undefined) return true;
  const known = name === undefined ? undefined : splitServicePort(name);
  return (
    known !== undefined &&
    (namespace === undefined || known.namespace === namespace) &&
    (service === undefined || known.service === service)
  );
}

/** @param name 'namespace/name:port' */
export function splitServicePort(name: string): { namespace: string; service: string } {
  const [namespace = '', rest = ''] = name.split('/', 2);
  return { namespace, service: rest.split(':', 1)[0] ?? '' };
}

const protocols: ReadonlyMap<number, string> = new Map([
  [6, 'TCP'],
  [17, 'UDP'],
  [132, 'SCTP'],
]);

function viewOf(
  { key, settings, counters }: VirtualServer,
  destinations: readonly RealServer[],
  name: string | undefined,
  { isOurs, pods }: ReadOptions,
): VirtualServerView {
  const byMark = 'fwmark' in key;
  const service = name === undefined ? undefined : splitServicePort(name);
  return {
    family: key.family === 'ip' ? 'IPv4' : 'IPv6',
    protocol: byMark ? '' : (protocols.get(key.protocol) ?? String(key.protocol)),
    address: byMark ? '' : key.address,
    port: byMark ? 0 : key.port,
    mark: byMark ? key.fwmark : undefined,
    servicePort: name,
    owner: isOurs(key) ? 'kube-proxy' : 'other',
    scheduler: settings.scheduler,
    schedulerFlags: flagWords(settings.scheduler, settings.flags),
    affinitySeconds: (settings.flags & IPVS_SVC_F.persistent) === 0 ? 0 : settings.timeoutSeconds,
    traffic: trafficOf(counters),
    endpoints: destinations
      .map((destination) => endpointOf(destination, service, pods))
      .sort((a, b) => compareAddresses(a.address, b.address) || a.port - b.port),
  };
}

function endpointOf(
  { key, settings, counters, ...connections }: RealServer,
  service: { namespace: string; service: string } | undefined,
  pods: PodNames,
): EndpointView {
  return {
    address: key.address,
    port: key.port,
    pod: service === undefined ? undefined : pods.podOf(service.namespace, service.service, key.address),
    weight: settings.weight,
    state: settings.weight === 0 ? 'draining' : 'serving',
    activeConnections: connections.activeConnections,
    inactiveConnections: connections.inactiveConnections,
    persistentConnections: connections.persistentConnections,
    forwarding: forwardingWords[settings.forwarding] ?? String(settings.forwarding),
    traffic: trafficOf(counters),
  };
}

const forwardingWords: Readonly<Record<number, string>> = {
  [FORWARDING.masquerade]: 'masquerade',
  [FORWARDING.local]: 'local',
  [FORWARDING.tunnel]: 'tunnel',
  [FORWARDING.directRouting]: 'route',
  [FORWARDING.bypass]: 'bypass',
};

/** As ipvsadm(8) names them. */
function flagWords(scheduler: string, flags: number): string[] {
  const hashes = scheduler === 'sh' || scheduler === 'mh';
  const words: readonly (readonly [bit: number, word: string])[] = [
    [IPVS_SVC_F.onePacket, 'ops'],
    [IPVS_SVC_F.schedulerFlag1, hashes ? `${scheduler}-fallback` : 'flag-1'],
    [IPVS_SVC_F.schedulerFlag2, hashes ? `${scheduler}-port` : 'flag-2'],
    [IPVS_SVC_F.schedulerFlag3, 'flag-3'],
  ];
  return words.filter(([bit]) => (flags & bit) !== 0).map(([, word]) => word);
}

function trafficOf(counters: IpvsStats | undefined): Traffic | undefined {
  if (counters === undefined) return undefined;
  const { connections, packetsIn, packetsOut, bytesIn, bytesOut } = counters;
  return {
    connections: Number(connections),
    packetsIn: Number(packetsIn),
    packetsOut: Number(packetsOut),
    bytesIn: Number(bytesIn),
    bytesOut: Number(bytesOut),
  };
}

function byKey({ key: a }: VirtualServer, { key: b }: VirtualServer): number {
  if (a.family !== b.family) return a.family === 'ip' ? -1 : 1;
  if ('fwmark' in a || 'fwmark' in b) {
    if ('fwmark' in a && 'fwmark' in b) return a.fwmark - b.fwmark;
    return 'fwmark' in a ? 1 : -1;
  }
  return compareAddresses(a.address, b.address) || a.port - b.port || a.protocol - b.protocol;
}

/** Numbers in addresses count as numbers: 10.96.0.2 comes before 10.96.0.10. */
function compareAddresses(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}
