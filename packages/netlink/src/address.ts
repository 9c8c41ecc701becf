/** IP addresses between text and bytes. The text side is canonical: RFC 5952 for IPv6. */
import { invalid } from './errors.js';

/** Bytes of an IPv4 address. */
export const IPV4_LENGTH = 4;
/** Bytes of an IPv6 address. */
export const IPV6_LENGTH = 16;

const ZERO = 48;
const DOT = 46;
const COLON = 58;

/** Parses text[from, to) strictly (four decimal numbers, no leading zeros). */
function parseIPv4(text: string, from: number, to: number, target: Uint8Array, offset: number): boolean {
  let at = from;
  for (let part = 0; part < IPV4_LENGTH; part++) {
    if (part > 0 && (at >= to || text.charCodeAt(at++) !== DOT)) return false;
    const start = at;
    let value = 0;
    while (at < to && at - start < 3) {
      const digit = text.charCodeAt(at) - ZERO;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
      at++;
    }
    if (at === start || value > 255 || (at - start > 1 && text.charCodeAt(start) === ZERO)) return false;
    target[offset + part] = value;
  }
  return at === to;
}

function hexDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48;
  if (code >= 97 && code <= 102) return code - 87;
  if (code >= 65 && code <= 70) return code - 55;
  return -1;
}

function parseIPv6(text: string, target: Uint8Array, offset: number): boolean {
  const end = text.length;
  let at = 0;
  let written = 0;
  /** Where '::' stands, in bytes written before it. */
  let gap = -1;
  if (text.charCodeAt(0) === COLON) {
    if (text.charCodeAt(1) !== COLON) return false;
    gap = 0;
    at = 2;
  }
  while (at < end) {
    if (written === IPV6_LENGTH) return false;
    const start = at;
    let value = 0;
    while (at < end && at - start < 4) {
      const digit = hexDigit(text.charCodeAt(at));
      if (digit < 0) break;
      value = value * 16 + digit;
      at++;
    }
    if (text.charCodeAt(at) === DOT) {
      if (written > IPV6_LENGTH - IPV4_LENGTH || !parseIPv4(text, start, end, target, offset + written)) {
        return false;
      }
      written += IPV4_LENGTH;
      break;
    }
    if (at === start) return false;
    target[offset + written++] = value >> 8;
    target[offset + written++] = value & 0xff;
    if (at === end) break;
    if (text.charCodeAt(at++) !== COLON) return false;
    if (text.charCodeAt(at) === COLON) {
      if (gap >= 0) return false;
      gap = written;
      at++;
    } else if (at === end) {
      return false;
    }
  }
  if (gap < 0) return written === IPV6_LENGTH;
  if (written === IPV6_LENGTH) return false;
  target.copyWithin(offset + IPV6_LENGTH - (written - gap), offset + gap, offset + written);
  target.fill(0, offset + gap, offset + IPV6_LENGTH - (written - gap));
  return true;
}

/**
 * Writes the 4 bytes of an address.
 * @throws NetlinkError EINVAL when the text is not an IPv4 address
 */
export function encodeIPv4(text: string, target: Uint8Array, offset: number): void {
  if (!parseIPv4(text, 0, text.length, target, offset))
    throw invalid(`parse "${text}"`, 'not an IPv4 address');
}

/**
 * Writes the 16 bytes of an address. Zone suffixes (`%eth0`) are not part of an address here.
 * @throws NetlinkError EINVAL when the text is not an IPv6 address
 */
export function encodeIPv6(text: string, target: Uint8Array, offset: number): void {
  if (!parseIPv6(text, target, offset)) throw invalid(`parse "${text}"`, 'not an IPv6 address');
}

/** The bytes of an address of either family. */
export function parseAddress(text: string): Buffer {
  const v6 = text.includes(':');
  const bytes = Buffer.alloc(v6 ? IPV6_LENGTH : IPV4_LENGTH);
  if (v6) encodeIPv6(text, bytes, 0);
  else encodeIPv4(text, bytes, 0);
  return bytes;
}

/** @param offset of 4 bytes in `source` */
export function decodeIPv4(source: Uint8Array, offset: number): string {
  return `${source[offset] ?? 0}.${source[offset + 1] ?? 0}.${source[offset + 2] ?? 0}.${source[offset + 3] ?? 0}`;
}

/** @param offset of 16 bytes in `source` */
export function decodeIPv6(source: Uint8Array, offset: number): string {
  const groups: number[] = [];
  for (let i = 0; i < IPV6_LENGTH; i += 2) {
    groups.push(((source[offset + i] ?? 0) << 8) | (source[offset + i + 1] ?? 0));
  }
  // An IPv4 address in IPv6 form keeps its dots (RFC 5952, section 5).
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff) {
    return `::ffff:${decodeIPv4(source, offset + 12)}`;
  }
  let [bestStart, bestLength] = [-1, 1];
  for (let start = 0; start < groups.length; start++) {
    let length = 0;
    while (groups[start + length] === 0) length++;
    if (length > bestLength) [bestStart, bestLength] = [start, length];
  }
  const hex = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  if (bestStart < 0) return hex(groups);
  return `${hex(groups.slice(0, bestStart))}::${hex(groups.slice(bestStart + bestLength))}`;
}

/** The text of an address of 4 or 16 bytes. */
export function formatAddress(bytes: Uint8Array): string {
  if (bytes.length === IPV4_LENGTH) return decodeIPv4(bytes, 0);
  if (bytes.length === IPV6_LENGTH) return decodeIPv6(bytes, 0);
  throw invalid('read address', `${bytes.length} bytes, 4 or 16 wanted`);
}
