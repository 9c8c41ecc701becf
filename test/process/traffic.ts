/**
 * Steady traffic to one address: one connection that stays and exchanges a line every few milliseconds, and a new
 * connection just as often. Arguments: address, port, and the address to come from, if not the
 * kernel's choice. Prints 'ready' when both work, and on SIGTERM one JSON line with what happened.
 */
import { connect, type Socket } from 'node:net';
import { patiently } from '../patience.js';

const [host = '', port = '80', localAddress] = process.argv.slice(2);
const open = (): Socket =>
  connect({ host, port: Number(port), ...(localAddress === undefined ? {} : { localAddress }) }).setNoDelay();
const periodMs = 5;
const patienceMs = patiently(1000);

const result = {
  newConnections: 0,
  newFailed: 0,
  lines: 0,
  linesLost: 0,
  slowestMs: 0,
  errors: [] as string[],
};

function fail(kind: 'newFailed' | 'linesLost', error: string): void {
  result[kind]++;
  if (result.errors.length < 10) result.errors.push(error);
}

function exchange(socket: Socket, line: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const timer = setTimeout(() => {
      done(new Error('no answer in time'));
    }, patienceMs);
    const onData = (): void => {
      done();
    };
    const done = (error?: Error): void => {
      clearTimeout(timer);
      socket.off('data', onData).off('error', done).off('close', onClose);
      result.slowestMs = Math.max(result.slowestMs, performance.now() - start);
      if (error === undefined) resolve();
      else reject(error);
    };
    const onClose = (): void => {
      done(new Error('closed'));
    };
    socket.once('data', onData).once('error', done).once('close', onClose);
    socket.write(line);
  });
}

async function newConnection(): Promise<void> {
  const socket = open();
  try {
    await exchange(socket, 'x');
    result.newConnections++;
  } catch (error) {
    fail('newFailed', `new connection: ${String(error)}`);
  } finally {
    socket.resetAndDestroy();
  }
}

const signal = new AbortController();
process.on('SIGTERM', () => {
  signal.abort();
});

const lasting = open();
lasting.on('error', () => undefined);
await exchange(lasting, 'hello');
await newConnection();
process.stdout.write('ready\n');

while (!signal.signal.aborted) {
  await Promise.all([
    newConnection(),
    exchange(lasting, 'x').then(
      () => result.lines++,
      (error: unknown) => {
        fail('linesLost', `lasting connection: ${String(error)}`);
      },
    ),
    new Promise((resolve) => setTimeout(resolve, periodMs)),
  ]);
}
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit());
