/** Which addresses of the node accept node ports: `--nodeport-addresses` (service-model.md 7). */
import type { IPFamily } from '../../sources/objects.js';
import {
  allFamilies,
  cidrContains,
  familyOf,
  hostCidr,
  isLoopback,
  parseAddress,
  parseCidr,
} from './addresses.js';
import type { NodeIPs } from './node.js';
import type { Cidr } from '../types.js';

/** Words that stand for CIDRs, in any mix with them. */
const keywords = ['primary', 'localhost', 'all'] as const;
type Keyword = (typeof keywords)[number];

const isKeyword = (value: string): value is Keyword => (keywords as readonly string[]).includes(value);

export interface NodePortAddresses {
  readonly family: IPFamily;
  /** Every local address of the family, decided by the kernel per packet; `cidrs` is then only 0.0.0.0/0 or ::/0. */
  readonly matchAll: boolean;
  /** Never empty. */
  readonly cidrs: readonly Cidr[];
  /** The CIDRs hold loopback addresses (127.0.0.0/8, ::1): only iptables IPv4 makes something of it. */
  readonly containsLoopback: boolean;
  /** An entry is about loopback addresses alone: `localhost` or a CIDR inside of 127.0.0.0/8 or ::1/128. */
  readonly namesLoopback: boolean;
  /**
   * Set when the family falls back to all addresses although a list was given: an exposure that the operator may
   * not expect.
   */
  readonly warning: string | undefined;
}

/** What is wrong with an entry, in upstream's words. */
export interface InvalidNodePortAddress {
  readonly type: 'Invalid value' | 'Duplicate value';
  readonly allowed: string;
  readonly item: { readonly index: number; readonly value: string };
}

/** What is wrong with the list; empty when it is fine. */
export function findWrongNodePortAddresses(values: readonly string[]): readonly InvalidNodePortAddress[] {
  return values.flatMap((value, index): readonly InvalidNodePortAddress[] => {
    const item = { index, value };
    if (isKeyword(value)) {
      const first = values.indexOf(value) === index;
      return first ? [] : [{ type: 'Duplicate value', allowed: 'each keyword once', item }];
    }
    if (parseCidr(value) !== undefined) return [];
    const allowed = "must be a valid CIDR or one of the keywords 'primary', 'localhost', 'all'";
    return [{ type: 'Invalid value', allowed, item }];
  });
}

/** @param nodeIPs a loopback address stands for a family without a node IP: 'primary' says nothing about it */
function expand(value: string, nodeIPs: Pick<NodeIPs, IPFamily>): readonly Cidr[] {
  if (!isKeyword(value)) {
    const cidr = parseCidr(value)?.cidr;
    return cidr === undefined ? [] : [cidr];
  }
  switch (value) {
    case 'primary':
      return allFamilies
        .map((family) => nodeIPs[family])
        .filter((ip) => !isLoopback(ip))
        .map(hostCidr);
    case 'localhost':
      return allFamilies.map((family) => loopbackCidr[family]);
    case 'all':
      return allFamilies.map((family) => everything[family]);
  }
}

/** All loopback addresses of a family. */
export const loopbackCidr: Readonly<Record<IPFamily, Cidr>> = {
  IPv4: { ip: '127.0.0.0', prefixLength: 8 },
  IPv6: { ip: '::1', prefixLength: 128 },
};

const everything: Readonly<Record<IPFamily, Cidr>> = {
  IPv4: { ip: '0.0.0.0', prefixLength: 0 },
  IPv6: { ip: '::', prefixLength: 0 },
};

/**
 * Effective CIDRs of each family.
 *
 * @param values a list that findWrongNodePortAddresses() finds nothing in. Empty: all addresses. The default of nftables
 *   mode, `primary`, is the caller's to fill in.
 */
export function resolveNodePortAddresses(
  values: readonly string[],
  nodeIPs: Pick<NodeIPs, IPFamily>,
): Readonly<Record<IPFamily, NodePortAddresses>> {
  const cidrs = values.flatMap((value) => expand(value, nodeIPs));

  const select = (family: IPFamily): NodePortAddresses => {
    const own = cidrs.filter((cidr) => familyOf(cidr.ip) === family);
    let warning: string | undefined;
    if (own.length === 0 && values.length > 0) {
      warning = values.includes('primary')
        ? `nodePortAddresses has 'primary' but the node has no ${family} address: node ports are open on every local ${family} address; list CIDRs of both families to restrict them`
        : `cluster appears to be dual-stack but nodePortAddresses contains only ${family === 'IPv4' ? 'IPv6' : 'IPv4'} addresses; NodePort connections will be accepted on all local ${family} IPs`;
    }
    const matchAll = own.length === 0 || own.some((cidr) => cidr.prefixLength === 0);
    const effective = matchAll ? [everything[family]] : own;
    return {
      family,
      matchAll,
      cidrs: effective,
      containsLoopback: effective.some(holdsLoopback),
      namesLoopback: own.some(
        (cidr) => isLoopback(cidr.ip) && cidr.prefixLength >= loopbackCidr[family].prefixLength,
      ),
      warning,
    };
  };
  return { IPv4: select('IPv4'), IPv6: select('IPv6') };
}

/**
 * The addresses, out of those configured on the node's interfaces, that accept node ports: canonical, each once,
 * in the order given.
 *
 * @param includeLoopback true only for iptables IPv4 with localhostNodePorts
 */
export function selectNodePortIPs(
  selection: NodePortAddresses,
  interfaceAddresses: readonly string[],
  includeLoopback = false,
): readonly string[] {
  const selected = new Set<string>();
  for (const text of interfaceAddresses) {
    const address = parseAddress(text);
    if (address?.family !== selection.family) continue;
    if (isLoopback(address.ip) && !includeLoopback) continue;
    if (selection.cidrs.some((cidr) => cidrContains(cidr, address.ip))) selected.add(address.ip);
  }
  return [...selected];
}

function holdsLoopback(cidr: Cidr): boolean {
  if (familyOf(cidr.ip) === 'IPv6') return cidrContains(cidr, '::1');
  return isLoopback(cidr.ip) || cidrContains(cidr, '127.0.0.0');
}
