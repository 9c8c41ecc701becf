/**
 * The footprint of a service port: the virtual servers that it wants, and what the tables have to know about each. Pure:
 * the difference between two footprints is what has to be written.
 */
import { IPVS_SVC_F, type VirtualServerKey, type VirtualServerSettings } from '@kube-proxy-ts/netlink/ipvs';
import type { Endpoint, Protocol, ServicePort, VirtualAddress } from '../../model/types.js';
import { addressBytes, hairpinKey, hostUint32, serviceKey } from '../nft/keys.js';
import { sourceRangeSet } from '../nft/source-range-rules.js';
import { maskAddress } from '../nft/source-ranges.js';
import { maps, sets } from './table/names.js';
import { affinityByHash, type Scheduler } from './servers/schedulers.js';

/** What IPVS is to hold. */
export interface DesiredServer {
  /** See serverId(). */
  readonly id: string;
  readonly key: VirtualServerKey;
  readonly protocol: Protocol;
  readonly settings: VirtualServerSettings;
  readonly endpoints: readonly Endpoint[];
  /** Who has to answer for it. */
  readonly owner: ServicePort;
}

/** A virtual server with an address, and the elements that go with it. */
export interface AddressPlan {
  readonly server: DesiredServer;
  readonly address: VirtualAddress;
  /** Of a virtual server by mark that serves pods and this host here; 0: there is none. */
  readonly mark: number;
}

export interface Element {
  readonly set: string;
  readonly key: string;
  /** undefined in sets. */
  readonly value: string | undefined;
  readonly comment: string | undefined;
}

export interface DesiredState {
  /** Addresses of the Service, by id. */
  readonly services: ReadonlyMap<string, AddressPlan>;
  /** Node ports on each of the node's addresses, by id; an address of a Service takes precedence. */
  readonly nodePorts: ReadonlyMap<string, AddressPlan>;
  /** Serves pods and this host where outsiders get local endpoints only. */
  readonly byMark: DesiredServer | undefined;
  /** Keys of the set of hairpin connections; several service ports may have the same. */
  readonly hairpins: ReadonlySet<string>;
}

export const noState: DesiredState = {
  services: new Map(),
  nodePorts: new Map(),
  byMark: undefined,
  hairpins: new Set(),
};

export interface FootprintContext {
  /** Name of the scheduler, as the kernel knows it. */
  readonly scheduler: string;
  readonly traits: Scheduler;
  /** The node's addresses that serve node ports, canonical text. */
  readonly nodePortAddresses: readonly string[];
}

const protocolNumber: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

/** An address of a virtual server's, as the key of the sets: bytes as latin1. By mark: 'mark N', which no key looks like. */
export function serverId(key: VirtualServerKey): string {
  if ('fwmark' in key) return `mark ${key.fwmark}`;
  const protocol = (Object.keys(protocolNumber) as Protocol[]).find(
    (p) => protocolNumber[p] === key.protocol,
  );
  // Other protocols are never ours.
  return protocol === undefined
    ? `protocol ${key.protocol} ${key.address} ${key.port}`
    : serviceKey(key.address, protocol, key.port);
}

export function protocolOf(key: VirtualServerKey): Protocol | undefined {
  if ('fwmark' in key) return undefined;
  return (Object.keys(protocolNumber) as Protocol[]).find((p) => protocolNumber[p] === key.protocol);
}

/** Whether a service port needs a virtual server by mark beside those by address. */
export function needsMark(port: ServicePort): boolean {
  return port.clusterEndpoints.length > 0 && port.addresses.some(hasTwoLists);
}

function hasTwoLists(address: VirtualAddress): boolean {
  return address.scope === 'external' && address.policy === 'Local';
}

/** @param mark from Marks, when needsMark(); else 0 */
export function desiredState(port: ServicePort, mark: number, context: FootprintContext): DesiredState {
  const family = port.family === 'IPv4' ? 'ip' : 'ip6';
  const affinity = port.affinitySeconds > 0;
  const settings: VirtualServerSettings = {
    scheduler: context.scheduler,
    flags: (affinity ? IPVS_SVC_F.persistent : 0) | context.traits.flags,
    timeoutSeconds: port.affinitySeconds,
    clientPrefixLength: family === 'ip' ? 32 : 128,
  };
  const services = new Map<string, AddressPlan>();
  const nodePorts = new Map<string, AddressPlan>();
  const hairpins = new Set<string>();

  const plan = (address: VirtualAddress, ip: string): [string, AddressPlan] => {
    const id = serviceKey(ip, port.protocol, address.port);
    const key = { family, protocol: protocolNumber[port.protocol], address: ip, port: address.port } as const;
    const endpoints = address.policy === 'Local' ? port.localEndpoints : port.clusterEndpoints;
    const server = { id, key, protocol: port.protocol, settings, endpoints, owner: port };
    return [id, { server, address, mark: hasTwoLists(address) ? mark : 0 }];
  };
  for (const address of port.addresses) {
    if (address.kind === 'NodePort')
      for (const ip of context.nodePortAddresses) nodePorts.set(...plan(address, ip));
    else services.set(...plan(address, address.ip));
  }
  for (const list of [port.clusterEndpoints, port.localEndpoints]) {
    for (const endpoint of list)
      if (endpoint.local || endpoint.nodeUnknown) hairpins.add(hairpinKey(endpoint, port.protocol));
  }
  const key = { family, fwmark: mark } as const;
  const byMark: DesiredServer | undefined =
    mark === 0
      ? undefined
      : {
          id: serverId(key),
          key,
          protocol: port.protocol,
          settings: settingsByMark(settings),
          endpoints: port.clusterEndpoints,
          owner: port,
        };
  return { services, nodePorts, byMark, hairpins };
}

/**
 * With a mark, IPVS's own affinity does not translate the port of a packet (ip_vs_sched_persist() of ip_vs_core.c compares
 * it with the virtual server's, which has none then): the client would be sent to the endpoint's port of the same number.
 * Maglev hashing of the client's address does, and few clients move when endpoints come and go.
 */
function settingsByMark(settings: VirtualServerSettings): VirtualServerSettings {
  if ((settings.flags & IPVS_SVC_F.persistent) === 0) return settings;
  const { scheduler, flags } = affinityByHash;
  return { ...settings, scheduler, flags, timeoutSeconds: 0 };
}

const maxCommentBytes = 128;

/** `ns/name:port`, cut to what the kernel's tools accept. */
export function commentOf(port: ServicePort): string {
  return port.name.length <= maxCommentBytes ? port.name : `${port.name.slice(0, maxCommentBytes - 3)}...`;
}

/** What the tables have to know about a virtual server. The first one names it for people. */
export function elementsOf({ server, address, mark }: AddressPlan): Element[] {
  const key = server.id;
  const element = (set: string, value?: string): Element => ({ set, key, value, comment: undefined });
  const elements: Element[] = [{ ...element(sets.serviceIPs), comment: commentOf(server.owner) }];
  if (hasTwoLists(address)) elements.push(element(sets.localIPs));
  else if (address.scope === 'external') elements.push(element(sets.externalIPs));
  if (mark !== 0) elements.push(element(maps.shortCircuits, hostUint32(mark)));
  if (address.fallback === 'reject') elements.push(element(sets.rejectedIPs));
  if (address.fallback === 'drop')
    elements.push(element(hasTwoLists(address) ? sets.droppedLocalIPs : sets.droppedIPs));
  if (address.sourceRanges !== undefined) {
    elements.push(element(sets.firewallIPs));
    const ranges = new Map<string, Element>();
    for (const { ip, prefixLength } of address.sourceRanges) {
      const network = maskAddress(addressBytes(ip), prefixLength);
      ranges.set(`${network}/${prefixLength}`, {
        ...element(sourceRangeSet(prefixLength)),
        key: network + key,
      });
    }
    elements.push(...ranges.values());
  }
  return elements;
}
