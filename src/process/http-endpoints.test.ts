/** The HTTP servers for operators (observability.md sections 2 and 3), over real HTTP. */
import assert from 'node:assert/strict';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, mock, test } from 'node:test';
import { Health } from '../health/health.js';
import { listen } from '../health/listen.js';
import { createMetrics } from '../metrics/metrics.js';
import { healthEndpoints, metricsEndpoints } from './http-endpoints.js';

const clock = { now: Date.UTC(2026, 0, 2, 3, 4, 5) };
const health = new Health(60_000, () => clock.now);
const metrics = createMetrics();
const servers: Server[] = [];
const urls = { health: '', metrics: '' };

before(async () => {
  for (const [name, handler] of [
    ['health', healthEndpoints(health, metrics)],
    ['metrics', metricsEndpoints('nftables', metrics)],
  ] as const) {
    const server = await listen({ host: '127.0.0.1', port: 0 }, handler);
    servers.push(server);
    urls[name] = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }
});
after(() => {
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
});

const json = 'application/json';
const plain = 'text/plain; charset=utf-8';

const cases: [
  server: 'health' | 'metrics',
  path: string,
  status: number,
  type: string,
  body: string | RegExp,
][] = [
  ['health', '/healthz', 200, json, /^\{"lastUpdated":".*","nodeEligible":true,"healthy":true\}$/],
  ['health', '/healthz?verbose', 200, json, /^\{/],
  ['health', '/livez', 200, json, /^\{"lastUpdated":"[^"]*","currentTime":"[^"]*","healthy":true\}$/],
  ['health', '/', 404, plain, '404 page not found\n'],
  ['health', '/healthz/', 404, plain, '404 page not found\n'],
  ['health', '/metrics', 404, plain, '404 page not found\n'],
  ['metrics', '/healthz', 200, plain, 'ok'],
  ['metrics', '/healthz/ping', 200, plain, 'ok'],
  ['metrics', '/proxyMode', 200, plain, 'nftables'],
  ['metrics', '/metrics', 200, 'text/plain; version=0.0.4; charset=utf-8', /^# HELP kubeproxy_/m],
  ['metrics', '/livez', 404, plain, '404 page not found\n'],
  ['metrics', '/proxyMode/', 404, plain, '404 page not found\n'],
];

for (const [server, path, status, type, body] of cases) {
  for (const method of ['GET', 'HEAD', 'POST']) {
    test(`${method} ${path} of the ${server} server: ${status}`, async () => {
      health.setNodeEligible(true);
      const response = await fetch(urls[server] + path, { method });
      const text = await response.text();
      assert.equal(response.status, status);
      assert.equal(response.headers.get('content-type'), type);
      if (path !== '/metrics' || server !== 'metrics')
        assert.equal(response.headers.get('x-content-type-options'), 'nosniff');
      if (method === 'HEAD') {
        assert.equal(text, '');
        assert.notEqual(response.headers.get('content-length'), '0');
      } else if (typeof body === 'string') {
        assert.equal(text, body);
        assert.equal(response.headers.get('content-length'), String(body.length));
      } else {
        assert.match(text, body);
      }
    });
  }
}

test('unhealthy: 503 from both, counted by code', async () => {
  const count = async (name: string): Promise<string[]> =>
    (await (await fetch(`${urls.metrics}/metrics`)).text())
      .split('\n')
      .filter((line) => line.startsWith(name));
  metrics.healthz.reset();
  metrics.livez.reset();
  health.updated('IPv4');
  health.queued('IPv4');
  clock.now += 60_000;
  assert.equal((await fetch(`${urls.health}/healthz`)).status, 503);
  assert.equal((await fetch(`${urls.health}/livez`)).status, 503);
  health.updated('IPv4');
  assert.equal((await fetch(`${urls.health}/livez`)).status, 200);
  assert.deepEqual(await count('kubeproxy_proxy_healthz_total'), [
    'kubeproxy_proxy_healthz_total{code="503"} 1',
  ]);
  assert.deepEqual(await count('kubeproxy_proxy_livez_total'), [
    'kubeproxy_proxy_livez_total{code="503"} 1',
    'kubeproxy_proxy_livez_total{code="200"} 1',
  ]);
});

test('metrics that cannot be collected: 500 with the reason', async () => {
  const collector = mock.method(metrics.registry, 'metrics', () =>
    Promise.reject(new Error('a collector failed')),
  );
  try {
    const response = await fetch(`${urls.metrics}/metrics`);
    assert.equal(response.status, 500);
    assert.match(await response.text(), /a collector failed/);
  } finally {
    collector.mock.restore();
  }
});
