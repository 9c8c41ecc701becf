/** Which addresses of the node accept node ports: `--nodeport-addresses` (service-model.md 7). */
import type { IPFamily } from '../kube/objects.js';
import {
  BOTH_FAMILIES,
  cidrContains,
  familyOf,
  hostCidr,
  isLoopback,
  parseAddress,
  parseCidr,
} from './addresses.js';
import type { NodeIPs } from './node.js';
import type { Cidr } from './types.js';

/** The one word that stands for the node's own IPs. */
const PRIMARY = 'primary';

export interface NodePortAddresses {
  readonly family: IPFamily;
  /** Every local address of the family, decided by the kernel per packet; `cidrs` is then only 0.0.0.0/0 or ::/0. */
  readonly matchAll: boolean;
  /** Never empty. */
  readonly cidrs: readonly Cidr[];
  /** The CIDRs hold loopback addresses (127.0.0.0/8, ::1): only iptables IPv4 makes something of it. */
  readonly containsLoopback: boolean;
  /**
   * Set when the family falls back to all addresses although a list was given: an exposure that the operator may
   * not expect.
   */
  readonly warning: string | undefined;
}

/** What is wrong with the list, one sentence per entry; empty when it is fine. */
export function validateNodePortAddresses(values: readonly string[]): readonly string[] {
  if (values.length !== 1 && values.includes(PRIMARY)) {
    return [`can't use both '${PRIMARY}' and CIDRs in nodePortAddresses`];
  }
  return values
    .filter((value) => value !== PRIMARY && parseCidr(value) === undefined)
    .map((value) => `nodePortAddresses entry '${value}' must be a valid CIDR, such as 192.0.2.0/24`);
}

/**
 * Effective CIDRs of each family.
 *
 * @param values a list that validateNodePortAddresses() accepts. Empty: all addresses. The default of nftables
 *   mode, `primary`, is the caller's to fill in.
 */
export function resolveNodePortAddresses(
  values: readonly string[],
  nodeIPs: Pick<NodeIPs, IPFamily>,
): Readonly<Record<IPFamily, NodePortAddresses>> {
  const usesPrimary = values.includes(PRIMARY);
  const cidrs = usesPrimary
    ? BOTH_FAMILIES.map((family) => nodeIPs[family])
        .filter((ip) => !isLoopback(ip))
        .map(hostCidr)
    : values.map((value) => parseCidr(value)?.cidr).filter((cidr) => cidr !== undefined);

  const select = (family: IPFamily): NodePortAddresses => {
    const own = cidrs.filter((cidr) => familyOf(cidr.ip) === family);
    let warning: string | undefined;
    if (own.length === 0 && values.length > 0) {
      warning = usesPrimary
        ? `nodePortAddresses is 'primary' but the node has no ${family} address: node ports are open on every local ${family} address; list CIDRs of both families to restrict them`
        : `nodePortAddresses lists no ${family} CIDR: node ports are open on every local ${family} address; add a ${family} CIDR to restrict them`;
    }
    const matchAll = own.length === 0 || own.some((cidr) => cidr.prefixLength === 0);
    const effective = matchAll ? [{ ip: family === 'IPv4' ? '0.0.0.0' : '::', prefixLength: 0 }] : own;
    return { family, matchAll, cidrs: effective, containsLoopback: effective.some(holdsLoopback), warning };
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
