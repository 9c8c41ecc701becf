/**
 * Keys and values of our maps as the kernel compares them: the bytes of the registers, each field padded to four
 * bytes (NFT_REG32_SIZE of linux/netfilter/nf_tables.h). They are handled as latin1 strings, one character a byte,
 * so that they can be keys of a Map.
 */
import { formatAddress, parseAddress } from '@kube-proxy-ts/netlink';
import type { Endpoint, Protocol } from '../../model/types.js';

/** IANA protocol numbers (`inet_proto`). */
const protocolNumber: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

/** Canonical text of an address. @param bytes 4 or 16. */
export function addressText(bytes: string): string {
  return formatAddress(Buffer.from(bytes, 'latin1'));
}

/** Bytes of an address, 4 or 16. */
export function addressBytes(ip: string): string {
  return ipv4Bytes(ip) ?? parseAddress(ip).toString('latin1');
}

/** Without a detour over a Buffer, for the hundred thousands of them; undefined for what is no plain IPv4 address. */
function ipv4Bytes(ip: string): string | undefined {
  const { length } = ip;
  if (length > 15) return undefined;
  let packed = 0;
  let part = 0;
  let digits = 0;
  let parts = 0;
  for (let i = 0; i <= length; i++) {
    const code = i === length ? dot : ip.charCodeAt(i);
    if (code === dot) {
      if (digits === 0 || part > 255) return undefined;
      packed = (packed << 8) | part;
      parts++;
      part = digits = 0;
    } else {
      if (code < zero || code > zero + 9) return undefined;
      part = part * 10 + code - zero;
      digits++;
    }
  }
  if (parts !== 4) return undefined;
  return String.fromCharCode(packed >>> 24, (packed >>> 16) & 0xff, (packed >>> 8) & 0xff, packed & 0xff);
}

const dot = 0x2e;
const zero = 0x30;

/** `inet_service`: network order, padded. */
function portBytes(port: number): string {
  return String.fromCharCode(port >> 8, port & 0xff, 0, 0);
}

const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** A 32-bit number that the kernel keeps in host order (numgen, meta priority). */
export function hostUint32(value: number): string {
  return littleEndian
    ? String.fromCharCode(value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24)
    : String.fromCharCode(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);
}

export function writeHostUint32(target: Buffer, value: number, offset: number): void {
  if (littleEndian) target.writeUInt32LE(value, offset);
  else target.writeUInt32BE(value, offset);
}

export function readHostUint32(bytes: string, offset = 0): number {
  const at = (i: number): number => bytes.charCodeAt(offset + i);
  return littleEndian
    ? ((at(3) << 24) | (at(2) << 16) | (at(1) << 8) | at(0)) >>> 0
    : ((at(0) << 24) | (at(1) << 16) | (at(2) << 8) | at(3)) >>> 0;
}

/** The same of register bytes. */
export function hostUint32At(bytes: Buffer, offset = 0): number {
  return littleEndian ? bytes.readUInt32LE(offset) : bytes.readUInt32BE(offset);
}

/** `ip daddr . meta l4proto . th dport` */
export function serviceKey(ip: string, protocol: Protocol, port: number): string {
  return addressBytes(ip) + nodePortKey(protocol, port);
}

/** `meta l4proto . th dport` */
export function nodePortKey(protocol: Protocol, port: number): string {
  // Each field padded.
  return String.fromCharCode(protocolNumber[protocol], 0, 0, 0, port >> 8, port & 0xff, 0, 0);
}

/** `ip daddr . th dport`, the form in which a DNAT takes its target. */
export function targetBytes(endpoint: Endpoint): string {
  return addressBytes(endpoint.ip) + portBytes(endpoint.port);
}

/** `ip saddr . ip daddr . meta l4proto . th dport` of an endpoint that talks to itself. */
export function hairpinKey(endpoint: Endpoint, protocol: Protocol): string {
  const ip = addressBytes(endpoint.ip);
  return ip + ip + nodePortKey(protocol, endpoint.port);
}

/** A TC class id as `meta priority` holds it: two 16-bit halves, printed by nft as `major:minor` in hex. */
export function classId(major: number, minor: number): number {
  return ((major << 16) | minor) >>> 0;
}
