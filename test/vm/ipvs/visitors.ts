/**
 * Clients of a Service whose pods are replaced: some stay for seconds and say something all the while, then take their leave;
 * others come for one question. Arguments: address, port, own address. Prints 'ready', and on SIGTERM one JSON line with what happened.
 */
import { connect, type Socket } from 'node:net';
import { patiently } from '../../patience.js';

const [host = '', port = '', localAddress = ''] = process.argv.slice(2);
const stayers = 6;
const patienceMs = patiently(2000);

const result = {
  stays: 0,
  lines: 0,
  visits: 0,
  lost: [] as string[],
  refused: [] as string[],
  endpoints: {} as Record<string, number>,
};
let ending = false;
process.on('SIGTERM', () => {
  ending = true;
});

function ask(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    const done = (error?: Error, answer = ''): void => {
      clearTimeout(timer);
      socket.off('data', heard).off('error', done).off('close', closed);
      if (error === undefined) resolve(answer);
      else reject(error);
    };
    const heard = (data: Buffer): void => {
      done(undefined, data.toString().trim());
    };
    const closed = (): void => {
      done(new Error('closed'));
    };
    const timer = setTimeout(() => {
      done(new Error('no answer in time'));
    }, patienceMs);
    socket.once('data', heard).once('error', done).once('close', closed);
    socket.write('x');
  });
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Comes, stays so long, and leaves by its own will. */
async function visit(ms: number): Promise<void> {
  const socket = connect({ host, port: Number(port), localAddress }).setNoDelay();
  socket.on('error', () => undefined);
  let endpoint: string;
  try {
    endpoint = await ask(socket);
  } catch (error) {
    result.refused.push(String(error));
    socket.destroy();
    return;
  }
  result.endpoints[endpoint] = (result.endpoints[endpoint] ?? 0) + 1;
  const until = Date.now() + ms;
  try {
    while (Date.now() < until && !ending) {
      await pause(20);
      if ((await ask(socket)) !== endpoint) throw new Error('answered by another endpoint');
      result.lines++;
    }
  } catch (error) {
    result.lost.push(`${endpoint}: ${String(error)}`);
  }
  socket.end();
  socket.resume();
}

async function stayer(index: number): Promise<void> {
  for (let n = 0; !ending; n++) {
    await visit(1500 + 500 * ((index + n) % stayers));
    result.stays++;
  }
}

async function visitors(): Promise<void> {
  while (!ending) {
    await visit(0);
    result.visits++;
  }
}

process.stdout.write('ready\n');
await Promise.all([visitors(), ...Array.from({ length: stayers }, (_, index) => stayer(index))]);
process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit());
