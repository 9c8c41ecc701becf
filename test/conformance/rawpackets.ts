/**
 * What Node has no socket for: ICMP echo, a bare SCTP INIT, a TCP segment outside its connection's window, and the
 * netlink request that empties the connection tracking table. All sockets are non-blocking or send only.
 */
import type { Endpoint } from './libc.js';
import {
  addressBytes,
  closeDescriptor,
  libc,
  numbers,
  setOption,
  socketAddress,
  SystemCallError,
} from './libc.js';

const { AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_SCTP, SOCK_DGRAM, SOCK_RAW } = numbers;

/** <sys/socket.h>, <netinet/in.h>, <asm-generic/errno.h> */
const MSG_DONTWAIT = 0x40;
const IPPROTO_ICMP = 1;
const IPPROTO_TCP = 6;
const IPPROTO_ICMPV6 = 58;
const IP_TOS = 1;
const IPV6_TCLASS = 67;
const EAGAIN = 11;
const ECONNREFUSED = 111;

/** <linux/netlink.h>, <linux/netfilter/nfnetlink_conntrack.h> */
const AF_NETLINK = 16;
const NETLINK_NETFILTER = 12;
const NLM_F_REQUEST_AND_ACK = 0x05;
const NLMSG_ERROR = 2;
const CTNETLINK_DELETE = (1 << 8) | 2;

/** DSCP 42, the mark that the recorders of the topology look for, as the whole traffic class byte. */
const strayTrafficClass = 42 << 2;

/** Sends one ICMP echo request and waits for the echo reply or a port unreachable. */
export async function echo(
  source: string,
  target: string,
  timeout: number,
): Promise<'answered' | 'refused' | 'silent'> {
  const v6 = target.includes(':');
  const fd = libc.socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
  try {
    const address = socketAddress({ address: target, port: 0 });
    if (source !== '') {
      libc.bind(fd, socketAddress({ address: source, port: 0 }));
    }
    libc.connect(fd, address);
    const request = Buffer.alloc(16);
    request[0] = v6 ? 128 : 8;
    try {
      libc.sendTo(fd, request);
    } catch (error) {
      return error instanceof SystemCallError && error.errno === ECONNREFUSED ? 'refused' : 'silent';
    }
    const deadline = Date.now() + timeout;
    const reply = Buffer.alloc(512);
    while (Date.now() < deadline) {
      try {
        if (libc.receive(fd, reply, MSG_DONTWAIT) > 0) return 'answered';
      } catch (error) {
        if (!(error instanceof SystemCallError)) throw error;
        if (error.errno === ECONNREFUSED) return 'refused';
        if (error.errno !== EAGAIN) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return 'silent';
  } finally {
    closeDescriptor(fd);
  }
}

function sendRaw(
  protocol: number,
  source: string,
  target: string,
  packet: Buffer,
  trafficClass: number,
): void {
  const v6 = target.includes(':');
  const fd = libc.socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW, protocol);
  try {
    libc.bind(fd, socketAddress({ address: source, port: 0 }));
    setOption(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TCLASS : IP_TOS, trafficClass);
    libc.sendTo(fd, packet, socketAddress({ address: target, port: 0 }));
  } finally {
    closeDescriptor(fd);
  }
}

const crcTable = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value >>> 0;
});

/** CRC-32C (Castagnoli), SCTP's checksum: RFC 9260, appendix A. */
function crc32c(data: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = (crcTable[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** An SCTP packet with one INIT chunk (RFC 9260, 3.3.2). Its arrival is what counts; nobody answers it. */
export function sendSctpInit(source: Endpoint, target: Endpoint): void {
  const packet = Buffer.alloc(12 + 20);
  packet.writeUInt16BE(source.port, 0);
  packet.writeUInt16BE(target.port, 2);
  packet.writeUInt8(1, 12);
  packet.writeUInt16BE(20, 14);
  packet.writeUInt32BE(0x6b707473, 16);
  packet.writeUInt32BE(65536, 20);
  packet.writeUInt16BE(1, 24);
  packet.writeUInt16BE(1, 26);
  packet.writeUInt32BE(1, 28);
  packet.writeUInt32LE(crc32c(packet), 8);
  sendRaw(IPPROTO_SCTP, source.address, target.address, packet, 0);
}

function internetChecksum(data: Buffer): number {
  let sum = 0;
  for (let index = 0; index < data.length; index += 2) sum += data.readUInt16BE(index);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/**
 * A segment on an existing connection that begins and ends one at the same time (SYN and FIN): connection tracking calls
 * it INVALID, always (net/netfilter/nf_conntrack_proto_tcp.c, tcp_valid_flags). A sequence number outside the window
 * would not do: since Linux 6.1 one below it is ignored, not INVALID.
 */
export function sendStraySegment(source: Endpoint, target: Endpoint): void {
  const segment = Buffer.alloc(20);
  segment.writeUInt16BE(source.port, 0);
  segment.writeUInt16BE(target.port, 2);
  segment.writeUInt32BE(Math.floor(Math.random() * 2 ** 32), 4);
  segment.writeUInt32BE(Math.floor(Math.random() * 2 ** 32), 8);
  segment.writeUInt8(5 << 4, 12);
  segment.writeUInt8(0x03, 13);
  segment.writeUInt16BE(1024, 14);
  const ends = Buffer.concat([addressBytes(source.address), addressBytes(target.address)]);
  const tail = Buffer.alloc(4);
  tail.writeUInt8(IPPROTO_TCP, 1);
  tail.writeUInt16BE(segment.length, 2);
  segment.writeUInt16BE(internetChecksum(Buffer.concat([ends, tail, segment])), 16);
  sendRaw(IPPROTO_TCP, source.address, target.address, segment, strayTrafficClass);
}

/** A delete request that names no connection deletes all of this namespace, of both families. */
export function forgetConnections(): void {
  const fd = libc.socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
  try {
    const request = Buffer.alloc(20);
    request.writeUInt32LE(request.length, 0);
    request.writeUInt16LE(CTNETLINK_DELETE, 4);
    request.writeUInt16LE(NLM_F_REQUEST_AND_ACK, 6);
    libc.sendTo(fd, request);
    const reply = Buffer.alloc(128);
    libc.receive(fd, reply, 0);
    const status = reply.readUInt16LE(4) === NLMSG_ERROR ? reply.readInt32LE(16) : 0;
    if (status !== 0) throw new Error(`connection tracking refused to forget: errno ${-status}`);
  } finally {
    closeDescriptor(fd);
  }
}
