/**
 * Packets that are under way while a transaction is committed. nf_tables takes the generation per lookup, so what such a
 * packet finds is what the old table said, then what the new one says.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ServicePort, VirtualAddress } from '../../model/types.js';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { World } from '../testing/world.js';
import { snapshot, strangeOutcomes } from './testing/mixed-lookups.js';
import { endpoint, endpoints, type Node, onNode, servicePort, tableName } from './testing/node.js';

const skip = enterNetworkNamespace();

/** From now on: what mixed lookups find, and neither table says by itself. */
function watchMixes(node: Node): string[] {
  const { connection } = node;
  const commit = connection.commit.bind(connection);
  const strange: string[] = [];
  let before = snapshot(node.eye);
  let transactions = 0;
  connection.commit = (batch) => {
    commit(batch);
    const after = snapshot(node.eye);
    transactions++;
    strange.push(...strangeOutcomes(before, after).map((line) => `transaction ${transactions}: ${line}`));
    before = after;
  };
  return strange;
}

const count = (node: Node, set: string): number => snapshot(node.eye).get(set)?.size ?? 0;

describe('a Service that shrinks', { skip }, () => {
  for (const affinitySeconds of [0, 600]) {
    const slots = affinitySeconds === 0 ? 'endpoints' : 'affinity-slots';
    test(`keeps the slots above for a while, with living endpoints, affinity ${affinitySeconds}`, async () => {
      await onNode('IPv4', async (node) => {
        await node.resync();
        const port = (clusterEndpoints: ServicePort['clusterEndpoints']): ServicePort =>
          servicePort(1, { clusterEndpoints, affinitySeconds });
        await node.apply([port(endpoints(5))]);
        const strange = watchMixes(node);
        const start = performance.now();
        await node.applyOnly([port(endpoints(2, 2))]);
        assert.equal(count(node, slots), 5);
        const table = snapshot(node.eye);
        const targets =
          affinitySeconds === 0
            ? [...(table.get('endpoints')?.values() ?? [])]
            : [...(table.get('affinity-slots')?.values() ?? [])].map(
                (number) => table.get('affinity-endpoints')?.get(number) ?? '',
              );
        const hosts = targets.map((target) => target.charCodeAt(3));
        assert.deepEqual([...new Set(hosts)].sort(), [2, 3], 'no slot leads to an endpoint that is gone');

        assert.equal((await node.dataplane.deleteDeferred(start + 99)).transactions, 0, 'not at once');
        // After two steps of the grid at most, on the line between which the change may have fallen.
        let transactions = 0;
        for (const later of [350, 600])
          transactions += (await node.dataplane.deleteDeferred(start + later)).transactions;
        assert.ok(transactions >= 1 && transactions <= 2, `${String(transactions)} transactions`);
        assert.equal(count(node, slots), 2);
        node.check('settled');
        assert.deepEqual(strange, []);
      });
    });
  }

  test('and grows again at once: what is still there is not written', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      const five = servicePort(1, { clusterEndpoints: endpoints(5) });
      await node.apply([five]);
      await node.applyOnly([servicePort(1, { clusterEndpoints: [] })]);
      const back = await node.applyOnly([five]);
      assert.deepEqual([back.elementsAdded, back.elementsDeleted], [1, 0], 'the class of the address');
      await node.settle();
      node.check('back');
      await node.applyOnly([], [five.key]);
      await node.applyOnly([servicePort(1, { clusterEndpoints: endpoints(4, 3) })]);
      await node.settle();
      node.check('made anew, with others');
    });
  });

  test('a refused change leaves what waits as it was', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      await node.apply([servicePort(1, { clusterEndpoints: endpoints(5) })]);
      const three = servicePort(1, { clusterEndpoints: endpoints(3) });
      await node.applyOnly([three]);
      node.connection.refuse = () => 22;
      await node.applyOnly([servicePort(1, { clusterEndpoints: endpoints(4, 6) })]);
      await node.applyOnly([], [three.key]);
      node.connection.refuse = () => undefined;
      await node.settle();
      node.wanted.set(three.key, three);
      node.check('as before');
    });
  });

  test('killed before the second step: the next process deletes what is left, later', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      const port = (hosts: number): ServicePort[] =>
        [0, 600].map((affinitySeconds, i) =>
          servicePort(i + 1, { clusterEndpoints: endpoints(hosts), affinitySeconds }),
        );
      await node.apply(port(5));
      await node.applyOnly(port(2));
      node.restart();
      const start = performance.now();
      const resynced = await node.resyncOnly();
      assert.equal(resynced.transactions, 0, 'nothing that leads anywhere has to go');
      assert.equal(count(node, 'endpoints'), 5);
      assert.equal((await node.dataplane.deleteDeferred(start + 99)).transactions, 0, 'not at once');
      // What waits may be wanted again.
      await node.applyOnly(port(4));
      await node.settle();
      node.check('settled');
    });
  });

  test('a comparison that changes classes leaves what they led to for later', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      await node.apply([servicePort(1, { clusterEndpoints: endpoints(5) }), servicePort(2)]);
      node.restart();
      node.wanted.clear();
      const one = servicePort(1, { clusterEndpoints: endpoints(2) });
      node.wanted.set(one.key, one);
      const strange = watchMixes(node);
      await node.resyncOnly();
      assert.equal(count(node, 'endpoints'), 7);
      assert.equal(count(node, 'service-ips'), 1);
      await node.settle();
      node.check('settled');
      assert.deepEqual(strange, []);
    });
  });

  test('what waits is no damage, and is not missed', async () => {
    for (const hideCounts of [false, true]) {
      await onNode(
        'IPv4',
        async (node) => {
          await node.resync();
          await node.apply([servicePort(1, { clusterEndpoints: endpoints(6) })]);
          await node.applyOnly([servicePort(1, { clusterEndpoints: endpoints(2) })]);
          const verified = await node.dataplane.verify();
          assert.equal(verified?.transactions, 0);
          assert.equal(count(node, 'endpoints'), 6);
          // Somebody else deletes one of them, and touches another.
          const keys = [...(snapshot(node.eye).get('endpoints')?.keys() ?? [])];
          const [gone, kept] = [4, 5].map((slot) => keys.find((key) => key.charCodeAt(12) === slot) ?? '');
          node.tamper((batch) => {
            batch.deleteElement('endpoints', Buffer.from(gone ?? '', 'latin1'));
          });
          const touched = new Map([['endpoints', new Set([gone ?? '', kept ?? ''])]]);
          assert.equal(node.dataplane.repair(touched)?.transactions, 0);
          await node.settle();
          node.check('settled');
        },
        {},
        { hideCounts },
      );
    }
  });
});

describe('random changes', { skip }, () => {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    test(`seed ${seed}: packets in flight meet one of the two tables, or what both agree on`, async () => {
      await onNode('IPv4', async (node) => {
        const world = new World(new Random(seed), 'IPv4');
        await node.resync();
        const strange = watchMixes(node);
        for (let step = 0; step < 120; step++) {
          const { upserted, removed } = world.step();
          await node.applyOnly(upserted, removed);
          if (step % 3 === 0) {
            await node.settle();
            node.check(`step ${step}`);
          }
          assert.deepEqual(strange, [], `step ${step}`);
        }
      });
    });
  }
});

describe('an address that moves', { skip }, () => {
  const external = (ip: number): VirtualAddress => ({
    kind: 'ExternalIP',
    ip: `203.0.${ip >> 8}.${ip & 255}`,
    port: 80,
    scope: 'external',
    policy: 'Cluster',
    fallback: 'serve',
    sourceRanges: undefined,
  });
  /** Service port i with one more address. */
  const withAddress = (id: number, address: VirtualAddress, hosts = 3): ServicePort => {
    const port = servicePort(id, { clusterEndpoints: endpoints(hosts, (id % 200) * 4) });
    return { ...port, addresses: [...port.addresses, address] };
  };

  for (const [what, hosts] of [
    ['the same endpoints', 3],
    ['other endpoints', 4],
  ] as const) {
    test(`is never nobody's, though thousands of Services change, with ${what}`, async () => {
      await onNode('IPv4', async (node) => {
        await node.resync();
        const services = 6000;
        const ids = Array.from({ length: services }, (_, i) => i + 1);
        await node.apply(ids.map((id) => withAddress(id, external(id))));
        const commit = node.connection.commit.bind(node.connection);
        let transactions = 0;
        node.connection.commit = (batch) => {
          assert.ok(batch.byteLength <= 2 ** 20, `${batch.byteLength} bytes`);
          commit(batch);
          transactions++;
          assert.equal(count(node, 'service-ips'), 2 * services, `after transaction ${transactions}`);
        };
        // All of them pass their address on, in one circle.
        const report = await node.applyOnly(
          ids.map((id) => withAddress(id, external((id % services) + 1), hosts)),
        );
        assert.deepEqual(report.failures, []);
        assert.ok(transactions > 1 && transactions < 500, `${transactions} transactions`);
        node.connection.commit = commit;
        await node.settle();
        node.check('moved');
      });
    });
  }

  test('to one whose claim is refused: nobody has it, and all others are served', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      const [first, second] = [withAddress(1, external(1)), servicePort(2)];
      await node.apply([first, second, servicePort(3)]);
      node.connection.refuse = (batch) => (batch.writer.bytes().includes('test/s2:http') ? 22 : undefined);
      const claimer = withAddress(2, external(1));
      const report = await node.apply([
        servicePort(1),
        claimer,
        servicePort(3, { clusterEndpoints: endpoints(9) }),
      ]);
      assert.deepEqual(
        report.failures.map(({ servicePort: name }) => name),
        ['test/s2:http'],
      );
      node.wanted.set(second.key, second);
      node.check('released');
      node.connection.refuse = () => undefined;
      await node.apply([claimer]);
      node.check('claimed');
    });
  });

  test('two that swap, with affinity, from many endpoints to few', async () => {
    await onNode('IPv4', async (node) => {
      await node.resync();
      const sticky = (id: number, ip: number, hosts: number): ServicePort => ({
        ...withAddress(id, external(ip), hosts),
        affinitySeconds: 600,
      });
      await node.apply([sticky(1, 1, 9), sticky(2, 2, 2)]);
      const strange = watchMixes(node);
      await node.applyOnly([sticky(1, 2, 9), sticky(2, 1, 2)]);
      await node.settle();
      node.check('swapped');
      assert.deepEqual(strange, []);
    });
  });
});

describe('a Service with 50,000 endpoints', { skip }, () => {
  for (const affinitySeconds of [0, 600]) {
    test(`is replaced, shrinks and goes in bounded transactions, affinity ${affinitySeconds}`, async (t) => {
      await onNode('IPv4', async (node) => {
        await node.resync();
        const port = (from: number, hosts: number): ServicePort =>
          servicePort(1, { clusterEndpoints: endpoints(hosts, from), affinitySeconds });
        await node.apply([port(1, 50_000)]);
        const commit = node.connection.commit.bind(node.connection);
        let [bytes, longest] = [0, 0];
        node.connection.commit = (batch) => {
          bytes = Math.max(bytes, batch.byteLength);
          const start = performance.now();
          commit(batch);
          longest = Math.max(longest, performance.now() - start);
        };
        const [replaced, few, many] = [port(10_001, 50_000), port(30_000, 10), port(12_001, 50_000)];
        const changes: [string, () => Promise<unknown>][] = [
          ['replaced', () => node.applyOnly([replaced])],
          ['shrunk', () => node.applyOnly([few])],
          ['grown', () => node.applyOnly([many])],
          ['removed', () => node.applyOnly([], [servicePort(1).key])],
        ];
        for (const [what, change] of changes) {
          let last = performance.now();
          let held = 0;
          const timer = setInterval(() => {
            held = Math.max(held, performance.now() - last);
            last = performance.now();
          }, 1);
          await new Promise((resolve) => setTimeout(resolve, 5));
          await change();
          await node.settle();
          await new Promise((resolve) => setTimeout(resolve, 5));
          clearInterval(timer);
          t.diagnostic(`${what}: event loop held ${held.toFixed(0)} ms at most`);
          node.check(what);
        }
        t.diagnostic(`largest transaction ${bytes} bytes, longest ${longest.toFixed(0)} ms`);
        assert.ok(bytes <= 2 ** 20, `${bytes} bytes`);
        assert.equal(node.eye.getSet(node.nft, tableName, 'endpoints')?.count ?? 0, 0);
      });
    });
  }
});

test('an endpoint on the host at the very node port: no refusal lingers', { skip }, async () => {
  await onNode('IPv4', async (node) => {
    await node.resync();
    const port = (hosts: ServicePort['clusterEndpoints']): ServicePort => ({
      ...servicePort(1, { clusterEndpoints: hosts }),
      addresses: [
        {
          kind: 'NodePort',
          ip: '',
          port: 9000,
          scope: 'external',
          policy: 'Cluster',
          fallback: hosts.length > 0 ? 'serve' : 'reject',
          sourceRanges: undefined,
        },
      ],
    });
    await node.apply([port([])]);
    assert.equal(count(node, 'rejected-nodeports'), 1);
    await node.applyOnly([port([endpoint(1, true)])]);
    assert.equal(count(node, 'rejected-nodeports'), 0);
    await node.apply([port([])]);
    await node.applyOnly([port([{ ...endpoint(1), port: 9001 }])]);
    assert.equal(count(node, 'rejected-nodeports'), 1, 'packets in flight are still refused');
    await node.settle();
    node.check('settled');
  });
});

test('a Service without endpoints is deleted: its refusal goes with it', { skip }, async () => {
  await onNode('IPv4', async (node) => {
    await node.resync();
    const before = servicePort(1, { clusterEndpoints: [] });
    const rejected: ServicePort = {
      ...before,
      addresses: before.addresses.map((address) => ({ ...address, fallback: 'reject' as const })),
    };
    await node.apply([rejected]);
    assert.ok(count(node, 'rejected-ips') > 0);
    await node.applyOnly([], [rejected.key]);
    assert.equal(count(node, 'rejected-ips'), 0);
    node.check('deleted');
  });
});
