/**
 * Names of tables, chains and counters. Those of upstream where it has one for the thing, so that tools and people find
 * what they know, and each program replaces what the other left behind. docs/iptables.md explains them.
 */
import { createHash } from 'node:crypto';
import type { Endpoint, Protocol, ServicePort } from '../../../model/types.js';

export type TableName = 'nat' | 'filter' | 'mangle';

/** Chains that are always there. */
export const chains = {
  services: 'KUBE-SERVICES',
  externalServices: 'KUBE-EXTERNAL-SERVICES',
  nodePorts: 'KUBE-NODEPORTS',
  postrouting: 'KUBE-POSTROUTING',
  markMasquerade: 'KUBE-MARK-MASQ',
  forward: 'KUBE-FORWARD',
  proxyFirewall: 'KUBE-PROXY-FIREWALL',
  /** Shared with the kubelet. */
  firewall: 'KUBE-FIREWALL',
  /** Empty. When it is gone, somebody has flushed the rules. */
  canary: 'KUBE-PROXY-CANARY',
  /** Holds rules that are tried out; no packet comes here. */
  probe: 'KUBE-PROXY-PROBE',
} as const;

/** Chains that come and go begin with one of these, as those of upstream. */
const prefixes = {
  cluster: 'KUBE-SVC-',
  local: 'KUBE-SVL-',
  endpoint: 'KUBE-SEP-',
  firewall: 'KUBE-FW-',
  external: 'KUBE-EXT-',
} as const;
export { prefixes as chainPrefixes };

/**
 * What follows: a hash (shortHash()), or the place of the chain in a tree, an address with a length (keys.ts) or a protocol
 * with a range of ports. Chains of others may begin the same way (`KUBE-FW-allow-ssh`).
 */
const volatileChain = new RegExp(
  `^(?:${Object.values(prefixes).join('|')})(?:[A-Z2-7]{16}|[\\da-f.-]+/\\d{1,3}|(?:tcp|udp|sctp)(?:-\\d{1,5}/\\d{1,2})?)$`,
);

/** A chain of Services, ours or upstream's. */
export function isServiceChain(name: string): boolean {
  return volatileChain.test(name);
}

/** What is in the way of nobody when it is deleted: no rule of others has a reason to lead there. */
export function isOwnVolatileChain(name: string): boolean {
  return name === chains.probe || isServiceChain(name);
}

/** Packet counters (nfacct) of the kernel. */
export const counters = {
  invalidDropped: 'ct_state_invalid_dropped_pkts',
  localhostNodePorts: 'localhost_nps_accepted_pkts',
} as const;

/** The kernel's limit (XT_EXTENSION_MAXNAMELEN with its end). */
export const maxChainName = 28;

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

/** The first 16 characters of the SHA-256 in base 32: 80 bits. */
export function shortHash(text: string): string {
  const digest = createHash('sha256').update(text).digest();
  let characters = '';
  for (let bit = 0; bit < 80; bit += 5) {
    const at = bit >> 3;
    const two = ((digest[at] ?? 0) << 8) | (digest[at + 1] ?? 0);
    characters += alphabet.charAt((two >> (11 - (bit & 7))) & 31);
  }
  return characters;
}

export function protocolWord(protocol: Protocol): string {
  return protocol.toLowerCase();
}

/** 'ip:port', '[ip]:port' for IPv6. */
export function endpointText({ ip, port }: Pick<Endpoint, 'ip' | 'port'>): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** The hash that all chains of a service port have in common. */
export function servicePortHash(port: Pick<ServicePort, 'name' | 'protocol'>): string {
  return shortHash(port.name + protocolWord(port.protocol));
}

/** Also the name of the list of clients that are bound to the endpoint. */
export function endpointChain(
  port: Pick<ServicePort, 'name' | 'protocol'>,
  endpoint: Pick<Endpoint, 'ip' | 'port'>,
): string {
  return prefixes.endpoint + shortHash(port.name + protocolWord(port.protocol) + endpointText(endpoint));
}

/** See released.ts. No packet comes here. */
export const releasedChain = prefixes.endpoint + shortHash('released addresses');

/** Part of a long list of endpoints. */
export function endpointGroupChain(
  port: Pick<ServicePort, 'name' | 'protocol'>,
  list: 'cluster' | 'local',
  prefix: string,
): string {
  return prefixes.endpoint + shortHash(`${port.name}${protocolWord(port.protocol)} ${list} ${prefix}`);
}
