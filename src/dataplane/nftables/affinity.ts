/**
 * Numbers for ClientIP affinity. A service port with affinity is a 16-bit number ("major"), each of its endpoints
 * another ("minor"): together the TC class id that the rules carry in `meta priority` while they decide. The map
 * `affinity` remembers `client . major:0 → major:minor`.
 *
 * An endpoint keeps its number while it lives. A remembered number that leads to no endpoint makes the rules choose
 * anew; one that was given to a later endpoint leads there, which is as good.
 */
import type { Endpoint } from '../../model/types.js';
import { firstAffinityServiceMajor } from './classes.js';
import { endpointKey } from './slots.js';

const lastMajor = 0xffff;
const lastMinor = 0xffff;

/** Hands out numbers of service ports; a released one is reused as late as possible. */
export class AffinityServiceNumbers {
  private readonly used = new Set<number>();
  /** Found in the kernel, and likely to be claimed. */
  private reserved: ReadonlySet<number> = new Set();
  private next = firstAffinityServiceMajor;

  take(): number {
    const size = lastMajor - firstAffinityServiceMajor + 1;
    if (this.used.size >= size) {
      throw new RangeError(`more than ${size} service ports with session affinity ClientIP in one family`);
    }
    // Reserved ones only when nothing else is left.
    for (let i = 0; i < size && (this.used.has(this.next) || this.reserved.has(this.next)); i++)
      this.advance();
    while (this.used.has(this.next)) this.advance();
    const number = this.next;
    this.used.add(number);
    this.advance();
    return number;
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
    return true;
  }

  release(number: number): void {
    this.used.delete(number);
  }

  private advance(): void {
    this.next = this.next === lastMajor ? firstAffinityServiceMajor : this.next + 1;
  }
}

/**
 * Numbers for the endpoints of one service port.
 * @param known numbers in force, by endpointKey.
 * @returns `known` itself when no endpoint came or went.
 */
export function numberEndpoints(
  known: ReadonlyMap<string, number>,
  endpoints: readonly Endpoint[],
): ReadonlyMap<string, number> {
  const keys = new Set(endpoints.map(endpointKey));
  if (keys.size === known.size && [...keys].every((key) => known.has(key))) return known;

  const numbers = new Map<string, number>();
  const taken = new Set<number>();
  let last = 0;
  for (const [key, number] of known) {
    last = Math.max(last, number);
    if (!keys.has(key)) continue;
    numbers.set(key, number);
    taken.add(number);
  }
  for (const key of keys) {
    if (numbers.has(key)) continue;
    if (taken.size >= lastMinor) break;
    do last = last >= lastMinor ? 1 : last + 1;
    while (taken.has(last));
    numbers.set(key, last);
    taken.add(last);
  }
  return numbers;
}
