import assert from 'node:assert/strict';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BindError, listen, listenWithRetry, printAddress } from './listen.js';

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

test('tries again until the port is free', async () => {
  const first = await listen({ host: '127.0.0.1', port: 0 }, () => undefined);
  const port = portOf(first);
  const failures: unknown[] = [];
  const second = listenWithRetry(
    { host: '127.0.0.1', port },
    (_, response) => response.end(),
    10,
    new AbortController().signal,
    (error) => failures.push(error),
  );
  while (failures.length < 3) await sleep(2);
  first.close();
  const server = await second;
  assert.ok(server);
  assert.equal(await answers('127.0.0.1', port), true);
  server.close();
  server.closeAllConnections();
});

test('gives up when it is told to', async () => {
  const first = await listen({ host: '127.0.0.1', port: 0 }, () => undefined);
  const abort = new AbortController();
  const second = listenWithRetry(
    { host: '127.0.0.1', port: portOf(first) },
    () => undefined,
    60_000,
    abort.signal,
    () => {
      setImmediate(() => {
        abort.abort();
      });
    },
  );
  assert.equal(await second, undefined);
  first.close();
});
