/**
 * The footprint of a service port: everything it puts into the kernel's maps and sets. Pure: the difference between
 * two footprints is the transaction. It is made on demand and thrown away; what is kept per service port is only
 * `ServicePortState`.
 */
import type { Endpoint, ServicePort, VirtualAddress } from '../../model/types.js';
import {
  externalLocalClass,
  maxEndpoints,
  nodePortLocalClass,
  type ClassKind,
  type ClassNumbers,
  type ServiceClass,
} from './classes.js';
import {
  addressBytes,
  classId,
  hairpinKey,
  hostUint32,
  nodePortKey,
  serviceKey,
  targetBytes,
} from '../nft/keys.js';
import { maps, sets } from './names.js';
import { endpointKey } from './slots.js';
import { sourceRangeSet } from '../nft/source-range-rules.js';
import { maskAddress } from '../nft/source-ranges.js';

/** Identity of a service port with affinity in the kernel, and of its endpoints. */
export interface AffinityNumbers {
  /** Major number, `firstAffinityServiceMajor`..0xffff. */
  readonly service: number;
  /** endpointKey → minor number, 1..65535: stable for as long as the endpoint lives. */
  readonly endpoints: ReadonlyMap<string, number>;
}

/** What the dataplane remembers of a service port that is in the kernel. */
export interface ServicePortState {
  readonly port: ServicePort;
  readonly clusterSlots: readonly Endpoint[];
  readonly localSlots: readonly Endpoint[];
  readonly affinity: AffinityNumbers | undefined;
}

export interface Element {
  readonly set: string;
  readonly key: string;
  /** undefined in sets. */
  readonly value: string | undefined;
  /** Shown by `nft list`; at most 128 bytes (NFTNL_UDATA_COMMENT_MAXLEN). */
  readonly comment: string | undefined;
}

/** The elements `prefix . slot → value of the endpoint in it` of one list of one address. */
export interface SlotBlock {
  readonly set: string;
  readonly prefix: string;
  readonly slots: readonly Endpoint[];
  /** undefined: the endpoint's address and port. */
  readonly valueOf: ((endpoint: Endpoint) => string) | undefined;
}

export interface Footprint {
  /** Each (set, key) once. */
  readonly elements: readonly Element[];
  /** Each (set, prefix) once; none is empty. */
  readonly blocks: readonly SlotBlock[];
  /** Chains that must exist; a class appears once per element that refers to it. */
  readonly classes: readonly ServiceClass[];
  /** Elements that several service ports may own together: counted, not owned. */
  readonly shared: readonly Element[];
}

export const emptyFootprint: Footprint = { elements: [], blocks: [], classes: [], shared: [] };

const maxCommentBytes = 128;

/** `ns/name:port`, cut to what the kernel's tools accept. */
export function elementComment(name: string): string {
  return name.length <= maxCommentBytes ? name : `${name.slice(0, maxCommentBytes - 3)}...`;
}

/** Key of the slot block's element for one slot. */
export function slotKey(prefix: string, slot: number): string {
  return prefix + hostUint32(slot);
}

export function slotValue(block: SlotBlock, endpoint: Endpoint): string {
  return block.valueOf === undefined ? targetBytes(endpoint) : block.valueOf(endpoint);
}

export function footprintOf(state: ServicePortState, numbers: ClassNumbers): Footprint {
  const { port, affinity } = state;
  const elements: Element[] = [];
  const blocks: SlotBlock[] = [];
  const classes: ServiceClass[] = [];
  const shared: Element[] = [];
  const comment = elementComment(port.name);
  const cluster = drawable(state.clusterSlots, affinity);
  const local = drawable(state.localSlots, affinity);

  const put = (set: string, key: string, value: string | undefined, remark?: string): void => {
    elements.push({ set, key, value, comment: remark });
  };
  const putBlock = (block: SlotBlock): void => {
    if (block.slots.length > 0) blocks.push(block);
  };
  const putClass = (
    set: string,
    key: string,
    kind: ClassKind,
    slots: readonly Endpoint[],
    remark?: string,
  ): void => {
    if (slots.length === 0) return;
    const of: ServiceClass = { kind, endpoints: slots.length, affinitySeconds: port.affinitySeconds };
    classes.push(of);
    put(set, key, hostUint32(numbers.idOf(of)), remark);
  };

  const putAddress = (address: VirtualAddress): void => {
    const onNode = address.kind === 'NodePort';
    const key = onNode
      ? nodePortKey(port.protocol, address.port)
      : serviceKey(address.ip, port.protocol, address.port);
    const services = onNode ? maps.serviceNodePorts : maps.serviceIPs;
    let usesCluster = false;
    let usesLocal = false;

    if (address.scope === 'internal') {
      usesCluster = address.policy === 'Cluster';
      usesLocal = !usesCluster;
      putClass(
        services,
        key,
        usesCluster ? 'cluster' : 'cluster-local',
        usesCluster ? cluster : local,
        comment,
      );
    } else if (address.policy === 'Cluster') {
      usesCluster = true;
      putClass(services, key, onNode ? 'nodeport' : 'external', cluster, comment);
    } else if (cluster.length > 0 || local.length > 0) {
      usesCluster = usesLocal = true;
      put(services, key, hostUint32(onNode ? nodePortLocalClass.id : externalLocalClass.id), comment);
      putClass(
        onNode ? maps.shortCircuitNodePorts : maps.shortCircuitIPs,
        key,
        onNode ? 'nodeport-pick' : 'pick',
        cluster,
      );
      putClass(
        onNode ? maps.localNodePorts : maps.localIPs,
        key,
        onNode ? 'nodeport-pick-local' : 'pick-local',
        local,
      );
    }

    if (address.fallback === 'reject')
      put(onNode ? sets.rejectedNodePorts : sets.rejectedIPs, key, undefined, comment);
    if (address.fallback === 'drop')
      put(onNode ? sets.droppedNodePorts : sets.droppedIPs, key, undefined, comment);

    if (affinity !== undefined) {
      put(
        onNode ? maps.affinityNodePorts : maps.affinityIPs,
        key,
        hostUint32(classId(affinity.service, 0)),
        comment,
      );
    } else {
      const prefix = key;
      if (usesCluster) {
        const set = onNode ? maps.nodePortEndpoints : maps.endpoints;
        putBlock({ set, prefix, slots: cluster, valueOf: undefined });
      }
      if (usesLocal) {
        const set = onNode ? maps.nodePortEndpointsLocal : maps.endpointsLocal;
        putBlock({ set, prefix, slots: local, valueOf: undefined });
      }
    }

    if (address.sourceRanges !== undefined) {
      put(sets.firewallIPs, key, undefined, comment);
      const seen = new Set<string>();
      for (const range of address.sourceRanges) {
        const network = maskAddress(addressBytes(range.ip), range.prefixLength);
        const id = `${range.prefixLength} ${network}`;
        if (!seen.has(id)) put(sourceRangeSet(range.prefixLength), network + key, undefined);
        seen.add(id);
      }
    }
  };

  for (const address of port.addresses) putAddress(address);

  // The addresses lead to the number: without any, nobody could find it, after a restart not even we.
  if (affinity !== undefined && port.addresses.length > 0) {
    const service = hostUint32(classId(affinity.service, 0));
    const numberOf = (endpoint: Endpoint): string =>
      hostUint32(classId(affinity.service, affinity.endpoints.get(endpointKey(endpoint)) ?? 0));
    putBlock({ set: maps.affinitySlots, prefix: service, slots: cluster, valueOf: numberOf });
    putBlock({ set: maps.affinitySlotsLocal, prefix: service, slots: local, valueOf: numberOf });
    for (const endpoint of cluster) put(maps.affinityEndpoints, numberOf(endpoint), targetBytes(endpoint));
    for (const endpoint of local) put(maps.affinityEndpointsLocal, numberOf(endpoint), targetBytes(endpoint));
  }

  // An address of kind ClusterIP that lost a conflict is somebody else's cluster IP; ours is active all the same.
  shared.push({
    set: sets.clusterIPs,
    key: addressBytes(port.clusterIP),
    value: undefined,
    comment: undefined,
  });
  let hairpins: Set<string> | undefined;
  for (const list of [cluster, local]) {
    for (const endpoint of list) {
      if (!endpoint.local && !endpoint.nodeUnknown) continue;
      hairpins ??= new Set();
      hairpins.add(hairpinKey(endpoint, port.protocol));
    }
  }
  for (const key of hairpins ?? []) {
    shared.push({ set: sets.hairpin, key, value: undefined, comment: undefined });
  }

  return { elements, blocks, classes, shared };
}

/** A class counts its endpoints in 16 bits, and so are they numbered; nobody has more, but a hostile object might. */
function drawable(slots: readonly Endpoint[], affinity: AffinityNumbers | undefined): readonly Endpoint[] {
  const numbers = affinity?.endpoints;
  const numbered =
    numbers === undefined || numbers.size < maxEndpoints
      ? slots
      : slots.filter((endpoint) => numbers.has(endpointKey(endpoint)));
  return numbered.length > maxEndpoints ? numbered.slice(0, maxEndpoints) : numbered;
}
