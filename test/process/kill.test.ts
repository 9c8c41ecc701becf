/**
 * kill -9 at random moments: while the program starts, while it follows a burst of changes, while it repairs. What the kernel
 * holds then is read with nft and asked by packets, before the next process comes: each address does what it did before, or what
 * it shall do, and nothing else; and who was not concerned is served as ever. KILLS=50 for more of them, KILL_SEED=n for others.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { removeStale } from '../conformance/topology.js';
import { patiently } from '../patience.js';
import { Bulk } from '../soak/bulk.js';
import { inWords, mismatch } from '../soak/comparison.js';
import { destinationKey, type Destination, type Expectation, type Source } from '../soak/expectation.js';
import { Lab, sourcesOf } from '../soak/lab.js';
import { Packets } from '../soak/packets.js';
import type { Table } from '../soak/ruleset.js';
import { Transactions } from '../soak/transactions.js';
import { Touched, walk, type Outcome } from '../soak/walk.js';

const kills = Number(process.env['KILLS'] ?? '12');
const seed = Number(process.env['KILL_SEED'] ?? '1');
const services = 2000;
const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces can only be made by root';

/** What becomes of a connection, by address and source. */
type Picture = Map<string, readonly Outcome[]>;
type Question = readonly [to: Destination, from: Source];

/** Every address of both, from outside; one in ten also from a pod and from the node. */
function questions(...expectations: readonly Expectation[]): Map<string, Question> {
  const all = new Map<string, Question>();
  const [own, pod, outside] = sourcesOf('alder', false);
  let count = 0;
  for (const { ports } of expectations) {
    for (const { destinations } of ports) {
      for (const { to } of destinations) {
        if (to.address.includes(':')) continue;
        for (const from of count++ % 10 === 0 ? [own, pod, outside] : [outside]) {
          if (from !== undefined) all.set(`${from.address} to ${destinationKey(to)}`, [to, from]);
        }
      }
    }
  }
  return all;
}

function picture(
  table: Table | undefined,
  nodeAddresses: ReadonlySet<string>,
  asked: Map<string, Question>,
): Picture {
  const node = { family: 'ip', addresses: nodeAddresses } as const;
  return new Map(
    [...asked].map(([key, [{ address, port }, { address: source }]]) => {
      const packet = { source, destination: address, protocol: 'tcp', port } as const;
      const outcomes: readonly Outcome[] =
        table === undefined
          ? [{ kind: 'passed', masqueraded: false }]
          : walk(table, node, packet, new Touched());
      return [key, outcomes];
    }),
  );
}

describe('killed with SIGKILL', { skip }, () => {
  const random = new Random(seed);
  const bulk = new Bulk(random, services);
  let lab: Lab;
  let packets: Packets;
  let transactions: Transactions;
  /** Kernels found in the state before, after, or in between. */
  const found = { before: 0, between: 0, after: 0 };

  before(async () => {
    await removeStale();
    lab = await Lab.open();
    packets = new Packets(lab.topology, random);
    transactions = new Transactions();
    await lab.api.write(bulk.begin());
    lab.alder.program.start();
    await settled();
  });
  after(async () => {
    transactions.close();
    await lab.close();
  });

  const expectation = (): Expectation => lab.alder.expectation(bulk);

  async function quiet(begun: number): Promise<void> {
    while (transactions.quietSince(begun) < 80) await sleep(5);
  }

  /** Waits until the kernel is all right, leftovers included. */
  async function settled(): Promise<void> {
    const deadline = performance.now() + patiently(60_000);
    while (!lab.alder.program.hasCompared('IPv4') && performance.now() < deadline) await sleep(20);
    for (;;) {
      await quiet(performance.now());
      const { differences } = await lab.alder.judge(bulk, 10);
      if (differences.length === 0) return;
      if (performance.now() > deadline) assert.fail(`not right:\n${differences.join('\n')}`);
      await sleep(100);
    }
  }

  async function ipv4(): Promise<Table | undefined> {
    return (await lab.alder.ruleset()).tables.get('ip kube-proxy');
  }

  /**
   * The kernel as the killed process left it.
   * @param was what addresses did before
   * @param before what they were to do then
   */
  async function judge(was: Picture, asked: Map<string, Question>, before: Expectation): Promise<void> {
    const now = expectation();
    const is = picture(await ipv4(), lab.alder.addresses, asked);
    const wrong: string[] = [];
    const unconcerned = new Set<string>();
    let [asBefore, asAfter] = [0, 0];
    for (const [key, [to, from]] of asked) {
      const outcomes = is.get(key) ?? [];
      const [old, fresh] = [was.get(key) ?? [], now.of(to, from)];
      const isOld = inWords(outcomes) === inWords(old);
      const isFresh = mismatch(fresh, outcomes) === undefined;
      // A Service that is new, or deleted, may have been told of without its endpoints: they are other objects.
      const address = destinationKey(to);
      const comesOrGoes = before.owners.has(address) !== now.owners.has(address);
      const isBare = comesOrGoes && outcomes.every(({ kind }) => kind === 'rejected');
      if (!isOld && !isFresh && !isBare) wrong.push(`${key}: ${inWords(outcomes)}; it was ${inWords(old)}`);
      else if (isOld && isFresh) unconcerned.add(address);
      else if (isOld) asBefore++;
      else if (isFresh) asAfter++;
    }
    assert.deepEqual(
      wrong.slice(0, 10),
      [],
      `${wrong.length} of ${asked.size} are neither as before nor as they shall be`,
    );
    found[asAfter === 0 ? 'before' : asBefore === 0 ? 'after' : 'between']++;
    const sample = now.ports.filter(({ destinations }) =>
      destinations.every(({ to }) => to.address.includes(':') || unconcerned.has(destinationKey(to))),
    );
    const some = Array.from(
      { length: Math.min(10, sample.length) },
      () => sample[random.below(sample.length)]!,
    );
    assert.deepEqual(await packets.ask(now, some, false), [], 'by packets');
  }

  /** What the addresses do as things are. */
  async function present(asked: Map<string, Question>): Promise<Picture> {
    return picture(await ipv4(), lab.alder.addresses, asked);
  }

  /** Milliseconds from the beginning of `work` to the kernel's last transaction for it: how long there is to be killed in. */
  async function measured(work: () => Promise<void> | void): Promise<number> {
    transactions.forget();
    const begun = performance.now();
    await work();
    const deadline = begun + patiently(30_000);
    while (transactions.last === undefined && performance.now() < deadline) await sleep(2);
    await quiet(begun);
    return (transactions.last ?? performance.now()) - begun;
  }

  /** A moment in which it is likely to be at work. */
  async function someTime(from: number, to: number): Promise<void> {
    await sleep(from + (random.below(1000) / 1000) * (to - from));
  }

  async function kill(): Promise<void> {
    await lab.alder.program.end('SIGKILL');
  }

  async function startAgain(): Promise<void> {
    lab.alder.program.start();
    await settled();
  }

  /** Milliseconds that it takes when nobody kills it; measured once each, so that the moments are well chosen. */
  let startMs = 0;
  let burstMs = 0;

  test('how long a start and a burst take here', async () => {
    burstMs = await measured(() => lab.api.write(bulk.change(400)));
    await settled();
    await kill();
    await lab.alder.nft('delete table ip kube-proxy\n');
    startMs = await measured(() => {
      lab.alder.program.start();
    });
    await settled();
    assert.ok(startMs > 0 && burstMs > 0);
  });

  async function whileStarting(empty: boolean): Promise<void> {
    const before = expectation();
    await kill();
    if (empty) await lab.alder.nft('delete table ip kube-proxy\n');
    await lab.api.write(bulk.change(600));
    const asked = questions(before, expectation());
    const was = await present(asked);
    transactions.forget();
    lab.alder.program.start();
    await someTime(startMs * 0.4, startMs * 1.1);
    await kill();
    await judge(was, asked, before);
  }

  async function duringBurst(): Promise<void> {
    const before = expectation();
    const changes = bulk.change(400);
    const asked = questions(before, expectation());
    const was = await present(asked);
    const writing = lab.api.write(changes);
    await someTime(0, burstMs * 1.2);
    await kill();
    await writing;
    await judge(was, asked, before);
  }

  const damages: readonly [what: string, script: string][] = [
    ['the table is gone', 'delete table ip kube-proxy\n'],
    ['the endpoints are gone', 'flush map ip kube-proxy endpoints\n'],
    ['the addresses are gone', 'flush map ip kube-proxy service-ips\n'],
    ['a chain is empty', 'flush chain ip kube-proxy services\n'],
  ];

  async function duringRepair(script: string): Promise<void> {
    const asked = questions(expectation());
    // So that the damage can be looked at.
    lab.alder.program.signal('SIGSTOP');
    await lab.alder.nft(script);
    const was = await present(asked);
    lab.alder.program.signal('SIGCONT');
    await someTime(0, startMs * 0.5);
    await kill();
    await judge(was, asked, expectation());
  }

  for (let i = 0; i < kills; i++) {
    const damage = damages[Math.floor(i / 3) % damages.length]!;
    const [what, work] = [
      [`during a ${i % 2 === 0 ? 'cold ' : ''}start`, () => whileStarting(i % 2 === 0)],
      ['during a burst of changes', duringBurst],
      [`during a repair: ${damage[0]}`, () => duringRepair(damage[1])],
    ][i % 3] as [string, () => Promise<void>];
    test(`${i + 1}: ${what}`, async () => {
      await work();
      await startAgain();
    });
  }

  test('the moments were as different as they should be', (t) => {
    t.diagnostic(
      `kernels found as before: ${found.before}, as they shall be: ${found.after}, in between: ${found.between}`,
    );
    assert.equal(found.before + found.after + found.between, kills);
  });
});
