/**
 * A client that holds TCP connections, as it is told on standard input, a line each: 'open N HOST PORT' opens so many, one
 * after the other; 'close ADDRESS' closes those to that endpoint; 'ask' says something on every one. Each answer is one
 * line of JSON: which endpoint (whoami.ts) answered each connection, or why it did not.
 */
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { patiently } from '../../patience.js';

const patienceMs = patiently(3000);

interface Held {
  readonly socket: Socket;
  endpoint: string;
}
let held: Held[] = [];

function ask(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    const done = (answer: string): void => {
      clearTimeout(timer);
      socket.off('data', heard).off('error', failed).off('close', closed);
      resolve(answer);
    };
    const timer = setTimeout(() => {
      done('silence');
    }, patienceMs);
    const heard = (data: Buffer): void => {
      done(data.toString().trim());
    };
    const failed = (error: NodeJS.ErrnoException): void => {
      done(error.code ?? error.message);
    };
    const closed = (): void => {
      done('closed');
    };
    socket.once('data', heard).once('error', failed).once('close', closed);
    socket.write('x');
  });
}

async function open(count: number, host: string, port: number): Promise<string[]> {
  const endpoints: string[] = [];
  for (let i = 0; i < count; i++) {
    const socket = connect(port, host).setNoDelay();
    socket.on('error', () => undefined);
    const endpoint = await ask(socket);
    endpoints.push(endpoint);
    held.push({ socket, endpoint });
  }
  return endpoints;
}

async function close(endpoint: string): Promise<string[]> {
  const closing = held.filter((one) => one.endpoint === endpoint);
  held = held.filter((one) => one.endpoint !== endpoint);
  await Promise.all(
    closing.map(
      ({ socket }) =>
        new Promise((resolve) => {
          socket.once('close', resolve).end();
        }),
    ),
  );
  return closing.map(() => endpoint);
}

process.stdout.write('ready\n');
for await (const line of createInterface({ input: process.stdin })) {
  const [verb = '', first = '', host = '', port = ''] = line.split(' ');
  let answer: string[];
  if (verb === 'open') answer = await open(Number(first), host, Number(port));
  else if (verb === 'close') answer = await close(first);
  else answer = await Promise.all(held.map(({ socket }) => ask(socket)));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit();
