/**
 * What is known and what is suspected of the flows of one protocol in one family. A service port is under suspicion
 * from the moment it changes until the table has been looked at; meanwhile all its versions are remembered, so
 * that an endpoint that came and went between two looks is not overlooked.
 */
import { performance } from 'node:perf_hooks';
import { formatIpPort } from '../model/addresses.js';
import type { Protocol, ServicePort } from '../model/types.js';

export interface LaneOptions {
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
export interface Suspect {
  /** What it was before, oldest first. */
  readonly versions: ServicePort[];
  /** Nothing is known of earlier times, or datagrams may have passed the rules by. */
  everything: boolean;
}

/** An address that belonged to a service port, and the endpoints that it led to. */
export interface Retired {
  readonly endpoints: Set<string>;
  /** performance.now() */
  readonly due: number;
}

export interface Work {
  readonly suspects: ReadonlyMap<string, Suspect>;
  /** By destination. */
  readonly retired: ReadonlyMap<string, Retired>;
}

/** More versions than that are not kept: then everything about the service port is looked at. */
const maxVersions = 32;
const firstRetryMs = 1_000;
const maxRetryMs = 30_000;

/** How destinations are named: '' is the address of node ports. */
export function destination(ip: string, port: number): string {
  return `${ip} ${port}`;
}

/** 'ip:port' of the endpoints that a flow of this service port may be bound to. */
export function endpointsOf(port: ServicePort): Iterable<string> {
  if (port.protocol !== 'TCP') return port.servingEndpoints;
  return new Set(
    [...port.clusterEndpoints, ...port.localEndpoints].map((endpoint) =>
      formatIpPort(endpoint.ip, endpoint.port),
    ),
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

export class Lane {
  /** Service ports that are in the kernel, by key. */
  readonly known = new Map<string, ServicePort>();
  /** How many entries of the protocol there were when last all of them were read. */
  matching: number | undefined;
  private suspects = new Map<string, Suspect>();
  /** What is being looked at now. */
  private taken: ReadonlyMap<string, Suspect> = new Map();
  private readonly retired = new Map<string, Retired>();
  private notBefore = -Infinity;
  private retryMs = firstRetryMs;
  private failing = false;

  constructor(readonly options: LaneOptions) {}

  changed(port: ServicePort): void {
    const before = this.known.get(port.key);
    this.known.set(port.key, port);
    if (before === port || (before !== undefined && sameFlows(before, port))) return;
    const suspect = this.suspect(port.key);
    if (before === undefined) suspect.everything = true;
    else suspect.versions.push(before);
    if (suspect.versions.length > maxVersions) {
      suspect.everything = true;
      suspect.versions.splice(0, maxVersions);
    }
  }

  removed(key: string): void {
    const last = this.known.get(key);
    if (last === undefined) return;
    const versions = [
      ...(this.taken.get(key)?.versions ?? []),
      ...(this.suspects.get(key)?.versions ?? []),
      last,
    ];
    this.known.delete(key);
    this.suspects.delete(key);
    const addresses = new Set(
      versions.flatMap((port) => port.addresses.map(({ ip, port: number }) => destination(ip, number))),
    );
    this.retire(addresses, versions);
  }

  suspectAll(): void {
    for (const key of this.known.keys()) this.suspect(key).everything = true;
  }

  /** Addresses that are a service port's no more. */
  retire(addresses: Iterable<string>, versions: readonly ServicePort[]): void {
    const { retireAfterMs } = this.options;
    if (retireAfterMs === undefined) return;
    const due = performance.now() + retireAfterMs;
    for (const address of addresses) {
      const endpoints = this.retired.get(address)?.endpoints ?? new Set<string>();
      for (const version of versions) for (const endpoint of endpointsOf(version)) endpoints.add(endpoint);
      // Taken out first, so that the map stays in the order of what is due.
      this.retired.delete(address);
      if (endpoints.size > 0) this.retired.set(address, { endpoints, due });
    }
  }

  /** When there is something to look at: performance.now(), Infinity: nothing. */
  get dueAt(): number {
    const retired = this.retired.values().next().value?.due ?? Infinity;
    return Math.max(this.notBefore, this.suspects.size > 0 ? -Infinity : retired);
  }

  /** Something waits, and not because of a failure or a grace period. */
  get busy(): boolean {
    return this.suspects.size > 0 && !this.failing;
  }

  /** What is to be looked at now. Follow with done() or failed(). */
  take(): Work {
    const suspects = this.suspects;
    this.suspects = new Map();
    this.taken = suspects;
    const now = performance.now();
    const retired = new Map<string, Retired>();
    for (const [address, entry] of this.retired) {
      if (entry.due > now) break;
      this.retired.delete(address);
      retired.set(address, entry);
    }
    if (retired.size > 0) {
      for (const { addresses } of this.known.values())
        for (const { ip, port } of addresses) retired.delete(destination(ip, port));
    }
    return { suspects, retired };
  }

  /** @returns whether it had failed before */
  done(tookMs: number): boolean {
    const recovered = this.failing;
    this.failing = false;
    this.retryMs = firstRetryMs;
    this.taken = new Map();
    const rest = Math.min(tookMs * this.options.rest, this.options.maxRestMs);
    this.notBefore = Math.max(this.notBefore, performance.now() + rest);
    return recovered;
  }

  /** Everything is under suspicion as before. @returns whether this is news, and when it is tried again */
  failed(work: Work): { readonly first: boolean; readonly retryMs: number } {
    const { retryMs } = this;
    const first = !this.failing;
    this.failing = true;
    this.taken = new Map();
    for (const [key, { versions, everything }] of work.suspects) {
      if (!this.known.has(key)) continue;
      const suspect = this.suspect(key);
      suspect.versions.unshift(...versions);
      suspect.everything ||= everything;
    }
    const later = [...this.retired];
    this.retired.clear();
    for (const [address, entry] of [...work.retired, ...later]) this.retired.set(address, entry);
    this.notBefore = performance.now() + retryMs;
    this.retryMs = Math.min(retryMs * 2, maxRetryMs);
    return { first, retryMs };
  }

  private suspect(key: string): Suspect {
    let suspect = this.suspects.get(key);
    if (suspect === undefined) {
      if (this.suspects.size === 0)
        this.notBefore = Math.max(this.notBefore, performance.now() + this.options.delayMs);
      suspect = { versions: [], everything: false };
      this.suspects.set(key, suspect);
    }
    return suspect;
  }
}
