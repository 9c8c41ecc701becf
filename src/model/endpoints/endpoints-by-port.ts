/** The endpoints of each port of one Service in one family, from its slices. */
import type { IPFamily } from '../../sources/objects.js';
import type { PortPlan } from '../services/plan.js';
import { collectLocalReady, mergeLists } from './selection.js';
import { slicePortId, type EndpointList, type Slice } from './slice.js';

/** The Service in question. */
interface Entry {
  readonly ports: readonly unknown[];
  readonly slices: readonly Slice[];
}

/** Services with more ports than this have their slices' ports looked up by name. */
const indexedFrom = 8;

export class EndpointsByPort {
  private readonly byId: ReadonlyMap<string, readonly EndpointList[]> | undefined;

  constructor(
    readonly entry: Entry,
    readonly family: IPFamily,
  ) {
    if (entry.ports.length >= indexedFrom) this.byId = this.index();
  }

  /** How many IPs of this node are ready, for whichever port of the slices: also for one that the Service does not name (8.1). */
  localReady(): number {
    const ips = new Set<string>();
    for (const lists of (this.byId ?? this.index()).values()) collectLocalReady(mergeLists(lists), ips);
    return ips.size;
  }

  private index(): ReadonlyMap<string, readonly EndpointList[]> {
    const byId = new Map<string, EndpointList[]>();
    for (const slice of this.entry.slices) {
      if (slice.family !== this.family) continue;
      for (const { name, protocol, list } of slice.ports) {
        const id = slicePortId(name, protocol);
        const lists = byId.get(id);
        if (lists === undefined) byId.set(id, [list]);
        else lists.push(list);
      }
    }
    return byId;
  }

  /** The lists of one port, by the slices' names. Port numbers are not compared: the number in the slice is the backend's (3.1). */
  of({ portName, protocol }: PortPlan): readonly EndpointList[] {
    if (this.byId !== undefined) return this.byId.get(slicePortId(portName, protocol)) ?? [];
    const all: EndpointList[] = [];
    for (const slice of this.entry.slices) {
      if (slice.family !== this.family) continue;
      for (const port of slice.ports) {
        if (port.name === portName && port.protocol === protocol) all.push(port.list);
      }
    }
    return all;
  }
}
