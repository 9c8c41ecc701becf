/** The process in a pod: a web server that answers with its own name. Arguments: name, address, port. */
import { createServer } from 'node:http';

const [name, address, port] = process.argv.slice(2);

process.once('disconnect', () => process.exit());
createServer((_request, response) => {
  response.end(name);
}).listen(Number(port), address, () => process.send?.('listening'));
