/**
 * The few C library calls that Node lacks: it can neither create, bind nor tune a netlink socket, nor lock a file. The
 * data itself goes through Node's fs on the descriptor. The foreign-function library is loaded on first use, so that
 * importing this library costs nothing.
 */
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import type * as Koffi from 'koffi';
import { writeHostU32 } from './endian.js';
import { NetlinkError } from './errors.js';

type Call = (...args: readonly (number | Buffer)[]) => number;

interface Libc {
  readonly socket: Call;
  readonly bind: Call;
  readonly setsockopt: Call;
  readonly getsockopt: Call;
  readonly getsockname: Call;
  readonly flock: Call;
  readonly address: (memory: Buffer) => bigint;
  readonly attachFilter: (
    fd: number,
    level: number,
    option: number,
    program: { readonly length: number; readonly instructions: Buffer },
    size: number,
  ) => number;
  readonly errno: () => number;
}

let loaded: Libc | undefined;

function libc(): Libc {
  if (loaded !== undefined) return loaded;
  const koffi = createRequire(import.meta.url)('koffi') as typeof Koffi;
  // null: what the process itself is linked to, whatever its C library is called.
  const library = koffi.load(null);
  const call = (prototype: string): Call => library.func(prototype);
  loaded = {
    socket: call('int socket(int domain, int type, int protocol)'),
    bind: call('int bind(int fd, void *address, uint32_t length)'),
    setsockopt: call('int setsockopt(int fd, int level, int option, void *value, uint32_t length)'),
    getsockopt: call('int getsockopt(int fd, int level, int option, void *value, void *length)'),
    getsockname: call('int getsockname(int fd, void *address, void *length)'),
    flock: call('int flock(int fd, int operation)'),
    address: (memory) => koffi.address(memory),
    attachFilter: library.func('setsockopt', 'int', [
      'int',
      'int',
      'int',
      // struct sock_fprog (linux/filter.h)
      koffi.pointer(koffi.struct({ length: 'uint16', instructions: 'void *' })),
      'uint32',
    ]) as Libc['attachFilter'],
    errno: () => koffi.errno(),
  };
  return loaded;
}

function check(result: number, operation: string, hint: (errno: number) => string | undefined): number {
  if (result >= 0) return result;
  const errno = libc().errno();
  throw new NetlinkError({ operation, errno, hint: hint(errno) });
}

const noHint = (): undefined => undefined;

/** @returns a file descriptor that closes on exec */
export function socket(
  domain: number,
  type: number,
  protocol: number,
  operation: string,
  hint: (errno: number) => string | undefined,
): number {
  return check(libc().socket(domain, type, protocol), operation, hint);
}

export function bind(fd: number, address: Buffer, operation: string): void {
  check(libc().bind(fd, address, address.length), operation, noHint);
}

export function setsockopt(
  fd: number,
  level: number,
  option: number,
  value: Buffer,
  operation: string,
): void {
  check(libc().setsockopt(fd, level, option, value, value.length), operation, noHint);
}

/** The `socklen_t *` argument for a result of `size` bytes. */
function lengthArgument(size: number): Buffer {
  const length = Buffer.alloc(4);
  writeHostU32(length, 0, size);
  return length;
}

/** Fills `value` with the current setting. */
export function getsockopt(
  fd: number,
  level: number,
  option: number,
  value: Buffer,
  operation: string,
): void {
  check(libc().getsockopt(fd, level, option, value, lengthArgument(value.length)), operation, noHint);
}

/** Fills `address` with the socket's own address. */
export function getsockname(fd: number, address: Buffer, operation: string): void {
  check(libc().getsockname(fd, address, lengthArgument(address.length)), operation, noHint);
}

const LOCK_EX = 2;
const LOCK_NB = 4;

/** Locks a file for this process alone, until the descriptor is closed. @returns false when somebody else has it */
export function tryLock(fd: number, operation: string): boolean {
  const { flock, errno } = libc();
  if (flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  if (errno() === constants.errno.EAGAIN) return false;
  throw new NetlinkError({ operation, errno: errno() });
}

/** Where memory stands, for structures that hold pointers. It has to be kept alive for as long as the pointer is used. */
export function addressOf(memory: Buffer): bigint {
  return libc().address(memory);
}

/** Bytes of struct sock_fprog: a length, padding, a pointer. */
const filterProgramSize = process.arch === 'arm' || process.arch === 'ia32' ? 8 : 16;
/** struct sock_filter: code u16, jump if true u8, jump if false u8, k u32, all in the machine's order. */
const filterInstructionSize = 8;

/** Classic BPF (linux/filter.h) in front of a socket. @param instructions of 8 bytes each */
export function attachFilter(
  fd: number,
  level: number,
  option: number,
  instructions: Buffer,
  operation: string,
): void {
  const program = { length: instructions.length / filterInstructionSize, instructions };
  check(libc().attachFilter(fd, level, option, program, filterProgramSize), operation, noHint);
}
