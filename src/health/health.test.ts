/** /healthz and /livez as observability.md section 2 has them, with a clock that stands still until it is moved. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Health } from './health.js';

const start = Date.UTC(2026, 0, 2, 3, 4, 5, 120);

function begin() {
  const clock = { now: start };
  const health = new Health(60_000, () => clock.now);
  return { health, clock };
}

test('a new process is alive, but knows no node yet', () => {
  const { health } = begin();
  assert.deepEqual(health.livez(), {
    status: 200,
    body: '{"lastUpdated":"2026-01-02T03:04:05.12Z","currentTime":"2026-01-02T03:04:05.12Z","healthy":true}',
  });
  assert.deepEqual(health.healthz(), {
    status: 503,
    body: '{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":"2026-01-02T03:04:05.12Z","nodeEligible":false,"healthy":true}',
  });
});

test('members, their order, and which time lastUpdated tells', () => {
  const { health, clock } = begin();
  health.setNodeEligible(true);
  health.updated('IPv6');
  clock.now += 880;
  health.updated('IPv4');
  clock.now += 100;
  const status =
    '"status":{"IPv4":{"lastUpdated":"2026-01-02T03:04:06Z","healthy":true},"IPv6":{"lastUpdated":"2026-01-02T03:04:05.12Z","healthy":true}}';
  assert.deepEqual(health.healthz(), {
    status: 200,
    body: `{"lastUpdated":"2026-01-02T03:04:06.1Z","currentTime":"2026-01-02T03:04:06.1Z","nodeEligible":true,"healthy":true,${status}}`,
  });
  health.setNodeEligible(false);
  assert.deepEqual(health.healthz(), {
    status: 503,
    body: `{"lastUpdated":"2026-01-02T03:04:06Z","currentTime":"2026-01-02T03:04:06.1Z","nodeEligible":false,"healthy":true,${status}}`,
  });
  assert.equal(health.livez().status, 200, 'a node that is about to go is alive');
});

type Event = ['updated' | 'queued', 'IPv4' | 'IPv6'] | ['wait', number];
const cases: [what: string, events: Event[], healthy: boolean][] = [
  ['nothing ever happened', [['wait', 1e9]], true],
  [
    'idle for long after a sync',
    [
      ['updated', 'IPv4'],
      ['wait', 1e9],
    ],
    true,
  ],
  [
    'a change waits a little',
    [
      ['updated', 'IPv4'],
      ['queued', 'IPv4'],
      ['wait', 59_999],
    ],
    true,
  ],
  [
    'a change waits too long',
    [
      ['updated', 'IPv4'],
      ['queued', 'IPv4'],
      ['wait', 60_000],
    ],
    false,
  ],
  [
    'the first of two changes counts',
    [
      ['updated', 'IPv4'],
      ['queued', 'IPv4'],
      ['wait', 40_000],
      ['queued', 'IPv4'],
      ['wait', 20_000],
    ],
    false,
  ],
  [
    'a sync takes all changes',
    [
      ['updated', 'IPv4'],
      ['queued', 'IPv4'],
      ['wait', 70_000],
      ['updated', 'IPv4'],
      ['wait', 1e9],
    ],
    true,
  ],
  [
    'after a sync time starts anew',
    [
      ['updated', 'IPv4'],
      ['queued', 'IPv4'],
      ['wait', 1],
      ['updated', 'IPv4'],
      ['queued', 'IPv4'],
      ['wait', 59_999],
    ],
    true,
  ],
  [
    'one late family is enough',
    [
      ['updated', 'IPv4'],
      ['updated', 'IPv6'],
      ['queued', 'IPv6'],
      ['wait', 60_000],
      ['updated', 'IPv4'],
    ],
    false,
  ],
  [
    'a family whose loop has not begun is not late',
    [
      ['queued', 'IPv4'],
      ['wait', 1e9],
    ],
    true,
  ],
];

for (const [what, events, healthy] of cases) {
  test(`${what}: ${healthy ? 'healthy' : 'unhealthy'}`, () => {
    const { health, clock } = begin();
    health.setNodeEligible(true);
    for (const event of events) {
      if (event[0] === 'wait') clock.now += event[1];
      else health[event[0]](event[1]);
    }
    assert.equal(health.healthy, healthy);
    assert.equal(health.livez().status, healthy ? 200 : 503);
    assert.equal(health.healthz().status, healthy ? 200 : 503);
    const body = JSON.parse(health.livez().body) as { healthy: boolean };
    assert.equal(body.healthy, healthy);
  });
}

const times: [ms: number, text: string][] = [
  [0, '05Z'],
  [1, '05.001Z'],
  [10, '05.01Z'],
  [100, '05.1Z'],
  [120, '05.12Z'],
  [123, '05.123Z'],
  [5000, '10Z'],
  [15_000, '20Z'],
];
for (const [ms, text] of times) {
  test(`time as Go prints it: ${text}`, () => {
    const health = new Health(1, () => Date.UTC(2026, 0, 2, 3, 4, 5) + ms);
    const body = JSON.parse(health.livez().body) as { currentTime: string };
    assert.equal(body.currentTime, `2026-01-02T03:04:${text}`);
  });
}
