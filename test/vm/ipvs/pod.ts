/**
 * A server that ends as a pod does that is well behaved: on SIGTERM it goes on serving, stops listening after a moment (by
 * then nobody should come), and ends when its last connection is over, at the latest when the time is up. Arguments:
 * address, port, milliseconds until it stops listening, milliseconds that it has. Its last line is JSON: connections that
 * it had, and those that it had to cut off.
 */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';

const [address = '', port = '', lingerMs = '', graceMs = ''] = process.argv.slice(2);
const open = new Set<Socket>();
let served = 0;
const server = createServer((socket) => {
  served++;
  open.add(socket);
  socket.on('error', () => undefined);
  socket.on('close', () => open.delete(socket));
  socket.on('data', () => socket.write(`${address}\n`));
});
server.listen(Number(port), address);
await once(server, 'listening');
process.stdout.write('ready\n');

function end(): void {
  const result = { served, cutOff: open.size };
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit());
}

process.on('SIGTERM', () => {
  setTimeout(() => server.close(end), Number(lingerMs));
  setTimeout(end, Number(graceMs));
});
