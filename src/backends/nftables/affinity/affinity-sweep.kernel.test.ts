/** Remembered clients that have to go, in a map as large as busy nodes have, while packets and changes go on. */
import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Batch, NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import type { Endpoint, ServicePort } from '../../../model/types.js';
import { patiently } from '../../../../test/patience.js';
import { hostUint32, readHostUint32 } from '../../nft/keys.js';
import { NftablesFamily } from '../family.js';

const skip = enterNetworkNamespace();
const table = 'kube-proxy';

const endpoint = (host: number): Endpoint => ({
  ip: `10.61.0.${host}`,
  port: 9000,
  local: false,
  nodeUnknown: false,
});

function servicePort(id: number, hosts: readonly number[], affinitySeconds = 600): ServicePort {
  const name = `shop/s${id}`;
  const ip = `10.177.1.${id}`;
  return {
    key: `${name}/TCP`,
    name,
    namespace: 'shop',
    serviceName: `s${id}`,
    family: 'IPv4',
    protocol: 'TCP',
    clusterIP: ip,
    port: 80,
    addresses: [
      {
        kind: 'ClusterIP',
        ip,
        port: 80,
        scope: 'internal',
        policy: 'Cluster',
        fallback: hosts.length > 0 ? 'serve' : 'reject',
        sourceRanges: undefined,
      },
    ],
    clusterEndpoints: hosts.map(endpoint),
    localEndpoints: [],
    affinitySeconds,
    servingEndpoints: [],
  };
}

describe('clients that nothing stands behind any more', { skip }, () => {
  const eye = NftablesConnection.open();
  /** Clients number `from`..`to`-1 of a service number, as packets would write them down. */
  const remember = (service: number, minor: number, from: number, to: number, timeoutMs = 600_000): void => {
    for (let at = from; at < to; at += 5000) {
      const batch = new Batch('ip', table);
      for (let client = at; client < Math.min(to, at + 5000); client++) {
        const key = Buffer.alloc(8);
        key.writeUInt32BE(0x14000000 + client);
        key.write(hostUint32((service << 16) >>> 0), 4, 'latin1');
        const value = Buffer.from(hostUint32(((service << 16) | minor) >>> 0), 'latin1');
        batch.addElement('affinity', key, value, { timeoutMs });
      }
      eye.commit(batch);
    }
  };
  /** By service and endpoint number: how many clients are remembered. */
  const remembered = (): Record<string, number> => {
    const counts: Record<string, number> = {};
    eye.listElements('ip', table, 'affinity', (_, value) => {
      if (!Buffer.isBuffer(value)) return;
      const number = readHostUint32(value.toString('latin1')).toString(16);
      counts[number] = (counts[number] ?? 0) + 1;
    });
    return counts;
  };
  /** Does what the sync loop does, until nothing waits. @returns processor time of its turns, ms, but for the longest few */
  const finish = async (dataplane: NftablesFamily, beside: () => Promise<void> = async () => {}) => {
    const turns: number[] = [];
    const deadline = performance.now() + patiently(30_000);
    for (;;) {
      const due = dataplane.deferredDueAt;
      if (due === undefined) return turns.sort((a, b) => a - b)[Math.floor(turns.length * 0.95)] ?? 0;
      assert.ok(performance.now() < deadline, 'it never ends');
      await sleep(Math.max(0, Math.min(due - performance.now(), 20)));
      const usage = process.cpuUsage();
      const start = performance.now();
      if (due <= start) await dataplane.deleteDeferred(start);
      const { user, system } = process.cpuUsage(usage);
      turns.push((user + system) / 1000);
      await beside();
    }
  };
  const onTable = async (work: (dataplane: NftablesFamily) => Promise<void>): Promise<void> => {
    const dataplane = open();
    try {
      await work(dataplane);
    } finally {
      dataplane.close();
      const batch = new Batch('ip', table);
      batch.deleteTable();
      eye.commit(batch);
    }
  };
  const open = (): NftablesFamily =>
    new NftablesFamily(NftablesConnection.open(), {
      family: 'IPv4',
      masqueradeMark: 0x4000,
      masqueradeAll: false,
      detector: undefined,
      nodePortAddresses: 'all',
    });
  const apply = async (
    dataplane: NftablesFamily,
    upserted: readonly ServicePort[],
    removed: readonly string[] = [],
  ): Promise<void> => {
    await dataplane.apply({ family: 'IPv4', upserted, removed });
  };

  test('go in small turns, also beside changes that never end; those of the living stay', async (t) => {
    await onTable(async (dataplane) => {
      await dataplane.resync([servicePort(1, [1, 2, 3]), servicePort(2, [4])]);
      remember(0x8000, 1, 0, 100);
      remember(0x8000, 2, 100, 25_000);
      remember(0x8001, 1, 0, 10_000);
      // These expire while they are dealt with.
      remember(0x8001, 1, 10_000, 12_000, 700);
      await apply(dataplane, [servicePort(1, [1, 3])], ['shop/s2/TCP']);
      let changes = 0;
      const longest = await finish(dataplane, async () => {
        if (changes < 300) await apply(dataplane, [servicePort(3, [5 + (changes++ % 3)], 0)]);
      });
      assert.deepEqual(remembered(), { '80000001': 100 });
      t.diagnostic(`longest turn ${longest.toFixed(1)} ms beside ${changes} changes`);
      assert.ok(longest < patiently(20), `${longest} ms`);
    });
  });

  test('more than can be noted at once', async () => {
    await onTable(async (dataplane) => {
      await dataplane.resync([servicePort(1, [1])]);
      remember(0x8000, 1, 0, 10);
      remember(0x8007, 1, 0, 45_000);
      await apply(dataplane, [], ['shop/s1/TCP']);
      await finish(dataplane);
      assert.deepEqual(remembered(), {});
    });
  });

  test('are not inherited by the process that comes after: neither endpoint nor Service gets their numbers', async () => {
    await onTable(async (dataplane) => {
      await dataplane.resync([servicePort(1, [1, 2])]);
      remember(0x8000, 1, 0, 10);
      // Of an endpoint and a Service that are gone.
      remember(0x8000, 3, 10, 20);
      remember(0x8001, 1, 0, 10);
      dataplane.close();
      const next = open();
      await next.resync([servicePort(1, [1, 2, 3]), servicePort(2, [4])]);
      const numbers: string[] = [];
      eye.listElements('ip', table, 'affinity-endpoints', (key) => {
        numbers.push(readHostUint32(key.toString('latin1')).toString(16));
      });
      assert.deepEqual(numbers.sort(), ['80000001', '80000002', '80000004', '80020001']);
      await finish(next);
      assert.deepEqual(remembered(), { '80000001': 10 });
      next.close();
    });
  });

  test('a shorter timeout: what is left of each is what it would have been', async () => {
    await onTable(async (dataplane) => {
      await dataplane.resync([servicePort(1, [1, 2])]);
      remember(0x8000, 1, 0, 10);
      await sleep(1500);
      remember(0x8000, 2, 10, 20);
      await apply(dataplane, [servicePort(1, [1, 2], 300)]);
      await finish(dataplane);
      const left = (): number[] => {
        const found: number[] = [];
        eye.listElements('ip', table, 'affinity', (_, __, { expiresMs = 0 }) => found.push(expiresMs));
        return found.sort((a, b) => a - b);
      };
      const [shortest = 0, longest = 0] = [left()[0], left().at(-1)];
      assert.equal(left().length, 20);
      assert.ok(longest <= 300_000 && longest - shortest > 1200, `${shortest} to ${longest}`);
      await apply(dataplane, [servicePort(1, [1, 2], 2)]);
      await sleep(1000);
      await finish(dataplane);
      assert.ok(left().every((ms) => ms <= 2000));
    });
  });

  test('nothing is read while there is no reason to', async () => {
    await onTable(async (dataplane) => {
      await dataplane.resync([servicePort(1, [1, 2])]);
      assert.equal(dataplane.deferredDueAt, undefined);
      await apply(dataplane, [servicePort(1, [1, 2, 3]), servicePort(2, [1], 0)]);
      await apply(dataplane, [servicePort(1, [1, 2, 3], 700), servicePort(2, [2], 0)]);
      assert.equal(dataplane.deferredDueAt, undefined);
      await apply(dataplane, [servicePort(1, [1, 2], 700)]);
      assert.notEqual(dataplane.deferredDueAt, undefined);
    });
  });
});
