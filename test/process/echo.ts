/** A TCP server that sends back what it gets. Arguments: address, port. Prints 'ready'. */
import { createServer } from 'node:net';

const [host = '0.0.0.0', port = '9000'] = process.argv.slice(2);
createServer((socket) => {
  socket.on('error', () => undefined);
  socket.pipe(socket);
}).listen(Number(port), host, () => process.stdout.write('ready\n'));
process.on('disconnect', () => process.exit());
