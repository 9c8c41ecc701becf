/** The shared state of the server: the table of its phases, who asks when, and what all kinds learn from one. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import {
  defaultServerTimings,
  ServerState,
  serverTransitions,
  type Observation,
  type ServerPhase,
} from './server.js';
import { reactions, type Failure } from './outcome.js';

const phases = Object.keys(serverTransitions) as ServerPhase[];
const observations = Object.keys(serverTransitions.unknown) as Observation[];
const document = readFileSync(new URL('../../../../../docs/resilience.md', import.meta.url), 'utf8');

/** The rows of the table in the document that begins with this header. */
function rowsBelow(header: string): string[] {
  const lines = document.split('\n');
  const at = lines.indexOf(header);
  assert.ok(at >= 0, `docs/resilience.md has no table ${header}`);
  const rows = lines.slice(at + 2);
  return rows.slice(
    0,
    rows.findIndex((line) => !line.startsWith('|')),
  );
}

function printed(t: TestContext, header: string, rows: readonly string[]): void {
  for (const line of [header, ...rows]) t.diagnostic(line);
  assert.deepEqual(rowsBelow(header), rows);
}

test('the phases of the server are those of docs/resilience.md', (t) => {
  printed(
    t,
    `| phase | ${observations.join(' | ')} |`,
    phases.map(
      (phase) => `| ${[phase, ...observations.map((o) => serverTransitions[phase][o])].join(' | ')} |`,
    ),
  );
});

test('what follows a failed request is in docs/resilience.md', (t) => {
  printed(
    t,
    '| failure | next | version | wait | shows |',
    (Object.keys(reactions) as Failure[]).map((failure) => {
      const { next, version, wait, shows } = reactions[failure];
      return `| ${[failure, next, version, wait, shows].join(' | ')} |`;
    }),
  );
});

interface World {
  now: number;
  random: number;
  readonly server: ServerState;
}

function world(): World {
  const made: World = {
    now: 0,
    random: 0,
    server: new ServerState({
      timings: { ...defaultServerTimings, backoff: { firstMs: 800, maxMs: 32_000 } },
      contentTypes: ['protobuf', 'json'],
      now: () => made.now,
      random: () => made.random,
    }),
  };
  return made;
}

const nothing = (): void => undefined;

test('every transition of the table', () => {
  const waysTo: Readonly<Record<ServerPhase, readonly (readonly [0 | 1, Observation])[]>> = {
    unknown: [],
    serving: [[0, 'served']],
    failing: [
      [0, 'error'],
      [1, 'error'],
    ],
    unreachable: [[0, 'no answer']],
  };
  for (const phase of phases) {
    for (const observation of observations) {
      const { server } = world();
      const members = [server.join(nothing, nothing, false), server.join(nothing, nothing, false)] as const;
      const observe = (member: 0 | 1, what: Observation): void => {
        if (what !== 'errors of several kinds') members[member].observed(what);
      };
      for (const [member, what] of waysTo[phase]) observe(member, what);
      assert.equal(server.phase, phase);
      if (observation === 'errors of several kinds') {
        observe(0, 'error');
        observe(1, 'error');
      } else {
        // Of failing, the one that failed last fails again.
        observe(phase === 'failing' ? 1 : 0, observation);
      }
      assert.equal(server.phase, serverTransitions[phase][observation], `${phase}, ${observation}`);
    }
  }
});

test('while nothing is served one kind asks for all, in turns', () => {
  const made = world();
  const { server } = made;
  const members = [0, 1, 2, 3].map(() => server.join(nothing, nothing, false));
  for (const member of members) member.observed('no answer');
  const times = (): number[] => members.map((member) => member.askAt(0, 0));
  assert.deepEqual(times(), [800, 1800, 2800, 3800]);
  made.now = 800;
  members[0]?.observed('no answer');
  assert.deepEqual(times(), [4600, 1600, 2600, 3600], 'it goes to the end of the line');
  made.now = 1600;
  // The second one has no answer yet: the next follows.
  assert.deepEqual(times().slice(1, 3), [1600, 2600]);
});

test('kinds that are cut off together wait for the one that finds the server away', () => {
  const { server } = world();
  let changed = 0;
  const first = server.join(nothing, nothing, false);
  const second = server.join(() => changed++, nothing, false);
  first.observed('served');
  second.observed('cut');
  first.observed('cut');
  assert.equal(second.askAt(150, 0), 150, 'each tries soon');
  first.observed('no answer');
  assert.equal(changed, 1);
  assert.equal(second.askAt(150, 0), 800, 'nobody was asked before; it is first in the line');
});

test('one kind is served: all others try within a second, spread by chance', () => {
  const made = world();
  const { server } = made;
  let woken = 0;
  const members = [0, 1, 2].map(() => server.join(() => woken++, nothing, false));
  for (const member of members) member.observed('no answer');
  made.now = 60_000;
  members[0]?.observed('no answer');
  woken = 0;
  made.now = 80_000;
  made.random = 0.5;
  members[2]?.observed('served');
  assert.equal(woken, 2);
  assert.deepEqual(
    members.map((member) => member.askAt(100_000, 0)),
    [80_500, 80_500, 100_000],
  );
});

test('kinds that traffic needs come first', () => {
  const made = world();
  const urgent = made.server.join(nothing, nothing, true);
  const other = made.server.join(nothing, nothing, false);
  const served = made.server.join(nothing, nothing, false);
  for (const member of [urgent, other, served]) member.observed('no answer');
  made.random = 1;
  served.observed('served');
  assert.deepEqual([urgent.askAt(9000, 0), other.askAt(9000, 0)], [400, 1000]);
});

test('a server that was away and answers with errors is starting: pauses begin anew, once', () => {
  const made = world();
  const member = made.server.join(nothing, nothing, false);
  const pause = (what: 'no answer' | 'error'): number => {
    member.observed(what);
    const ms = member.askAt(0, 0) - made.now;
    made.now += ms;
    return ms;
  };
  while (made.now < 60_000) pause('no answer');
  assert.ok(pause('no answer') > 20_000);
  assert.equal(pause('error'), 800);
  while (made.now < 200_000) pause('error');
  pause('no answer');
  assert.ok(pause('error') > 20_000, 'it comes and goes');
});

test('Retry-After holds against a server that serves others', () => {
  const made = world();
  const [one, other] = [made.server.join(nothing, nothing, false), made.server.join(nothing, nothing, false)];
  one.observed('error');
  other.observed('served');
  assert.equal(one.askAt(2000, 5000), 5000);
});

test('pauses grow only while nothing is served', () => {
  const made = world();
  const member = made.server.join(nothing, nothing, false);
  const pauses: number[] = [];
  for (let i = 0; i < 8; i++) {
    member.observed('no answer');
    const at = member.askAt(0, 0);
    pauses.push(at - made.now);
    made.now = at;
  }
  assert.deepEqual(
    pauses.map((ms) => Math.round(ms / 100) / 10),
    [0.8, 0.8, 0.8, 0.8, 1, 1.2, 1.6, 2.1],
  );
  member.observed('served');
  member.observed('no answer');
  assert.equal(member.askAt(0, 0) - made.now, 800);
});

test('errors of one kind hold nobody up', () => {
  const { server } = world();
  const [one, other] = [server.join(nothing, nothing, false), server.join(nothing, nothing, false)];
  for (let i = 0; i < 5; i++) one.observed('error');
  assert.equal(other.askAt(100, 0), 100);
  assert.equal(one.askAt(900, 0), 900);
});

test('a new history is told to all others, and doubted for one to two minutes', () => {
  const made = world();
  made.random = 0.5;
  const told: string[] = [];
  const [one] = [
    made.server.join(nothing, () => told.push('one'), false),
    made.server.join(nothing, () => told.push('other'), false),
  ];
  assert.ok(made.server.heldBackUntil < made.now);
  one.identified('a');
  assert.deepEqual(told, [], 'the first one is no news');
  one.identified('a');
  one.identified('b');
  assert.deepEqual(told, ['other']);
  assert.equal(made.server.heldBackUntil, 90_000);
  made.now = 50_000;
  one.historyChanged();
  assert.equal(made.server.heldBackUntil, 90_000, 'what changes again and again is not doubted for ever');
});

test('what the server can do is known for a time, and protobuf until the next connection', () => {
  const made = world();
  const { server } = made;
  assert.equal(server.streamingRefused(60_000), true);
  assert.equal(server.streamingRefused(1000), false);
  assert.equal(server.hasStreamingLists, false);
  made.now = 60_000;
  assert.equal(server.hasStreamingLists, true);
  server.protobufRefused();
  assert.deepEqual(server.contentTypes, ['json']);
  server.connected();
  assert.deepEqual(server.contentTypes, ['protobuf', 'json']);
});
