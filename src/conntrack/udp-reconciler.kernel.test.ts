/**
 * Stale UDP entries, with the real thing: datagrams that the kernel translates and tracks, in a namespace of its own.
 * All addresses are on the loopback; a table of the test's own stands for the dataplane.
 */
import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, describe, mock, test } from 'node:test';
import { createLogger } from '../log/logger.js';
import type { ServicePort, VirtualAddress } from '../model/types.js';
import { formatAddress, parseAddress } from '../netlink/address.js';
import { ConntrackConnection } from '../netlink/conntrack/index.js';
import { Batch, expr, NftablesConnection } from '../netlink/nftables/index.js';
import { enterNetworkNamespace, run } from '../netlink/testing/namespace.js';
import { UdpReconciler } from './udp-reconciler.js';

const skip = enterNetworkNamespace();

const addressesOf = {
  IPv4: {
    cluster: '10.96.0.10',
    other: '10.96.0.11',
    node: '192.0.2.1',
    far: '198.51.100.9',
    pod: '10.61.1.1',
    local: '127.0.0.1',
  },
  IPv6: {
    cluster: 'fd00:96::10',
    other: 'fd00:96::11',
    node: '2001:db8::1',
    far: '2001:db8:9::9',
    pod: 'fd00:61::1',
    local: '::1',
  },
} as const;
const servicePort = 53;
const nodePort = 30_053;

for (const family of ['IPv4', 'IPv6'] as const) {
  describe(family, { skip }, () => {
    const a = addressesOf[family];
    const nft = family === 'IPv4' ? 'ip' : 'ip6';
    const connection = skip === false ? NftablesConnection.open() : undefined;
    const conntrack = skip === false ? ConntrackConnection.open() : undefined;
    const sockets: Socket[] = [];

    before(() => {
      for (const ip of [a.cluster, a.other, a.node, a.far, a.pod])
        run(
          'ip',
          'address',
          'add',
          `${ip}/${family === 'IPv4' ? 32 : 128}`,
          'dev',
          'lo',
          ...(family === 'IPv6' ? ['nodad'] : []),
        );
      // Connections are tracked only once a rule looks at them.
      const batch = new Batch(nft, 'test-track');
      batch.addTable();
      batch.addChain('out', { base: { type: 'filter', hook: 'output', priority: 0 } });
      batch.addRule('out', [expr.ct('state', 0), expr.cmp('eq', 0, Buffer.alloc(4))]);
      connection?.commit(batch);
    });
    after(() => {
      for (const socket of sockets) socket.close();
      connection?.close();
      conntrack?.close();
    });

    /** New connections to `port` go to this port of the pod; undefined: they are not translated. */
    function translate(port: number, to: number | undefined): void {
      const batch = new Batch(nft, `test-nat-${port}`);
      batch.addTable();
      batch.deleteTable();
      if (to !== undefined) {
        const target = Buffer.alloc(2);
        target.writeUInt16BE(to);
        const wanted = Buffer.alloc(2);
        wanted.writeUInt16BE(port);
        const address = family === 'IPv4' ? 4 : 16;
        batch.addTable();
        batch.addChain('nat', { base: { type: 'nat', hook: 'output', priority: -100 } });
        batch.addRule('nat', [
          expr.meta('l4proto', 0),
          expr.cmp('eq', 0, Buffer.of(17)),
          expr.payload('transport', 2, 2, 0),
          expr.cmp('eq', 0, wanted),
          expr.immediate(0, parseAddress(a.pod)),
          expr.immediate(address === 4 ? 1 : 4, target),
          expr.dnat(nft, { address: 0, port: address === 4 ? 1 : 4 }),
        ]);
      }
      connection?.commit(batch);
    }

    /** One datagram from a socket of its own. */
    async function send(ip: string, port: number): Promise<void> {
      const socket = createSocket(family === 'IPv4' ? 'udp4' : 'udp6');
      sockets.push(socket);
      await new Promise<void>((resolve, reject) => {
        socket.send('x', port, ip, (error) => {
          if (error === null) resolve();
          else reject(error);
        });
      });
    }

    /** 'destination port → reply from' of all UDP entries. */
    function flows(): string[] {
      const found: string[] = [];
      conntrack?.listFlows(nft, 17, ({ original, reply }) => {
        found.push(
          `${formatAddress(original.destination)} ${original.destinationPort} → ${formatAddress(reply.source)} ${reply.sourcePort}`,
        );
      });
      return found.sort();
    }

    function clear(): void {
      const identities: Parameters<ConntrackConnection['deleteFlow']>[0][] = [];
      conntrack?.listFlows(nft, 17, (flow) => identities.push(flow.identity()));
      for (const identity of identities) conntrack?.deleteFlow(identity);
    }

    const address = (kind: VirtualAddress['kind'], ip: string, port: number): VirtualAddress => ({
      kind,
      ip,
      port,
      scope: kind === 'ClusterIP' ? 'internal' : 'external',
      policy: 'Cluster',
      fallback: 'serve',
      sourceRanges: undefined,
    });

    const serving = (...ports: number[]): string[] =>
      ports.map((port) => (family === 'IPv4' ? `${a.pod}:${port}` : `[${a.pod}]:${port}`));

    const port = (fields: Partial<ServicePort> = {}): ServicePort => ({
      key: 'dns/dns:dns/UDP',
      name: 'dns/dns:dns',
      namespace: 'dns',
      serviceName: 'dns',
      family,
      protocol: 'UDP',
      clusterIP: a.cluster,
      port: servicePort,
      addresses: [address('ClusterIP', a.cluster, servicePort)],
      clusterEndpoints: [],
      localEndpoints: [],
      affinitySeconds: 0,
      servingEndpoints: serving(9001),
      ...fields,
    });

    function reconciler(): { reconciler: UdpReconciler; lines: string[] } {
      const lines: string[] = [];
      const log = createLogger({ format: 'text', verbosity: 4, write: (line) => lines.push(line) });
      const made = new UdpReconciler(family, () => [a.node, a.local], log);
      return { reconciler: made, lines };
    }

    test('entries of endpoints that are gone are deleted, those of others stay', async () => {
      clear();
      translate(servicePort, 9001);
      await send(a.cluster, servicePort);
      await send(a.other, servicePort);
      translate(servicePort, 9002);
      await send(a.cluster, servicePort);
      translate(servicePort, undefined);
      const stays = [`${a.cluster} 53 → ${a.pod} 9002`, `${a.other} 53 → ${a.pod} 9001`];
      assert.deepEqual(flows(), [`${a.cluster} 53 → ${a.pod} 9001`, ...stays].sort());
      const { reconciler: r, lines } = reconciler();
      assert.equal(r.reconcile([port({ servingEndpoints: serving(9001, 9002) })]), 0, 'both serve');
      assert.equal(r.reconcile([port({ servingEndpoints: serving(9002) })]), 1);
      assert.deepEqual(flows(), stays.sort());
      assert.match(lines.join(''), /Stale UDP connection tracking entries deleted.*deleted=1/);
      r.close();
    });

    test('a datagram that was sent before there was an endpoint does not block the client', async () => {
      clear();
      await send(a.cluster, servicePort);
      assert.deepEqual(flows(), [`${a.cluster} 53 → ${a.cluster} 53`]);
      const { reconciler: r } = reconciler();
      assert.equal(r.reconcile([port()]), 1);
      assert.deepEqual(flows(), []);
      r.close();
    });

    test('a node port: entries to this node only, not those that share the number', async () => {
      clear();
      await send(a.node, nodePort);
      await send(a.far, nodePort);
      const { reconciler: r } = reconciler();
      assert.equal(r.reconcile([port({ addresses: [address('NodePort', '', nodePort)] })]), 1);
      assert.deepEqual(flows(), [`${a.far} ${nodePort} → ${a.far} ${nodePort}`]);
      r.close();
    });

    test('a new address of a service port may have entries from before it was one', async () => {
      clear();
      const { reconciler: r } = reconciler();
      r.reconcile([port()]);
      await send(a.other, servicePort);
      // As many addresses as before, but another one.
      const moved = port({ addresses: [address('ClusterIP', a.other, servicePort)] });
      assert.equal(r.reconcile([moved]), 1);
      r.close();
    });

    test("a TCP service port on the same address is nobody's business here", async () => {
      clear();
      await send(a.cluster, servicePort);
      const { reconciler: r } = reconciler();
      assert.equal(r.reconcile([port({ protocol: 'TCP' })]), 0);
      assert.equal(flows().length, 1);
      r.close();
    });

    test('endpoints that only come leave nothing stale: the table is not even read', async () => {
      clear();
      const { reconciler: r } = reconciler();
      r.reconcile([port()]);
      await send(a.cluster, servicePort);
      assert.equal(r.reconcile([port({ servingEndpoints: serving(9001, 9002) })]), 0);
      assert.equal(flows().length, 1, 'an entry that would have been stale');
      r.forget([port().key]);
      assert.equal(r.reconcile([port({ servingEndpoints: serving(9001, 9002) })]), 1, 'as if it were new');
      r.close();
    });

    test('a failure is told, and made up for with the next change', async () => {
      clear();
      await send(a.cluster, servicePort);
      const { reconciler: r, lines } = reconciler();
      const open = mock.method(ConntrackConnection, 'open', () => {
        throw new Error('no netlink today');
      });
      assert.equal(r.reconcile([port()]), 0);
      open.mock.restore();
      assert.match(lines.join(''), /remain until the next change or their timeout.*no netlink today/);
      assert.equal(r.reconcile([]), 1);
      assert.deepEqual(flows(), []);
      r.close();
    });

    test('closing twice, and deleting what went by itself, does no harm', async () => {
      const { reconciler: r } = reconciler();
      r.close();
      r.close();
      await sleep(1);
      assert.equal(r.reconcile([port({ addresses: [] })]), 0);
      r.close();
    });
  });
}
