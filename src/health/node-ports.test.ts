/** Health check node ports (observability.md section 4) over real HTTP on the loopback. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import { afterEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { patiently } from '../../test/patience.js';
import type { HealthCheckPort } from '../model/types.js';
import { NodePortHealth, type NodePortHealthOptions } from './node-ports.js';

/** Takes a port, on all addresses. */
async function takePort(port = 0): Promise<{ server: Server; port: number }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  return { server, port: (server.address() as AddressInfo).port };
}

async function freePort(): Promise<number> {
  const { server, port } = await takePort();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const open: NodePortHealth[] = [];
afterEach(() => {
  for (const health of open.splice(0)) health.close();
});

function begin(options: Partial<NodePortHealthOptions> = {}) {
  const failures: string[] = [];
  const state = { healthy: true };
  const health = new NodePortHealth({
    family: 'IPv4',
    addresses: ['127.0.0.1'],
    proxyHealthy: () => state.healthy,
    onFailure: ({ service, port }, error) => {
      failures.push(`${service} ${port} ${error instanceof Error ? error.message : ''}`);
    },
    retryMs: 60_000,
    ...options,
  });
  open.push(health);
  return { health, failures, state };
}

const check = (port: number, localReadyEndpoints = 1, name = 'web'): HealthCheckPort => ({
  service: `shop/${name}`,
  namespace: 'shop',
  name,
  port,
  localReadyEndpoints,
});

async function get(port: number, host = '127.0.0.1', method = 'GET') {
  const response = await fetch(`http://${host}:${port}/any/path?x`, { method });
  return {
    status: response.status,
    type: response.headers.get('content-type'),
    nosniff: response.headers.get('x-content-type-options'),
    weight: response.headers.get('x-load-balancing-endpoint-weight'),
    body: await response.text(),
  };
}

async function refused(port: number, host = '127.0.0.1'): Promise<boolean> {
  return await fetch(`http://${host}:${port}/`).then(
    () => false,
    () => true,
  );
}

/** Over the agent's one connection. */
async function kept(port: number, agent: Agent) {
  return await new Promise<{ status: number | undefined; reused: boolean }>((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, agent }, (response) => {
      response.resume().on('end', () => {
        resolve({ status: response.statusCode, reused: sent.reusedSocket });
      });
    });
    sent.on('error', reject).end();
  });
}

const answers: [endpoints: number, proxyHealthy: boolean, status: number][] = [
  [2, true, 200],
  [0, true, 503],
  [2, false, 503],
  [0, false, 503],
];
for (const [endpoints, healthy, status] of answers) {
  test(`${endpoints} local endpoints, proxy ${healthy ? 'healthy' : 'unhealthy'}: ${status}`, async () => {
    const { health, state } = begin();
    const port = await freePort();
    health.set(check(port, endpoints));
    assert.equal(await refused(port), true, 'nothing listens before the first sync');
    await health.openAll();
    state.healthy = healthy;
    assert.deepEqual(await get(port), {
      status,
      type: 'application/json',
      nosniff: 'nosniff',
      weight: String(endpoints),
      body: `{\n\t"service": {\n\t\t"namespace": "shop",\n\t\t"name": "web"\n\t},\n\t"localEndpoints": ${endpoints},\n\t"serviceProxyHealthy": ${healthy}\n}`,
    });
    const head = await get(port, '127.0.0.1', 'HEAD');
    assert.deepEqual([head.status, head.weight, head.body], [status, String(endpoints), '']);
  });
}

test('the number of endpoints changes without a new listener', async () => {
  const { health } = begin();
  const port = await freePort();
  health.set(check(port, 0));
  await health.openAll();
  assert.equal((await get(port)).status, 503);
  health.set(check(port, 3));
  assert.equal((await get(port)).weight, '3');
});

test('another port, and a Service that is new: the old one closes, the new ones open, without another sync', async () => {
  const { health } = begin();
  const [one, two, three] = [await freePort(), await freePort(), await freePort()];
  health.set(check(one));
  await health.openAll();
  health.set(check(two));
  health.set(check(three, 0, 'new'));
  assert.equal(await refused(one), true);
  const deadline = performance.now() + patiently(1000);
  while (((await refused(two)) || (await refused(three))) && performance.now() < deadline) await sleep(5);
  assert.equal((await get(two)).status, 200);
  assert.equal((await get(three)).status, 503);
});

test('a Service that goes away: its listener and its connections close, those of others stay', async () => {
  const { health } = begin();
  const [one, two] = [await freePort(), await freePort()];
  health.set(check(one));
  health.set(check(two, 1, 'api'));
  await health.openAll();
  assert.equal((await get(one)).status, 200);
  health.remove('shop/web');
  health.remove('shop/unknown');
  assert.equal(await refused(one), true);
  assert.equal((await get(two)).status, 200);
});

test('a taken port is told once, the others open, and it opens by itself when it is free', async () => {
  const { health, failures } = begin({ retryMs: 15 });
  const taken = await takePort();
  const free = await freePort();
  health.set(check(taken.port));
  health.set(check(free, 1, 'api'));
  await health.openAll();
  await health.openAll();
  assert.equal((await get(free)).status, 200);
  assert.equal(failures.length, 1);
  assert.match(failures[0] ?? '', /^shop\/web \d+ cannot listen on 127\.0\.0\.1:\d+: the port is taken/);
  await sleep(40);
  assert.equal(failures.length, 1, 'tried again silently');
  await new Promise((resolve) => taken.server.close(resolve));
  while (await refused(taken.port)) await sleep(5);
  assert.equal((await get(taken.port)).status, 200);
});

test('removed while it is being opened: nothing stays open', async () => {
  const { health, failures } = begin();
  const port = await freePort();
  health.set(check(port));
  const opening = health.openAll();
  health.remove('shop/web');
  await opening;
  assert.equal(await refused(port), true);
  assert.deepEqual(failures, []);
});

test('moved while it is being opened: only the new port stays open', async () => {
  const { health, failures } = begin();
  const [one, two] = [await freePort(), await freePort()];
  health.set(check(one));
  const opening = health.openAll();
  health.set(check(two));
  await Promise.all([opening, health.openAll()]);
  assert.equal(await refused(one), true);
  assert.equal((await get(two)).status, 200);
  assert.deepEqual(failures, []);
});

test('removed while its port is taken: not told any more', async () => {
  const { health, failures } = begin();
  const taken = await takePort();
  health.set(check(taken.port));
  const opening = health.openAll();
  health.remove('shop/web');
  await opening;
  assert.deepEqual(failures, []);
  taken.server.close();
});

test('several addresses: one that is taken does not keep the others closed', async () => {
  const { health, failures } = begin({ addresses: ['127.0.0.2', '127.0.0.1'] });
  const taken = await takePort();
  const free = await freePort();
  health.set(check(free, 1, 'api'));
  health.set(check(taken.port));
  await health.openAll();
  for (const host of ['127.0.0.1', '127.0.0.2']) assert.equal((await get(free, host)).status, 200);
  assert.equal((await get(taken.port, '127.0.0.2')).status, 200);
  assert.equal(failures.length, 1);
  assert.equal(health.failed, 1);
  taken.server.close();
});

test('listeners follow the addresses of the node; those on addresses that stay keep their connections', async () => {
  const { health, failures } = begin({ addresses: ['127.0.0.1', '127.0.0.2'] });
  const port = await freePort();
  health.set(check(port));
  health.setAddresses(['127.0.0.2', '127.0.0.1']);
  assert.equal(await refused(port), true, 'not before the first sync');
  await health.openAll();
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  assert.deepEqual(await kept(port, agent), { status: 200, reused: false });
  health.setAddresses(['127.0.0.1', '127.0.0.3']);
  while (await refused(port, '127.0.0.3')) await sleep(2);
  assert.equal(await refused(port, '127.0.0.2'), true);
  assert.deepEqual(await kept(port, agent), { status: 200, reused: true });
  health.setAddresses('all');
  while (await refused(port, '127.0.0.2')) await sleep(2);
  health.setAddresses([]);
  for (const host of ['127.0.0.1', '127.0.0.2', '127.0.0.3']) assert.equal(await refused(port, host), true);
  assert.deepEqual(failures, []);
  agent.destroy();
});

test('an address that is not there yet is tried again; the others answer meanwhile', async () => {
  const { health, failures } = begin({ addresses: ['127.0.0.1'], retryMs: 10 });
  const port = await freePort();
  health.set(check(port));
  await health.openAll();
  health.setAddresses(['127.0.0.1', '192.0.2.1']);
  while (failures.length === 0) await sleep(2);
  assert.match(failures[0] ?? '', /cannot listen on 192\.0\.2\.1:\d+: .*EADDRNOTAVAIL/);
  assert.equal((await get(port)).status, 200);
  assert.equal(health.failed, 1);
  health.setAddresses(['127.0.0.1']);
  assert.equal(health.failed, 0);
});

test('a request under way when its Service goes away: 503, and the connection ends', async () => {
  const { health } = begin();
  const port = await freePort();
  health.set(check(port));
  await health.openAll();
  const socket = connect(port, '127.0.0.1').setEncoding('utf8');
  let received = '';
  socket.on('data', (text: string) => (received += text));
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  while (!received.endsWith('}')) await sleep(2);
  assert.match(received, /^HTTP\/1\.1 200 /);
  received = '';
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n');
  // The first line has to arrive: from then on a request is under way.
  await sleep(50);
  health.remove('shop/web');
  socket.write('\r\n');
  await once(socket, 'close');
  assert.match(received, /^HTTP\/1\.1 503 [^]*\r\nConnection: close\r\n[^]*"localEndpoints": 0,/);
  assert.match(received, /\r\nX-Load-Balancing-Endpoint-Weight: 0\r\n/);
});

test('no address: no listener, no complaint', async () => {
  const { health, failures } = begin({ addresses: [] });
  const port = await freePort();
  health.set(check(port));
  await health.openAll();
  assert.equal(await refused(port), true);
  assert.deepEqual(failures, []);
});

for (const [family, own, other] of [
  ['IPv4', '127.0.0.1', '[::1]'],
  ['IPv6', '[::1]', '127.0.0.1'],
] as const) {
  test(`all addresses of ${family}: strictly that family`, async () => {
    const { health } = begin({ family, addresses: 'all' });
    const port = await freePort();
    health.set(check(port));
    await health.openAll();
    assert.equal((await get(port, own)).status, 200);
    assert.equal(await refused(port, other), true);
  });
}

test('close ends everything', async () => {
  const { health } = begin({ retryMs: 5 });
  const port = await freePort();
  const taken = await takePort();
  health.set(check(port));
  health.set(check(taken.port, 1, 'api'));
  await health.openAll();
  health.close();
  await new Promise((resolve) => taken.server.close(resolve));
  await sleep(20);
  assert.equal(await refused(port), true);
  assert.equal(await refused(taken.port), true);
});
