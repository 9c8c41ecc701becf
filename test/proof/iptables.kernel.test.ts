/**
 * Mode iptables: no packet in flight suffers from a change, shown without luck. Each table changes in one step; so the tables are
 * saved after every single one, and packets walk through each mix of before and after that the hooks allow.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import { IptablesFamily } from '../../src/backends/iptables/family.js';
import type { ToolKind } from '../../src/backends/iptables/tool/kind.js';
import {
  kinds,
  missingTool,
  toolFolder,
  type ToolFolder,
} from '../../src/backends/iptables/testing/tools.js';
import type { Packet } from '../../src/backends/iptables/testing/walk.js';
import { silentLogger } from '../../src/log/logger.js';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { inWords } from '../soak/comparison.js';
import { destinationKey, type Expectation } from '../soak/expectation.js';
import type { Family } from '../soak/objects.js';
import { ClusterModel } from './cluster-model.js';
import { parseTables, waysBetween, type Tables } from './iptables-walk.js';
import { drain } from './drain.js';
import { Permission, selves } from './permission.js';
import { destinationsOf, expectationOf, nodeOf, packetOf } from './walks.js';
import { clients, podRange, ProofWorld } from './world.js';

const skip = enterNetworkNamespace();

/** Lets iptables-restore take one table at a time, and saves all of them after each. */
function stepByStep({ path: folder }: ToolFolder, kind: ToolKind, family: Family): void {
  const command = family === 'IPv4' ? 'iptables' : 'ip6tables';
  const program = `/usr/sbin/xtables-${kind === 'legacy' ? 'legacy' : 'nft'}-multi`;
  const restore = path.join(folder, `${command}-restore`);
  unlinkSync(restore);
  writeFileSync(
    restore,
    `#!/bin/bash
case " $* " in *" --version "*|*" -V "*) exec -a ${command}-restore ${program} "$@";; esac
section=''
while IFS= read -r line; do
  section+="$line"$'\\n'
  [[ $line == COMMIT ]] || continue
  (exec -a ${command}-restore ${program} "$@") <<< "$section" || exit $?
  (exec -a ${command}-save ${program}) > "${folder}/saved-$EPOCHREALTIME"
  section=''
done
`,
    { mode: 0o755 },
  );
}

/** The tables after each step since the last time. */
function takeSaved({ path: folder }: ToolFolder): Tables[] {
  const files = readdirSync(folder)
    .filter((name) => name.startsWith('saved-'))
    .sort();
  return files.map((name) => {
    const file = path.join(folder, name);
    const tables = parseTables(readFileSync(file, 'utf8'));
    unlinkSync(file);
    return tables;
  });
}

/** Lists of match recent in which a client may be. */
function memories(tables: Tables): ReadonlySet<string>[] {
  const names = new Set<string>();
  for (const rules of tables.get('nat')?.values() ?? []) {
    for (const rule of rules) {
      const [, name] = /--name (\S+)/.exec(rule) ?? [];
      if (name !== undefined) names.add(name);
    }
  }
  return [...names].map((name) => new Set([name]));
}

function* problemsOf(
  before: Tables,
  after: Tables,
  states: readonly Expectation[],
  family: Family,
  count: { walks: number },
): Generator<string, void, undefined> {
  const { addresses } = nodeOf(family);
  const lists = memories(before);
  for (const to of destinationsOf(states)) {
    for (const from of [...clients(family), ...selves(to, states)]) {
      // As upstream's does, this mode leaves addresses that no Service has to the node's other rules, and refuses external
      // addresses to others than processes of the node.
      const permission = new Permission(to, from, states, [], (isOwned) => !isOwned || from.ownNode);
      // One kind of client is enough for what is remembered: it leads into the same chains.
      for (const remembered of [undefined, ...(from === clients(family)[0] ? lists : [])]) {
        const packet: Packet = { ...packetOf(to, from), ...(remembered === undefined ? {} : { remembered }) };
        for (const { outcome, met } of waysBetween(before, after, packet, (ip) => addresses.has(ip))) {
          count.walks++;
          if (permission.permits(outcome)) continue;
          yield `${from.address} to ${destinationKey(to)}: ${inWords([outcome])}, not ${permission.inWords()}\n    ${met.join('\n    ')}`;
          break;
        }
      }
    }
  }
}

async function prove(kind: ToolKind, family: Family, seed: number, steps: number) {
  const folder = toolFolder(kind);
  process.env['XTABLES_LOCKFILE'] = folder.lock;
  stepByStep(folder, kind, family);
  const random = new Random(seed);
  const world = new ProofWorld(random, family);
  const cluster = new ClusterModel(family);
  const [ip = '', length] = podRange(family).split('/');
  const dataplane = new IptablesFamily({
    family,
    masqueradeMark: 0x4000,
    masqueradeAll: false,
    detector: { kind: 'cidr', cidr: { ip, prefixLength: Number(length) } },
    nodePortAddresses: 'all',
    dropInvalid: true,
    log: silentLogger,
    tool: { path: folder.path },
    onDamage: () => undefined,
  });
  const count = { walks: 0 };
  let transactions = 0;
  try {
    await dataplane.resync(cluster.follow(world.snapshot()).upserted);
    let last = takeSaved(folder).at(-1) ?? assert.fail('nothing was written');
    let before = expectationOf(world.snapshot(), family);
    for (let step = 0; step < steps; step++) {
      const words = world.step();
      const objects = world.snapshot();
      const after = expectationOf(objects, family);
      /** Walks through every step since the last time, and what it has come to. */
      const walkAll = (states: readonly Expectation[]): void => {
        const fail = (problem: string): void => {
          assert.fail(`seed ${seed}, step ${step}: ${words.join('; ')}\n${problem}`);
        };
        for (const next of takeSaved(folder)) {
          transactions++;
          for (const problem of problemsOf(last, next, states, family, count)) fail(problem);
          last = next;
        }
        for (const problem of problemsOf(last, last, [after], family, count)) fail(problem);
      };
      const report = await dataplane.apply(cluster.follow(objects));
      assert.deepEqual(report.failures, []);
      walkAll([before, after]);
      // What waits may do so while the next change comes.
      if (random.below(3) > 0) {
        await drain(dataplane);
        walkAll([after]);
      }
      before = after;
    }
  } finally {
    dataplane.close();
    const command = path.join(folder.path, family === 'IPv4' ? 'iptables' : 'ip6tables');
    for (const table of ['nat', 'filter', 'mangle']) {
      run(command, '-t', table, '-F');
      run(command, '-t', table, '-X');
    }
    folder.remove();
  }
  return { transactions, walks: count.walks };
}

for (const kind of kinds) {
  describe(
    `packets in flight, mode iptables (${kind})`,
    { skip: skip !== false ? skip : missingTool(kind) },
    () => {
      for (const [family, seed, steps] of [
        ['IPv4', 1, 40],
        ['IPv6', 2, 20],
      ] as const) {
        test(`${family}, seed ${seed}: every mix of before and after`, async (t) => {
          const { transactions, walks } = await prove(kind, family, seed, steps);
          t.diagnostic(`${transactions} transactions, ${walks} walks`);
        });
      }
    },
  );
}
