/**
 * One TCP exchange from each of several addresses, all at once. Arguments: address, port, local addresses. Prints a JSON list
 * of what came back, in their order: the answer, the error's code, or 'silence'.
 */
import { connect } from 'node:net';

const [host = '', port = '80', ...sources] = process.argv.slice(2);

function ask(localAddress: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host, port: Number(port), localAddress });
    const done = (outcome: string): void => {
      socket.destroy();
      resolve(outcome.trim());
    };
    setTimeout(() => {
      done('silence');
    }, 4000).unref();
    socket.on('connect', () => socket.write('hello'));
    socket.on('data', (data) => {
      done(data.toString());
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      done(error.code ?? error.message);
    });
  });
}

process.stdout.write(`${JSON.stringify(await Promise.all(sources.map(ask)))}\n`);
