/**
 * Every scheduler of the kernel with real connections that stay open: what `ipvsadm -Ln` shows is what docs/ipvs.md says,
 * and connections go where the scheduler promises. Weights are given by hand, as an operator would.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { serviceIP } from '../../process/node.js';
import {
  countEach,
  IpvsNode,
  ipvsadmLines,
  missingIpvs,
  podIPOf,
  port,
  readyPods,
  until,
  virtualServer,
} from './ipvs-node.js';

const skip = enterNetworkNamespace() || missingIpvs();
const page = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', '..', 'docs', 'ipvs.md');
const pods = [1, 2, 3].map(podIPOf);

/** How many connections each pod has, in the order of `pods`. */
type Spread = readonly number[];

interface Case {
  readonly weights?: readonly [number, number, number];
  /** How many connections are opened, one after the other, and held. */
  readonly open: number;
  /** @param order who answered each connection, by its number in `pods`; -1: nobody */
  readonly check: (spread: Spread, order: readonly number[]) => void;
}

const evenly: Case = {
  open: 12,
  check: (spread) => {
    assert.deepEqual(spread, [4, 4, 4]);
  },
};
const byWeight: Case = {
  weights: [3, 2, 1],
  open: 12,
  check: (spread) => {
    assert.deepEqual(spread, [6, 4, 2]);
  },
};
const allToOne: Case = {
  open: 12,
  check: (spread) => {
    assert.deepEqual([...spread].sort(), [0, 0, 12]);
  },
};
/** A connection more than its weight, and the next endpoint is next (ip_vs_lblc.c, is_overloaded). */
const byLocality: Case = {
  open: 12,
  check: (spread, order) => {
    assert.equal(order[0], order[1], 'the first two go to one endpoint');
    assert.equal(
      spread.every((count) => count >= 2),
      true,
      'when it has more than its weight, and another has none, that one is taken',
    );
  },
};

const cases: Readonly<Record<string, Case>> = {
  rr: evenly,
  wrr: byWeight,
  lc: evenly,
  wlc: byWeight,
  lblc: byLocality,
  lblcr: byLocality,
  dh: allToOne,
  sh: allToOne,
  sed: byWeight,
  // An idle endpoint is taken before a faster one that has a connection.
  nq: {
    weights: [10, 1, 1],
    open: 6,
    check: (spread, order) => {
      assert.deepEqual([...order.slice(0, 3)].sort(), [0, 1, 2], 'nobody waits while an endpoint is idle');
      assert.deepEqual(spread, [4, 1, 1]);
    },
  },
  fo: {
    weights: [2, 3, 1],
    open: 12,
    check: (spread) => {
      assert.deepEqual(spread, [0, 12, 0]);
    },
  },
  // Full when it has more connections than its weight.
  ovf: {
    weights: [3, 2, 1],
    open: 10,
    check: (spread, order) => {
      assert.deepEqual(order, [0, 0, 0, 0, 1, 1, 1, 2, 2, -1]);
      assert.deepEqual(spread, [4, 3, 2]);
    },
  },
  mh: {
    open: 24,
    check: (spread) => {
      assert.ok(
        spread.every((count) => count > 0),
        `the client's port counts: ${spread.join()}`,
      );
    },
  },
};

/** What docs/ipvs.md says that ipvsadm shows behind the address. */
function documented(): ReadonlyMap<string, string> {
  const section = /^## Schedulers\n[^]*?(?=^## )/m.exec(readFileSync(page, 'utf8'))?.[0] ?? '';
  const rows = [...section.matchAll(/^\| `(\w+)` \| (.*?) \| `(.*?)` \|/gm)];
  return new Map(rows.map(([, name = '', , shown = '']) => [name, shown]));
}

describe('schedulers', { skip }, () => {
  const node = new IpvsNode();
  before(async () => {
    await node.open();
    await node.serve(1, 2, 3);
    node.setPods(readyPods(1, 2, 3));
  });
  after(() => node.close());

  const active = (): number[] =>
    ipvsadmLines()
      .slice(1)
      .map((line) => Number(line.split(' ')[4]));

  for (const [name, { weights = [1, 1, 1], open, check }] of Object.entries(cases)) {
    test(`${name}: ${open} connections, weights ${weights.join(' ')}`, async () => {
      await node.startProxy(`--ipvs-scheduler=${name}`);
      await until('earlier connections are over', () => active().every((count) => count === 0));
      for (const [at, weight] of weights.entries())
        run(
          'ipvsadm',
          '-e',
          '-t',
          virtualServer,
          '-r',
          `${pods[at] ?? ''}:${port}`,
          '-m',
          '-w',
          String(weight),
        );
      const clients = await node.clients();
      try {
        const answers = await clients.open(open);
        const order = answers.map((answer) => pods.indexOf(answer));
        const spread = pods.map((pod) => countEach(answers)[pod] ?? 0);
        check(spread, order);
        await until('all are active', () => active().join() === spread.join());
        const [shown = '', ...endpoints] = ipvsadmLines();
        assert.equal(shown, `TCP ${virtualServer} ${documented().get(name) ?? 'not in docs/ipvs.md'}`);
        assert.deepEqual(
          // Inactive ones are those of earlier tests.
          endpoints.map((line) => line.replace(/ \d+$/, '')).sort(),
          pods.map((pod, at) => `-> ${pod}:${port} Masq ${weights[at] ?? 0} ${spread[at] ?? 0}`),
        );
        assert.deepEqual(
          (await clients.ask()).filter((answer) => pods.includes(answer)).sort(),
          answers.filter((answer) => pods.includes(answer)).sort(),
          'each connection stays where it is',
        );
      } finally {
        clients.child.kill('SIGKILL');
        await clients.child.end();
      }
    });
  }

  test('all schedulers of the documentation are tried here, but those that this kernel lacks', () => {
    const lacking = [...documented().keys()].filter((name) => !(name in cases));
    assert.deepEqual(lacking, ['twos']);
  });

  test('lc: an endpoint that became free is taken first', async () => {
    await node.startProxy('--ipvs-scheduler=lc');
    await until('earlier connections are over', () => active().every((count) => count === 0));
    const clients = await node.clients();
    try {
      assert.deepEqual(countEach(await clients.open(9)), countEach([...pods, ...pods, ...pods]));
      const [, freed = ''] = pods;
      assert.equal((await clients.close(freed)).length, 3);
      await until('they are over', () => active().join() === '3,0,3');
      assert.deepEqual(await clients.open(3), [freed, freed, freed]);
    } finally {
      clients.child.kill('SIGKILL');
      await clients.child.end();
    }
  });

  test('weights by hand stay when endpoints come and go, and over a restart', async () => {
    const weight = (): string => ipvsadmLines().find((line) => line.includes(`${podIPOf(1)}:`)) ?? '';
    run('ipvsadm', '-e', '-t', virtualServer, '-r', `${podIPOf(1)}:${port}`, '-m', '-w', '9');
    node.setPods(readyPods(1, 2));
    // At once, or with weight 0 while it has connections.
    const serves = (): boolean =>
      ipvsadmLines().some((line) => line.startsWith(`-> ${podIPOf(3)}:`) && !line.includes(' Masq 0 '));
    await until('an endpoint went', () => !serves());
    assert.match(weight(), /Masq 9 /);
    node.setPods(readyPods(1, 2, 3));
    await until('it is back', serves);
    assert.match(weight(), /Masq 9 /);
    await node.startProxy('--ipvs-scheduler=wrr');
    assert.match(weight(), /Masq 9 /);
    assert.match(ipvsadmLines()[0] ?? '', / wrr$/, 'the scheduler is another one');
  });

  test('sh: a client whose endpoint drains keeps its connection, and gets another endpoint for new ones', async () => {
    await node.startProxy('--ipvs-scheduler=sh');
    const clients = await node.clients();
    try {
      const [mine = ''] = await clients.open(1);
      const rest = [1, 2, 3].filter((number) => podIPOf(number) !== mine);
      node.setPods(readyPods(...rest));
      await until('it drains', () =>
        ipvsadmLines().some((line) => line.startsWith(`-> ${mine}:${port} Masq 0 1`)),
      );
      const [other = ''] = await clients.open(1);
      assert.ok(rest.map(podIPOf).includes(other), other);
      assert.deepEqual((await clients.ask()).sort(), [mine, other].sort());
      node.setPods(readyPods(1, 2, 3));
    } finally {
      clients.child.kill('SIGKILL');
      await clients.child.end();
    }
  });

  test('session affinity is shown, and keeps a client with its endpoint', async () => {
    node.setPods(
      readyPods(1, 2, 3),
      '  sessionAffinity: ClientIP\n  sessionAffinityConfig: { clientIP: { timeoutSeconds: 600 } }\n',
    );
    await node.startProxy('--ipvs-scheduler=rr');
    assert.equal(ipvsadmLines()[0], `TCP ${virtualServer} rr persistent 600`);
    const clients = await node.clients();
    try {
      assert.equal(Object.keys(countEach(await clients.open(6, serviceIP))).length, 1);
    } finally {
      clients.child.kill('SIGKILL');
      await clients.child.end();
      node.setPods(readyPods(1, 2, 3));
    }
  });

  test('a scheduler whose module is missing is refused with the name of the module, and so is one that nobody knows', async () => {
    await node.stopProxy();
    const missing = node.spawnProxy('--proxy-mode=ipvs', '--ipvs-scheduler=twos');
    assert.equal(await missing.end(30_000), 4, missing.output);
    assert.match(
      missing.output,
      /the kernel has no IPVS scheduler twos .*'modprobe ip_vs_twos'.*package of the kernel/,
    );
    const unknown = node.spawnProxy('--proxy-mode=ipvs', '--ipvs-scheduler=fair');
    assert.equal(await unknown.end(30_000), 2, unknown.output);
    assert.match(unknown.output, /there is no IPVS scheduler "fair"; Linux has rr, wrr, lc, /);
    assert.equal(ipvsadmLines().length, 4, 'what is in force stays');
  });
});
