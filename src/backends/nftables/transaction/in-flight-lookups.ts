/**
 * What a packet looks up because of what it found, or did not find, in another set before.
 *
 * nf_tables takes the generation per lookup, not per packet. A packet that is under way while a transaction is
 * committed sees the old elements first and the new ones after some lookup. So an element to which an earlier lookup
 * may lead outlives the transaction that takes the lead away, and is deleted in a later one (deferred.ts). The other way round
 * needs no care: the transaction that adds a lead adds with it what it leads to. Only rules and chains are another matter,
 * since the generation of those is taken once per base chain: they go in ahead (Transaction.ahead).
 */
import { sourceRangePrefix } from '../../nft/source-range-rules.js';
import { maps, sets } from '../layout/names.js';

/** Stands for all sets of source ranges, one per prefix length. */
export const sourceRanges = 'source-ranges';

/** By set: sets that the same packet may look into later, in the order of its way through the hooks (layout.ts). */
export const leads: Readonly<Record<string, readonly string[]>> = {
  // filter, before nat
  [sets.firewallIPs]: [sourceRanges],
  // nat; what it does not find there, the filter hooks behind it refuse
  [maps.serviceIPs]: [
    maps.endpoints,
    maps.endpointsLocal,
    maps.shortCircuitIPs,
    maps.localIPs,
    maps.affinityIPs,
    sets.droppedIPs,
    sets.rejectedIPs,
  ],
  [maps.serviceNodePorts]: [
    maps.nodePortEndpoints,
    maps.nodePortEndpointsLocal,
    maps.shortCircuitNodePorts,
    maps.localNodePorts,
    maps.affinityNodePorts,
    sets.droppedNodePorts,
    sets.rejectedNodePorts,
  ],
  [maps.shortCircuitIPs]: [maps.endpoints, maps.affinityIPs],
  [maps.localIPs]: [maps.endpointsLocal, maps.affinityIPs, sets.droppedIPs],
  [maps.shortCircuitNodePorts]: [maps.nodePortEndpoints, maps.affinityNodePorts],
  [maps.localNodePorts]: [maps.nodePortEndpointsLocal, maps.affinityNodePorts, sets.droppedNodePorts],
  [maps.affinityIPs]: [maps.affinitySlots, maps.affinitySlotsLocal],
  [maps.affinityNodePorts]: [maps.affinitySlots, maps.affinitySlotsLocal],
  [maps.affinitySlots]: [maps.affinityEndpoints],
  [maps.affinitySlotsLocal]: [maps.affinityEndpointsLocal],
  // postrouting: what was translated to itself is masqueraded
  [maps.endpoints]: [sets.hairpin],
  [maps.endpointsLocal]: [sets.hairpin],
  [maps.nodePortEndpoints]: [sets.hairpin],
  [maps.nodePortEndpointsLocal]: [sets.hairpin],
  [maps.affinityEndpoints]: [sets.hairpin],
  [maps.affinityEndpointsLocal]: [sets.hairpin],
};

const led: ReadonlySet<string> = new Set(Object.values(leads).flat());

/** An earlier lookup may lead to the elements of this set. */
export function isLed(set: string): boolean {
  return led.has(set) || sourceRangePrefix(set) !== undefined;
}
