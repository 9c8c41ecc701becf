/**
 * UDP flows of Services that are gone: they end within seconds, whatever happens to kube-proxy meanwhile. Real packets, in modes
 * nftables and iptables.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConntrackConnection } from '@kube-proxy-ts/netlink/conntrack';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { servedKinds } from '../apiserver/resources.js';
import { ApiServer } from '../apiserver/server.js';
import { patiently } from '../patience.js';
import { type Child, kubeconfigFor, nodeIP, ownNode, podIP, program, SmallNode, start } from './node.js';

const skip = enterNetworkNamespace() || missingNft();

const targetPort = 9009;
/** What a flow may take to end. */
const limitMs = 5000;

/** Three kinds of addresses. */
const service = (name: string, number: number, protocol = 'UDP') => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'orchard' },
  spec: {
    type: 'NodePort',
    clusterIP: `10.177.1.${number}`,
    externalIPs: [`203.0.113.${number}`],
    ports: [{ name: 'say', port: 80, protocol, targetPort, nodePort: 31_000 + number }],
  },
});
const slice = (name: string, protocol = 'UDP') => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name: `${name}-1`, namespace: 'orchard', labels: { 'kubernetes.io/service-name': name } },
  addressType: 'IPv4',
  ports: [{ name: 'say', port: targetPort, protocol }],
  endpoints: [{ addresses: [podIP], conditions: { ready: true }, nodeName: 'alder' }],
});

const small = new SmallNode();
if (skip === false) {
  before(async () => {
    await small.open();
    await small.inNamespace(0, 'whoami.js', String(targetPort), podIP).waitFor('ready');
  });
  after(() => small.close());
}

for (const mode of ['nftables', 'iptables'] as const) {
  const missing =
    mode === 'nftables' || existsSync('/usr/sbin/iptables') ? false : 'iptables is not installed';
  describe(`mode ${mode}: flows of Services that are gone`, { skip: skip || missing }, () => {
    const folder = mkdtempSync(join(tmpdir(), 'kpp-released-'));
    let server: ApiServer | undefined;
    let proxy: Child | undefined;
    let flows: Child;
    let number = 10;
    const firstPort = mode === 'nftables' ? 21_000 : 22_000;
    let sourcePort = firstPort;

    const startProxy = async (): Promise<void> => {
      proxy = start(
        program,
        `--kubeconfig=${kubeconfigFor(server?.url ?? '', folder)}`,
        '--hostname-override=alder',
        `--proxy-mode=${mode}`,
        '--cluster-cidr=10.61.0.0/16',
        '--v=4',
      );
      await proxy.waitFor(/"Resync complete"[^\n]* family="IPv4"/, 20_000);
    };
    const endProxy = async (signal: NodeJS.Signals): Promise<void> => {
      proxy?.kill(signal);
      await proxy?.end();
    };
    const remove = (kind: string, key: string): void => {
      const served = servedKinds.find((candidate) => candidate.kind === kind);
      assert.ok(served);
      server?.store.delete(served, key);
    };
    const last = (child: Child): ReadonlyMap<string, string> =>
      new Map(
        child.output
          .trim()
          .split('\n')
          .map((line) => line.split(' ') as [string, string]),
      );
    const until = async (what: string, child: Child, isSo: (answer: string) => boolean): Promise<void> => {
      const deadline = Date.now() + patiently(limitMs);
      for (;;) {
        const answers = [...last(child)];
        if (answers.length === 3 && answers.every(([, answer]) => isSo(answer))) return;
        if (Date.now() > deadline)
          assert.fail(
            `${what}: ${JSON.stringify(answers)}\n${proxy?.output.split('\n').slice(-30).join('\n')}`,
          );
        await sleep(10);
      }
    };
    /** A Service with a client on each of its addresses. */
    const flowing = async (): Promise<{
      readonly name: string;
      readonly number: number;
      readonly clients: Child;
    }> => {
      const name = `plum-${++number}`;
      server?.store.put(service(name, number));
      server?.store.put(slice(name));
      const clients = small.inNamespace(
        1,
        'flows.js',
        `cluster udp 10.177.1.${number} 80 ${++sourcePort}`,
        `external udp 203.0.113.${number} 80 ${++sourcePort}`,
        `node udp ${nodeIP} ${31_000 + number} ${++sourcePort}`,
      );
      await until(`${name} answers`, clients, (answer) => answer === podIP);
      return { name, number, clients };
    };
    const ended = async (what: string, clients: Child): Promise<void> => {
      await until(what, clients, (answer) => answer !== podIP);
      clients.kill('SIGKILL');
    };
    /** The kernel's numbers of the entries of the Service that stays. */
    const staying = (): readonly (number | undefined)[] => {
      const ids: (number | undefined)[] = [];
      const connection = ConntrackConnection.open();
      connection.listFlows('ip', { protocol: 17 }, (flow) => {
        const from = flow.original.sourcePort - firstPort;
        if (from > 0 && from <= 3) ids.push(flow.identity().id);
      });
      connection.close();
      return ids.sort();
    };

    before(async () => {
      server = await ApiServer.start({});
      server.store.put(ownNode);
      await startProxy();
      ({ clients: flows } = await flowing());
    });
    after(async () => {
      proxy?.kill('SIGTERM');
      await proxy?.end();
      await start(program, '--cleanup').end();
      flows.kill('SIGKILL');
      await server?.close();
      rmSync(folder, { recursive: true });
    });

    test('deleted, and turned into TCP: while it runs, and it ends right afterwards', async () => {
      for (const thenEnd of [false, true]) {
        const gone = await flowing();
        const turned = await flowing();
        remove('Service', `orchard/${gone.name}`);
        server?.store.put(service(turned.name, turned.number, 'TCP'));
        server?.store.put(slice(turned.name, 'TCP'));
        await sleep(100);
        if (thenEnd) {
          await endProxy('SIGTERM');
          await startProxy();
        }
        await ended('deleted', gone.clients);
        await ended('TCP', turned.clients);
      }
    });

    test('deleted while no process runs', async () => {
      const before = staying();
      assert.equal(before.length, 3);
      for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
        const gone = await flowing();
        const turned = await flowing();
        await endProxy(signal);
        remove('Service', `orchard/${gone.name}`);
        remove('EndpointSlice', `orchard/${gone.name}-1`);
        server?.store.put(service(turned.name, turned.number, 'TCP'));
        server?.store.put(slice(turned.name, 'TCP'));
        await startProxy();
        await ended('deleted', gone.clients);
        await ended('TCP', turned.clients);
      }
      assert.deepEqual(staying(), before, 'no other flow is touched');
    });

    test("killed right after the deletion; and the node's address changes then", async () => {
      const before = staying();
      for (const delayMs of [0, 3, 6, 9, 12, 15, 20, 30, 50]) {
        const gone = await flowing();
        remove('Service', `orchard/${gone.name}`);
        await sleep(delayMs);
        await endProxy('SIGKILL');
        await startProxy();
        await ended(`killed after ${delayMs} ms`, gone.clients);
      }
      assert.deepEqual(staying(), before, 'no other flow is touched');
      const gone = await flowing();
      run('ip', 'address', 'replace', '100.64.10.12/32', 'dev', 'lo');
      remove('Service', `orchard/${gone.name}`);
      server?.store.put({
        ...ownNode,
        status: { addresses: [{ type: 'InternalIP', address: '100.64.10.12' }] },
      });
      await ended('another address', gone.clients);
      assert.deepEqual([...last(flows).values()].filter((answer) => answer === podIP).length >= 2, true);
    });
  });
}
