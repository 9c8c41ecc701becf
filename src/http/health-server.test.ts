/** The health server over real HTTP, both families: status, headers and body of every answer. */
import assert from 'node:assert/strict';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { Health } from '../health/health.js';
import { closeServer, listen } from '../health/listen.js';
import { createMetrics } from '../metrics/metrics.js';
import { healthServer } from './health-server.js';

const clock = { now: Date.UTC(2026, 0, 2, 3, 4, 5) };
const health = new Health(60_000, { wall: () => clock.now, steady: () => clock.now });
const metrics = createMetrics();
let server: Server;
let port = 0;

before(async () => {
  server = await listen({ host: '0.0.0.0', port: 0 }, healthServer(health, metrics));
  port = (server.address() as AddressInfo).port;
});
after(() => {
  closeServer(server);
  server.closeAllConnections();
});

const json = 'application/json';
const plain = 'text/plain; charset=utf-8';
const never = '0001-01-01T00:00:00Z';
const now = '2026-01-02T03:04:05Z';

/** In the order in which they happen: each begins where the one before ended. */
const story: [
  what: string,
  happens: () => void,
  answers: [path: string, status: number, type: string, body: string][],
][] = [
  [
    'nothing has happened',
    () => undefined,
    [
      [
        '/healthz',
        503,
        json,
        `{"lastUpdated":"${never}","currentTime":"${now}","nodeEligible":false,"healthy":false,"reasons":["the Node object of this node is not known yet","the first rules are not in the kernel yet"]}`,
      ],
      ['/livez', 200, json, `{"lastUpdated":"${now}","currentTime":"${now}","healthy":true}`],
      ['/', 404, plain, '404 page not found\n'],
      ['/healthz/', 404, plain, '404 page not found\n'],
      ['/livez/', 404, plain, '404 page not found\n'],
      ['/metrics', 404, plain, '404 page not found\n'],
    ],
  ],
  [
    'the first rules are written',
    () => {
      health.setNode('eligible');
      health.begin('IPv4');
      health.updated('IPv4');
    },
    [
      [
        '/healthz',
        200,
        json,
        `{"lastUpdated":"${now}","currentTime":"${now}","nodeEligible":true,"healthy":true,"status":{"IPv4":{"lastUpdated":"${now}","healthy":true}}}`,
      ],
      [
        '/healthz?verbose',
        200,
        json,
        `{"lastUpdated":"${now}","currentTime":"${now}","nodeEligible":true,"healthy":true,"status":{"IPv4":{"lastUpdated":"${now}","healthy":true}}}`,
      ],
      [
        '/livez',
        200,
        json,
        `{"lastUpdated":"${now}","currentTime":"${now}","healthy":true,"status":{"IPv4":{"lastUpdated":"${now}","healthy":true}}}`,
      ],
    ],
  ],
  [
    'the API server goes away',
    () => {
      health.setApiServer(() => ({
        state: 'stale',
        staleSince: clock.now - 1000,
        lastContact: clock.now,
        fromStateFile: false,
        waitingFor: [],
        error: 'KUBE_TIMEOUT',
      }));
    },
    [
      [
        '/healthz',
        200,
        json,
        `{"lastUpdated":"${now}","currentTime":"${now}","nodeEligible":true,"healthy":true,"status":{"IPv4":{"lastUpdated":"${now}","healthy":true}},"apiServer":{"state":"stale","staleSince":"2026-01-02T03:04:04Z","lastContact":"${now}","error":"KUBE_TIMEOUT"}}`,
      ],
    ],
  ],
  [
    'it is back, and the node is deleted',
    () => {
      health.setApiServer(() => undefined);
      health.setNode('deleted');
    },
    [
      [
        '/healthz',
        503,
        json,
        `{"lastUpdated":"${now}","currentTime":"${now}","nodeEligible":false,"healthy":true,"status":{"IPv4":{"lastUpdated":"${now}","healthy":true}},"reasons":["the Node object of this node was deleted"]}`,
      ],
      [
        '/livez',
        200,
        json,
        `{"lastUpdated":"${now}","currentTime":"${now}","healthy":true,"status":{"IPv4":{"lastUpdated":"${now}","healthy":true}}}`,
      ],
    ],
  ],
  [
    'it is there again, and the dataplane is stuck',
    () => {
      health.setNode('eligible');
      health.queued('IPv4');
      clock.now += 60_000;
    },
    [
      [
        '/healthz',
        503,
        json,
        `{"lastUpdated":"${now}","currentTime":"2026-01-02T03:05:05Z","nodeEligible":true,"healthy":false,"status":{"IPv4":{"lastUpdated":"${now}","healthy":false}},"reasons":["IPv4: a change waits for the kernel for more than 60 s"]}`,
      ],
      [
        '/livez',
        503,
        json,
        `{"lastUpdated":"${now}","currentTime":"2026-01-02T03:05:05Z","healthy":false,"status":{"IPv4":{"lastUpdated":"${now}","healthy":false}},"reasons":["IPv4: a change waits for the kernel for more than 60 s"]}`,
      ],
    ],
  ],
  [
    'it moves again',
    () => {
      health.updated('IPv4');
    },
    [
      [
        '/livez',
        200,
        json,
        '{"lastUpdated":"2026-01-02T03:05:05Z","currentTime":"2026-01-02T03:05:05Z","healthy":true,"status":{"IPv4":{"lastUpdated":"2026-01-02T03:05:05Z","healthy":true}}}',
      ],
    ],
  ],
];

for (const [what, happens, answers] of story) {
  test(what, async () => {
    happens();
    for (const [path, status, type, body] of answers) {
      for (const host of ['127.0.0.1', '[::1]']) {
        for (const method of ['GET', 'HEAD', 'POST', 'DELETE']) {
          const response = await fetch(`http://${host}:${port}${path}`, { method });
          const where = `${method} ${host} ${path}`;
          assert.equal(response.status, status, where);
          assert.equal(response.headers.get('content-type'), type, where);
          assert.equal(response.headers.get('x-content-type-options'), 'nosniff', where);
          assert.equal(response.headers.get('content-length'), String(body.length), where);
          assert.ok(Math.abs(Date.parse(response.headers.get('date') ?? '') - Date.now()) < 60_000, where);
          assert.equal(await response.text(), method === 'HEAD' ? '' : body, where);
        }
      }
    }
  });
}

test('answers are counted by code', async () => {
  const counts = async (counter: typeof metrics.healthz): Promise<[unknown, number][]> =>
    (await counter.get()).values.map(({ labels, value }) => [labels.code, value]);
  metrics.healthz.reset();
  metrics.livez.reset();
  health.setNode('tainted');
  for (const path of ['/healthz', '/livez', '/livez', '/other'])
    await fetch(`http://127.0.0.1:${port}${path}`);
  assert.deepEqual(await counts(metrics.healthz), [['503', 1]]);
  assert.deepEqual(await counts(metrics.livez), [['200', 2]]);
});
