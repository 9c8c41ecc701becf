/** TCP without an event loop: a connection is opened in microseconds, and Node's own sockets would be most of it. */
import { createRequire } from 'node:module';
import type * as Koffi from 'koffi';

export const AF_INET = 2;
export const SOCK_STREAM = 1;
export const SOL_SOCKET = 1;
export const SO_LINGER = 13;

const koffi = createRequire(import.meta.url)('koffi') as typeof Koffi;
const library = koffi.load(null);
type Call = (...args: readonly (number | Buffer | null)[]) => number;
/** A function of the C library, by its prototype. */
export const call = (prototype: string): Call => library.func(prototype);
export const socket = call('int socket(int domain, int type, int protocol)');
const bind = call('int bind(int fd, void *address, uint32_t length)');
const listen = call('int listen(int fd, int backlog)');
const accept = call('int accept(int fd, void *address, void *length)');
export const connect = call('int connect(int fd, void *address, uint32_t length)');
export const setsockopt = call('int setsockopt(int fd, int level, int option, void *value, uint32_t length)');
export const close = call('int close(int fd)');

/** struct linger: on, zero seconds. Closing sends a reset, so that no port is left in TIME_WAIT. */
export const reset = Buffer.from(new Int32Array([1, 0]).buffer);

function check(result: number, what: string): number {
  if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return result;
}

/** struct sockaddr_in */
export function socketAddress(ip: string, port: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes[0] = AF_INET;
  bytes.writeUInt16BE(port, 2);
  ip.split('.').forEach((part, i) => bytes.writeUInt8(Number(part), 4 + i));
  return bytes;
}

/**
 * Opens and closes one connection.
 * @param from address to come from, its port 0
 * @returns nanoseconds that connect() took
 */
export function timeConnect(from: Buffer, to: Buffer): number {
  const fd = check(socket(AF_INET, SOCK_STREAM, 0), 'socket');
  try {
    setsockopt(fd, SOL_SOCKET, SO_LINGER, reset, reset.length);
    check(bind(fd, from, from.length), 'bind');
    const start = process.hrtime.bigint();
    const result = connect(fd, to, to.length);
    const end = process.hrtime.bigint();
    check(result, 'connect');
    return Number(end - start);
  } finally {
    close(fd);
  }
}

/** Takes connections and closes them, for ever. @param onReady it listens */
export function acceptForEver(ip: string, port: number, onReady: () => void): never {
  const fd = check(socket(AF_INET, SOCK_STREAM, 0), 'socket');
  const address = socketAddress(ip, port);
  check(bind(fd, address, address.length), 'bind');
  check(listen(fd, 4096), 'listen');
  onReady();
  for (;;) close(check(accept(fd, null, null), 'accept'));
}
