/**
 * Parts of rules, in exactly the words and the order in which iptables-save prints them: what the kernel holds is compared
 * as text (saved.ts), and what is not understood as the same is written again.
 */
import type { Cidr, IPFamily, LocalDetector, Protocol } from '../../../model/types.js';
import { protocolWord } from './names.js';

/** XT_MAX_COMMENT_LEN is 256 with its end; the longest legal name with words around it has 220. */
const maxComment = 240;

/** Joins what is there. */
export function words(...parts: readonly (string | undefined)[]): string {
  return parts.filter((part) => part !== undefined && part !== '').join(' ');
}

/** `-m comment --comment "…"`. Names of objects may hold nothing that ends a quoted word. */
export function comment(text: string): string {
  const harmless = text.replace(/[^\x20-\x7e]|["\\]/g, '?').slice(0, maxComment);
  return `-m comment --comment ${/^[\w-]+$/.test(harmless) ? harmless : `"${harmless}"`}`;
}

/** `10.0.0.0/8`; undefined for the range that holds everything, which is no match at all. */
function network({ ip, prefixLength }: Cidr): string | undefined {
  return prefixLength === 0 ? undefined : `${ip}/${prefixLength}`;
}

export function from(cidr: Cidr): string | undefined {
  const range = network(cidr);
  return range === undefined ? undefined : `-s ${range}`;
}

export function host(family: IPFamily, ip: string): string {
  return `${ip}/${family === 'IPv4' ? 32 : 128}`;
}

export function port(protocol: Protocol, number: number | string): string {
  return `-m ${protocolWord(protocol)} --dport ${number}`;
}

/** In two places, because a source stands before the destination and an interface after it. */
export interface SourceMatch {
  readonly beforeDestination: string | undefined;
  readonly afterDestination: string | undefined;
}

const anySource: SourceMatch = { beforeDestination: undefined, afterDestination: undefined };

/** What a pod's packet is recognised by; undefined when it is not. */
export function fromPod(detector: LocalDetector | undefined, not: boolean): SourceMatch | undefined {
  const no = not ? '! ' : '';
  switch (detector?.kind) {
    case undefined:
      return undefined;
    case 'cidr': {
      const range = network(detector.cidr);
      // Everybody is a pod: 'not a pod' matches nothing, and can't be said.
      if (range === undefined) return not ? undefined : anySource;
      return { ...anySource, beforeDestination: `${no}-s ${range}` };
    }
    case 'interface':
      return { ...anySource, afterDestination: `${no}-i ${detector.name}` };
    case 'interfacePrefix':
      return { ...anySource, afterDestination: `${no}-i ${detector.prefix}+` };
  }
}

/** Which packets an address of a service port gets, with a comment in the place where upstream has it. */
export function toAddress(
  family: IPFamily,
  address: { readonly ip: string; readonly port: number },
  protocol: Protocol,
  options: { readonly source?: SourceMatch; readonly comment?: string } = {},
): string {
  return words(
    options.source?.beforeDestination,
    address.ip === '' ? undefined : `-d ${host(family, address.ip)}`,
    options.source?.afterDestination,
    `-p ${protocolWord(protocol)}`,
    options.comment === undefined ? undefined : comment(options.comment),
    port(protocol, address.port),
  );
}

const probabilityUnit = 2 ** 31;

/** A match that passes `part` of `whole` packets at random; undefined when it would pass all. */
export function chance(part: number, whole: number): string | undefined {
  if (part >= whole) return undefined;
  // The kernel compares 31 random bits; the tool prints that number as a fraction of 11 digits.
  const threshold = Math.round((probabilityUnit * part) / whole);
  return `-m statistic --mode random --probability ${(threshold / probabilityUnit).toFixed(11)}`;
}

/** Bits of the mark as printed: `0x4000`. */
export function hex(mark: number): string {
  return `0x${(mark >>> 0).toString(16)}`;
}
