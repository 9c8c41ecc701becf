/**
 * Numbers for ClientIP affinity. A service port with affinity is a 16-bit number ("major"), each of its endpoints
 * another ("minor"): together the TC class id that the rules carry in `meta priority` while they decide. The map
 * `affinity` remembers `client . major:0 → major:minor`.
 *
 * An endpoint keeps its number while it lives. A remembered number that leads to no endpoint makes the rules choose
 * anew. So a number that became free is retired: nobody gets it before what remembers it is deleted
 * (affinity-sweep.ts), or a later endpoint would inherit all clients of an earlier one.
 */
import { firstAffinityServiceMajor } from '../layout/classes.js';
import type { EndpointNumbers } from './endpoint-numbers.js';

const lastMajor = 0xffff;

/** Numbers that became free, and since when (performance.now()), the first one first. */
export type RetiredNumbers = Map<number, number>;

/** Hands out numbers of service ports; a released one is reused as late as possible. */
export class AffinityServiceNumbers {
  /** Clients may still be remembered under these. */
  readonly retired: RetiredNumbers = new Map();
  private readonly used = new Set<number>();
  /** Found in the kernel, and likely to be claimed. */
  private reserved: ReadonlySet<number> = new Set();
  private next = firstAffinityServiceMajor;

  take(): number {
    const size = lastMajor - firstAffinityServiceMajor + 1;
    if (this.used.size >= size) {
      throw new RangeError(`more than ${size} service ports with session affinity ClientIP in one family`);
    }
    // Retired and reserved ones only when nothing else is left.
    for (let i = 0; i < size && !this.isFree(this.next); i++) this.advance();
    if (!this.isFree(this.next)) {
      const oldest = this.retired.keys().next().value;
      if (oldest !== undefined) this.next = oldest;
    }
    while (this.used.has(this.next)) this.advance();
    const number = this.next;
    this.used.add(number);
    this.retired.delete(number);
    this.advance();
    return number;
  }

  private isFree(number: number): boolean {
    return !this.used.has(number) && !this.reserved.has(number) && !this.retired.has(number);
  }

  /**
   * Keeps take() from numbers that service ports have in the kernel but have not claimed yet: else one newcomer would
   * make them all change their numbers, and their clients would be forgotten.
   */
  reserve(numbers: Iterable<number>): void {
    this.reserved = new Set(numbers);
  }

  /** Takes a number found in the kernel. @returns false when somebody has it. */
  claim(number: number): boolean {
    if (number < firstAffinityServiceMajor || number > lastMajor || this.used.has(number)) return false;
    this.used.add(number);
    this.retired.delete(number);
    return true;
  }

  /** @param now performance.now() */
  release(number: number, now: number): void {
    this.used.delete(number);
    this.retired.set(number, now);
  }

  /** Nobody knows which numbers are remembered: a random one is likely not to be. */
  startAnywhere(): void {
    this.next =
      firstAffinityServiceMajor + Math.floor(Math.random() * (lastMajor - firstAffinityServiceMajor + 1));
  }

  private advance(): void {
    this.next = this.next === lastMajor ? firstAffinityServiceMajor : this.next + 1;
  }
}

/** Identity of a service port with affinity in the kernel, and of its endpoints. */
export interface Affinity {
  /** Major number, `firstAffinityServiceMajor`..0xffff. */
  readonly service: number;
  /** Changes in place, and only with the service port's state. */
  readonly numbers: EndpointNumbers;
  /** Numbers of the endpoints in the slots; 0: it has none. */
  readonly clusterMinors: Uint16Array;
  readonly localMinors: Uint16Array;
}

/** What became of affinity since clients that are remembered were last looked at. */
export class AffinityChanges {
  /** By number of the service port: numbers of endpoints that are gone. */
  readonly endpoints = new Map<number, RetiredNumbers>();
  /** By number of the service port whose timeout was lowered: the former timeout, and when that was. */
  readonly lowered = new Map<number, { readonly formerMs: number; readonly at: number }>();

  clear(): void {
    this.endpoints.clear();
    this.lowered.clear();
  }

  /** @returns how to take it back */
  retire(service: number, numbers: readonly number[], now: number): () => void {
    let retired = this.endpoints.get(service);
    if (retired === undefined) this.endpoints.set(service, (retired = new Map<number, number>()));
    for (const number of numbers) {
      retired.delete(number);
      retired.set(number, now);
    }
    return () => {
      for (const number of numbers) retired.delete(number);
    };
  }

  /** @returns how to take it back */
  lower(service: number, formerMs: number, now: number): () => void {
    const before = this.lowered.get(service);
    this.lowered.set(service, { formerMs: Math.max(formerMs, before?.formerMs ?? 0), at: now });
    return () => {
      if (before === undefined) this.lowered.delete(service);
      else this.lowered.set(service, before);
    };
  }

  /** What was changed up to then holds for all clients that are remembered. */
  settle(until: number): void {
    for (const [service, retired] of this.endpoints) {
      forgetUntil(retired, until);
      if (retired.size === 0) this.endpoints.delete(service);
    }
    for (const [service, { at }] of this.lowered) if (at <= until) this.lowered.delete(service);
  }

  get isEmpty(): boolean {
    return this.endpoints.size === 0 && this.lowered.size === 0;
  }
}

/** Frees the numbers that were retired up to then. */
export function forgetUntil(retired: RetiredNumbers, until: number): void {
  for (const [number, at] of retired) if (at <= until) retired.delete(number);
}
