/**
 * Flows that keep their source port and say something every few milliseconds. Arguments: 'NAME udp|tcp HOST PORT
 * SOURCEPORT', one each. Prints 'NAME ANSWER' whenever the answer is another than before: the address that answered,
 * 'refused', 'unreachable', 'silence', or for TCP 'closed', after which it ends. On SIGUSR2 the TCP flows say 'reset'.
 */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { patiently } from '../patience.js';

const periodMs = 10;
/** Longer than two retransmissions of TCP. */
const silenceMs = patiently(1500);

function run(argument: string): void {
  const [name = '', protocol = '', host = '', port = '', sourcePort = ''] = argument.split(' ');
  let said = '';
  let answeredAt = performance.now();
  const heard = (data: Buffer): void => {
    // TCP may bring several answers at once.
    for (const answer of data.toString().split('\n')) if (answer !== '') say(answer);
  };
  const say = (answer: string): void => {
    if (answer !== 'silence') answeredAt = performance.now();
    if (answer !== said) process.stdout.write(`${name} ${answer}\n`);
    said = answer;
  };
  const failed = ({ code }: NodeJS.ErrnoException): void => {
    say(code === 'ECONNREFUSED' ? 'refused' : code?.endsWith('UNREACH') === true ? 'unreachable' : `${code}`);
  };
  const [to, from] = [Number(port), Number(sourcePort)];
  let speak: () => void;
  if (protocol === 'udp') {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    socket.on('message', heard);
    socket.on('error', failed);
    speak = () => {
      socket.send('x', (error) => {
        if (error !== null) failed(error);
      });
    };
    socket.bind(from, () => {
      socket.connect(to, host, start);
    });
  } else {
    const socket = connect({ host, port: to, localPort: from }).setNoDelay();
    socket.on('data', heard);
    socket.on('error', failed);
    socket.on('close', () => {
      clearInterval(timer);
      say('closed');
    });
    speak = () => socket.write('x');
    process.on('SIGUSR2', () => socket.write('reset'));
    socket.on('connect', start);
  }
  let timer: NodeJS.Timeout | undefined;
  function start(): void {
    timer = setInterval(() => {
      speak();
      if (performance.now() - answeredAt > silenceMs) say('silence');
    }, periodMs);
  }
}

for (const argument of process.argv.slice(2)) run(argument);
