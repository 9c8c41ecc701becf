/** Socket calls of the C library, through koffi: for what Node has no socket for. */
import koffi from 'koffi';
import { v6ToNumber } from './addresses.js';

/** A call of the C library failed, with this errno. */
export class SystemCallError extends Error {
  readonly code = 'ERR_CONFORMANCE_SYSTEM_CALL';

  constructor(
    call: string,
    readonly errno: number,
  ) {
    super(`${call} failed with errno ${errno}`);
  }
}

/** <sys/socket.h>, <netinet/in.h> */
export const numbers = {
  AF_INET: 2,
  AF_INET6: 10,
  SOCK_STREAM: 1,
  SOCK_DGRAM: 2,
  SOCK_RAW: 3,
  SOCK_NONBLOCK: 0x800,
  IPPROTO_IP: 0,
  IPPROTO_IPV6: 41,
  IPPROTO_SCTP: 132,
} as const;

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

const library = koffi.load('libc.so.6');
const socket = library.func('int socket(int domain, int type, int protocol)');
const bind = library.func('int bind(int fd, const void *address, uint32_t length)');
const connect = library.func('int connect(int fd, const void *address, uint32_t length)');
const sendTo = library.func(
  'long sendto(int fd, const void *data, size_t size, int flags, const void *address, uint32_t length)',
);
const receive = library.func('long recv(int fd, _Out_ void *data, size_t size, int flags)');
const setsockopt = library.func(
  'int setsockopt(int fd, int level, int name, const void *value, uint32_t length)',
);
const close = library.func('int close(int fd)');

function check(call: string, result: unknown): number {
  const number = Number(result);
  if (number < 0) throw new SystemCallError(call, koffi.errno());
  return number;
}

/** Each throws SystemCallError. */
export const libc = {
  socket: (domain: number, type: number, protocol: number): number =>
    check('socket', socket(domain, type, protocol)),
  bind: (fd: number, address: Buffer): number => check('bind', bind(fd, address, address.length)),
  connect: (fd: number, address: Buffer): number => check('connect', connect(fd, address, address.length)),
  sendTo: (fd: number, data: Buffer, address?: Buffer): number =>
    check('sendto', sendTo(fd, data, data.length, 0, address ?? null, address?.length ?? 0)),
  receive: (fd: number, data: Buffer, flags: number): number =>
    check('recv', receive(fd, data, data.length, flags)),
} as const;

/** @param value one number, or several: an int each */
export function setOption(fd: number, level: number, name: number, ...value: readonly number[]): void {
  const bytes = Buffer.alloc(4 * value.length);
  for (const [index, number] of value.entries()) bytes.writeInt32LE(number, 4 * index);
  check('setsockopt', setsockopt(fd, level, name, bytes, bytes.length));
}

export function closeDescriptor(fd: number): void {
  close(fd);
}

export function addressBytes(address: string): Buffer {
  if (!address.includes(':')) return Buffer.from(address.split('.').map(Number));
  return Buffer.from(v6ToNumber(address).toString(16).padStart(32, '0'), 'hex');
}

/** struct sockaddr_in or sockaddr_in6. */
export function socketAddress({ address, port }: Endpoint): Buffer {
  const bytes = addressBytes(address);
  const v4 = bytes.length === 4;
  const result = Buffer.alloc(v4 ? 16 : 28);
  result.writeUInt16LE(v4 ? numbers.AF_INET : numbers.AF_INET6, 0);
  result.writeUInt16BE(port, 2);
  bytes.copy(result, v4 ? 4 : 8);
  return result;
}
