/** /healthz and /livez as observability.md section 2 has them, with clocks that stand still until they are moved. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Health, nodeStateOf, type NodeState, type ApiServerHealth } from './health.js';

const start = Date.UTC(2026, 0, 2, 3, 4, 5, 120);

function begin() {
  const clock = { now: start, jumped: 0 };
  const health = new Health(60_000, {
    wall: () => clock.now + clock.jumped,
    steady: () => clock.now - start,
  });
  return { health, clock };
}

interface Body {
  healthy: boolean;
  currentTime: string;
  nodeEligible?: boolean;
  apiServer?: unknown;
  reasons?: string[];
}
const parse = ({ body }: { body: string }): Body => JSON.parse(body) as Body;

test('a new process is alive, but nothing can be said about the node', () => {
  const { health } = begin();
  assert.deepEqual(health.livez(), {
    status: 200,
    body: '{"lastUpdated":"2026-01-02T03:04:05.12Z","currentTime":"2026-01-02T03:04:05.12Z","healthy":true}',
  });
  assert.deepEqual(health.healthz(), {
    status: 503,
    body: '{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":"2026-01-02T03:04:05.12Z","nodeEligible":false,"healthy":false,"reasons":["the Node object of this node is not known yet","the first rules are not in the kernel yet"]}',
  });
});

test('members, their order, and which time lastUpdated tells', () => {
  const { health, clock } = begin();
  health.setNode('eligible');
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
  health.setNode('tainted');
  assert.deepEqual(health.healthz(), {
    status: 503,
    body: `{"lastUpdated":"2026-01-02T03:04:06Z","currentTime":"2026-01-02T03:04:06.1Z","nodeEligible":false,"healthy":true,${status},"reasons":["the cluster autoscaler is going to remove this node"]}`,
  });
  assert.equal(health.livez().status, 200, 'a node that is about to go is alive');
});

type Event = ['begin' | 'updated' | 'queued', 'IPv4' | 'IPv6'] | ['wait', number];
/** What /livez and /healthz say of an eligible node. */
const cases: [what: string, events: Event[], livez: 200 | 503, healthz: 200 | 503][] = [
  ['nothing ever happened', [['wait', 1e9]], 200, 503],
  [
    'the first sync has not been finished',
    [
      ['begin', 'IPv4'],
      ['wait', 59_999],
    ],
    200,
    503,
  ],
  [
    'the first sync does not succeed',
    [
      ['begin', 'IPv4'],
      ['wait', 60_000],
    ],
    503,
    503,
  ],
  [
    'one family has its first rules, the other has not',
    [
      ['begin', 'IPv4'],
      ['begin', 'IPv6'],
      ['updated', 'IPv4'],
      ['wait', 1000],
    ],
    200,
    503,
  ],
  [
    'both have their first rules',
    [
      ['begin', 'IPv4'],
      ['begin', 'IPv6'],
      ['updated', 'IPv4'],
      ['updated', 'IPv6'],
    ],
    200,
    200,
  ],
  [
    'idle for long after a sync',
    [
      ['updated', 'IPv4'],
      ['wait', 1e9],
    ],
    200,
    200,
  ],
  [
    'a change waits a little',
    [
      ['updated', 'IPv4'],
      ['queued', 'IPv4'],
      ['wait', 59_999],
    ],
    200,
    200,
  ],
  [
    'a change waits too long',
    [
      ['updated', 'IPv4'],
      ['queued', 'IPv4'],
      ['wait', 60_000],
    ],
    503,
    503,
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
    503,
    503,
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
    200,
    200,
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
    200,
    200,
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
    503,
    503,
  ],
  [
    'starting over in place: the rules are still in force',
    [
      ['begin', 'IPv4'],
      ['updated', 'IPv4'],
      ['wait', 1000],
      ['begin', 'IPv4'],
      ['wait', 59_999],
    ],
    200,
    200,
  ],
  [
    'starting over in place does not succeed',
    [
      ['begin', 'IPv4'],
      ['updated', 'IPv4'],
      ['begin', 'IPv4'],
      ['wait', 60_000],
    ],
    503,
    503,
  ],
  [
    'a family whose loop has not begun is not late',
    [
      ['queued', 'IPv4'],
      ['wait', 1e9],
    ],
    200,
    503,
  ],
];

for (const [what, events, livez, healthz] of cases) {
  test(`${what}: /livez ${livez}, /healthz ${healthz}`, () => {
    const { health, clock } = begin();
    health.setNode('eligible');
    for (const event of events) {
      if (event[0] === 'wait') clock.now += event[1];
      else health[event[0]](event[1]);
    }
    for (const [report, status] of [
      [health.livez(), livez],
      [health.healthz(), healthz],
    ] as const) {
      assert.equal(report.status, status);
      const { healthy, reasons } = parse(report);
      assert.equal(healthy, status === 200);
      assert.equal((reasons ?? []).length > 0, status === 503, 'whoever says no says why');
    }
    assert.equal(health.healthy, livez === 200);
  });
}

test('a wall clock that jumps makes nobody late', () => {
  const { health, clock } = begin();
  health.updated('IPv4');
  health.queued('IPv4');
  clock.jumped = 3_600_000;
  assert.equal(health.livez().status, 200);
  clock.jumped = -3_600_000;
  clock.now += 60_000;
  assert.equal(health.livez().status, 503);
});

const nodes: [node: Parameters<typeof nodeStateOf>[0], state: NodeState, healthz: 200 | 503][] = [
  [{ deleting: false, taintKeys: [] }, 'eligible', 200],
  [{ deleting: false, taintKeys: ['node.kubernetes.io/unschedulable'] }, 'eligible', 200],
  [{ deleting: false, taintKeys: ['x', 'ToBeDeletedByClusterAutoscaler'] }, 'tainted', 503],
  [{ deleting: true, taintKeys: [] }, 'deleting', 503],
  [undefined, 'deleted', 503],
];
for (const [node, state, status] of nodes) {
  test(`Node ${state}: /healthz ${status}, /livez 200`, () => {
    const { health } = begin();
    health.updated('IPv4');
    assert.equal(nodeStateOf(node), state);
    health.setNode(nodeStateOf(node));
    const report = health.healthz();
    assert.equal(report.status, status);
    assert.equal(parse(report).nodeEligible, status === 200);
    assert.equal(parse(report).reasons?.length, status === 200 ? undefined : 1);
    assert.equal(health.livez().status, 200);
    assert.equal(parse(health.livez()).nodeEligible, undefined);
  });
}

test('without an API server no Node object is needed', () => {
  const { health } = begin();
  health.setNode('unneeded');
  health.updated('IPv4');
  assert.equal(health.healthz().status, 200);
});

const well: ApiServerHealth = {
  state: 'current',
  staleSince: undefined,
  lastContact: start,
  fromStateFile: false,
  waitingFor: [],
  error: undefined,
};
const lost: ApiServerHealth = {
  ...well,
  state: 'stale',
  staleSince: start - 20_000,
  lastContact: start - 500,
  error: 'KUBE_CONNECT_REFUSED',
};
const sources: [what: string, apiServer: ApiServerHealth, shown: unknown][] = [
  ['all is well', well, { state: 'current', lastContact: '2026-01-02T03:04:05.12Z' }],
  [
    'out of reach',
    lost,
    {
      state: 'stale',
      staleSince: '2026-01-02T03:03:45.12Z',
      lastContact: '2026-01-02T03:04:04.62Z',
      error: 'KUBE_CONNECT_REFUSED',
    },
  ],
  [
    'never reached, but there is a state file',
    { ...lost, lastContact: 0, fromStateFile: true },
    {
      state: 'stale',
      staleSince: '2026-01-02T03:03:45.12Z',
      lastContact: '0001-01-01T00:00:00Z',
      fromStateFile: true,
      error: 'KUBE_CONNECT_REFUSED',
    },
  ],
];
for (const [what, apiServer, shown] of sources) {
  test(`the API server, ${what}: reported, and no reason to say no`, () => {
    const { health } = begin();
    health.setNode('eligible');
    health.setApiServer(() => apiServer);
    health.updated('IPv4');
    for (const report of [health.healthz(), health.livez()]) {
      assert.equal(report.status, 200);
      assert.deepEqual(parse(report).apiServer, shown);
    }
  });
}

test('waiting for the API server: alive, but not fit for traffic; it says what it waits for', () => {
  const { health, clock } = begin();
  health.setApiServer(() => ({
    ...lost,
    state: 'starting',
    staleSince: undefined,
    waitingFor: ['Service', 'Node'],
    lastContact: 0,
  }));
  clock.now += 3_600_000;
  assert.equal(health.livez().status, 200);
  const report = health.healthz();
  assert.equal(report.status, 503);
  assert.deepEqual(parse(report).reasons, [
    'the Node object of this node is not known yet',
    'waiting for the first list of Service, Node',
  ]);
  assert.deepEqual(parse(report).apiServer, {
    state: 'starting',
    lastContact: '0001-01-01T00:00:00Z',
    error: 'KUBE_CONNECT_REFUSED',
  });
});

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
    const wall = (): number => Date.UTC(2026, 0, 2, 3, 4, 5) + ms;
    const health = new Health(1, { wall, steady: () => 0 });
    assert.equal(parse(health.livez()).currentTime, `2026-01-02T03:04:${text}`);
  });
}
