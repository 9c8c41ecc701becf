/**
 * Mode nftables: a process starts, or puts right what others did to the table. Packets walk through the table around every
 * transaction, as in nftables.kernel.test.ts; until the table is as wanted, an address does what it did before,
 * what it shall do, or what the damaged table did with it. So nobody is refused because others are written first.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { NftablesFamily } from '../../src/backends/nftables/family.js';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import type { Family } from '../soak/objects.js';
import type { Table } from '../soak/ruleset.js';
import { ClusterModel } from './cluster-model.js';
import { drain } from './drain.js';
import { expectationOf, problemsOf, restProblemOf } from './walks.js';
import {
  chosenSeeds,
  emptyTable,
  optionsOf,
  readTable,
  WatchedConnection,
  withSmallTransactions,
} from './watched-table.js';
import { ProofWorld, serviceRange } from './world.js';

const skip = enterNetworkNamespace();

const damages: readonly (readonly [what: string, script: (table: string) => string])[] = [
  ['nothing', () => ''],
  ['nothing', () => ''],
  ['the table is gone', (table) => `delete table ${table}`],
  ['the addresses are gone', (table) => `flush map ${table} service-ips`],
  ['the endpoints are gone', (table) => `flush map ${table} endpoints`],
  ['the cluster IPs are gone', (table) => `flush set ${table} cluster-ips`],
  ['the ranges of Services are gone', (table) => `flush set ${table} service-cidrs`],
];

/** @returns the table that is left */
function damage(family: Family, script: (table: string) => string): Table {
  const input = script(`${family === 'IPv4' ? 'ip' : 'ip6'} kube-proxy`);
  const { status, stderr } = spawnSync('nft', ['-f', '-'], { input, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return input.startsWith('delete table') ? emptyTable : readTable(family);
}

async function prove(family: Family, seed: number, steps: number): Promise<number> {
  const random = new Random(seed);
  const world = new ProofWorld(random, family);
  const count = { walks: 0 };
  let before = expectationOf({ ...world.snapshot(), services: new Map(), slices: new Map() }, family);
  try {
    for (let step = 0; step < steps; step++) {
      const [what, script] = damages[step === 0 ? 0 : random.below(damages.length)] ?? ['', () => ''];
      const damaged = step === 0 ? emptyTable : damage(family, script);
      const words = step === 0 || random.below(3) === 0 ? [] : world.step();
      const objects = world.snapshot();
      const after = expectationOf(objects, family);
      const fail = (problem: string): void => {
        assert.fail(`seed ${seed}, step ${step}: ${what}; ${words.join('; ')}\n${problem}`);
      };
      const connection = WatchedConnection.of(family, damaged);
      const dataplane = new NftablesFamily(connection, optionsOf(family));
      const walkAll = (): void => {
        for (const transition of connection.take()) {
          for (const problem of problemsOf(transition, [before, after], [], family, count, damaged))
            fail(problem);
        }
      };
      try {
        const [ip = '', length] = serviceRange(family).split('/');
        dataplane.setServiceCIDRs([{ ip, prefixLength: Number(length) }]);
        const report = await dataplane.resync(new ClusterModel(family).follow(objects).upserted);
        assert.deepEqual(report.failures, []);
        walkAll();
        await drain(dataplane);
        walkAll();
        const problem = restProblemOf(connection.table, after, family);
        if (problem !== undefined) fail(problem);
      } finally {
        dataplane.close();
      }
      before = after;
    }
  } finally {
    spawnSync('nft', ['delete', 'table', family === 'IPv4' ? 'ip' : 'ip6', 'kube-proxy']);
  }
  return count.walks;
}

describe('packets while a table is made or taken over, mode nftables', { skip }, () => {
  const chosen = chosenSeeds();
  const always = [
    { family: 'IPv4', seed: 1 },
    // An address moves from one Service with affinity to another one while nobody runs.
    { family: 'IPv4', seed: 5 },
    { family: 'IPv6', seed: 2 },
  ] as const;
  for (const { family, seed } of chosen.length > 0 ? chosen : always) {
    test(`${family}, seed ${seed}: every transaction`, async (t) => {
      const restore = withSmallTransactions();
      try {
        t.diagnostic(`${await prove(family, seed, 30)} walks`);
      } finally {
        restore();
      }
    });
  }
});
