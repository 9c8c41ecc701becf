/** A TCP and UDP server that sends back what it gets. Arguments: address, port. Prints 'ready'. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';

const [host = '0.0.0.0', port = '9000'] = process.argv.slice(2);
const tcp = createServer((socket) => {
  socket.on('error', () => undefined);
  socket.pipe(socket);
});
tcp.listen(Number(port), host);
const udp = createSocket(host.includes(':') ? 'udp6' : 'udp4');
udp.on('message', (message, from) => {
  udp.send(message, from.port, from.address);
});
udp.bind(Number(port), host);
await Promise.all([once(tcp, 'listening'), once(udp, 'listening')]);
process.stdout.write('ready\n');
process.on('disconnect', () => process.exit());
