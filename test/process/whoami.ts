/**
 * A TCP and UDP server on each of several addresses that answers everything with the address it was reached at, a line
 * each; a TCP connection that says 'reset' is reset. Arguments: port, addresses. Prints 'ready'.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';

const [port = '', ...addresses] = process.argv.slice(2);

async function serve(address: string): Promise<void> {
  const tcp = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (data) => {
      if (data.toString().includes('reset')) socket.resetAndDestroy();
      else socket.write(`${address}\n`);
    });
  });
  const udp = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  udp.on('message', (_, from) => {
    udp.send(`${address}\n`, from.port, from.address);
  });
  tcp.listen(Number(port), address);
  udp.bind(Number(port), address);
  await Promise.all([once(tcp, 'listening'), once(udp, 'listening')]);
}

await Promise.all(addresses.map(serve));
process.stdout.write('ready\n');
