/**
 * Elements that somebody else touched, and what should stand there. A notification names the elements, so that the
 * cure for a deleted one is the one, and not a comparison of half a million.
 */
import type { IPFamily } from '../../../model/types.js';
import type { ClassNumbers } from '../layout/classes.js';
import { desiredElements, type ServicePortState } from '../state/desired-elements.js';
import { numberKey, slotValue, type Element } from '../state/elements.js';
import { readHostUint32, targetBytes } from '../../nft/keys.js';
import { sourceRangePrefix } from '../../nft/source-range-rules.js';
import type { TouchedElements } from '../../engine/table-watch.js';
import { maps, sets } from '../layout/names.js';
import type { ServicePortStates } from '../state/programmed-service-ports.js';

/** What the dataplane knows about its elements. */
export interface Known {
  readonly family: IPFamily;
  readonly states: Pick<ServicePortStates, 'withAddress' | 'withAffinityNumber'>;
  readonly numbers: ClassNumbers;
  /** By set and key: elements that several service ports may want. */
  readonly sharedCounts: Readonly<Record<string, ReadonlyMap<string, number>>>;
  /** Keys of `nodeport-ips`. */
  readonly nodePortIPs: ReadonlySet<string>;
}

const addressLengths: Readonly<Record<IPFamily, number>> = { IPv4: 4, IPv6: 16 };
const slotLength = 4;

/** Sets whose keys are an address, or an address and a slot. */
const byAddress = new Set<string>([
  maps.serviceIPs,
  maps.serviceNodePorts,
  maps.shortCircuitIPs,
  maps.shortCircuitNodePorts,
  maps.localIPs,
  maps.localNodePorts,
  maps.affinityIPs,
  maps.affinityNodePorts,
  sets.firewallIPs,
  sets.rejectedIPs,
  sets.rejectedNodePorts,
  sets.droppedIPs,
  sets.droppedNodePorts,
]);
const byAddressAndSlot = new Set<string>([
  maps.endpoints,
  maps.endpointsLocal,
  maps.nodePortEndpoints,
  maps.nodePortEndpointsLocal,
]);
const byAffinityNumber = new Set<string>([
  maps.affinitySlots,
  maps.affinitySlotsLocal,
  maps.affinityEndpoints,
  maps.affinityEndpointsLocal,
]);

/**
 * Those of the touched elements that should be there, by elementId().
 * @returns undefined when a set is among them whose elements are not single facts (verdicts, ranges): then only
 *   comparing the whole table helps
 */
export function desiredAmong(
  touched: TouchedElements,
  known: Known,
): ReadonlyMap<string, Element> | undefined {
  const wanted = new Map<string, Element>();
  const addresses = new Set<string>();
  const affinityServices = new Set<number>();
  const plain = (set: string, key: string): void => {
    wanted.set(elementId(set, key), { set, key, value: undefined, comment: undefined });
  };
  for (const [set, keys] of touched) {
    const counts = known.sharedCounts[set];
    const ranges = sourceRangePrefix(set) !== undefined;
    if (counts !== undefined) {
      for (const key of keys) if (counts.has(key)) plain(set, key);
    } else if (set === sets.nodePortIPs) {
      for (const key of keys) if (known.nodePortIPs.has(key)) plain(set, key);
    } else if (byAddress.has(set)) {
      for (const key of keys) addresses.add(key);
    } else if (byAddressAndSlot.has(set)) {
      for (const key of keys) addresses.add(key.slice(0, -slotLength));
    } else if (ranges) {
      for (const key of keys) addresses.add(key.slice(addressLengths[known.family]));
    } else if (byAffinityNumber.has(set)) {
      for (const key of keys) affinityServices.add(readHostUint32(key) >>> 16);
    } else {
      return undefined;
    }
  }
  const owners = new Set<ServicePortState>();
  for (const address of addresses) for (const state of known.states.withAddress(address)) owners.add(state);
  for (const number of affinityServices) {
    const state = known.states.withAffinityNumber(number);
    if (state !== undefined) owners.add(state);
  }
  for (const state of owners) collect(state, touched, known.numbers, wanted);
  return wanted;
}

/** What one service port wants among the touched elements. */
function collect(
  state: ServicePortState,
  touched: TouchedElements,
  numbers: ClassNumbers,
  wanted: Map<string, Element>,
): void {
  const { elements, blocks, numbered } = desiredElements(state, numbers);
  for (const element of elements) {
    if (touched.get(element.set)?.has(element.key) === true)
      wanted.set(elementId(element.set, element.key), element);
  }
  for (const block of blocks) {
    const { set, prefix, slots } = block;
    for (const key of touched.get(set) ?? []) {
      if (key.length !== prefix.length + slotLength || !key.startsWith(prefix)) continue;
      const slot = readHostUint32(key, prefix.length);
      if (slot >= slots.length) continue;
      const value = slotValue(block, slot);
      wanted.set(elementId(set, key), { set, key, value, comment: undefined });
    }
  }
  for (const list of numbered) {
    const keys = touched.get(list.set);
    if (keys === undefined) continue;
    for (const [at, endpoint] of list.endpoints.entries()) {
      const key = numberKey(list, at);
      if (keys.has(key))
        wanted.set(elementId(list.set, key), {
          set: list.set,
          key,
          value: targetBytes(endpoint),
          comment: undefined,
        });
    }
  }
}

/** Identity of an element, or of a block of them. */
export function elementId(set: string, key: string): string {
  return `${set}\0${key}`;
}
