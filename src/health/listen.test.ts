import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, get, type Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { after, afterEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  BindError,
  closeServer,
  KeptServer,
  listen,
  printAddress,
  type KeptServerOptions,
} from './listen.js';

// The retries alone would not keep the process alive.
const alive = setInterval(() => undefined, 1000);
after(() => {
  clearInterval(alive);
});

const portOf = (server: Server): number => (server.address() as AddressInfo).port;
const answers = async (host: string, port: number): Promise<boolean> =>
  await fetch(`http://${host}:${port}/`).then(
    (response) => response.ok,
    () => false,
  );

test('addresses as they are printed', () => {
  assert.equal(printAddress({ host: '127.0.0.1', port: 80 }), '127.0.0.1:80');
  assert.equal(printAddress({ host: '::1', port: 80 }), '[::1]:80');
});

const hosts: [host: string, ipv6Only: boolean | undefined, v4: boolean, v6: boolean][] = [
  ['0.0.0.0', undefined, true, true],
  ['::', undefined, true, true],
  ['0.0.0.0', false, true, false],
  ['::', true, false, true],
  ['127.0.0.1', undefined, true, false],
  ['::1', undefined, false, true],
];
for (const [host, ipv6Only, v4, v6] of hosts) {
  test(`${host}${ipv6Only === undefined ? '' : `, ipv6Only ${ipv6Only}`} answers${v4 ? ' IPv4' : ''}${v6 ? ' IPv6' : ''}`, async () => {
    const address = { host, port: 0, ...(ipv6Only === undefined ? {} : { ipv6Only }) };
    const server = await listen(address, (_, response) => response.end());
    try {
      assert.equal(await answers('127.0.0.1', portOf(server)), v4);
      assert.equal(await answers('[::1]', portOf(server)), v6);
    } finally {
      server.close();
      server.closeAllConnections();
    }
  });
}

test('a taken port: what is wrong, and who may have it', async () => {
  const first = await listen({ host: '127.0.0.1', port: 0 }, () => undefined);
  try {
    const port = portOf(first);
    await assert.rejects(
      listen({ host: '127.0.0.1', port }, () => undefined),
      (error) => {
        assert.ok(error instanceof BindError);
        assert.equal(error.code, 'BIND_FAILED');
        assert.equal(
          error.message,
          `cannot listen on 127.0.0.1:${port}: the port is taken by another process (is another kube-proxy running? \`ss -ltnp\` shows which)`,
        );
        assert.equal((error.cause as NodeJS.ErrnoException).code, 'EADDRINUSE');
        return true;
      },
    );
  } finally {
    first.close();
  }
});

test('an address that is not on this machine is told as the system tells it', async () => {
  await assert.rejects(
    listen({ host: '192.0.2.1', port: 1 }, () => undefined),
    /cannot listen on 192\.0\.2\.1:1: .*EADDRNOTAVAIL/,
  );
});

const kept: KeptServer[] = [];
afterEach(() => {
  for (const server of kept.splice(0)) server.close();
});

function keep(port: number, options: Partial<KeptServerOptions> = {}) {
  const failures: string[] = [];
  const told: string[] = [];
  const server = new KeptServer({
    address: { host: '127.0.0.1', port },
    handler: (_, response) => response.end(),
    hardFail: false,
    retryMs: 10,
    onRetry: (error, again) => {
      failures.push(error.message);
      told.push(again ? 'again' : 'first');
    },
    onRecovered: () => told.push('recovered'),
    ...options,
  });
  kept.push(server);
  return { server, failures, told };
}

test('a kept server tries again until the port is free', async () => {
  const first = await listen({ host: '127.0.0.1', port: 0 }, () => undefined);
  const { server, failures, told } = keep(portOf(first));
  await server.start();
  while (failures.length < 3) await sleep(2);
  assert.match(failures[2] ?? '', /the port is taken/);
  const port = portOf(first);
  first.close();
  while (server.port !== port) await sleep(2);
  assert.equal(await answers('127.0.0.1', port), true);
  assert.deepEqual(
    told.slice(0, 3),
    ['first', 'again', 'again'],
    'the first one is an error, the others are not',
  );
  assert.equal(told.at(-1), 'recovered');
  assert.equal(told.filter((word) => word === 'recovered').length, 1);
});

test('a kept server that is closed while it tries gives up', async () => {
  const first = await listen({ host: '127.0.0.1', port: 0 }, () => undefined);
  const port = portOf(first);
  const { server, failures } = keep(port);
  await server.start();
  server.close();
  first.close();
  await sleep(40);
  assert.equal(failures.length, 1);
  assert.equal(await answers('127.0.0.1', port), false);
});

test('a kept server that is closed does not answer any more, on old connections neither', async () => {
  const { server } = keep(0);
  await server.start();
  const port = server.port ?? 0;
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  server.close();
  await once(socket.resume(), 'close');
  assert.equal(await answers('127.0.0.1', port), false);
});

test('hard fail: the first failure is the last', async () => {
  const first = await listen({ host: '127.0.0.1', port: 0 }, () => undefined);
  const { server, failures } = keep(portOf(first), { hardFail: true });
  await assert.rejects(server.start(), BindError);
  first.close();
  await sleep(40);
  assert.equal(server.port, undefined);
  assert.deepEqual(failures, []);
});

test('hard fail: a free port is no failure', async () => {
  const { server } = keep(0, { hardFail: true });
  await server.start();
  assert.equal(await answers('127.0.0.1', server.port ?? 0), true);
});

test('an idle connection outlives the pauses of probes; an answer under way is finished when the server closes', async () => {
  const pending: (() => void)[] = [];
  const server = await listen({ host: '127.0.0.1', port: 0 }, (_, response) => {
    pending.push(() => response.end('late'));
  });
  assert.ok(server.keepAliveTimeout >= 300_000);
  const port = portOf(server);
  const agent = new Agent({ keepAlive: true });
  const answer = new Promise<string>((resolve, reject) => {
    get({ port, host: '127.0.0.1', agent }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.on('end', () => {
        resolve(text);
      });
    }).on('error', reject);
  });
  while (pending.length === 0) await sleep(2);
  closeServer(server);
  assert.equal(await answers('127.0.0.1', port), false);
  pending[0]?.();
  assert.equal(await answer, 'late');
  agent.destroy();
});

test('a closed server ends connections that say nothing, or half a request', async () => {
  const server = await listen({ host: '127.0.0.1', port: 0 }, (_request, response) => response.end());
  const { port } = server.address() as AddressInfo;
  const closed = ['', 'GET / HTTP/1.1\r\nHost:'].map(async (sent) => {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    await once(socket, 'connect');
    socket.write(sent);
    await once(socket.resume(), 'close');
  });
  await new Promise((resolve) => setTimeout(resolve, 50));
  closeServer(server, 100);
  await Promise.all(closed);
});
