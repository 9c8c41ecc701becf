/**
 * Addresses that an earlier process led somewhere, and that are no service port's now: their elements are about to go, their
 * flows are not. Only of UDP and SCTP, whose flows know no end.
 */
import { formatIpPort } from '../../model/addresses/addresses.js';
import type { Protocol, ReleasedAddress } from '../../model/types.js';
import { addressText } from '../nft/keys.js';
import { slotMaps, type KernelTable } from './kernel/kernel-table.js';
import { maps } from './layout/names.js';

const protocols: Readonly<Partial<Record<number, Protocol>>> = { 17: 'UDP', 132: 'SCTP' };
/** `meta l4proto . th dport`, behind the address. */
const portLength = 8;
const slotLength = 4;

/** @param addressLength bytes of an address of this family */
export function releasedAddresses(kernel: KernelTable, addressLength: 4 | 16): ReleasedAddress[] {
  const found = new Map<string, Set<string>>();
  const note = (key: string, targets: Iterable<string>): void => {
    let endpoints = found.get(key);
    if (endpoints === undefined) found.set(key, (endpoints = new Set()));
    for (const target of targets) endpoints.add(endpointText(target, addressLength));
  };
  for (const set of slotMaps) {
    const start = isOfNodePorts(set) ? 0 : addressLength;
    const slots = kernel.leftSlots(set, (key) => protocolAt(key, start) !== undefined);
    for (const [key, target] of slots) note(key.slice(0, -slotLength), [target]);
  }
  for (const set of [maps.affinityIPs, maps.affinityNodePorts]) {
    const start = set === maps.affinityNodePorts ? 0 : addressLength;
    const addresses = kernel.leftAffinity(set, (key) => protocolAt(key, start) !== undefined);
    for (const [key, targets] of addresses) note(key, targets);
  }
  return Array.from(found, ([key, endpoints]) => {
    const start = key.length - portLength;
    return {
      protocol: protocolAt(key, start) ?? 'UDP',
      ip: start === 0 ? '' : addressText(key.slice(0, start)),
      port: portAt(key, start + 4),
      endpoints: [...endpoints],
    };
  });
}

function isOfNodePorts(set: string): boolean {
  return set === maps.nodePortEndpoints || set === maps.nodePortEndpointsLocal;
}

function protocolAt(key: string, start: number): Protocol | undefined {
  return protocols[key.charCodeAt(start)];
}

function portAt(key: string, at: number): number {
  return (key.charCodeAt(at) << 8) | key.charCodeAt(at + 1);
}

function endpointText(target: string, addressLength: number): string {
  return formatIpPort(addressText(target.slice(0, addressLength)), portAt(target, addressLength));
}
