/**
 * The nftables dataplane against the kernel, in a namespace of its own: random changes, restarts, damage, refusals.
 * What the kernel holds is read and compared by testing/table-text.ts, which shares no code with the dataplane.
 */
import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { describe, test } from 'node:test';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { type Batch, drop, expr, goTo, jumpTo, selectors } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import type { IPFamily, ServicePort } from '../../model/types.js';
import { TableDamagedError } from '../backend.js';
import { readLines, desiredLines } from './testing/table-text.js';
import { World } from '../testing/world.js';
import {
  endpoint,
  endpoints,
  Node,
  onNode,
  optionsOf,
  servicePort,
  tableName,
  type Reading,
} from './testing/node.js';

const skip = enterNetworkNamespace();
const families: readonly IPFamily[] = ['IPv4', 'IPv6'];

const readings: Readonly<Record<string, Reading>> = {
  dumped: { dumpLimit: Infinity },
  'by key': { dumpLimit: 0 },
  'by key, uncounted': { dumpLimit: 0, hideCounts: true },
};
const ways = families.flatMap((family) =>
  Object.entries(readings).map(([name, reading]) => ({ family, name, reading })),
);

for (const { family, name, reading } of ways) {
  describe(`${family}: random changes, endpoints ${name}`, { skip }, () => {
    for (const seed of [1, 2, 3]) {
      test(`seed ${seed}: the kernel holds exactly what is wanted, restarts write nothing`, async () => {
        await onNode(
          family,
          async (node) => {
            const random = new Random(seed);
            const world = new World(random, family);
            await node.resync();
            for (let step = 0; step < 60; step++) {
              const { upserted, removed } = world.step();
              const report = await node.apply(upserted, removed);
              assert.deepEqual(report.failures, [], `step ${step}`);
              // Source ranges go ahead of the address that they guard.
              // Two, and as many before them for chains and sets that they lead to.
              assert.ok(report.transactions <= 4, `step ${step}: ${report.transactions} transactions`);
              node.check(`step ${step}`);
              if (step % 10 === 9) {
                if (random.below(2) === 0) node.restart();
                const resynced = await node.resync();
                assert.equal(resynced.transactions, 0, `step ${step}: adoption of what is right`);
                assert.deepEqual(resynced.failures, []);
                node.check(`step ${step}, adopted`);
              }
              if (step % 7 === 6) {
                node.dataplane.maintain();
                node.check(`step ${step}, maintained`);
              }
            }
          },
          {},
          reading,
        );
      });

      test(`seed ${seed}: another process changed the world meanwhile`, async () => {
        await onNode(
          family,
          async (node) => {
            const world = new World(new Random(100 + seed), family);
            await node.resync();
            for (let round = 0; round < 12; round++) {
              // What happens to the objects while nobody looks.
              for (let i = 0; i < 4; i++) world.step();
              node.wanted.clear();
              for (const [key, port] of world.ports) node.wanted.set(key, port);
              node.restart();
              assert.deepEqual((await node.resync()).failures, []);
              node.check(`round ${round}`);
              assert.equal((await node.resync()).transactions, 0, `round ${round}: again`);
            }
          },
          {},
          reading,
        );
      });
    }
  });
}

/** Damage of every kind, chosen at random. */
const damages: Readonly<Record<string, (node: Node, random: Random) => void>> = {
  'the table is deleted': (node) => {
    node.tamper((batch) => {
      batch.deleteTable();
    });
  },
  'the table is put to sleep': (node) => {
    node.tamper((batch) => {
      batch.addTable({ dormant: true });
    });
  },
  'a set is flushed': (node, random) => {
    const sets = node.eye.listSets(node.nft, tableName);
    const victim = sets[random.below(sets.length)];
    if (victim !== undefined) {
      node.tamper((batch) => {
        batch.flushSet(victim.name);
      });
    }
  },
  'elements are deleted': (node, random) => {
    for (const { name } of node.eye.listSets(node.nft, tableName)) {
      if (name === 'affinity') continue;
      const keys: Buffer[] = [];
      node.eye.listElements(node.nft, tableName, name, (key) => keys.push(Buffer.from(key)));
      node.tamper((batch) => {
        for (const key of keys) if (random.below(4) === 0) batch.deleteElement(name, key);
      });
    }
  },
  'values are replaced': (node, random) => {
    for (const { name, map } of node.eye.listSets(node.nft, tableName)) {
      if (!map || name === 'affinity' || name.endsWith('-classes')) continue;
      const elements: [Buffer, Buffer][] = [];
      node.eye.listElements(node.nft, tableName, name, (key, value) => {
        if (Buffer.isBuffer(value)) elements.push([Buffer.from(key), Buffer.from(value)]);
      });
      node.tamper((batch) => {
        for (const [key, value] of elements) {
          if (random.below(3) > 0) continue;
          batch.deleteElement(name, key);
          value[random.below(value.length)] = random.below(256);
          batch.addElement(name, key, value);
        }
      });
    }
  },
  'elements are added': (node, random) => {
    for (const { name, map, keyLength, valueLength, valueType } of node.eye.listSets(node.nft, tableName)) {
      if (name === 'affinity' || name === 'service-cidrs' || valueType === 'verdict') continue;
      node.tamper((batch) => {
        for (let i = random.below(3); i > 0; i--)
          batch.addElement(name, random.bytes(keyLength), map ? random.bytes(valueLength) : undefined);
      });
    }
  },
  'classes lead elsewhere': (node, random) => {
    for (const name of ['service-classes', 'pick-classes']) {
      const keys: Buffer[] = [];
      node.eye.listElements(node.nft, tableName, name, (key) => keys.push(Buffer.from(key)));
      node.tamper((batch) => {
        batch.addChain('theirs');
        batch.addElement(name, random.bytes(4), drop);
        for (const key of keys) {
          if (random.below(2) === 0) continue;
          batch.deleteElement(name, key);
          if (random.below(2) === 0) batch.addElement(name, key, drop);
          else batch.addElement(name, key, goTo('theirs'));
        }
      });
    }
  },
  'chains lose their rules': (node, random) => {
    for (const { name } of node.eye.listChains(node.nft, tableName)) {
      if (random.below(3) > 0) continue;
      node.tamper((batch) => {
        batch.flushChain(name);
      });
    }
  },
  'rules are added': (node, random) => {
    for (const { name } of node.eye.listChains(node.nft, tableName)) {
      if (random.below(3) > 0) continue;
      node.tamper((batch) => {
        batch.addRule(name, [expr.counter()]);
      });
    }
  },
  'foreign chains that call each other': (node) => {
    node.tamper((batch) => {
      batch.addChain('theirs-1');
      batch.addChain('theirs-2');
      batch.addRule('theirs-2', [expr.verdict(jumpTo('theirs-1'))]);
      batch.addRule('nat-output', [expr.verdict(jumpTo('theirs-2'))]);
    });
  },
  'a foreign base chain': (node) => {
    node.tamper((batch) => {
      batch.addChain('theirs', { base: { type: 'filter', hook: 'input', priority: 7, policy: 'accept' } });
    });
  },
  'chains that look like classes': (node) => {
    node.tamper((batch) => {
      for (const name of [
        'cluster-0',
        'cluster-70000',
        'cluster-03',
        'cluster-2-affinity-0',
        'pick-local-9',
      ]) {
        batch.addChain(name);
        const id = Buffer.alloc(4);
        id.writeUInt32LE((1 << 16) | name.length);
        batch.addElement('service-classes', id, goTo(name));
      }
      const zero = Buffer.alloc(4);
      zero.writeUInt32LE(1 << 16);
      batch.addElement('service-classes', zero, goTo('cluster-0'));
    });
  },
  'a foreign set': (node) => {
    node.tamper((batch) => {
      batch.addSet({ name: 'theirs', key: [selectors.l4proto] });
    });
  },
  'a set of another kind': (node) => {
    node.tamper((batch) => {
      batch.deleteTable();
      batch.addTable();
      batch.addChain('nat-output', {
        base: { type: 'nat', hook: 'output', priority: -100, policy: 'accept' },
      });
    });
  },
};

describe('adoption repairs', { skip }, () => {
  // Nobody can tell that an endpoint is too many where sets are not counted.
  for (const { family, name: way, reading } of ways.filter(({ reading }) => reading.hideCounts !== true)) {
    for (const [name, damage] of Object.entries(damages)) {
      test(`${family}, endpoints ${way}: ${name}`, async () => {
        await onNode(
          family,
          async (node) => {
            const random = new Random(name.length);
            const world = new World(random, family);
            await node.resync();
            for (let i = 0; i < 12; i++) {
              const { upserted, removed } = world.step();
              await node.apply(upserted, removed);
            }
            node.check('before');
            for (let round = 0; round < 3; round++) {
              damage(node, random);
              if (round === 1) node.restart();
              const report = await node.resync();
              assert.deepEqual(report.failures, []);
              node.check(`round ${round}`);
              assert.equal((await node.resync()).transactions, 0, 'nothing is left to repair');
              const { upserted, removed } = world.step();
              assert.deepEqual((await node.apply(upserted, removed)).failures, []);
              node.check(`round ${round}, going on`);
            }
          },
          {},
          reading,
        );
      });
    }
  }
});

describe('single elements are put right', { skip }, () => {
  /** Sets that take a comparison of the whole table, or that the kernel fills. */
  const others = new Set(['affinity', 'service-classes', 'pick-classes', 'service-cidrs']);
  for (const family of families) {
    const nodePortIPs = family === 'IPv4' ? ['100.64.0.1', '100.64.0.2'] : ['fd00:64::1'];
    for (const seed of [1, 2, 3]) {
      test(`${family}, seed ${seed}: deleted, replaced and added ones, in one transaction`, async () => {
        await onNode(
          family,
          async (node) => {
            const random = new Random(seed);
            const world = new World(random, family);
            await node.resync();
            for (let round = 0; round < 25; round++) {
              const { upserted, removed } = world.step();
              await node.apply(upserted, removed);
              const touched = new Map<string, Set<string>>();
              for (const { name, map, keyLength, valueLength } of node.eye.listSets(node.nft, tableName)) {
                if (others.has(name)) continue;
                const elements: [Buffer, Buffer | undefined][] = [];
                node.eye.listElements(node.nft, tableName, name, (key, value) => {
                  elements.push([Buffer.from(key), Buffer.isBuffer(value) ? Buffer.from(value) : undefined]);
                });
                const keys = new Set<string>();
                node.tamper((batch) => {
                  for (const [key, value] of elements) {
                    const what = random.below(6);
                    if (what > 2) continue;
                    keys.add(key.toString('latin1'));
                    if (what === 2) continue;
                    batch.deleteElement(name, key);
                    if (what === 1) batch.addElement(name, key, value && random.bytes(value.length));
                  }
                  if (random.below(3) > 0) return;
                  const stray = random.bytes(keyLength);
                  keys.add(stray.toString('latin1'));
                  batch.addElement(name, stray, map ? random.bytes(valueLength) : undefined);
                });
                if (keys.size > 0) touched.set(name, keys);
              }
              const report = node.dataplane.repair(touched);
              assert.ok(report, `round ${round}`);
              assert.ok(report.transactions <= 1);
              node.check(`round ${round}`, { nodePortIPs });
              assert.equal(node.dataplane.repair(touched)?.transactions, 0, 'nothing is left to repair');
            }
            assert.equal((await node.resync()).transactions, 0, 'all of it is right');
          },
          { nodePortAddresses: nodePortIPs },
        );
      });
    }
  }

  test('verdicts and ranges: only comparing the whole table helps, and so before it was compared', async () => {
    await onNode('IPv4', async (node) => {
      const touch = (set: string) => node.dataplane.repair(new Map([[set, new Set(['\0\0\0\0'])]]));
      assert.equal(touch('cluster-ips'), undefined);
      await node.resync();
      assert.equal(touch('cluster-ips')?.transactions, 0);
      for (const set of ['service-classes', 'service-cidrs', 'no-such-set'])
        assert.equal(touch(set), undefined, set);
    });
  });
});

describe('a look at everything', { skip }, () => {
  const nodePortAddresses = ['100.64.0.1'];
  const looks: Readonly<Record<string, Reading>> = {
    counted: {},
    uncounted: { hideCounts: true },
    'uncounted, too large to be dumped': { hideCounts: true, dumpLimit: 0 },
  };
  for (const [way, reading] of Object.entries(looks)) {
    // Where nothing tells how many there are, an endpoint of a changed Service may be left that others had altered.
    for (const seed of way.includes('too large') ? [] : [1, 2, 3]) {
      test(`elements that others deleted and replaced, sets ${way}, seed ${seed}: put right while changes go on`, async () => {
        await onNode(
          'IPv4',
          async (node) => {
            const random = new Random(seed);
            const world = new World(random, 'IPv4');
            await node.resync();
            for (let round = 0; round < 15; round++) {
              const { upserted, removed } = world.step();
              await node.apply(upserted, removed);
              const touched = tamperWithElements(node, random);
              const look = node.dataplane.verify();
              for (let i = 0; i < 3; i++) {
                const { upserted, removed } = world.step();
                try {
                  await node.apply(upserted, removed);
                } catch (error) {
                  // It met the damage before the look did.
                  assert.ok(error instanceof TableDamagedError);
                  await node.resync();
                }
              }
              const report = await look;
              if (report === undefined) await node.resync();
              node.check(`round ${round}`, { nodePortIPs: nodePortAddresses });
              assert.ok(touched === 0 || report === undefined || report.transactions >= 0);
              assert.equal((await node.dataplane.verify())?.transactions, 0, 'nothing is left to repair');
              assert.equal((await node.resync()).transactions, 0);
            }
          },
          { nodePortAddresses },
          reading,
        );
      });
    }

    test(`without changes, sets ${way}: what was deleted or replaced is put right without a comparison`, async () => {
      await onNode(
        'IPv4',
        async (node) => {
          const random = new Random(7);
          const world = new World(random, 'IPv4');
          await node.resync();
          let found = 0;
          for (let round = 0; round < 15; round++) {
            const { upserted, removed } = world.step();
            await node.apply(upserted, removed);
            const touched = tamperWithElements(node, random);
            const report = await node.dataplane.verify();
            assert.equal(report?.transactions, touched === 0 ? 0 : 1);
            found += touched;
            node.check(`round ${round}`, { nodePortIPs: nodePortAddresses });
          }
          assert.ok(found > 50);
        },
        { nodePortAddresses },
        reading,
      );
    });

    test(`elements that nobody wants, sets ${way}`, async () => {
      await onNode(
        'IPv4',
        async (node) => {
          await node.apply([]);
          await node.resync();
          await node.apply(Array.from({ length: 50 }, (_, i) => servicePort(i)));
          node.tamper((batch) => {
            batch.addElement('cluster-ips', Buffer.from([10, 9, 9, 9]), undefined);
          });
          const report = await node.dataplane.verify();
          // Kernels before 6.18 do not tell how many there are, so that all are looked at.
          const counted = node.connection.listSets(node.nft, tableName)[0]?.count !== undefined;
          if (!counted) assert.equal(report?.elementsDeleted, 1);
          else assert.equal(report, undefined, 'only a comparison tells which one');
          if (report === undefined) await node.resync();
          node.check('after');
        },
        {},
        reading,
      );
    });
  }

  test('chains, rules and sets: only a comparison helps, and it does', async () => {
    for (const [name, damage] of Object.entries(damages)) {
      await onNode('IPv4', async (node) => {
        const random = new Random(5);
        const world = new World(random, 'IPv4');
        await node.resync();
        for (let i = 0; i < 12; i++) {
          const { upserted, removed } = world.step();
          await node.apply(upserted, removed);
        }
        assert.equal((await node.dataplane.verify())?.transactions, 0, `${name}: nothing yet`);
        damage(node, random);
        if ((await node.dataplane.verify()) === undefined) await node.resync();
        node.check(name);
        assert.equal((await node.resync()).transactions, 0, `${name}: nothing is left to repair`);
      });
    }
  });

  test('before the table was adopted there is nothing to look at', async () => {
    await onNode('IPv4', async (node) => {
      assert.equal((await node.dataplane.verify())?.transactions, 0);
      await node.resync();
    });
  });

  /** Deletes and replaces some elements. @returns how many */
  function tamperWithElements(node: Node, random: Random): number {
    let touched = 0;
    for (const { name } of node.eye.listSets(node.nft, tableName)) {
      if (['affinity', 'service-classes', 'pick-classes', 'service-cidrs', 'nodeport-ips'].includes(name))
        continue;
      const elements: [Buffer, Buffer | undefined][] = [];
      node.eye.listElements(node.nft, tableName, name, (key, value) => {
        elements.push([Buffer.from(key), Buffer.isBuffer(value) ? Buffer.from(value) : undefined]);
      });
      node.tamper((batch) => {
        for (const [key, value] of elements) {
          const what = random.below(8);
          if (what > 1 || (what === 1 && value === undefined)) continue;
          touched++;
          batch.deleteElement(name, key);
          if (what === 1) batch.addElement(name, key, value && random.bytes(value.length));
        }
      });
    }
    return touched;
  }
});

describe('a large table of our name that is laid out otherwise', { skip }, () => {
  /** A chain per Service, and a verdict map that leads to it, as upstream has it. */
  const layOut = (node: Node, services: number): void => {
    node.tamper((batch) => {
      batch.addTable();
      batch.addSet({
        name: 'service-ips',
        key: [selectors.ipDaddr, selectors.l4proto, selectors.thDport],
        value: 'verdict',
      });
      batch.addChain('nat-prerouting', {
        base: { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' },
      });
      for (let i = 0; i < services; i++) {
        const name = `service-${i}-shop/web/tcp/http`;
        batch.addChain(name);
        batch.addRule(name, [expr.counter()]);
        const key = Buffer.from([10, 177, i >> 8, i & 255, 6, 0, 0, 0, 0, 80, 0, 0]);
        batch.addElement('service-ips', key, goTo(name));
      }
    });
  };
  const commits = (
    node: Node,
    fail: (number: number) => number | undefined = () => undefined,
  ): { bytes: number[] } => {
    const seen = { bytes: [] as number[] };
    node.connection.refuse = (batch) => {
      seen.bytes.push(batch.byteLength);
      return fail(seen.bytes.length);
    };
    return seen;
  };
  const tables = (node: Node): string[] => node.eye.listTables(node.nft).map(({ name }) => name);
  const want = (node: Node, services: number): void => {
    for (let i = 0; i < services; i++) {
      const port = servicePort(i, { clusterEndpoints: endpoints(20, i + 1) });
      node.wanted.set(port.key, port);
    }
  };

  test('is replaced in transactions of bounded size; a table of another name stands in meanwhile', async () => {
    await onNode('IPv4', async (node) => {
      layOut(node, 1000);
      want(node, 1000);
      const { bytes } = commits(node);
      const report = await node.resync();
      assert.deepEqual(report.failures, []);
      assert.equal(report.transactions, node.connection.commits, 'all are counted');
      assert.ok(bytes.length > 10 && Math.max(...bytes) < 1.2 * (1 << 20), bytes.join());
      assert.deepEqual(tables(node), [tableName]);
      node.check('replaced');
      assert.equal((await node.resync()).transactions, 0);
      assert.equal((await node.dataplane.verify())?.transactions, 0);
    });
  });

  test('whenever the process is killed on the way, each service is in one of the tables, and the next process completes it', async () => {
    const services = 400;
    let last = Infinity;
    for (let kill = 1; kill <= last; kill += 3) {
      await onNode('IPv4', async (node) => {
        layOut(node, services);
        want(node, services);
        const { bytes } = commits(node, (number) => (number >= kill ? constants.errno.EPERM : undefined));
        try {
          await node.resync();
        } catch {
          // As if it had been killed there.
        }
        if (bytes.length < kill) last = 0;
        assert.ok(
          tables(node).some((table) => servedIn(node, table) >= services),
          `commit ${kill}: ${tables(node).join()}`,
        );
        node.connection.refuse = () => undefined;
        node.restart();
        assert.deepEqual((await node.resync()).failures, []);
        assert.deepEqual(tables(node), [tableName]);
        node.check(`killed at commit ${kill}`);
      });
    }
  });

  test('a service port that is refused costs only itself', async () => {
    await onNode('IPv4', async (node) => {
      layOut(node, 400);
      want(node, 400);
      node.connection.refuse = (batch) =>
        batch.writer.bytes().includes('test/s7:http') ? constants.errno.EINVAL : undefined;
      const report = await node.resync();
      assert.deepEqual(
        report.failures.map(({ servicePort: name }) => name),
        ['test/s7:http'],
      );
      node.wanted.delete('test/s7:http/TCP');
      node.check('without it');
      assert.deepEqual(tables(node), [tableName]);
    });
  });

  /** Elements of the map from address to whatever serves it, if a packet meets the table at all. */
  function servedIn(node: Node, table: string): number {
    if (!node.eye.listChains(node.nft, table).some(({ base }) => base?.hook === 'prerouting')) return 0;
    let count = 0;
    node.eye.listElements(node.nft, table, 'service-ips', () => count++);
    return count;
  }
});

describe('a service port with tens of thousands of endpoints', { skip }, () => {
  test('grows in several transactions, each of which serves; others are not held up by it', async (t) => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      const few = servicePort(1, { clusterEndpoints: endpoints(3) });
      await node.apply([few, servicePort(2)]);
      const sizes: number[] = [];
      const commit = node.connection.commit.bind(node.connection);
      let longestMs = 0;
      node.connection.commit = (batch) => {
        const start = performance.now();
        commit(batch);
        longestMs = Math.max(longestMs, performance.now() - start);
        sizes.push(node.eye.getSet(node.nft, tableName, 'endpoints')?.count ?? 0);
      };
      const many = servicePort(1, { clusterEndpoints: endpoints(50_000) });
      const report = await node.apply([many]);
      t.diagnostic(`the longest of ${sizes.length} transactions took ${longestMs.toFixed(0)} ms`);
      assert.deepEqual(report.failures, []);
      assert.ok(sizes.length >= 3, `${sizes.length} transactions`);
      node.check('grown');
      assert.equal((await node.resync()).transactions, 0);
      await node.apply([servicePort(1, { clusterEndpoints: endpoints(50_000, 2) })]);
      node.check('one less, one more');
      await node.apply([few]);
      node.check('few again');
      node.connection.refuse = (batch) => (batch.byteLength > 100_000 ? constants.errno.ENOMEM : undefined);
      const refused = await node.apply([many]);
      assert.ok(refused.failures.length > 0);
      node.wanted.set(few.key, few);
      node.check('refused on its way: as it was');
    });
  });
});

describe('failure', { skip }, () => {
  /** Refuses every batch that mentions the text, as a kernel that can't stand one service port. */
  const refuseAll = (text: string, errno = constants.errno.EINVAL) => {
    return (batch: Batch): number | undefined => (batch.writer.bytes().includes(text) ? errno : undefined);
  };

  test('one refused service port costs only itself, is named, and goes in when it is accepted', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      const ports = Array.from({ length: 40 }, (_, i) => servicePort(i + 1));
      await node.apply(ports.slice(0, 20));
      node.connection.refuse = refuseAll('test/s13:http');
      // One that is in the kernel already and changes, and one that is new.
      const changed = ports.map((port) => ({ ...port, clusterEndpoints: endpoints(3) }));
      const report = await node.apply(changed);
      assert.deepEqual(
        report.failures.map(({ key, servicePort: name, error }) => [
          key,
          name,
          error instanceof NetlinkError ? error.code : '',
        ]),
        [['test/s13:http/TCP', 'test/s13:http', 'EINVAL']],
      );
      const old = ports[12];
      assert.ok(old);
      node.wanted.set(old.key, old);
      node.check('the refused one is as it was');

      node.connection.refuse = () => undefined;
      const again = changed[12];
      assert.ok(again);
      assert.deepEqual((await node.apply([again])).failures, []);
      node.check('accepted');
    });
  });

  test('a refused newcomer leaves nothing behind, not even its class', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      node.connection.refuse = refuseAll('test/s1:http');
      const port = servicePort(1, { clusterEndpoints: endpoints(7), affinitySeconds: 33 });
      assert.equal((await node.apply([port])).failures.length, 1);
      assert.deepEqual(readLines(node.eye, 'IPv4'), []);
      node.connection.refuse = () => undefined;
      await node.apply([port]);
      node.check('accepted');
    });
  });

  test('what cannot even be encoded costs only itself', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      const broken = servicePort(5, { clusterEndpoints: [{ ...endpoint(1), ip: 'not an address' }] });
      const report = await node.apply([servicePort(4), broken, servicePort(6)]);
      assert.deepEqual(
        report.failures.map(({ key }) => key),
        [broken.key],
      );
      node.wanted.delete(broken.key);
      node.check('the others are in');
      assert.equal((await node.apply([], [broken.key])).transactions, 0);

      const resynced = await (node.restart(),
      node.dataplane.resync([servicePort(4), broken, servicePort(6)]));
      assert.deepEqual(
        resynced.failures.map(({ key }) => key),
        [broken.key],
      );
      node.check('the same at a restart');
    });
  });

  test('a service port refused at a restart loses what it had, the others nothing', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      await node.apply(Array.from({ length: 9 }, (_, i) => servicePort(i + 1)));
      node.restart();
      const bad = servicePort(5, { clusterEndpoints: endpoints(4) });
      node.wanted.set(bad.key, bad);
      node.connection.refuse = refuseAll('test/s5:http');
      const report = await node.resync();
      assert.deepEqual(
        report.failures.map(({ key }) => key),
        [bad.key],
      );
      node.wanted.delete(bad.key);
      node.check('without it');
      node.connection.refuse = () => undefined;
      assert.deepEqual((await node.apply([bad])).failures, []);
      node.check('with it');
    });
  });

  test('a foreign table is replaced at once, also when one service port is refused', async () => {
    for (const refused of [undefined, 'test/s2:http']) {
      await onNode('IPv4', async (node) => {
        node.tamper((batch) => {
          batch.addTable();
          batch.addSet({ name: 'theirs', key: [selectors.l4proto] });
          batch.addChain('nat-output', {
            base: { type: 'filter', hook: 'output', priority: 5, policy: 'drop' },
          });
        });
        for (const id of [1, 2, 3]) node.wanted.set(`test/s${id}:http/TCP`, servicePort(id));
        if (refused !== undefined) node.connection.refuse = refuseAll(refused);
        const report = await node.resync();
        if (refused === undefined) {
          assert.equal(node.connection.commits, 1, 'no packet meets a table that is half built');
          assert.deepEqual(report.failures, []);
        } else {
          assert.deepEqual(
            report.failures.map(({ servicePort: name }) => name),
            [refused],
          );
          node.wanted.delete('test/s2:http/TCP');
        }
        node.check('replaced');
        assert.equal((await node.apply([servicePort(9)])).transactions, 1);
        node.check('going on');
      });
    }
  });

  test('without permission nothing is halved or hidden: the call rejects', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      node.connection.refuse = () => constants.errno.EPERM;
      await assert.rejects(node.apply([servicePort(1), servicePort(2)]), { code: 'EPERM' });
      node.connection.refuse = () => undefined;
      await node.apply([servicePort(1), servicePort(2)]);
      node.check('later');
    });
  });

  test('a table that others changed is told from a refused service port', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      await node.apply([servicePort(1), servicePort(2)]);
      node.tamper((batch) => {
        batch.flushSet('endpoints');
      });
      const damaged = { name: 'Error', code: 'TABLE_DAMAGED' };
      await assert.rejects(node.apply([servicePort(1, { clusterEndpoints: endpoints(1) })]), (error) => {
        assert.ok(error instanceof TableDamagedError);
        assert.match(
          error.message,
          /table ip kube-proxy was changed by another program; comparing all of it/,
        );
        return true;
      });
      await node.resync();
      node.check('repaired');

      node.tamper((batch) => {
        batch.deleteTable();
      });
      await assert.rejects(node.apply([servicePort(3)]), damaged);
      assert.throws(() => node.dataplane.setServiceCIDRs([{ ip: '10.96.0.0', prefixLength: 12 }]));
      await node.resync();
      node.check('made again', { serviceCIDRs: ['from 10.96.0.0', 'before 10.112.0.0'] });
    });
  });

  test('killed in the middle of a large change: the next process completes it', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      const ports = (count: number): ServicePort[] =>
        Array.from({ length: 2500 }, (_, i) =>
          servicePort(i + 1, {
            clusterEndpoints: endpoints(count, i % 200),
            affinitySeconds: i % 10 === 0 ? 600 : 0,
          }),
        );
      await node.apply(ports(5));
      const killed = node.connection.commits + 1;
      node.connection.refuse = () => {
        if (node.connection.commits >= killed) throw new Error('killed');
        return undefined;
      };
      // The rest of the change is reported as failed by the dying process; nobody reads it.
      const before = node.connection.commits;
      await node.apply(ports(14));
      assert.equal(node.connection.commits - before, 1, 'a part of the change is in');
      assert.notDeepEqual(readLines(node.eye, 'IPv4'), desiredLines(node.wanted.values()));
      node.restart();
      const report = await node.resync();
      assert.deepEqual(report.failures, []);
      assert.ok(report.transactions >= 1);
      node.check('complete');
      assert.equal((await node.resync()).transactions, 0);
    });
  });
});

describe('cost of a change', { skip }, () => {
  /** At once: added, deleted; and deleted later. */
  type Cost = readonly [added: number, deleted: number, later: number];
  const cases: [what: string, from: number[], to: number[], plain: Cost, affinity: Cost][] = [
    // The address moves to another class: one element replaced. With affinity an endpoint is two elements: the slot that
    // leads to its number, and the number.
    ['one more endpoint', [1, 2, 3], [1, 2, 3, 4], [1 + 1, 1, 0], [1 + 2, 1, 0]],
    // Until it goes, its slot, and its number, lead to an endpoint that lives.
    ['the last one goes', [1, 2, 3], [1, 2], [1 + 1, 1 + 1, 1], [1 + 2, 1 + 2, 2]],
    // The last slot moves into the hole.
    ['the first one goes', [1, 2, 3, 4], [2, 3, 4], [1 + 1, 1 + 1, 1], [1 + 2, 1 + 2, 2]],
    ['one is replaced by another', [1, 2, 3], [1, 9, 3], [1, 1, 0], [1 + 2, 1 + 1, 1]],
    ['nothing', [1, 2, 3], [3, 2, 1], [0, 0, 0], [0, 0, 0]],
  ];
  for (const [what, from, to, plain, withAffinity] of cases) {
    for (const affinitySeconds of [0, 600]) {
      test(`${what}${affinitySeconds > 0 ? ', with affinity' : ''}`, async () => {
        await onNode('IPv4', async (node) => {
          await node.resync();
          const port = (hosts: number[]): ServicePort =>
            servicePort(1, { clusterEndpoints: hosts.map((host) => endpoint(host)), affinitySeconds });
          await node.apply([port(from)]);
          const [added, deleted, later] = affinitySeconds > 0 ? withAffinity : plain;
          const report = await node.applyOnly([port(to)]);
          assert.deepEqual(
            [report.elementsAdded, report.elementsDeleted, report.transactions],
            // The first makes the chain of another number of endpoints.
            [added, deleted, added === 0 ? 0 : from.length === to.length ? 1 : 2],
          );
          const rest = await node.dataplane.deleteDeferred(Infinity);
          assert.deepEqual(
            [rest.elementsAdded, rest.elementsDeleted, rest.transactions],
            [0, later, later === 0 ? 0 : 1],
          );
          node.check('after');
        });
      });
    }
  }

  test('an address that moves between service ports is never in between', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      const [a, b] = [servicePort(1), servicePort(2)];
      const address = {
        ...a.addresses[0],
        kind: 'ExternalIP',
        ip: '203.0.113.1',
        scope: 'external',
      } as const;
      const shared = address as ServicePort['addresses'][number];
      await node.apply([{ ...a, addresses: [...a.addresses, shared] }, b]);
      const report = await node.apply([{ ...b, addresses: [...b.addresses, shared] }, a]);
      assert.equal(report.transactions, 1);
      node.check('moved');
    });
  });
});

describe('restart', { skip }, () => {
  test('clients keep their endpoint: affinity numbers stay, also beside a newcomer', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      const ports = [1, 2, 3].map((id) =>
        servicePort(id, { affinitySeconds: 600, clusterEndpoints: endpoints(3) }),
      );
      await node.apply(ports);
      const numbers = (): string[] => {
        const found: string[] = [];
        for (const set of ['affinity-ips', 'affinity-endpoints']) {
          node.eye.listElements('ip', tableName, set, (key, value) => {
            found.push(
              `${set} ${key.toString('hex')} ${Buffer.isBuffer(value) ? value.toString('hex') : ''}`,
            );
          });
        }
        return found.sort();
      };
      const before = numbers();
      node.restart();
      node.wanted.clear();
      // The newcomer comes first, as it may in a list of the API server.
      for (const port of [servicePort(9, { affinitySeconds: 600 }), ...ports])
        node.wanted.set(port.key, port);
      await node.resync();
      node.check('with the newcomer');
      assert.deepEqual(
        before.filter((line) => !numbers().includes(line)),
        [],
      );
    });
  });

  test('slots stay where the last process left them', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      await node.apply([servicePort(1, { clusterEndpoints: endpoints(6) })]);
      await node.apply([servicePort(1, { clusterEndpoints: [1, 3, 4, 5, 6].map((host) => endpoint(host)) })]);
      node.restart();
      assert.equal((await node.resync()).transactions, 0);
      node.restart();
      // Meanwhile one went: its slot is filled by the last.
      const port = servicePort(1, { clusterEndpoints: [1, 3, 4, 5].map((host) => endpoint(host)) });
      node.wanted.set(port.key, port);
      const report = await node.resync();
      node.check('after');
      assert.ok(report.elementsAdded <= 2 && report.elementsDeleted <= 3, JSON.stringify(report));
    });
  });
});

describe('settings', { skip }, () => {
  test('service CIDRs before and after adoption, merged, only differences', async () => {
    await onNode('IPv4', async (node) => {
      const cidr = (ip: string, prefixLength: number) => ({ ip, prefixLength });
      assert.equal(node.dataplane.setServiceCIDRs([cidr('10.96.0.0', 12)]).transactions, 0, 'remembered');
      await node.resync();
      node.check('adopted', { serviceCIDRs: ['from 10.96.0.0', 'before 10.112.0.0'] });
      assert.equal(node.dataplane.setServiceCIDRs([cidr('10.96.0.0', 12)]).transactions, 0, 'the same');
      node.dataplane.setServiceCIDRs([cidr('10.96.0.0', 12), cidr('10.112.0.0', 12), cidr('240.0.0.0', 4)]);
      const both = { serviceCIDRs: ['from 10.96.0.0', 'before 10.128.0.0', 'from 240.0.0.0'] };
      node.check('two that touch are one, one that reaches the last address', both);
      assert.equal((await node.resync()).transactions, 0);
      node.restart();
      assert.equal((await node.resync()).transactions, 1);
      node.check('not known yet to the next process');
      node.dataplane.setServiceCIDRs([cidr('10.96.0.0', 12)]);
      node.dataplane.setServiceCIDRs([]);
      node.check('none');
    });
  });

  test('node port addresses before, during and after adoption', async () => {
    await onNode(
      'IPv4',
      async (node) => {
        node.dataplane.setNodePortAddresses(['192.0.2.1', '192.0.2.2']);
        await node.resync();
        node.check('adopted', { nodePortIPs: ['192.0.2.1', '192.0.2.2'] });
        const report = node.dataplane.setNodePortAddresses(['192.0.2.2', '192.0.2.3']);
        assert.deepEqual([report.elementsAdded, report.elementsDeleted], [1, 1]);
        node.check('changed', { nodePortIPs: ['192.0.2.2', '192.0.2.3'] });
        assert.equal(node.dataplane.setNodePortAddresses(['192.0.2.3', '192.0.2.2']).transactions, 0);

        node.restart();
        node.dataplane.setNodePortAddresses(['192.0.2.3', '192.0.2.4']);
        for (let id = 1; id <= 5000; id++) {
          const port = servicePort(id, { clusterEndpoints: [], addresses: [] });
          node.wanted.set(port.key, port);
        }
        const resyncRun = node.resync();
        node.dataplane.setNodePortAddresses(['192.0.2.2']);
        node.dataplane.setServiceCIDRs([{ ip: '10.96.0.0', prefixLength: 12 }]);
        await resyncRun;
        const around = { nodePortIPs: ['192.0.2.2'], serviceCIDRs: ['from 10.96.0.0', 'before 10.112.0.0'] };
        node.check('what came while the table was compared holds', around);
        assert.equal((await node.resync()).transactions, 0);
      },
      { nodePortAddresses: ['192.0.2.9'] },
    );
  });

  test('with all addresses there is no set to keep', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      assert.equal(node.dataplane.setNodePortAddresses(['192.0.2.1']).transactions, 0);
      node.check('after');
    });
  });

  test('a process with other settings rewrites the rules that depend on them', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      await node.apply([servicePort(1)]);
      const other = new Node('IPv4', optionsOf('IPv4', { detector: undefined, masqueradeAll: true }));
      const rules = (): number => other.eye.listRules('ip', tableName, 'cluster-2').length;
      const mark = (): string =>
        JSON.stringify(other.eye.listRules('ip', tableName, 'cluster-2')[0]?.expressions);
      const before = mark();
      other.wanted.set('test/s1:http/TCP', servicePort(1));
      await other.resync();
      other.check('adopted');
      assert.equal(rules(), 2);
      assert.notEqual(mark(), before);
      assert.equal((await other.resync()).transactions, 0);
      other.dataplane.close();
      other.eye.close();
    });
  });
});

describe('housekeeping', { skip }, () => {
  const classChains = (node: Node): string[] =>
    node.eye
      .listChains('ip', tableName)
      .map(({ name }) => name)
      .filter((name) => /-\d/.test(name));

  test('a class chain that nothing led to twice is removed, and comes back when needed', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      await node.apply([servicePort(1, { clusterEndpoints: endpoints(3) })]);
      await node.apply([servicePort(1, { clusterEndpoints: endpoints(4) })]);
      assert.deepEqual(classChains(node), ['cluster-3', 'cluster-4']);
      assert.equal(node.dataplane.maintain().transactions, 0, 'once');
      assert.equal(node.dataplane.maintain().transactions, 1, 'twice');
      assert.deepEqual(classChains(node), ['cluster-4']);
      await node.apply([servicePort(1, { clusterEndpoints: endpoints(3) })]);
      node.check('back');
      node.dataplane.maintain();
      await node.apply([servicePort(2, { clusterEndpoints: endpoints(4) })]);
      node.dataplane.maintain();
      assert.deepEqual(classChains(node).sort(), ['cluster-3', 'cluster-4'], 'needed again in between');
      node.check('after');
    });
  });

  test('with affinity: the number of a removed class is the same when it comes back', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      const port = (seconds: number): ServicePort => servicePort(1, { affinitySeconds: seconds });
      for (const seconds of [60, 70, 60, 80, 60, 0]) {
        await node.apply([port(seconds)]);
        node.dataplane.maintain();
        node.dataplane.maintain();
        node.check(`${seconds} s`);
      }
      assert.deepEqual(classChains(node), ['cluster-2']);
    });
  });

  test('of a busy kernel: tried again; of a damaged table: told', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      await node.apply([servicePort(1, { clusterEndpoints: endpoints(3) })]);
      await node.apply([servicePort(1, { clusterEndpoints: endpoints(4) })]);
      node.dataplane.maintain();
      node.connection.refuse = () => constants.errno.EBUSY;
      assert.equal(node.dataplane.maintain().transactions, 0);
      node.connection.refuse = () => undefined;
      assert.equal(node.dataplane.maintain().transactions, 1);
      await node.apply([servicePort(1, { clusterEndpoints: endpoints(5) })]);
      node.dataplane.maintain();
      node.tamper((batch) => {
        batch.deleteTable();
      });
      assert.throws(() => node.dataplane.maintain(), { code: 'ENOENT' });
    });
  });
});
