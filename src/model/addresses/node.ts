/**
 * The node's own addresses and primary family (process.md 2 and 3). They are not listening addresses: they decide
 * whether source ranges hold the node itself and what `--nodeport-addresses primary` means.
 */
import type { IPFamily, NodeAddress } from '../../sources/objects.js';
import { isLoopback, isUnspecified, parseAddress, type ParsedAddress } from './addresses.js';

export interface NodeIPs {
  readonly primaryFamily: IPFamily;
  /** Canonical text; the placeholder 127.0.0.1 when the node has no IPv4 address. */
  readonly IPv4: string;
  /** Canonical text; the placeholder ::1 when the node has no IPv6 address. */
  readonly IPv6: string;
  /** What the operator should know, one sentence each. */
  readonly warnings: readonly string[];
}

/**
 * The addresses of Node.status.addresses that count: InternalIPs before ExternalIPs, of these the first one and
 * the first one of the other family. At most two, canonical; empty when the node has none yet.
 */
export function nodeStatusIPs(addresses: readonly NodeAddress[]): readonly string[] {
  const parsed = ['InternalIP', 'ExternalIP']
    .flatMap((type) => addresses.filter((address) => address.type === type))
    .map((address) => parseAddress(address.address.trim()))
    .filter((address): address is ParsedAddress => address !== undefined);
  const first = parsed[0];
  if (first === undefined) return [];
  const second = parsed.find((address) => address.family !== first.family);
  return second === undefined ? [first.ip] : [first.ip, second.ip];
}

/**
 * @param statusIPs what nodeStatusIPs() found
 * @param bindAddress `--bind-address`; '' or an unspecified address means "use the Node object"
 */
export function resolveNodeIPs(statusIPs: readonly string[], bindAddress: string): NodeIPs {
  const ips: Record<IPFamily, string> = { IPv4: '127.0.0.1', IPv6: '::1' };
  let primaryFamily: IPFamily = 'IPv4';
  const parsed = statusIPs.map(parseAddress).filter((address) => address !== undefined);
  for (const { family, ip } of parsed) ips[family] = ip;
  if (parsed[0] !== undefined) primaryFamily = parsed[0].family;

  const bind = parseAddress(bindAddress);
  if (bind !== undefined && !isUnspecified(bind.ip)) {
    primaryFamily = bind.family;
    ips[bind.family] = bind.ip;
  }
  const warnings: string[] = [];
  if (isLoopback(ips[primaryFamily])) {
    warnings.push(
      `the node's primary IP is ${ips[primaryFamily]}, a loopback address: set --bind-address to an address of this node`,
    );
  }
  return { primaryFamily, ...ips, warnings };
}
