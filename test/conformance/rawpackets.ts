/**
 * What Node has no socket for: ICMP echo, a bare SCTP INIT, a TCP segment outside its connection's window, and the
 * netlink request that empties the connection tracking table. Uses the C library through koffi; all sockets are non-blocking or send only.
 */
import koffi from 'koffi';
import { v6ToNumber } from './addresses.js';

const libc = koffi.load('libc.so.6');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const bind = libc.func('int bind(int fd, const void *address, uint32_t length)');
const connect = libc.func('int connect(int fd, const void *address, uint32_t length)');
const sendTo = libc.func(
  'long sendto(int fd, const void *data, size_t size, int flags, const void *address, uint32_t length)',
);
const receive = libc.func('long recv(int fd, _Out_ void *data, size_t size, int flags)');
const setOption = libc.func(
  'int setsockopt(int fd, int level, int name, const void *value, uint32_t length)',
);
const close = libc.func('int close(int fd)');

/** <sys/socket.h>, <netinet/in.h> */
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const MSG_DONTWAIT = 0x40;
const IPPROTO_IP = 0;
const IPPROTO_ICMP = 1;
const IPPROTO_TCP = 6;
const IPPROTO_IPV6 = 41;
const IPPROTO_ICMPV6 = 58;
const IPPROTO_SCTP = 132;
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

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

function addressBytes(address: string): Buffer {
  if (!address.includes(':')) return Buffer.from(address.split('.').map(Number));
  return Buffer.from(v6ToNumber(address).toString(16).padStart(32, '0'), 'hex');
}

/** struct sockaddr_in or sockaddr_in6. */
function socketAddress({ address, port }: Endpoint): Buffer {
  const bytes = addressBytes(address);
  const result = Buffer.alloc(bytes.length === 4 ? 16 : 28);
  result.writeUInt16LE(bytes.length === 4 ? AF_INET : AF_INET6, 0);
  result.writeUInt16BE(port, 2);
  bytes.copy(result, bytes.length === 4 ? 4 : 8);
  return result;
}

function check(result: number, call: string): number {
  if (result < 0) throw new Error(`${call} failed with errno ${koffi.errno()}`);
  return result;
}

/** Sends one ICMP echo request and waits for the echo reply or a port unreachable. */
export async function echo(
  source: string,
  target: string,
  timeout: number,
): Promise<'answered' | 'refused' | 'silent'> {
  const v6 = target.includes(':');
  const fd = check(
    socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP) as number,
    'socket(ICMP)',
  );
  try {
    const address = socketAddress({ address: target, port: 0 });
    if (source !== '') {
      const own = socketAddress({ address: source, port: 0 });
      check(bind(fd, own, own.length) as number, 'bind(ICMP)');
    }
    check(connect(fd, address, address.length) as number, 'connect(ICMP)');
    const request = Buffer.alloc(16);
    request[0] = v6 ? 128 : 8;
    if ((sendTo(fd, request, request.length, 0, null, 0) as number) < 0) {
      return koffi.errno() === ECONNREFUSED ? 'refused' : 'silent';
    }
    const deadline = Date.now() + timeout;
    const reply = Buffer.alloc(512);
    while (Date.now() < deadline) {
      if ((receive(fd, reply, reply.length, MSG_DONTWAIT) as number) > 0) return 'answered';
      const error = koffi.errno();
      if (error === ECONNREFUSED) return 'refused';
      if (error !== EAGAIN) throw new Error(`recv(ICMP) failed with errno ${error}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return 'silent';
  } finally {
    close(fd);
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
  const fd = check(socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW, protocol) as number, 'socket(raw)');
  try {
    const own = socketAddress({ address: source, port: 0 });
    check(bind(fd, own, own.length) as number, 'bind(raw)');
    const value = Buffer.alloc(4);
    value.writeInt32LE(trafficClass);
    check(
      setOption(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TCLASS : IP_TOS, value, 4) as number,
      'setsockopt(traffic class)',
    );
    const address = socketAddress({ address: target, port: 0 });
    check(sendTo(fd, packet, packet.length, 0, address, address.length) as number, 'sendto(raw)');
  } finally {
    close(fd);
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
  const fd = check(socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER) as number, 'socket(netlink)');
  try {
    const request = Buffer.alloc(20);
    request.writeUInt32LE(request.length, 0);
    request.writeUInt16LE(CTNETLINK_DELETE, 4);
    request.writeUInt16LE(NLM_F_REQUEST_AND_ACK, 6);
    check(sendTo(fd, request, request.length, 0, null, 0) as number, 'send(netlink)');
    const reply = Buffer.alloc(128);
    check(receive(fd, reply, reply.length, 0) as number, 'recv(netlink)');
    const status = reply.readUInt16LE(4) === NLMSG_ERROR ? reply.readInt32LE(16) : 0;
    if (status !== 0) throw new Error(`connection tracking refused to forget: errno ${-status}`);
  } finally {
    close(fd);
  }
}
