/** One TCP exchange. Arguments: address, port, milliseconds. Prints what came back, the error's code, or 'silence'. */
import { connect } from 'node:net';

const [host = '', port = '80', timeout = '1000'] = process.argv.slice(2);
const socket = connect({ host, port: Number(port) });
const done = (outcome: string): void => {
  process.stdout.write(`${outcome}\n`, () => process.exit());
};
setTimeout(() => {
  done('silence');
}, Number(timeout));
socket.on('connect', () => socket.write('hello'));
socket.on('data', (data) => {
  done(data.toString());
});
socket.on('error', (error: NodeJS.ErrnoException) => {
  done(error.code ?? error.message);
});
