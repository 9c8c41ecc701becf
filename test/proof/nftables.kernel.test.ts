/**
 * Mode nftables: no packet in flight suffers from a change, shown without luck. Random changes go through the model and the
 * dataplane into the kernel of a namespace of its own; around every transaction the table is read, and packets walk through it
 * in each mix of the state before and the state after that the kernel can show (walks.ts).
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { NftablesFamily } from '../../src/backends/nftables/family.js';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import type { Dataplane } from '../../src/backends/backend.js';
import type { Family } from '../soak/objects.js';
import type { Expectation } from '../soak/expectation.js';
import { drain, waits } from './drain.js';
import { ClusterModel } from './cluster-model.js';
import { expectationOf, problemsOf, restProblemOf } from './walks.js';
import { chosenSeeds, optionsOf, WatchedConnection, withSmallTransactions } from './watched-table.js';
import { ProofWorld, serviceRange } from './world.js';

const skip = enterNetworkNamespace();

/** Deletions that wait do so for at least this long: longer than any packet is on its way. */
const leastWaitMs = 50;

interface Run {
  readonly family: Family;
  readonly seed: number;
  readonly steps: number;
}

async function prove({ family, seed, steps }: Run): Promise<{ transactions: number; walks: number }> {
  const random = new Random(seed);
  const world = new ProofWorld(random, family);
  const cluster = new ClusterModel(family);
  const connection = WatchedConnection.of(family);
  const dataplane: Dataplane = new NftablesFamily(connection, optionsOf(family));
  const count = { walks: 0 };
  let transactions = 0;
  try {
    const [ip = '', length] = serviceRange(family).split('/');
    dataplane.setServiceCIDRs([{ ip, prefixLength: Number(length) }]);
    await dataplane.resync(cluster.follow(world.snapshot()).upserted);
    connection.take();
    let before = expectationOf(world.snapshot(), family);
    /** States of which something may still wait to be deleted. */
    let recent: Expectation[] = [];
    for (let step = 0; step < steps; step++) {
      const words = world.step();
      const objects = world.snapshot();
      const after = expectationOf(objects, family);
      const fail = (what: string): void => {
        assert.fail(`seed ${seed}, step ${step}: ${words.join('; ')}\n${what}`);
      };
      /** Walks through every transaction since the last time. */
      const walkAll = (states: readonly Expectation[]): void => {
        for (const transition of connection.take()) {
          transactions++;
          for (const problem of problemsOf(transition, states, recent, family, count)) fail(problem);
        }
        if (waits(dataplane)) return;
        recent = [];
        const problem = restProblemOf(connection.table, after, family);
        if (problem !== undefined) fail(problem);
      };
      const dueBefore = dataplane.deferredDueAt;
      const report = await dataplane.apply(cluster.follow(objects));
      assert.deepEqual(report.failures, []);
      if (dueBefore === undefined) {
        const due = dataplane.deferredDueAt ?? Infinity;
        assert.ok(due - (connection.firstAt ?? 0) > leastWaitMs, 'due too soon');
      }
      walkAll([before, after]);
      // What waits may do so while the next change comes.
      if (random.below(3) > 0) {
        await drain(dataplane);
        walkAll([after]);
      }
      if (random.below(10) === 0) {
        dataplane.maintain();
        walkAll([after]);
      }
      recent.push(before);
      before = after;
    }
  } finally {
    dataplane.close();
    spawnSync('nft', ['delete', 'table', family === 'IPv4' ? 'ip' : 'ip6', 'kube-proxy']);
  }
  return { transactions, walks: count.walks };
}

describe('packets in flight, mode nftables', { skip }, () => {
  const always = [
    { family: 'IPv4', seed: 1, steps: 60 },
    { family: 'IPv4', seed: 2, steps: 60 },
    { family: 'IPv6', seed: 3, steps: 40 },
    // A remembered client's endpoint goes, and soon after the one that stands in for it.
    { family: 'IPv4', seed: 23, steps: 20 },
    // It goes when there is no other, and another one comes.
    { family: 'IPv4', seed: 24, steps: 20 },
    { family: 'IPv6', seed: 37, steps: 16 },
  ] as const;
  const chosen = chosenSeeds().map((run) => ({ ...run, steps: 40 }));
  for (const run of chosen.length > 0 ? chosen : always) {
    test(`${run.family}, seed ${run.seed}: every mix of before and after`, async (t) => {
      const { transactions, walks } = await prove(run);
      t.diagnostic(`${transactions} transactions, ${walks} walks`);
    });
  }

  test('IPv4, seed 4: the same in many small transactions', async (t) => {
    const restore = withSmallTransactions();
    try {
      const { transactions, walks } = await prove({ family: 'IPv4', seed: 4, steps: 40 });
      t.diagnostic(`${transactions} transactions, ${walks} walks`);
    } finally {
      restore();
    }
  });
});
