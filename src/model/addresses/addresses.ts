/**
 * IP addresses and CIDRs from API objects and flags, made canonical (service-model.md 2.2).
 *
 * Parsing is lenient where upstream's is: leading zeros of IPv4 octets and prefix lengths are decimal, and an
 * IPv4-mapped IPv6 address counts as IPv4. Canonical IPv6 text follows RFC 5952. A zone ("%eth0") is not an address.
 */
import type { IPFamily } from '../../sources/objects.js';
import type { Cidr } from '../types.js';

export interface ParsedAddress {
  readonly family: IPFamily;
  /** Canonical text. */
  readonly ip: string;
}

export interface ParsedCidr {
  readonly family: IPFamily;
  /** Host bits cleared. */
  readonly cidr: Cidr;
}

/** Bits of an address of the family. */
const addressBits: Readonly<Record<IPFamily, number>> = { IPv4: 32, IPv6: 128 };

export const allFamilies: readonly IPFamily[] = ['IPv4', 'IPv6'];

/** Endpoints are parsed by the hundred thousand, so IPv4 text that is canonical already comes back as it is. */
export function parseAddress(text: string): ParsedAddress | undefined {
  if (!text.includes(':')) {
    const ip = canonicalIPv4(text);
    return ip === undefined ? undefined : { family: 'IPv4', ip };
  }
  const words = parseIPv6(text);
  if (words === undefined) return undefined;
  if (isMapped(words)) return { family: 'IPv4', ip: formatWords(words.slice(6)) };
  const ip = formatWords(words);
  return { family: 'IPv6', ip: ip === text ? text : ip };
}

/** Parses 'address/length'. An address without a length is not a CIDR. */
export function parseCidr(text: string): ParsedCidr | undefined {
  const slash = text.indexOf('/');
  if (slash < 0) return undefined;
  const lengthText = text.slice(slash + 1);
  if (!/^[0-9]+$/.test(lengthText)) return undefined;
  const addressText = text.slice(0, slash);
  const words = parseWords(addressText);
  if (words === undefined) return undefined;
  let prefixLength = Number(lengthText);
  if (words.length === 2 && addressText.includes(':')) {
    // IPv4-mapped: the length counts the 96 fixed bits. A shorter one covers more than IPv4 and fits no family.
    prefixLength -= 96;
  }
  const family = words.length === 2 ? 'IPv4' : 'IPv6';
  if (prefixLength < 0 || prefixLength > addressBits[family]) return undefined;
  return { family, cidr: { ip: formatWords(maskWords(words, prefixLength)), prefixLength } };
}

/** The CIDR that holds exactly this canonical address. */
export function hostCidr(ip: string): Cidr {
  return { ip, prefixLength: addressBits[familyOf(ip)] };
}

/** Family of canonical text. */
export function familyOf(ip: string): IPFamily {
  return ip.includes(':') ? 'IPv6' : 'IPv4';
}

/** Whether the CIDR holds the address; false across families. */
export function cidrContains(cidr: Cidr, ip: string): boolean {
  const words = parseWords(ip);
  if (words === undefined || familyOf(cidr.ip) !== familyOf(ip)) return false;
  return formatWords(maskWords(words, cidr.prefixLength)) === cidr.ip;
}

export function formatCidr(cidr: Cidr): string {
  return `${cidr.ip}/${cidr.prefixLength}`;
}

/** 'ip:port', or '[ip]:port' for IPv6. */
export function formatIpPort(ip: string, port: number): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** 127.0.0.0/8 or ::1, canonical text. */
export function isLoopback(ip: string): boolean {
  return ip.startsWith('127.') || ip === '::1';
}

/** 0.0.0.0 or ::, canonical text. */
export function isUnspecified(ip: string): boolean {
  return ip === '0.0.0.0' || ip === '::';
}

/**
 * What an address is that no packet can be sent on to from another machine, in words; undefined: nothing of the kind. The API
 * refuses such endpoints and external IPs (ValidateEndpointIP, ValidateNonSpecialIP); through a proxy that took them, a
 * client could reach what listens on the node's loopback addresses only, or a cloud's metadata server.
 * @param ip canonical text
 */
export function specialUse(ip: string): string | undefined {
  if (ip.includes(':')) {
    if (ip === '::') return 'unspecified';
    if (ip === '::1') return 'a loopback address';
    if (/^fe[89ab]/.test(ip)) return 'a link-local address';
    return /^ff[0-9a-f]{2}:/.test(ip) ? 'a multicast address' : undefined;
  }
  if (ip.startsWith('0.')) return 'unspecified';
  if (ip.startsWith('127.')) return 'a loopback address';
  if (ip.startsWith('169.254.')) return 'a link-local address';
  if (ip === '255.255.255.255') return 'the broadcast address';
  // 224.0.0.0/4. What is above is reserved, but some clusters do have their pods there.
  const first = ip.charCodeAt(0) === two && ip.charCodeAt(3) === dot ? Number(ip.slice(0, 3)) : 0;
  return first >= 224 && first < 240 ? 'a multicast address' : undefined;
}

const dot = 0x2e;
const two = 0x32;
const zeroCases = 0x30;
const nine = 0x39;

function canonicalIPv4(text: string): string | undefined {
  let octets = 0;
  let value = 0;
  let digits = 0;
  let canonical = true;
  for (let i = 0; i <= text.length; i++) {
    const code = i < text.length ? text.charCodeAt(i) : dot;
    if (code >= zeroCases && code <= nine) {
      if (digits > 0 && value === 0) canonical = false;
      value = value * 10 + (code - zeroCases);
      if (value > 255) return undefined;
      digits++;
    } else if (code === dot) {
      if (digits === 0 || ++octets > 4) return undefined;
      value = 0;
      digits = 0;
    } else {
      return undefined;
    }
  }
  if (octets !== 4) return undefined;
  return canonical ? text : text.split('.').map(Number).join('.');
}

/** 16-bit words: 2 for IPv4 (and IPv4-mapped IPv6), 8 for IPv6. */
function parseWords(text: string): readonly number[] | undefined {
  if (text.includes(':')) {
    const words = parseIPv6(text);
    return words !== undefined && isMapped(words) ? words.slice(6) : words;
  }
  const ip = canonicalIPv4(text);
  return ip === undefined ? undefined : wordsOfIPv4(ip);
}

function wordsOfIPv4(canonical: string): number[] {
  const [a = 0, b = 0, c = 0, d = 0] = canonical.split('.').map(Number);
  return [a * 256 + b, c * 256 + d];
}

function parseIPv6(text: string): number[] | undefined {
  const gap = text.indexOf('::');
  if (gap < 0) {
    const words = parseIPv6Part(text, true);
    return words?.length === 8 ? words : undefined;
  }
  const tailText = text.slice(gap + 2);
  const head = gap === 0 ? [] : parseIPv6Part(text.slice(0, gap), false);
  const tail = tailText === '' ? [] : parseIPv6Part(tailText, true);
  if (head === undefined || tail === undefined || head.length + tail.length > 7) return undefined;
  const zeros = new Array<number>(8 - head.length - tail.length).fill(0);
  return [...head, ...zeros, ...tail];
}

/** Words between colons; only the end of an address may be dotted IPv4. */
function parseIPv6Part(text: string, last: boolean): number[] | undefined {
  const words: number[] = [];
  const parts = text.split(':');
  for (const [index, part] of parts.entries()) {
    if (last && index === parts.length - 1 && part.includes('.')) {
      const ip = canonicalIPv4(part);
      if (ip === undefined) return undefined;
      words.push(...wordsOfIPv4(ip));
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(part)) return undefined;
      words.push(Number.parseInt(part, 16));
    }
  }
  return words;
}

/** ::ffff:0:0/96 */
function isMapped(words: readonly number[]): boolean {
  return words[5] === 0xffff && words.slice(0, 5).every((word) => word === 0);
}

function maskWords(words: readonly number[], prefixLength: number): number[] {
  return words.map((word, index) => {
    const kept = Math.min(16, Math.max(0, prefixLength - index * 16));
    return word & (0xffff << (16 - kept)) & 0xffff;
  });
}

function formatWords(words: readonly number[]): string {
  if (words.length === 2) return words.map((word) => `${word >> 8}.${word & 255}`).join('.');
  // RFC 5952 4.2: the longest run of at least two zero words is shortened, the first one of equals.
  let start = -1;
  let length = 1;
  for (let i = 0; i < words.length; i++) {
    let end = i;
    while (end < words.length && words[end] === 0) end++;
    if (end - i > length) {
      start = i;
      length = end - i;
    }
    if (end > i) i = end;
  }
  const hex = words.map((word) => word.toString(16));
  if (start < 0) return hex.join(':');
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + length).join(':')}`;
}
