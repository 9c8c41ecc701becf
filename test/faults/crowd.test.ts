/**
 * 5,000 nodes whose API server goes away and comes back, by a clock of their own: how many requests a second they make, and
 * when they are right again, beside what the rules of client-go's reflector would ask. Ours are the program's own state and
 * pauses; client-go's are 0.8 s, doubled with every failure up to 30 s, times 1 to 2, for each kind by itself.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultBackoff, OutageBackoff } from '../../src/sources/kube/reflector/backoff.js';
import { defaultServerTimings, ServerState, type Member } from '../../src/sources/kube/reflector/server.js';
import { Random } from '@kube-proxy-ts/netlink/testing';

const nodes = 5000;
const kinds = 4;

/** How the server fails: it is not there, everything is answered with an error (503), or the one and then the other. */
type Way = 'no answer' | 'error' | 'no answer, then errors';
/** For so long a server that starts answers with errors. */
const startMs = 3000;

interface Crowd {
  /** When requests were made, milliseconds. */
  readonly requests: number[];
  /** When the last kind of a node was served. */
  readonly right: number[];
}

function chance(seed: number): () => number {
  const random = new Random(seed);
  return () => random.next() / 2 ** 32;
}

/** Every watch is cut at 0; the server serves from `outageMs` on. */
function clientGo(outageMs: number): Crowd {
  const random = chance(1);
  const requests: number[] = [];
  const right: number[] = [];
  for (let node = 0; node < nodes; node++) {
    let last = 0;
    for (let kind = 0; kind < kinds; kind++) {
      let time = 0;
      for (let pause = 800; ; pause = Math.min(2 * pause, 30_000)) {
        time += pause * (1 + random());
        requests.push(time);
        if (time >= outageMs) break;
      }
      last = Math.max(last, time);
    }
    right.push(last);
  }
  return { requests, right };
}

function ours(outageMs: number, way: Way): Crowd {
  const random = chance(2);
  const requests: number[] = [];
  const right: number[] = [];
  for (let node = 0; node < nodes; node++) right.push(oneNode(outageMs, way, random, requests));
  return { requests, right };
}

interface Kind {
  readonly member: Member;
  readonly backoff: OutageBackoff;
  due: number;
  served: boolean;
}

/** What reflectors do, without what they read. @returns when the last kind was served */
function oneNode(outageMs: number, way: Way, random: () => number, requests: number[]): number {
  let now = 0;
  const server = new ServerState({
    timings: { ...defaultServerTimings, backoff: defaultBackoff },
    contentTypes: ['protobuf'],
    now: () => now,
    random,
  });
  const all: Kind[] = Array.from({ length: kinds }, (_, kind) => ({
    member: server.join(
      () => undefined,
      () => undefined,
      // Services and EndpointSlices.
      kind < 2,
    ),
    backoff: new OutageBackoff(defaultBackoff, random, () => now),
    due: (defaultBackoff.firstMs / 4) * random(),
    served: false,
  }));
  for (const { member } of all) {
    member.observed('served');
    member.observed('cut');
  }
  for (;;) {
    // All times are asked for anew, since one kind's outcome changes those of others.
    let next: Kind | undefined;
    let at = Infinity;
    for (const kind of all) {
      if (kind.served) continue;
      const time = kind.member.askAt(kind.due, 0);
      if (time < at) [next, at] = [kind, time];
    }
    if (next === undefined) return now;
    now = Math.max(now, at);
    requests.push(now);
    if (now >= outageMs) {
      next.served = true;
      next.member.observed('served');
    } else {
      const starting = now >= outageMs - startMs ? 'error' : 'no answer';
      next.member.observed(way === 'no answer, then errors' ? starting : way);
      next.due = now + next.backoff.next();
    }
  }
}

interface Figures {
  /** Most requests in any second. */
  readonly peak: number;
  /** Most requests in any second that begins when the server is there again. */
  readonly atReturn: number;
  readonly total: number;
  /** Seconds from the server's return until all kinds are served. */
  readonly median: number;
  readonly worst: number;
}

function figures({ requests, right }: Crowd, outageMs: number): Figures {
  const sorted = Float64Array.from(requests).sort();
  let peak = 0;
  let atReturn = 0;
  for (let first = 0, last = 0; first < sorted.length; first++) {
    const begin = sorted[first] ?? 0;
    while (last < sorted.length && (sorted[last] ?? 0) < begin + 1000) last++;
    peak = Math.max(peak, last - first);
    if (begin >= outageMs) atReturn = Math.max(atReturn, last - first);
  }
  const late = Float64Array.from(right, (time) => (time - outageMs) / 1000).sort();
  return {
    peak,
    atReturn,
    total: requests.length,
    median: late[nodes >> 1] ?? 0,
    worst: late[nodes - 1] ?? 0,
  };
}

const outages = [0.5, 1, 2, 4, 7, 10, 20, 30, 60, 120, 300, 600];

for (const way of ['no answer', 'error', 'no answer, then errors'] as const) {
  test(`${nodes} nodes at a server that comes back, ${way} until then`, (t) => {
    const told = ({ peak, atReturn, total, median, worst }: Figures): string =>
      `peak ${peak}/s, at its return ${atReturn}/s, ${total} in all; right again ${median.toFixed(1)} s, worst ${worst.toFixed(1)} s`;
    for (const seconds of outages) {
      const mine = figures(ours(seconds * 1000, way), seconds * 1000);
      const theirs = figures(clientGo(seconds * 1000), seconds * 1000);
      t.diagnostic(`away for ${seconds} s: ${told(mine)}`);
      t.diagnostic(`      client-go's: ${told(theirs)}`);
      // Chance moves the figures of both by some percent.
      assert.ok(mine.peak <= theirs.peak, `${seconds} s: peak`);
      // One or two kinds of each node look at once, where client-go's wait for 0.8 s first.
      const early = seconds <= 1 ? 2 * nodes : 0;
      assert.ok(mine.total <= theirs.total * 1.05 + early, `${seconds} s: in all`);
      // One that says that it is starting is asked more often, for it will be there soon.
      const most = way === 'no answer, then errors' ? 3000 : theirs.atReturn * 1.15;
      if (seconds >= 60) assert.ok(mine.atReturn <= most, `${seconds} s: at its return`);
      else assert.ok(mine.atReturn <= 20_000, `${seconds} s: at its return`);
      assert.ok(mine.median <= theirs.median, `${seconds} s: right again`);
      assert.ok(mine.worst <= Math.max(5, theirs.worst * 1.1), `${seconds} s: worst`);
      if (seconds <= 30) assert.ok(mine.worst <= 5, `${seconds} s: worst`);
    }
  });
}
