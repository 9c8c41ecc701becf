/**
 * What is known and what is suspected of the flows of one protocol in one family. A service port is under suspicion
 * from the moment it changes until the table has been looked at; meanwhile all its versions are remembered, so
 * that an endpoint that came and went between two looks is not overlooked.
 */
import { performance } from 'node:perf_hooks';
import { formatIpPort } from '../model/addresses/addresses.js';
import type { Protocol, ServicePort } from '../model/types.js';

export interface CandidatesOptions {
  readonly protocol: Protocol;
  /** IANA number. */
  readonly number: number;
  /** Milliseconds between the first suspicion and the look at the table: changes that come together cost one look. */
  readonly delayMs: number;
  /** After a look the lane rests for this many times what it took, but not longer than maxRestMs. */
  readonly rest: number;
  readonly maxRestMs: number;
  /** Flows of addresses that are no service's any more are judged after so many milliseconds; undefined: never. */
  readonly retireAfterMs: number | undefined;
}

/** A service port whose entries have to be looked at. */
export interface Candidate {
  /** What it was before, oldest first. */
  readonly versions: ServicePort[];
  /** Nothing is known of earlier times, or datagrams may have passed the rules by. */
  everything: boolean;
}

/** An address that is no service port's any more, and the endpoints that it led to. */
export interface Retired {
  /** 'ip:port' in several lists: one per version of the service ports that it belonged to. */
  readonly endpoints: readonly (readonly string[])[];
  /** performance.now() */
  readonly due: number;
}

export interface PendingQueries {
  readonly pending: ReadonlyMap<string, Candidate>;
  /** By destination. */
  readonly retired: ReadonlyMap<string, Retired>;
}

/** More versions than that are not kept: then everything about the service port is looked at. */
const maxVersions = 32;
/** While looking at the table fails, no more addresses than that wait for it; the oldest are forgotten. */
const maxRetiredWhileFailing = 10_000;
const firstRetryMs = 1_000;
const maxRetryMs = 30_000;

/** How destinations are named: '' is the address of node ports. */
export function destination(ip: string, port: number): string {
  return `${ip} ${port}`;
}

/** 'ip:port' of the endpoints that a flow of this service port may be bound to. */
export function endpointsOf(port: ServicePort): readonly string[] {
  if (port.protocol !== 'TCP') return port.servingEndpoints;
  return [...port.clusterEndpoints, ...port.localEndpoints].map((endpoint) =>
    formatIpPort(endpoint.ip, endpoint.port),
  );
}

function sameFlows(a: ServicePort, b: ServicePort): boolean {
  return (
    a.addresses === b.addresses &&
    a.servingEndpoints === b.servingEndpoints &&
    (a.protocol !== 'TCP' ||
      (a.clusterEndpoints === b.clusterEndpoints && a.localEndpoints === b.localEndpoints))
  );
}

export class Candidates {
  /** Service ports that are in the kernel, by key. */
  readonly known = new Map<string, ServicePort>();
  /** How many entries of the protocol there were when last all of them were read. */
  matching: number | undefined;
  private pending = new Map<string, Candidate>();
  /** What is being looked at now. */
  private taken: ReadonlyMap<string, Candidate> = new Map();
  private takenRetired = 0;
  /** By destination: the key of the service port that has it now. Only where addresses retire. */
  private readonly owners = new Map<string, string>();
  /** By destination, in the order of what is due. */
  private readonly retired = new Map<string, Retired>();
  private notBefore = -Infinity;
  private retryMs = firstRetryMs;
  private failing = false;

  constructor(readonly options: CandidatesOptions) {}

  changed(port: ServicePort): void {
    const before = this.known.get(port.key);
    this.known.set(port.key, port);
    if (before === port || (before !== undefined && sameFlows(before, port))) return;
    const candidate = this.candidate(port.key);
    if (before === undefined) candidate.everything = true;
    else candidate.versions.push(before);
    forgetOldest(candidate);
    if (before?.addresses !== port.addresses) this.claim(port, before);
  }

  removed(key: string): void {
    const last = this.known.get(key);
    if (last === undefined) return;
    const versions = this.versionsOf(key, last);
    this.known.delete(key);
    this.pending.delete(key);
    this.retire(this.released(last), versions.map(endpointsOf));
  }

  checkAll(): void {
    for (const key of this.known.keys()) this.candidate(key).everything = true;
  }

  /**
   * The service port that has an address now.
   * @param key of the one that had it when the table began to be read
   */
  ownerOf(to: string, key: string | undefined): ServicePort | undefined {
    const owner = this.options.retireAfterMs === undefined ? key : this.owners.get(to);
    return owner === undefined ? undefined : this.known.get(owner);
  }

  /**
   * Addresses that are a service port's no more, unless another has them.
   * @param endpoints 'ip:port' of those that they led to, in any number of lists
   */
  retire(addresses: Iterable<string>, endpoints: readonly (readonly string[])[]): void {
    const { retireAfterMs } = this.options;
    if (retireAfterMs === undefined) return;
    const lists = endpoints.filter((list) => list.length > 0);
    if (lists.length === 0) return;
    const due = performance.now() + retireAfterMs;
    for (const address of addresses) {
      if (this.owners.has(address)) continue;
      const earlier = this.retired.get(address)?.endpoints ?? [];
      // Taken out first, so that the map stays in the order of what is due.
      this.retired.delete(address);
      this.retired.set(address, { endpoints: [...earlier, ...lists].slice(-maxVersions), due });
    }
    this.forgetRetired();
  }

  /** When there is something to look at: performance.now(), Infinity: nothing. */
  get dueAt(): number {
    return Math.max(this.notBefore, this.pending.size > 0 ? -Infinity : this.retirementDueAt);
  }

  /** Something waits, and not because of a failure or a grace period. */
  get busy(): boolean {
    return !this.failing && (this.pending.size > 0 || this.retirementDueAt <= performance.now());
  }

  /** Addresses that are no service port's any more wait, or are being looked at, and nothing has failed. */
  get hasRetired(): boolean {
    return !this.failing && this.retired.size + this.takenRetired > 0;
  }

  /** What waits is due now: there will be no later. Service ports are looked at by the next process anyway. */
  hurry(): void {
    this.pending.clear();
    this.notBefore = -Infinity;
    for (const [address, { endpoints }] of this.retired)
      this.retired.set(address, { endpoints, due: -Infinity });
  }

  /** What is to be looked at now. Follow with done() or failed(). */
  take(): PendingQueries {
    const pending = this.pending;
    this.pending = new Map();
    this.taken = pending;
    const now = performance.now();
    const retired = new Map<string, Retired>();
    for (const [address, entry] of this.retired) {
      if (entry.due > now) break;
      this.retired.delete(address);
      retired.set(address, entry);
    }
    this.takenRetired = retired.size;
    return { pending, retired };
  }

  /** @returns whether it had failed before */
  done(tookMs: number): boolean {
    const recovered = this.failing;
    this.failing = false;
    this.retryMs = firstRetryMs;
    this.taken = new Map();
    this.takenRetired = 0;
    const rest = Math.min(tookMs * this.options.rest, this.options.maxRestMs);
    this.notBefore = Math.max(this.notBefore, performance.now() + rest);
    return recovered;
  }

  /** Everything is under suspicion as before. @returns whether this is news, and when it is tried again */
  failed(work: PendingQueries): { readonly first: boolean; readonly retryMs: number } {
    const { retryMs } = this;
    const first = !this.failing;
    this.failing = true;
    this.taken = new Map();
    this.takenRetired = 0;
    for (const [key, { versions, everything }] of work.pending) {
      if (!this.known.has(key)) continue;
      const candidate = this.candidate(key);
      candidate.versions.unshift(...versions);
      candidate.everything ||= everything;
      forgetOldest(candidate);
    }
    const later = [...this.retired];
    this.retired.clear();
    for (const [address, entry] of [...work.retired, ...later])
      if (!this.owners.has(address)) this.retired.set(address, entry);
    this.forgetRetired();
    this.notBefore = performance.now() + retryMs;
    this.retryMs = Math.min(retryMs * 2, maxRetryMs);
    return { first, retryMs };
  }

  private get retirementDueAt(): number {
    return this.retired.values().next().value?.due ?? Infinity;
  }

  /** All that may have led flows somewhere since the table was last looked at. */
  private versionsOf(key: string, last: ServicePort): readonly ServicePort[] {
    return [...(this.taken.get(key)?.versions ?? []), ...(this.pending.get(key)?.versions ?? []), last];
  }

  /** The addresses of a service port are its own from now on, and those that it had before are not. */
  private claim(port: ServicePort, before: ServicePort | undefined): void {
    if (this.options.retireAfterMs === undefined) return;
    const gone = before === undefined ? new Set<string>() : this.released(before);
    for (const { ip, port: number } of port.addresses) {
      const to = destination(ip, number);
      this.owners.set(to, port.key);
      this.retired.delete(to);
      gone.delete(to);
    }
    if (before !== undefined && gone.size > 0)
      this.retire(gone, this.versionsOf(port.key, before).map(endpointsOf));
  }

  /** Gives up the addresses of a service port. @returns those that it had */
  private released(port: ServicePort): Set<string> {
    const had = new Set<string>();
    if (this.options.retireAfterMs === undefined) return had;
    for (const { ip, port: number } of port.addresses) {
      const to = destination(ip, number);
      if (this.owners.get(to) !== port.key) continue;
      this.owners.delete(to);
      had.add(to);
    }
    return had;
  }

  private forgetRetired(): void {
    if (!this.failing) return;
    for (const address of this.retired.keys()) {
      if (this.retired.size <= maxRetiredWhileFailing) return;
      this.retired.delete(address);
    }
  }

  private candidate(key: string): Candidate {
    let candidate = this.pending.get(key);
    if (candidate === undefined) {
      if (this.pending.size === 0)
        this.notBefore = Math.max(this.notBefore, performance.now() + this.options.delayMs);
      candidate = { versions: [], everything: false };
      this.pending.set(key, candidate);
    }
    return candidate;
  }
}

/** With too many versions everything about the service port is looked at, so that those are not needed. */
function forgetOldest(candidate: Candidate): void {
  const { versions } = candidate;
  if (versions.length <= maxVersions) return;
  candidate.everything = true;
  versions.splice(0, versions.length - 1);
}
