/**
 * Where a source delivers: keeps what arrives before the model can be made (the model needs the own Node), and tells
 * the rest of the process what changed.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type {
  ClusterSink,
  EndpointSlice,
  Node,
  ResourceKind,
  Service,
  ServiceCIDR,
} from '../sources/objects.js';
import type { Cidr, IPFamily } from '../model/types.js';
import { familyOf, parseCidr } from '../model/addresses/addresses.js';
import type { ServiceModel } from '../model/model.js';

/** Objects that a new model gets in one turn of the event loop: some 3 ms. */
const objectsPerTurn = 1000;

export interface ClusterStateEvents {
  /** Services or EndpointSlices changed and are in the model. */
  changed(): void;
  nodeChanged(node: Node | undefined): void;
  serviceCIDRsChanged(): void;
  synced(kind: ResourceKind): void;
}

export class ClusterState implements ClusterSink {
  private model: ServiceModel | undefined;
  private readonly earlyServices = new Map<string, Service>();
  private readonly earlySlices = new Map<string, EndpointSlice>();
  private readonly serviceCIDRObjects = new Map<string, ServiceCIDR>();
  private readonly syncedKinds = new Set<ResourceKind>();
  private dirty = false;
  /** The Node object of this node; its last known state when it was deleted. */
  ownNode: Node | undefined;
  /** Events since the start. */
  private serviceEvents = 0;
  private endpointSliceEvents = 0;

  constructor(
    private readonly nodeName: string,
    private readonly events: ClusterStateEvents,
  ) {}

  /**
   * From now on the model receives everything, beginning with what has arrived so far.
   * @returns resolves when it has all of that; undefined: it has it already
   */
  attach(model: ServiceModel): Promise<void> | undefined {
    this.model = model;
    model.setZone(this.ownNode?.zone);
    this.handOver(model);
    return this.hasEarly ? this.handOverRest(model) : undefined;
  }

  private get hasEarly(): boolean {
    return this.earlyServices.size > 0 || this.earlySlices.size > 0;
  }

  private async handOverRest(model: ServiceModel): Promise<void> {
    while (this.hasEarly) {
      await nextTurn();
      this.handOver(model);
    }
  }

  /** Some of it. What is done is let go of one by one, so that its memory can serve for what is to come. */
  private handOver(model: ServiceModel): void {
    let left = objectsPerTurn;
    for (const [key, object] of this.earlyServices) {
      if (--left < 0) return;
      this.earlyServices.delete(key);
      model.setService(key, object);
    }
    for (const [key, object] of this.earlySlices) {
      if (--left < 0) return;
      this.earlySlices.delete(key);
      model.setEndpointSlice(key, object);
    }
  }

  /** For the metrics. */
  counts(): {
    readonly serviceEvents: number;
    readonly endpointSliceEvents: number;
    readonly pendingServices: number;
    readonly pendingEndpointSlices: number;
  } {
    const { serviceEvents, endpointSliceEvents, model } = this;
    const pending = model?.pending;
    return {
      serviceEvents,
      endpointSliceEvents,
      pendingServices: (pending?.services ?? 0) + this.earlyServices.size,
      pendingEndpointSlices: (pending?.endpointSlices ?? 0) + this.earlySlices.size,
    };
  }

  hasSynced(kind: ResourceKind): boolean {
    return this.syncedKinds.has(kind);
  }

  /** Union of all ServiceCIDR objects. */
  serviceCIDRs(family: IPFamily): Cidr[] {
    const cidrs = new Map<string, Cidr>();
    for (const object of this.serviceCIDRObjects.values()) {
      for (const text of object.cidrs) {
        const cidr = parseCidr(text)?.cidr;
        if (cidr !== undefined && familyOf(cidr.ip) === family)
          cidrs.set(`${cidr.ip}/${cidr.prefixLength}`, cidr);
      }
    }
    return [...cidrs.values()];
  }

  service(key: string, object: Service | undefined): void {
    this.serviceEvents++;
    this.dirty = true;
    if (this.model !== undefined) {
      this.earlyServices.delete(key);
      this.model.setService(key, object);
    } else if (object === undefined) this.earlyServices.delete(key);
    else this.earlyServices.set(key, object);
  }

  endpointSlice(key: string, object: EndpointSlice | undefined): void {
    this.endpointSliceEvents++;
    this.dirty = true;
    if (this.model !== undefined) {
      this.earlySlices.delete(key);
      this.model.setEndpointSlice(key, object);
    } else if (object === undefined) this.earlySlices.delete(key);
    else this.earlySlices.set(key, object);
  }

  node(key: string, object: Node | undefined): void {
    if (key !== this.nodeName) return;
    if (object !== undefined) {
      this.ownNode = object;
      this.model?.setZone(object.zone);
      this.dirty = true;
    }
    this.events.nodeChanged(object);
  }

  serviceCIDR(key: string, object: ServiceCIDR | undefined): void {
    if (object === undefined) this.serviceCIDRObjects.delete(key);
    else this.serviceCIDRObjects.set(key, object);
    this.events.serviceCIDRsChanged();
  }

  synced(kind: ResourceKind): void {
    this.syncedKinds.add(kind);
    this.events.synced(kind);
  }

  flush(): void {
    if (!this.dirty) return;
    this.dirty = false;
    this.events.changed();
  }
}
