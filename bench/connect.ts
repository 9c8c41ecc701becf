/**
 * How long a TCP connect takes, in whatever network namespace this runs in:
 *
 *     node dist/bench/connect.js measure ADDRESS PORT COUNT    prints the median in microseconds
 *     node dist/bench/connect.js await ADDRESS PORT            ends when one has been answered; prints milliseconds since
 *                                                              the epoch
 *
 * The system calls are made directly: what Node does around them takes longer than the connection.
 */
import {
  AF_INET,
  call,
  close,
  connect,
  reset,
  setsockopt,
  SO_LINGER,
  SOCK_STREAM,
  socket,
  socketAddress,
  SOL_SOCKET,
} from './libc.js';
import { percentile } from './percentile.js';

const SOCK_CLOEXEC = 0o2000000;
const IPPROTO_TCP = 6;
const TCP_USER_TIMEOUT = 18;
const SOCK_NONBLOCK = 0o4000;
const SO_ERROR = 4;
const POLLOUT = 4;
const awaitMs = 180_000;
/** How long one try waits for its answer. */
const tryMs = 5;

const getsockopt = call('int getsockopt(int fd, int level, int option, void *value, void *length)');
const poll = call('int poll(void *descriptors, unsigned long count, int milliseconds)');

const patience = Buffer.from(Int32Array.of(200).buffer);

/** @returns microseconds, or undefined when it was not answered */
function connectOnce(address: Buffer): number | undefined {
  const fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new Error('no socket to be had');
  setsockopt(fd, SOL_SOCKET, SO_LINGER, reset, reset.length);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, patience, patience.length);
  const begin = process.hrtime.bigint();
  const status = connect(fd, address, address.length);
  const took = Number(process.hrtime.bigint() - begin) / 1000;
  close(fd);
  return status === 0 ? took : undefined;
}

/** Whether a connection is answered at once; a packet that is lost costs no more time than another try. */
function answers(address: Buffer): boolean {
  const fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) throw new Error('no socket to be had');
  setsockopt(fd, SOL_SOCKET, SO_LINGER, reset, reset.length);
  connect(fd, address, address.length);
  const descriptor = Buffer.alloc(8);
  descriptor.writeInt32LE(fd, 0);
  descriptor.writeInt16LE(POLLOUT, 4);
  const ready = poll(descriptor, 1, tryMs) === 1;
  const error = Buffer.alloc(4);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, error, Buffer.from(Int32Array.of(4).buffer));
  close(fd);
  return ready && error.readInt32LE(0) === 0;
}

const sleep = new Int32Array(new SharedArrayBuffer(4));
const [verb = '', ip = '', port = '', count = '0'] = process.argv.slice(2);
const address = socketAddress(ip, Number(port));
if (verb === 'await') {
  process.stdout.write('ready\n');
  const deadline = Date.now() + awaitMs;
  while (!answers(address)) {
    if (Date.now() > deadline) throw new Error(`${ip}:${port} did not answer within ${awaitMs / 1000} s`);
    Atomics.wait(sleep, 0, 0, 1);
  }
  process.stdout.write(`answered ${Date.now()}\n`);
} else {
  const times: number[] = [];
  for (let i = 0; i < Number(count); i++) {
    const took = connectOnce(address);
    if (took !== undefined) times.push(took);
    // The server has to take them off its queue.
    if (i % 50 === 49) Atomics.wait(sleep, 0, 0, 20);
  }
  if (times.length < Number(count) / 2)
    throw new Error(`${ip}:${port} answered ${times.length} of ${count} times`);
  process.stdout.write(`median ${percentile(times, 0.5)}\n`);
}
