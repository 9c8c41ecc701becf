/**
 * One service port as the model keeps it between events, and how it becomes what dataplanes get
 * (service-model.md 6.1): plan and endpoints in, ServicePort out.
 */
import type { IPFamily, Protocol } from '../../sources/objects.js';
import { inOnePiece } from '../../sources/strings.js';
import type { Claimant } from './claims.js';
import { sameList } from '../lists.js';
import { ListMerger, worthwhile } from '../endpoints/merger.js';
import { mergeLists, noEndpoints, selectEndpoints, servingEndpoints } from '../endpoints/selection.js';
import { sameVirtualAddress, type PortPlan } from './plan.js';
import { sameEndpoint, type EndpointList } from '../endpoints/slice.js';
import type { Endpoint, Fallback, ServicePort, VirtualAddress } from '../types.js';

const noServing: readonly string[] = [];
const noAddresses: readonly VirtualAddress[] = [];

/** What a service port knows about its Service. */
export interface Owner {
  /** 'namespace/name'. */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly created: number;
}

export class PortState implements Claimant {
  readonly name: string;
  readonly protocol: Protocol;
  /** What dataplanes know; undefined: nothing yet. */
  output: ServicePort | undefined;
  /** The addresses claimed for it. */
  claimed: readonly VirtualAddress[] = [];
  /** False once the Service does not have the port any more. */
  live = true;
  any = false;
  private cluster: readonly Endpoint[] = noEndpoints;
  private local: readonly Endpoint[] = noEndpoints;
  private serving: readonly string[] = noServing;
  private merger: ListMerger | undefined;

  constructor(
    readonly owner: Owner,
    readonly family: IPFamily,
    public plan: PortPlan,
  ) {
    const { key } = owner;
    this.name = plan.portName === '' ? key : inOnePiece(`${key}:${plan.portName}`);
    this.protocol = plan.protocol;
  }

  get namespace(): string {
    return this.owner.namespace;
  }

  get serviceName(): string {
    return this.owner.name;
  }

  get service(): Owner {
    return this.owner;
  }

  get portName(): string {
    return this.plan.portName;
  }

  get created(): number {
    return this.owner.created;
  }

  /** @param lists of its slices, in the order of their names */
  merge(lists: readonly EndpointList[]): EndpointList {
    // Nearly always there is one.
    if (lists.length >= worthwhile) return (this.merger ??= new ListMerger()).merge(lists);
    this.merger = undefined;
    return mergeLists(lists);
  }

  /**
   * Takes over the endpoints that its slices have now. Lists with equal content stay the objects they were.
   *
   * @returns whether `any` is different now
   */
  select(list: EndpointList, zone: string | undefined): boolean {
    const before = this.any;
    const { cluster, local, any } = selectEndpoints(list, this.plan, zone);
    this.any = any;
    this.cluster = keep(this.cluster, cluster, sameEndpoint);
    this.local = keep(this.local, local, sameEndpoint);
    if (this.protocol !== 'TCP')
      this.serving = keep(this.serving, servingEndpoints(list, this.protocol), Object.is);
    return any !== before;
  }

  /**
   * @param owned the addresses of the plan that no other service port has
   * @returns the last output itself when nothing is different
   */
  build(owned: readonly VirtualAddress[]): ServicePort {
    const { plan, output } = this;
    const addresses = this.withFallbacks(owned);
    if (
      output?.addresses === addresses &&
      output.clusterEndpoints === this.cluster &&
      output.localEndpoints === this.local &&
      output.servingEndpoints === this.serving &&
      output.affinitySeconds === plan.affinitySeconds &&
      output.clusterIP === plan.clusterIP &&
      output.port === plan.port
    ) {
      return output;
    }
    return {
      key: output?.key ?? inOnePiece(`${this.owner.key}:${this.portName}/${this.protocol}`),
      name: this.name,
      namespace: this.namespace,
      serviceName: this.serviceName,
      family: this.family,
      protocol: this.protocol,
      clusterIP: plan.clusterIP,
      port: plan.port,
      addresses,
      clusterEndpoints: this.cluster,
      localEndpoints: this.local,
      affinitySeconds: plan.affinitySeconds,
      servingEndpoints: this.serving,
    };
  }

  private withFallbacks(owned: readonly VirtualAddress[]): readonly VirtualAddress[] {
    const before = this.output?.addresses ?? noAddresses;
    let served = true;
    for (const address of owned) served &&= this.fallback(address) === address.fallback;
    if (served) return keep(before, owned, sameVirtualAddress);
    const addresses = owned.map((address, index) => {
      const fallback = this.fallback(address);
      if (fallback === address.fallback) return address;
      const wanted = { ...address, fallback };
      const known = before[index];
      return known !== undefined && sameVirtualAddress(known, wanted) ? known : wanted;
    });
    return keep(before, addresses, sameVirtualAddress);
  }

  private fallback(address: VirtualAddress): Fallback {
    if (!this.any) return 'reject';
    return address.policy === 'Local' && this.local.length === 0 ? 'drop' : 'serve';
  }
}

/** `before` when it says the same, so that consumers can compare by identity first. */
function keep<T>(before: readonly T[], now: readonly T[], same: (a: T, b: T) => boolean): readonly T[] {
  return sameList(before, now, same) ? before : now;
}
