/** CIDRs as the elements of an interval set: a start, and the first address behind the range marked as an end. */
import type { Cidr } from '../../model/types.js';
import { addressBytes } from './keys.js';

export interface IntervalElement {
  /** 4 or 16 bytes as latin1. */
  readonly key: string;
  readonly end: boolean;
}

function toNumber(bytes: string): bigint {
  return BigInt(`0x${Buffer.from(bytes, 'latin1').toString('hex')}`);
}

function toBytes(value: bigint, size: number): string {
  return Buffer.from(value.toString(16).padStart(size * 2, '0'), 'hex').toString('latin1');
}

/** Overlapping and adjacent ranges are merged: the kernel refuses overlaps. Ordered by address. */
export function intervalElements(cidrs: readonly Cidr[]): IntervalElement[] {
  const size = cidrs[0] === undefined ? 0 : addressBytes(cidrs[0].ip).length;
  const ranges = cidrs
    .map(({ ip, prefixLength }) => {
      const start = toNumber(addressBytes(ip));
      return { start, end: start + (1n << BigInt(size * 8 - prefixLength)) };
    })
    .sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const merged: { start: bigint; end: bigint }[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && range.start <= last.end) last.end = range.end > last.end ? range.end : last.end;
    else merged.push({ ...range });
  }
  return merged.flatMap(({ start, end }) => {
    const elements = [{ key: toBytes(start, size), end: false }];
    // A range up to the last address has no address behind it.
    if (end < 1n << BigInt(size * 8)) elements.push({ key: toBytes(end, size), end: true });
    return elements;
  });
}

/** The same ranges, in whatever order. */
export function sameIntervals(a: readonly IntervalElement[], b: readonly IntervalElement[]): boolean {
  const text = (list: readonly IntervalElement[]): string =>
    list
      .map(({ key, end }) => `${key}${end}`)
      .sort()
      .join();
  return text(a) === text(b);
}
