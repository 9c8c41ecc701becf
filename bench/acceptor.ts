/** A server that accepts connections and closes them. Arguments: address, port. Prints 'ready' when it listens. */
import { writeSync } from 'node:fs';
import { acceptForEver } from './libc.js';

const [ip = '', port = '0'] = process.argv.slice(2);
acceptForEver(ip, Number(port), () => {
  writeSync(1, 'ready\n');
});
