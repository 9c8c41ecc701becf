/**
 * Stale entries in the kernel's own table, in a namespace of its own. The entries are made over netlink, so that every
 * protocol and state can be had; test/process/conntrack.test.ts has the real packets.
 */
import assert from 'node:assert/strict';
import { after, afterEach, beforeEach, describe, mock, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { patiently } from '../../test/patience.js';
import { createLogger } from '../log/logger.js';
import { formatIpPort } from '../model/addresses/addresses.js';
import type { AddressKind, Endpoint, Protocol, ServicePort, VirtualAddress } from '../model/types.js';
import { formatAddress } from '@kube-proxy-ts/netlink';
import { ConntrackConnection, type FlowIdentity } from '@kube-proxy-ts/netlink/conntrack';
import { type ConntrackEntry, createConntrackEntries } from '@kube-proxy-ts/netlink/testing';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { ConntrackCleaner, type CleanupPass } from './cleaner.js';

const skip = enterNetworkNamespace();

const numbers = { TCP: 6, UDP: 17, SCTP: 132 } as const;
/** enum tcp_conntrack, enum sctp_conntrack */
const tcp = { synSent: 1, synReceived: 2, established: 3, timeWait: 7, close: 8 } as const;
const sctp = { cookieWait: 2, established: 4 } as const;

const addressesOf = {
  IPv4: {
    client: '10.61.7.7',
    cluster: '10.96.0.10',
    other: '10.96.0.11',
    external: '203.0.113.10',
    node: '192.0.2.1',
    secondary: '192.0.2.2',
    far: '198.51.100.9',
    pods: ['10.61.1.1', '10.61.1.2', '10.61.1.3'],
  },
  IPv6: {
    client: 'fd00:61::7:7',
    cluster: 'fd00:96::10',
    other: 'fd00:96::11',
    external: '2001:db8:3::10',
    node: '2001:db8::1',
    secondary: '2001:db8::2',
    far: '2001:db8:9::9',
    pods: ['fd00:61::1', 'fd00:61::2', 'fd00:61::3'],
  },
} as const;
const servicePort = 53;
const targetPort = 5353;
const nodePort = 30_053;

for (const family of ['IPv4', 'IPv6'] as const) {
  describe(family, { skip }, () => {
    const a = addressesOf[family];
    const nft = family === 'IPv4' ? 'ip' : 'ip6';
    const [A, B, C] = a.pods;
    const conntrack = skip === false ? ConntrackConnection.open() : undefined;
    const made: ConntrackCleaner[] = [];
    let clientPort = 0;

    beforeEach(() => {
      clientPort = 20_000;
    });
    afterEach(async () => {
      mock.restoreAll();
      for (const reconciler of made.splice(0)) await reconciler.close();
      for (const protocol of Object.values(numbers)) {
        const identities: FlowIdentity[] = [];
        conntrack?.listFlows(nft, { protocol }, (flow) => identities.push(flow.identity()));
        for (const identity of identities) conntrack?.deleteFlow(identity);
      }
    });
    after(() => {
      conntrack?.close();
    });

    /** Makes an entry and returns how it is listed by entries(). */
    function entry(to: string, endpoint: string | undefined, more: Partial<ConntrackEntry> = {}): string {
      const port = more.destinationPort ?? (to === a.node ? nodePort : servicePort);
      const from = endpoint === undefined ? [to, port] : [endpoint, more.endpointPort ?? targetPort];
      const made: ConntrackEntry = {
        protocol: numbers.UDP,
        client: a.client,
        clientPort: ++clientPort,
        destination: to,
        destinationPort: port,
        ...(endpoint === undefined ? {} : { endpoint, endpointPort: targetPort }),
        ...more,
      };
      createConntrackEntries([made]);
      return `${made.clientPort} ${to} ${port} → ${from.join(' ')}`;
    }

    function entries(protocol: Protocol = 'UDP'): string[] {
      const found: string[] = [];
      conntrack?.listFlows(nft, { protocol: numbers[protocol] }, ({ original, reply }) => {
        found.push(
          `${original.sourcePort} ${formatAddress(original.destination)} ${original.destinationPort} → ${formatAddress(reply.source)} ${reply.sourcePort}`,
        );
      });
      return found.sort();
    }

    const address = (kind: AddressKind, ip: string, port: number): VirtualAddress => ({
      kind,
      ip,
      port,
      scope: kind === 'ClusterIP' ? 'internal' : 'external',
      policy: 'Cluster',
      fallback: 'serve',
      sourceRanges: undefined,
    });
    const clusterIP = address('ClusterIP', a.cluster, servicePort);
    const externalIP = address('ExternalIP', a.external, servicePort);
    const nodePortAddress = address('NodePort', '', nodePort);
    const endpoints = (ips: readonly string[]): Endpoint[] =>
      ips.map((ip) => ({ ip, port: targetPort, local: true, nodeUnknown: false }));
    const serving = (ips: readonly string[]): string[] => ips.map((ip) => formatIpPort(ip, targetPort));

    function service(
      ips: readonly string[],
      fields: Partial<ServicePort> & { readonly protocol?: Protocol } = {},
    ): ServicePort {
      const protocol = fields.protocol ?? 'UDP';
      return {
        key: `dns/dns:dns/${protocol}`,
        name: 'dns/dns:dns',
        namespace: 'dns',
        serviceName: 'dns',
        family,
        protocol,
        clusterIP: a.cluster,
        port: servicePort,
        addresses: [clusterIP],
        clusterEndpoints: endpoints(ips),
        localEndpoints: [],
        affinitySeconds: 0,
        servingEndpoints: protocol === 'TCP' ? [] : serving(ips),
        ...fields,
      };
    }

    function reconciler(
      retireAfterMs = 60_000,
      fullPass?: { readonly periodMs: number; readonly share: number },
    ): {
      reconciler: ConntrackCleaner;
      lines: string[];
      looks: CleanupPass[];
      failures: unknown[];
    } {
      const lines: string[] = [];
      const looks: CleanupPass[] = [];
      const failures: unknown[] = [];
      const log = createLogger({ format: 'text', verbosity: 4, write: (line) => lines.push(line) });
      const reconciler = new ConntrackCleaner({
        family,
        nodePortAddresses: () => [a.node],
        log,
        onCleaned: (look) => looks.push(look),
        onFailure: (error) => failures.push(error),
        retireAfterMs,
        ...(fullPass === undefined ? {} : { fullPass }),
      });
      made.push(reconciler);
      return { reconciler, lines, looks, failures };
    }

    /** A reconciler that has seen this service port before any entry was made. */
    async function knowing(...ports: readonly ServicePort[]): Promise<ReturnType<typeof reconciler>> {
      const it = reconciler();
      it.reconciler.changed(ports);
      await it.reconciler.idle();
      it.looks.length = 0;
      return it;
    }

    test('entries of endpoints that left are deleted, all others stay', async () => {
      const { reconciler: r, looks, lines } = await knowing(service([A, B]));
      const stays = [entry(a.cluster, B), entry(a.other, A), entry(a.cluster, A, { destinationPort: 54 })];
      const tcpStays = entry(a.cluster, A, { protocol: numbers.TCP, state: tcp.established });
      entry(a.cluster, A);
      r.changed([service([B])]);
      await r.idle();
      assert.deepEqual(entries(), stays.sort());
      assert.deepEqual(entries('TCP'), [tcpStays]);
      assert.deepEqual(
        looks.map(({ deleted, protocol, family: of }) => ({ deleted, protocol, of })),
        [{ deleted: 1, protocol: 'UDP', of: family }],
      );
      assert.match(lines.join(''), /Connection tracking reconciled.*protocol="UDP" deleted=1/);
    });

    test('the port of an endpoint counts, too', async () => {
      const { reconciler: r } = await knowing(service([A]));
      entry(a.cluster, A, { endpointPort: 9999 });
      const stays = entry(a.cluster, A);
      r.checkAll();
      await r.idle();
      assert.deepEqual(entries(), [stays]);
    });

    test('an endpoint less: what passed untranslated at that moment goes, too', async () => {
      const { reconciler: r } = await knowing(
        service([A, B], { addresses: [clusterIP, externalIP, nodePortAddress] }),
      );
      const stays = [entry(a.cluster, B), entry(a.far, undefined, { destinationPort: nodePort })];
      for (const to of [a.cluster, a.external, a.node]) entry(to, undefined);
      r.changed([service([B], { addresses: [clusterIP, externalIP, nodePortAddress] })]);
      await r.idle();
      assert.deepEqual(entries(), stays.sort());
    });

    test('what no change has told of is found now and then', async () => {
      const { reconciler: r, looks } = reconciler(undefined, { periodMs: patiently(200), share: 1 });
      r.changed([service([A])]);
      await r.idle();
      const stays = entry(a.cluster, A);
      entry(a.cluster, B);
      const deadline = Date.now() + patiently(10_000);
      while (entries().length > 1 && Date.now() < deadline) await sleep(20);
      assert.deepEqual(entries(), [stays]);
      const before = looks.length;
      await sleep(patiently(1000));
      assert.ok(looks.length > before, 'again and again');
    });

    test('no endpoint left: every entry goes', async () => {
      const { reconciler: r } = await knowing(service([A]));
      entry(a.cluster, A);
      r.changed([service([])]);
      await r.idle();
      assert.deepEqual(entries(), []);
    });

    test('the first endpoint comes: entries from before it are deleted', async () => {
      const { reconciler: r } = await knowing(service([]));
      entry(a.cluster, undefined);
      const stays = entry(a.other, undefined);
      r.changed([service([A])]);
      await r.idle();
      assert.deepEqual(entries(), [stays]);
    });

    test('more endpoints leave nothing stale: the table is not even read', async () => {
      const { reconciler: r, looks } = await knowing(service([A]));
      const stays = entry(a.cluster, C);
      r.changed([service([A, B])]);
      await r.idle();
      assert.deepEqual(looks, []);
      assert.deepEqual(entries(), [stays]);
    });

    test('a terminating endpoint that serves, and one that a policy passes over, keep their flows', async () => {
      const { reconciler: r } = await knowing(service([A, B]));
      const stays = [entry(a.cluster, A), entry(a.cluster, B)];
      r.changed([service([B], { servingEndpoints: serving([A, B]) })]);
      r.changed([service([], { localEndpoints: endpoints([B]), servingEndpoints: serving([A, B]) })]);
      r.checkAll();
      await r.idle();
      assert.deepEqual(entries(), stays.sort());
    });

    test('a start deletes nothing that is right', async () => {
      const ids = (): (number | undefined)[] => {
        const found: (number | undefined)[] = [];
        conntrack?.listFlows(nft, { protocol: numbers.UDP }, (flow) => found.push(flow.identity().id));
        return found.sort();
      };
      entry(a.cluster, A);
      entry(a.node, B);
      entry(a.external, A);
      entry(a.far, undefined, { destinationPort: nodePort });
      const before = ids();
      const { reconciler: r } = await knowing(
        service([A, B], { addresses: [clusterIP, externalIP, nodePortAddress] }),
      );
      assert.deepEqual(ids(), before);
      entry(a.cluster, C);
      entry(a.node, C);
      r.checkAll();
      await r.idle();
      assert.deepEqual(ids(), before, 'and it does look at all addresses');
    });

    test('node ports: only on the addresses that serve them', async () => {
      const { reconciler: r } = await knowing(service([A], { addresses: [clusterIP, nodePortAddress] }));
      const stays = [
        entry(a.far, undefined, { destinationPort: nodePort }),
        entry(a.secondary, undefined, { destinationPort: nodePort }),
        entry(a.far, A, { destinationPort: nodePort }),
      ];
      entry(a.node, A);
      r.changed([service([B], { addresses: [clusterIP, nodePortAddress] })]);
      await r.idle();
      assert.deepEqual(entries(), stays.sort());
    });

    test('a new front end may have entries from before it was one', async () => {
      const { reconciler: r } = await knowing(service([A]));
      entry(a.external, undefined);
      entry(a.node, undefined);
      r.changed([service([A], { addresses: [clusterIP, externalIP, nodePortAddress] })]);
      await r.idle();
      assert.deepEqual(entries(), []);
    });

    test("entries in a zone are other programs'", async () => {
      const { reconciler: r } = await knowing(service([A, B]));
      const stays = entry(a.cluster, A, { zone: 7 });
      r.changed([service([B])]);
      await r.idle();
      assert.deepEqual(entries(), [stays]);
      // Nobody else removes it; the zone is part of its name.
      const identities: FlowIdentity[] = [];
      conntrack?.listFlows(nft, { protocol: numbers.UDP }, (flow) => identities.push(flow.identity()));
      assert.deepEqual(
        identities.map(({ zone }) => zone),
        [7],
      );
    });

    test('an endpoint that came and went between two looks is not overlooked', async () => {
      const { reconciler: r } = await knowing(service([A]));
      const stays = entry(a.cluster, A);
      entry(a.cluster, B);
      r.changed([service([A, B])]);
      r.changed([service([A])]);
      await r.idle();
      assert.deepEqual(entries(), [stays]);
    });

    test('an endpoint that is back before the look keeps its flows', async () => {
      const { reconciler: r } = await knowing(service([A, B]));
      const stays = [entry(a.cluster, A), entry(a.cluster, B)];
      r.changed([service([A])]);
      r.changed([service([A, B])]);
      await r.idle();
      assert.deepEqual(entries(), stays.sort());
    });

    describe('addresses that are no longer a service', () => {
      test('UDP: its flows go at once, those of others stay', async () => {
        const { reconciler: r } = reconciler();
        const before = service([A], { addresses: [clusterIP, nodePortAddress] });
        r.changed([before]);
        await r.idle();
        const stays = [entry(a.cluster, C), entry(a.cluster, undefined), entry(a.far, A)];
        entry(a.cluster, A);
        entry(a.node, A);
        r.removed([before.key]);
        await r.idle();
        assert.deepEqual(entries(), stays.sort());
      });

      test('SCTP: after a grace period', async () => {
        const { reconciler: r } = reconciler(patiently(150));
        const before = service([A], { protocol: 'SCTP' });
        r.changed([before]);
        await r.idle();
        entry(a.cluster, A, { protocol: numbers.SCTP, state: sctp.established });
        r.removed([before.key]);
        await r.idle();
        assert.equal(entries('SCTP').length, 1, 'not at once');
        const deadline = Date.now() + patiently(5000);
        while (entries('SCTP').length > 0 && Date.now() < deadline) await sleep(20);
        assert.deepEqual(entries('SCTP'), []);
      });

      test('what waits for it, or for a rest, goes when the process is told to end', async () => {
        const { reconciler: r } = reconciler(60_000);
        const udp = service([A]);
        const association = service([A], { protocol: 'SCTP' });
        r.changed([udp, association]);
        await r.idle();
        entry(a.cluster, A, { protocol: numbers.SCTP, state: sctp.established });
        entry(a.cluster, A);
        r.removed([association.key]);
        r.removed([udp.key]);
        await r.close();
        assert.deepEqual([entries('SCTP'), entries()], [[], []]);
      });

      test('an earlier process led them somewhere: flows to there go, unless a service port has the address', async () => {
        const { reconciler: r } = reconciler();
        r.changed([service([A])]);
        await r.idle();
        const stays = [
          entry(a.cluster, A),
          entry(a.other, B),
          entry(a.other, undefined),
          entry(a.far, A, { destinationPort: nodePort }),
        ];
        entry(a.other, A);
        entry(a.node, A);
        const from = { protocol: 'UDP', endpoints: serving([A]) } as const;
        r.released([
          { ...from, ip: a.cluster, port: servicePort },
          { ...from, ip: a.other, port: servicePort },
          { ...from, ip: '', port: nodePort },
        ]);
        await r.idle();
        assert.deepEqual(entries(), stays.sort());
      });

      test('an address that moves while the table is read is judged by its new owner', async () => {
        const { reconciler: r } = await knowing(service([A, C]));
        const stays = entry(a.cluster, B);
        entry(a.cluster, A);
        const list = mock.method(
          ConntrackConnection.prototype,
          'listFlowsAsync',
          async function (
            this: ConntrackConnection,
            ...args: Parameters<ConntrackConnection['listFlowsAsync']>
          ) {
            list.mock.restore();
            r.changed([service([A], { addresses: [externalIP] }), service([B], { key: 'dns/new:dns/UDP' })]);
            await this.listFlowsAsync(...args);
          },
        );
        r.changed([service([A], { addresses: [clusterIP, externalIP] })]);
        r.checkAll();
        await r.idle();
        assert.deepEqual(entries(), [stays]);
      });

      test('a Service that is made anew takes its flows over', async () => {
        const { reconciler: r } = reconciler(patiently(50));
        r.changed([service([A])]);
        await r.idle();
        const stays = entry(a.cluster, A);
        r.removed([service([A]).key]);
        r.changed([service([A, B], { key: 'dns/new:dns/UDP' })]);
        await r.idle();
        await sleep(patiently(200));
        await r.idle();
        assert.deepEqual(entries(), [stays]);
      });

      test('the same for an external IP of a Service that stays', async () => {
        const { reconciler: r } = reconciler(patiently(50));
        r.changed([service([A], { addresses: [clusterIP, externalIP] })]);
        await r.idle();
        const stays = [entry(a.cluster, A), entry(a.external, undefined)];
        entry(a.external, A);
        r.changed([service([A])]);
        const deadline = Date.now() + patiently(5000);
        while (entries().length > 2 && Date.now() < deadline) await sleep(20);
        assert.deepEqual(entries(), stays.sort());
      });
    });

    describe('TCP', () => {
      const connection = (to: string, endpoint: string | undefined, state: number): string =>
        entry(to, endpoint, {
          protocol: numbers.TCP,
          state,
          unanswered: state === tcp.synSent,
        });

      test('reset and unanswered connections of an endpoint that left go, no others', async () => {
        const { reconciler: r } = await knowing(service([A, B], { protocol: 'TCP' }));
        const stays = [
          connection(a.cluster, A, tcp.established),
          connection(a.cluster, A, tcp.synReceived),
          connection(a.cluster, A, tcp.timeWait),
          connection(a.cluster, B, tcp.close),
          connection(a.cluster, B, tcp.synSent),
          connection(a.other, A, tcp.close),
        ];
        connection(a.cluster, A, tcp.close);
        connection(a.cluster, A, tcp.synSent);
        r.changed([service([B], { protocol: 'TCP' })]);
        await r.idle();
        assert.deepEqual(entries('TCP'), stays.sort());
      });

      test('a new service: connections that began before it are made anew', async () => {
        const stays = [
          connection(a.cluster, undefined, tcp.established),
          connection(a.cluster, A, tcp.synSent),
        ];
        connection(a.cluster, undefined, tcp.synSent);
        const { reconciler: r, looks } = reconciler();
        r.changed([service([A], { protocol: 'TCP' })]);
        await r.idle();
        assert.deepEqual(entries('TCP'), stays.sort());
        assert.deepEqual(
          looks.map(({ read, deleted }) => ({ read, deleted })),
          [{ read: 2, deleted: 1 }],
          'the kernel delivered only what was never answered',
        );
      });

      test('many endpoints leave at once: one walk, without the connections that are up', async () => {
        // As the kernel does not compare IPv6 addresses, only different ports make different questions.
        const pods = Array.from({ length: 20 }, (_, i) => ({
          ip: A,
          port: targetPort + i,
          local: true,
          nodeUnknown: false,
        }));
        const many = service([], { protocol: 'TCP', clusterEndpoints: pods });
        const { reconciler: r, looks } = await knowing(many);
        const stays = connection(a.cluster, A, tcp.established);
        connection(a.cluster, A, tcp.synSent);
        r.changed([service([], { protocol: 'TCP' })]);
        await r.idle();
        assert.deepEqual(entries('TCP'), [stays]);
        assert.deepEqual(
          looks.map(({ read, walks }) => ({ read, walks })),
          [{ read: 1, walks: 1 }],
        );
      });
    });

    test('SCTP: associations go with the endpoint', async () => {
      const { reconciler: r } = await knowing(service([A, B], { protocol: 'SCTP' }));
      const association = (to: string, endpoint: string | undefined, state: number): string =>
        entry(to, endpoint, { protocol: numbers.SCTP, state });
      const stays = [association(a.cluster, B, sctp.established), association(a.other, A, sctp.established)];
      association(a.cluster, A, sctp.established);
      association(a.cluster, A, sctp.cookieWait);
      association(a.cluster, undefined, sctp.cookieWait);
      const udpStays = entry(a.cluster, A);
      r.changed([service([], { protocol: 'SCTP' })]);
      r.changed([service([B], { protocol: 'SCTP' })]);
      await r.idle();
      assert.deepEqual(entries('SCTP'), stays.sort());
      assert.deepEqual(entries(), [udpStays]);
    });

    test('a failure is told once, and made up for', async () => {
      const { reconciler: r, lines, failures } = await knowing(service([A, B]));
      entry(a.cluster, A);
      await r.close();
      const again = await knowing(service([B, C]));
      entry(a.cluster, C);
      // The connections are open: a deletion that the kernel refuses.
      const refuse = mock.method(ConntrackConnection.prototype, 'deleteFlows', () => {
        throw new Error('not today');
      });
      again.reconciler.changed([service([B])]);
      await again.reconciler.idle();
      assert.equal(again.failures.length, 1);
      assert.equal(again.looks.length, 1, 'what it cost is told all the same');
      refuse.mock.restore();
      const deadline = Date.now() + patiently(10_000);
      while (entries().length > 0 && Date.now() < deadline) await sleep(50);
      assert.deepEqual(entries(), []);
      await again.reconciler.idle();
      const told = again.lines.join('');
      assert.equal(told.match(/may remain; trying again.*why="not today"/g)?.length, 1);
      assert.match(told, /cleanup works again/);
      assert.deepEqual([failures, lines.filter((line) => line.startsWith('W'))], [[], []]);
    });

    test('many entries: one reading, in small pieces, and close() ends it', async () => {
      const many = 20_000;
      const flows = function* (): Generator<ConntrackEntry> {
        for (let i = 0; i < many; i++) {
          yield {
            protocol: numbers.UDP,
            client: a.client,
            clientPort: 1024 + i,
            destination: a.cluster,
            destinationPort: servicePort,
            endpoint: i % 4 === 0 ? A : B,
            endpointPort: targetPort,
          };
        }
      };
      createConntrackEntries(flows());
      const { reconciler: r, looks } = reconciler();
      let turns = 0;
      const counting = setInterval(() => turns++, 0);
      const addresses = [clusterIP, externalIP, nodePortAddress, address('ExternalIP', a.other, 1)];
      r.changed([service([B], { addresses })]);
      await r.idle();
      clearInterval(counting);
      assert.deepEqual(
        looks.map(({ read, deleted }) => ({ read, deleted })),
        [{ read: many, deleted: many / 4 }],
      );
      assert.equal(entries().length, (many * 3) / 4);
      assert.ok(turns > 10, `${turns} turns of the event loop for others meanwhile`);

      r.changed([service([], { addresses })]);
      // In the middle of it.
      await sleep(1);
      await r.close();
      r.changed([service([A])]);
      await r.idle();
      assert.ok(entries().length > 0, 'closed before it was through');
      assert.equal(looks.length, 1);
    });
  });
}
