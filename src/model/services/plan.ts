/** What one Service asks for, as data: per family its service ports with every address they want; and when two plans are equal. */
import type { Protocol } from '../../sources/objects.js';
import { sameList } from '../lists.js';
import type { Cidr, VirtualAddress } from '../types.js';

export interface PortPlan {
  readonly portName: string;
  readonly protocol: Protocol;
  readonly clusterIP: string;
  readonly port: number;
  /** As they are handed out while endpoints serve them (fallback 'serve'). */
  readonly addresses: readonly VirtualAddress[];
  readonly affinitySeconds: number;
  /** Some address is served from the endpoints of the whole cluster. */
  readonly usesCluster: boolean;
  /** Some address is served from the endpoints of this node. */
  readonly usesLocal: boolean;
}

export interface FamilyPlan {
  /** In the order of the Service; one per (name, protocol). */
  readonly ports: readonly PortPlan[];
  /** 0: none. */
  readonly healthCheckNodePort: number;
}

export interface ServicePlan {
  /** Milliseconds since the epoch; Infinity when the Service does not say. */
  readonly created: number;
  /** Absent where the Service has nothing for the family. */
  readonly IPv4: FamilyPlan | undefined;
  readonly IPv6: FamilyPlan | undefined;
}

export function samePlan(a: ServicePlan | undefined, b: ServicePlan | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.created === b.created && sameFamilyPlan(a.IPv4, b.IPv4) && sameFamilyPlan(a.IPv6, b.IPv6);
}

export function sameVirtualAddress(a: VirtualAddress, b: VirtualAddress): boolean {
  return (
    a === b ||
    (a.kind === b.kind &&
      a.ip === b.ip &&
      a.port === b.port &&
      a.scope === b.scope &&
      a.policy === b.policy &&
      a.fallback === b.fallback &&
      sameSourceRanges(a.sourceRanges, b.sourceRanges))
  );
}

export function sameCidr(a: Cidr, b: Cidr): boolean {
  return a.prefixLength === b.prefixLength && a.ip === b.ip;
}

function sameSourceRanges(a: readonly Cidr[] | undefined, b: readonly Cidr[] | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return sameList(a, b, sameCidr);
}

function sameFamilyPlan(a: FamilyPlan | undefined, b: FamilyPlan | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.healthCheckNodePort === b.healthCheckNodePort && sameList(a.ports, b.ports, samePortPlan);
}

function samePortPlan(a: PortPlan, b: PortPlan): boolean {
  return (
    a.portName === b.portName &&
    a.protocol === b.protocol &&
    a.clusterIP === b.clusterIP &&
    a.port === b.port &&
    a.affinitySeconds === b.affinitySeconds &&
    a.usesCluster === b.usesCluster &&
    a.usesLocal === b.usesLocal &&
    sameList(a.addresses, b.addresses, sameVirtualAddress)
  );
}
