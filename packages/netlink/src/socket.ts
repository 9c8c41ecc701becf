/** A netlink socket: datagrams to and from one part of the kernel. */
import { closeSync, read, readSync, write, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { readHostU32, writeHostU16, writeHostU32 } from './endian.js';
import { errnoOf, NetlinkError } from './errors.js';
import { attachFilter, bind, getsockname, getsockopt, setsockopt, socket } from './libc.js';
import { MESSAGE_HEADER, NLM_F_ACK, NLM_F_REQUEST, NLMSG_NOOP } from './message.js';

// linux/socket.h, asm-generic/socket.h, linux/netlink.h
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_RCVTIMEO = 20;
const SO_ATTACH_FILTER = 26;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_DROP_MEMBERSHIP = 2;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const SOCKADDR_NL = 12;

// Netlink families (linux/netlink.h).
/** Interfaces, addresses, routes, neighbours (linux/rtnetlink.h). */
export const NETLINK_ROUTE = 0;
/** nftables, connection tracking, ipset, accounting. */
export const NETLINK_NETFILTER = 12;
/** Families with names: IPVS and others (linux/genetlink.h). */
export const NETLINK_GENERIC = 16;

const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
  [NETLINK_ROUTE]: 'route netlink',
  [NETLINK_NETFILTER]: 'netfilter netlink',
  [NETLINK_GENERIC]: 'generic netlink',
};

/**
 * What a connection needs of a socket; a test can put something else in its place. After close() every method throws
 * or rejects with EBADF.
 */
export interface Transport {
  /** The socket's netlink address, which names it in notifications of changes that it caused. */
  readonly portId: number;
  /** Longest datagram that send() takes, bytes. */
  readonly maxDatagram: number;
  /** Sends buffer[0, length) as one datagram. The kernel has processed it when the call returns. */
  send(buffer: Buffer, length: number): void;
  /**
   * The next datagram, in a buffer that the next call may reuse.
   * @throws NetlinkError ETIMEDOUT when none comes in time, ENOBUFS when the kernel had to drop some
   */
  receive(): Buffer;
  /** Like send(), on libuv's thread pool: for requests that keep the kernel busy, as the dump of a large table does. */
  sendAsync(buffer: Buffer, length: number): Promise<void>;
  /** Like receive(), on libuv's thread pool. One call at a time. */
  receiveAsync(): Promise<Buffer>;
  /** An operation under way on the thread pool is ended first, and rejects; the descriptor is closed after it. */
  close(): void;
}

/** Buffers, the timeout and the multicast groups of a socket. */
export interface SocketOptions {
  /** Longest datagram to send, bytes. Default 64 MiB; without privilege the system's wmem_max limits it. */
  readonly sendBuffer?: number;
  /** Room for datagrams not yet read, bytes. Default 4 MiB. */
  readonly receiveBuffer?: number;
  /** How long receive() and receiveAsync() wait, milliseconds; 0: until something comes. Default 5000. */
  readonly receiveTimeoutMs?: number;
  /** Multicast groups to join (numbers, not bits). */
  readonly groups?: readonly number[];
  /** Notifications of changes that these sockets caused (Transport.portId) are dropped before they cost anything. */
  readonly ignoredPorts?: readonly number[];
}

/** Dumps come in datagrams of up to 32 KiB when the reader offers that much; notifications are smaller. */
export const RECEIVE_SIZE = 64 * 1024;

function int(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  writeHostU32(bytes, 0, value);
  return bytes;
}

function timeval(milliseconds: number): Buffer {
  const microseconds = (milliseconds % 1000) * 1000;
  const seconds = Math.floor(milliseconds / 1000);
  const words = process.arch === 'arm' || process.arch === 'ia32' ? Int32Array : BigInt64Array;
  const value =
    words === Int32Array
      ? Int32Array.of(seconds, microseconds)
      : BigInt64Array.of(BigInt(seconds), BigInt(microseconds));
  return Buffer.from(value.buffer);
}

/** Sets a buffer size beyond the system limit where we may, else as far as we may. */
function setBuffer(fd: number, force: number, plain: number, size: number): void {
  try {
    setsockopt(fd, SOL_SOCKET, force, int(size), 'set socket buffer');
  } catch {
    setsockopt(fd, SOL_SOCKET, plain, int(size), 'set socket buffer');
  }
}

/** linux/bpf_common.h: load a word of the datagram, in network order; jump if equal; return so many bytes of it. */
const BPF_LD_W_ABS = 0x20;
const BPF_JEQ_K = 0x15;
const BPF_RET_K = 0x06;
/** Of nlmsg_pid in a message. The messages of one datagram have it in common. */
const PORT_ID_OFFSET = 12;

/** A filter that drops what these ports caused. */
function dropFrom(portIds: readonly number[]): Buffer {
  const swapped = (portId: number): number => {
    const bytes = int(portId);
    return bytes.readUInt32BE(0);
  };
  const steps: [code: number, jumpTrue: number, k: number][] = [
    [BPF_LD_W_ABS, 0, PORT_ID_OFFSET],
    // A match goes past the tests behind it, and past "keep all".
    ...portIds.map((portId, i): [number, number, number] => [BPF_JEQ_K, portIds.length - i, swapped(portId)]),
    [BPF_RET_K, 0, 0xffffffff],
    [BPF_RET_K, 0, 0],
  ];
  const program = Buffer.alloc(8 * steps.length);
  for (const [i, [code, jumpTrue, k]] of steps.entries()) {
    writeHostU16(program, 8 * i, code);
    program[8 * i + 2] = jumpTrue;
    writeHostU32(program, 8 * i + 4, k);
  }
  return program;
}

/** netlink_sendmsg() in the kernel keeps 32 bytes of the send buffer for itself. */
function sendLimit(fd: number, operation: string): number {
  const value = int(0);
  getsockopt(fd, SOL_SOCKET, SO_SNDBUF, value, operation);
  return readHostU32(value, 0) - 32;
}

/** A message that asks for nothing but its acknowledgement, which whoever waits in a read gets. */
function noOperation(): Buffer {
  const message = Buffer.alloc(MESSAGE_HEADER);
  writeHostU32(message, 0, MESSAGE_HEADER);
  writeHostU16(message, 4, NLMSG_NOOP);
  writeHostU16(message, 6, NLM_F_REQUEST | NLM_F_ACK);
  return message;
}

/** Sockets in which a thread of the pool is at work. */
const busy = new Set<NetlinkSocket>();
let wakesAtExit = false;

/** At its exit the process waits for the threads of the pool: none may be left in a read. */
function wakeAtExit(): void {
  if (wakesAtExit) return;
  wakesAtExit = true;
  process.once('exit', () => {
    for (const socket of busy) socket.close();
  });
}

/**
 * A descriptor's number is taken anew as soon as it is closed, by a file or a client's connection. So no method uses it after
 * close(), and it is closed only when no operation of the thread pool has it in hand.
 */
export class NetlinkSocket implements Transport {
  private readonly incoming = Buffer.allocUnsafeSlow(RECEIVE_SIZE);
  private closed = false;
  /** Operations on the thread pool. */
  private pending = 0;
  private whenClosed: (() => void)[] = [];

  private constructor(
    private readonly descriptor: number,
    readonly portId: number,
    readonly maxDatagram: number,
    private readonly name: string,
  ) {}

  /**
   * @param protocol one of NETLINK_*
   * @throws NetlinkError EPROTONOSUPPORT when the kernel has no such netlink family
   */
  static open(protocol: number, options: SocketOptions = {}): NetlinkSocket {
    const name = PROTOCOL_NAMES[protocol] ?? `netlink protocol ${protocol}`;
    const operation = `open ${name} socket`;
    const fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol, operation, (errno) =>
      errno === constants.errno.EPROTONOSUPPORT
        ? `the kernel has no ${name}: load its module or use a kernel that has it`
        : undefined,
    );
    try {
      setBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, options.sendBuffer ?? 64 * 1024 * 1024);
      setBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, options.receiveBuffer ?? 4 * 1024 * 1024);
      setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeval(options.receiveTimeoutMs ?? 5000), operation);
      setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, int(1), operation);
      setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, int(1), operation);
      // struct sockaddr_nl: family u16, padding u16, port id u32 (0: the kernel picks one), groups u32
      const address = Buffer.alloc(SOCKADDR_NL);
      writeHostU16(address, 0, AF_NETLINK);
      bind(fd, address, operation);
      getsockname(fd, address, operation);
      const opened = new NetlinkSocket(fd, readHostU32(address, 4), sendLimit(fd, operation), name);
      if (options.ignoredPorts !== undefined) {
        attachFilter(fd, SOL_SOCKET, SO_ATTACH_FILTER, dropFrom(options.ignoredPorts), operation);
      }
      for (const group of options.groups ?? []) opened.join(group);
      return opened;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Joins a multicast group (a number, not a bit). */
  join(group: number): void {
    const operation = `join ${this.name} group ${group}`;
    setsockopt(this.fdFor(operation), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, int(group), operation);
  }

  /** Leaves a multicast group (a number, not a bit). */
  leave(group: number): void {
    const operation = `leave ${this.name} group ${group}`;
    setsockopt(this.fdFor(operation), SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, int(group), operation);
  }

  send(buffer: Buffer, length: number): void {
    const fd = this.fdFor(`send to ${this.name}`);
    try {
      writeSync(fd, buffer, 0, length);
    } catch (error) {
      throw this.sendFailed(length, error);
    }
  }

  receive(): Buffer {
    for (;;) {
      const fd = this.fdFor(`receive from ${this.name}`);
      let size: number;
      try {
        // A netlink datagram can't be forged by an ordinary process: sending to another's port takes CAP_NET_ADMIN.
        size = readSync(fd, this.incoming, 0, RECEIVE_SIZE, null);
      } catch (error) {
        if (errnoOf(error) !== constants.errno.EINTR) throw this.receiveFailed(error);
        continue;
      }
      return this.received(size);
    }
  }

  async sendAsync(buffer: Buffer, length: number): Promise<void> {
    await this.onThreadPool(`send to ${this.name}`, (fd, done) => {
      write(fd, buffer, 0, length, null, done);
    }).catch((error: unknown) => {
      throw error instanceof NetlinkError ? error : this.sendFailed(length, error);
    });
  }

  async receiveAsync(): Promise<Buffer> {
    for (;;) {
      try {
        const size = await this.onThreadPool(`receive from ${this.name}`, (fd, done) => {
          read(fd, this.incoming, 0, RECEIVE_SIZE, null, done);
        });
        return this.received(size);
      } catch (error) {
        if (error instanceof NetlinkError) throw error;
        if (errnoOf(error) !== constants.errno.EINTR) throw this.receiveFailed(error);
      }
    }
  }

  close(): void {
    if (this.closed) return;
    if (this.pending > 0) this.endRead();
    this.closed = true;
    this.release();
  }

  /** Resolves when the descriptor is closed. */
  async released(): Promise<void> {
    if (this.closed && this.pending === 0) return;
    await new Promise<void>((resolve) => this.whenClosed.push(resolve));
  }

  /** @returns the descriptor. @throws NetlinkError EBADF after close() */
  private fdFor(operation: string): number {
    if (!this.closed) return this.descriptor;
    throw new NetlinkError({ operation, errno: constants.errno.EBADF, extendedAck: 'the socket is closed' });
  }

  /**
   * Ends a read that waits on the thread pool: the kernel answers this message, which needs no privilege, within the write. A
   * netlink socket can't be shut down.
   */
  private endRead(): void {
    const message = noOperation();
    try {
      writeSync(this.descriptor, message);
    } catch {
      // There is no room for the answer: then there is something to be read, and nobody waits.
    }
  }

  private release(): void {
    if (!this.closed || this.pending > 0) return;
    closeSync(this.descriptor);
    for (const resolve of this.whenClosed) resolve();
    this.whenClosed = [];
  }

  private async onThreadPool(
    operation: string,
    work: (fd: number, done: (error: NodeJS.ErrnoException | null, size: number) => void) => void,
  ): Promise<number> {
    const fd = this.fdFor(operation);
    this.pending++;
    busy.add(this);
    wakeAtExit();
    try {
      const size = await new Promise<number>((resolve, reject) => {
        work(fd, (error, length) => {
          if (error === null) resolve(length);
          else reject(error);
        });
      });
      // It may have been ended for the sake of close().
      this.fdFor(operation);
      return size;
    } finally {
      if (--this.pending === 0) busy.delete(this);
      this.release();
    }
  }

  /** @throws NetlinkError when this was no datagram: the kernel sends none without a header */
  private received(size: number): Buffer {
    if (size > 0) return this.incoming.subarray(0, size);
    throw new NetlinkError({
      operation: `receive from ${this.name}`,
      errno: constants.errno.EIO,
      extendedAck: 'the socket yielded no data',
    });
  }

  private sendFailed(length: number, error: unknown): NetlinkError {
    const errno = errnoOf(error);
    return new NetlinkError({
      operation: `send ${length} bytes to ${this.name}`,
      errno,
      hint:
        errno === constants.errno.EMSGSIZE
          ? 'the datagram is larger than the send buffer: split the batch, or raise net.core.wmem_max'
          : undefined,
      cause: error,
    });
  }

  private receiveFailed(error: unknown): NetlinkError {
    const errno = errnoOf(error);
    return new NetlinkError({
      operation: `receive from ${this.name}`,
      errno: errno === constants.errno.EAGAIN ? constants.errno.ETIMEDOUT : errno,
      cause: error,
    });
  }
}
