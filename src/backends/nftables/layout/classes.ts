/**
 * Classes of behaviour. Every address that behaves alike shares one chain, named after what it does: how many
 * endpoints it draws from, which list, whether it masquerades, the affinity timeout. A map element holds the number
 * of its class; `service-classes` leads from the number to the chain.
 *
 * Why not a verdict map from address to chain, as one would write by hand: the kernel validates a whole table again
 * when an element with a `goto` is added, and walks every element of every verdict map for it (nft_table_validate,
 * net/netfilter/nf_tables_api.c). Measured on 6.18: 7 to 11 ms for each change at 50,000 addresses, against 0.02 ms for
 * an element that holds a number.
 */
import { classId } from '../../nft/keys.js';
import { maps } from './names.js';

export type ClassKind =
  /** ClusterIP served from the whole cluster; masqueraded unless a local pod asks. */
  | 'cluster'
  /** ClusterIP with internalTrafficPolicy: Local. */
  | 'cluster-local'
  /** External IP or load balancer address; always masqueraded. */
  | 'external'
  /** The short circuit of externalTrafficPolicy: Local: any endpoint, source kept. */
  | 'pick'
  /** externalTrafficPolicy: Local: endpoints of this node, source kept. */
  | 'pick-local'
  /** The same three for node ports. */
  | 'nodeport'
  | 'nodeport-pick'
  | 'nodeport-pick-local';

export interface ServiceClass {
  readonly kind: ClassKind;
  /** Number of endpoints drawn from: 1..65535. */
  readonly endpoints: number;
  /** 0: no affinity. */
  readonly affinitySeconds: number;
}

const kinds: readonly ClassKind[] = [
  'cluster',
  'cluster-local',
  'external',
  'pick',
  'pick-local',
  'nodeport',
  'nodeport-pick',
  'nodeport-pick-local',
];

/** Class numbers are `major:minor`; minor is the number of endpoints. */
const firstFixedMajor = 0x0f00;
const firstAffinityMajor = 0x1000;
/** Majors from here up are services with affinity (affinity-numbers.ts), never classes. */
export const firstAffinityServiceMajor = 0x8000;

/** The two classes that stand for "externalTrafficPolicy: Local: look who is asking", with a chain of their own. */
export const externalLocalClass = { id: classId(firstFixedMajor, 1), chain: 'external-local' } as const;
export const nodePortLocalClass = { id: classId(firstFixedMajor, 2), chain: 'nodeport-local' } as const;

export function className(of: ServiceClass): string {
  if (of.affinitySeconds !== 0) return `${of.kind}-${of.endpoints}-affinity-${of.affinitySeconds}`;
  // Asked for several times per service port, and there are few.
  const names = (plainNames[kinds.indexOf(of.kind)] ??= []);
  return (names[of.endpoints] ??= `${of.kind}-${of.endpoints}`);
}

/** By kind and number of endpoints: names of classes without affinity. */
const plainNames: string[][] = [];

export function parseClassName(name: string): ServiceClass | undefined {
  const match = /^([a-z-]+)-(\d+)(?:-affinity-(\d+))?$/.exec(name);
  const kind = kinds.find((candidate) => candidate === match?.[1]);
  if (match === null || kind === undefined) return undefined;
  const of = { kind, endpoints: Number(match[2]), affinitySeconds: Number(match[3] ?? 0) };
  // Others may have named a chain nearly like one of ours.
  return of.endpoints >= 1 && of.endpoints <= maxEndpoints && className(of) === name ? of : undefined;
}

/** The verdict map that leads to the chains of a kind. */
export function classMap(kind: ClassKind): string {
  return kind.includes('pick') ? maps.pickClasses : maps.classes;
}

/** The map from address and slot to endpoint that classes of a kind draw from when they have no affinity. */
export function slotMap(kind: ClassKind): string {
  if (kind.startsWith('nodeport')) {
    return kind.endsWith('local') ? maps.nodePortEndpointsLocal : maps.nodePortEndpoints;
  }
  return kind.endsWith('local') ? maps.endpointsLocal : maps.endpoints;
}

export const maxEndpoints = 0xffff;

/** What a number says by itself; undefined for the two fixed classes and those with affinity. */
export function classWithoutAffinity(id: number): ServiceClass | undefined {
  const kind = kinds[(id >>> 16) - 1];
  const endpoints = id & 0xffff;
  return kind === undefined || endpoints === 0 ? undefined : { kind, endpoints, affinitySeconds: 0 };
}

/**
 * Numbers for classes. Without affinity the number follows from the class; a (kind, timeout) pair takes the next
 * free major, which a later process learns from the kernel again (`learn`). It is given back with the last chain, and
 * reused as late as possible.
 */
export class ClassNumbers {
  private readonly affinityMajors = new Map<string, number>();
  private readonly usedMajors = new Set<number>();
  /** By (kind, timeout) pair: how many chains of classes there are. */
  private readonly chains = new Map<string, number>();
  private next = firstAffinityMajor;

  idOf(of: ServiceClass): number {
    if (of.affinitySeconds === 0) return classId(1 + kinds.indexOf(of.kind), of.endpoints);
    const pair = pairOf(of);
    let major = this.affinityMajors.get(pair);
    if (major === undefined) {
      major = this.freeMajor();
      this.take(pair, major);
    }
    return classId(major, of.endpoints);
  }

  /** Takes over a number found in the kernel. @returns false when it contradicts what is known. */
  learn(id: number, of: ServiceClass): boolean {
    const major = id >>> 16;
    if (of.affinitySeconds > 0 && major >= firstAffinityMajor && major < firstAffinityServiceMajor) {
      const pair = pairOf(of);
      if (!this.affinityMajors.has(pair)) {
        if (this.usedMajors.has(major)) return false;
        this.take(pair, major);
      }
    }
    return this.idOf(of) === id;
  }

  private take(pair: string, major: number): void {
    this.affinityMajors.set(pair, major);
    this.usedMajors.add(major);
  }

  /** @returns how to take it back */
  chainAdded(of: ServiceClass): () => void {
    if (of.affinitySeconds === 0) return () => undefined;
    const pair = pairOf(of);
    this.count(pair, 1);
    return () => {
      this.count(pair, -1);
    };
  }

  /** @returns how to take it back */
  chainDeleted(of: ServiceClass): () => void {
    if (of.affinitySeconds === 0) return () => undefined;
    const pair = pairOf(of);
    const major = this.affinityMajors.get(pair);
    this.count(pair, -1);
    return () => {
      if (major !== undefined) this.take(pair, major);
      this.count(pair, 1);
    };
  }

  private count(pair: string, by: 1 | -1): void {
    const chains = (this.chains.get(pair) ?? 0) + by;
    if (chains > 0) {
      this.chains.set(pair, chains);
      return;
    }
    this.chains.delete(pair);
    this.giveBack(pair);
  }

  private giveBack(pair: string): void {
    const major = this.affinityMajors.get(pair);
    this.affinityMajors.delete(pair);
    if (major !== undefined) this.usedMajors.delete(major);
  }

  private freeMajor(): number {
    const limit = firstAffinityServiceMajor - firstAffinityMajor;
    if (this.usedMajors.size >= limit) {
      // Asked for, but no chain came of it.
      for (const pair of [...this.affinityMajors.keys()]) if (!this.chains.has(pair)) this.giveBack(pair);
    }
    for (let i = 0; i < limit; i++) {
      const major = this.next;
      this.next = major + 1 < firstAffinityServiceMajor ? major + 1 : firstAffinityMajor;
      if (!this.usedMajors.has(major)) return major;
    }
    throw new RangeError(`more than ${limit} pairs of a kind of address and a session affinity timeout`);
  }
}

function pairOf({ kind, affinitySeconds }: ServiceClass): string {
  return `${kind} ${affinitySeconds}`;
}
