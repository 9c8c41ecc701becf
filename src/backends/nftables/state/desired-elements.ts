/**
 * The footprint of a service port: everything it puts into the kernel's maps and sets. Pure: the difference between
 * two footprints is the transaction. It is made on demand and thrown away; what is kept per service port is only
 * `ServicePortState`.
 */
import type { Cidr, Endpoint, ServicePort, VirtualAddress } from '../../../model/types.js';
import type { Affinity } from '../affinity/affinity-numbers.js';
import {
  externalLocalClass,
  maxEndpoints,
  nodePortLocalClass,
  type ClassKind,
  type ClassNumbers,
  type ServiceClass,
} from '../layout/classes.js';
import { noMinors, type NumberedSlots } from '../affinity/endpoint-numbers.js';
import { addressBytes, classId, hairpinKey, hostUint32, nodePortKey, serviceKey } from '../../nft/keys.js';
import { maps, sets } from '../layout/names.js';
import { sourceRangeSet } from '../../nft/source-range-rules.js';
import { maskAddress } from '../../nft/source-ranges.js';
import { elementComment, type Element, type NumberedEndpoints, type SlotBlock } from './elements.js';

/** What the dataplane remembers of a service port that is in the kernel. */
export interface ServicePortState {
  readonly port: ServicePort;
  readonly clusterSlots: readonly Endpoint[];
  readonly localSlots: readonly Endpoint[];
  readonly affinity: Affinity | undefined;
  /** Keys of the elements for endpoints that may reach themselves through the Service, each once. */
  readonly hairpins: readonly string[];
}

/** An address of which only the source ranges are in force yet: they are there before the address serves (change-steps.ts). */
export interface GuardedAddress extends VirtualAddress {
  readonly guardOnly: true;
}

export interface DesiredElements {
  /** Each (set, key) once. */
  readonly elements: readonly Element[];
  /** Each (set, prefix) once; none is empty. */
  readonly blocks: readonly SlotBlock[];
  /** Each set once; none is empty. */
  readonly numbered: readonly NumberedEndpoints[];
  /** Chains that must exist; a class appears once per element that refers to it. */
  readonly classes: readonly ServiceClass[];
  /** Elements that several service ports may own together: counted, not owned. */
  readonly shared: readonly Element[];
}

export const noElements: DesiredElements = {
  elements: [],
  blocks: [],
  numbered: [],
  classes: [],
  shared: [],
};

export function desiredElements(state: ServicePortState, numbers: ClassNumbers): DesiredElements {
  const desired = new DesiredElementsBuilder(state, numbers);
  for (const address of state.port.addresses) desired.putAddress(address);
  desired.putAffinity();
  desired.putShared();
  return desired;
}

/** Methods instead of closures: at a cold start there are as many footprints as service ports. */
class DesiredElementsBuilder implements DesiredElements {
  readonly elements: Element[] = [];
  readonly blocks: SlotBlock[] = [];
  readonly numbered: NumberedEndpoints[] = [];
  readonly classes: ServiceClass[] = [];
  readonly shared: Element[] = [];
  private readonly port: ServicePort;
  private readonly affinity: Affinity | undefined;
  private readonly comment: string;
  private readonly cluster: readonly Endpoint[];
  private readonly local: readonly Endpoint[];
  private readonly clusterMinors: Uint16Array;
  private readonly localMinors: Uint16Array;
  private readonly hairpins: readonly string[];

  constructor(
    state: ServicePortState,
    private readonly numbers: ClassNumbers,
  ) {
    this.port = state.port;
    this.affinity = state.affinity;
    this.comment = elementComment(state.port.name);
    this.hairpins = state.hairpins;
    const cluster = drawable(state.clusterSlots, state.affinity?.clusterMinors);
    const local = drawable(state.localSlots, state.affinity?.localMinors);
    this.cluster = cluster.slots;
    this.local = local.slots;
    this.clusterMinors = cluster.minors;
    this.localMinors = local.minors;
  }

  putAddress(address: VirtualAddress): void {
    const { port, cluster, local, comment } = this;
    const onNode = address.kind === 'NodePort';
    const key = onNode
      ? nodePortKey(port.protocol, address.port)
      : serviceKey(address.ip, port.protocol, address.port);
    if ('guardOnly' in address) {
      if (address.sourceRanges !== undefined) this.putSourceRanges(key, address.sourceRanges);
      return;
    }
    const services = onNode ? maps.serviceNodePorts : maps.serviceIPs;
    let usesCluster = false;
    let usesLocal = false;

    if (address.scope === 'internal') {
      usesCluster = address.policy === 'Cluster';
      usesLocal = !usesCluster;
      if (usesCluster) this.putClass(services, key, 'cluster', cluster, comment);
      else this.putClass(services, key, 'cluster-local', local, comment);
    } else if (address.policy === 'Cluster') {
      usesCluster = true;
      this.putClass(services, key, onNode ? 'nodeport' : 'external', cluster, comment);
    } else if (cluster.length > 0 || local.length > 0) {
      usesCluster = usesLocal = true;
      this.put(services, key, hostUint32(onNode ? nodePortLocalClass.id : externalLocalClass.id), comment);
      this.putClass(
        onNode ? maps.shortCircuitNodePorts : maps.shortCircuitIPs,
        key,
        onNode ? 'nodeport-pick' : 'pick',
        cluster,
      );
      this.putClass(
        onNode ? maps.localNodePorts : maps.localIPs,
        key,
        onNode ? 'nodeport-pick-local' : 'pick-local',
        local,
      );
    }

    if (address.fallback === 'reject')
      this.put(onNode ? sets.rejectedNodePorts : sets.rejectedIPs, key, undefined, comment);
    if (address.fallback === 'drop')
      this.put(onNode ? sets.droppedNodePorts : sets.droppedIPs, key, undefined, comment);

    if (this.affinity !== undefined) {
      this.put(
        onNode ? maps.affinityNodePorts : maps.affinityIPs,
        key,
        hostUint32(classId(this.affinity.service, 0)),
        comment,
      );
    } else {
      if (usesCluster) this.putBlock(onNode ? maps.nodePortEndpoints : maps.endpoints, key, cluster);
      if (usesLocal) this.putBlock(onNode ? maps.nodePortEndpointsLocal : maps.endpointsLocal, key, local);
    }

    if (address.sourceRanges !== undefined) this.putSourceRanges(key, address.sourceRanges);
  }

  /** What the addresses lead to; without any, nobody could find the number, after a restart not even we. */
  putAffinity(): void {
    const { port, affinity, cluster, local, clusterMinors, localMinors } = this;
    if (affinity === undefined || port.addresses.length === 0) return;
    const { service } = affinity;
    const prefix = hostUint32(classId(service, 0));
    this.putBlock(maps.affinitySlots, prefix, cluster, { service, minors: clusterMinors });
    this.putBlock(maps.affinitySlotsLocal, prefix, local, { service, minors: localMinors });
    this.putNumbered(maps.affinityEndpoints, service, cluster, clusterMinors);
    this.putNumbered(maps.affinityEndpointsLocal, service, local, localMinors);
  }

  private putNumbered(
    set: string,
    service: number,
    endpoints: readonly Endpoint[],
    minors: Uint16Array,
  ): void {
    if (endpoints.length > 0) this.numbered.push({ set, service, endpoints, minors });
  }

  putShared(): void {
    const { port } = this;
    // An address of kind ClusterIP that lost a conflict is somebody else's cluster IP; ours is active all the same.
    this.share(sets.clusterIPs, addressBytes(port.clusterIP));
    for (const key of this.hairpins) this.share(sets.hairpin, key);
  }

  private putSourceRanges(key: string, ranges: readonly Cidr[]): void {
    this.put(sets.firewallIPs, key, undefined, this.comment);
    const seen = new Set<string>();
    for (const range of ranges) {
      const network = maskAddress(addressBytes(range.ip), range.prefixLength);
      const id = `${range.prefixLength} ${network}`;
      if (!seen.has(id)) this.put(sourceRangeSet(range.prefixLength), network + key, undefined);
      seen.add(id);
    }
  }

  private put(set: string, key: string, value: string | undefined, comment?: string): void {
    this.elements.push({ set, key, value, comment });
  }

  private putClass(
    set: string,
    key: string,
    kind: ClassKind,
    slots: readonly Endpoint[],
    comment?: string,
  ): void {
    if (slots.length === 0) return;
    const of: ServiceClass = { kind, endpoints: slots.length, affinitySeconds: this.port.affinitySeconds };
    this.classes.push(of);
    this.put(set, key, hostUint32(this.numbers.idOf(of)), comment);
  }

  private putBlock(
    set: string,
    prefix: string,
    slots: readonly Endpoint[],
    numbers?: SlotBlock['numbers'],
  ): void {
    if (slots.length > 0) this.blocks.push({ set, prefix, slots, numbers });
  }

  private share(set: string, key: string): void {
    this.shared.push({ set, key, value: undefined, comment: undefined });
  }
}

/** Keys of the elements for endpoints that may reach themselves: those on this node, and those that may be. */
export function hairpinsOf(
  protocol: ServicePort['protocol'],
  ...lists: readonly (readonly Endpoint[])[]
): readonly string[] {
  let hairpins: Set<string> | undefined;
  for (const list of lists)
    for (const endpoint of list)
      if (isNearby(endpoint)) (hairpins ??= new Set()).add(hairpinKey(endpoint, protocol));
  return hairpins === undefined ? noHairpins : [...hairpins];
}

const noHairpins: readonly string[] = [];

/** It may be on this node. */
export function isNearby({ local, nodeUnknown }: Endpoint): boolean {
  return local || nodeUnknown;
}

/** A class counts its endpoints in 16 bits, and so are they numbered; nobody has more, but a hostile object might. */
function drawable(slots: readonly Endpoint[], minors = noMinors): NumberedSlots {
  let drawn = { slots, minors };
  if (minors.includes(0))
    drawn = {
      slots: slots.filter((_, slot) => minors[slot] !== 0),
      minors: minors.filter((minor) => minor !== 0),
    };
  if (drawn.slots.length <= maxEndpoints) return drawn;
  return { slots: drawn.slots.slice(0, maxEndpoints), minors: drawn.minors.subarray(0, maxEndpoints) };
}
