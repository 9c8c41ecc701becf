/**
 * The whole program while its API server flaps, in modes nftables and iptables: rounds of one to three troubles of a second or
 * two with half a second in between, and changes all the while. How long after the last one's end is a new endpoint in the
 * kernel, and does traffic to a Service that does not change notice? FAULT_ROUNDS=n for another number of rounds than three.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { makeCertificates } from '../apiserver/certificates.js';
import { ApiServer } from '../apiserver/server.js';
import { flaps } from '../faults/flaps.js';
import { patiently } from '../patience.js';
import { type Child, ownNode, podIP, program, serviceIP, SmallNode, start, trafficResult } from './node.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace();
const execute = promisify(execFile);
const rounds = Number(process.env['FAULT_ROUNDS'] ?? '3');

const service = (name: string, clusterIP: string): object => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'orchard' },
  spec: { clusterIP, clusterIPs: [clusterIP], ipFamilies: ['IPv4'], ports: [{ port: 80, protocol: 'TCP' }] },
});
const slice = (name: string, address: string): object => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name, namespace: 'orchard', labels: { 'kubernetes.io/service-name': name } },
  addressType: 'IPv4',
  ports: [{ port: 9000, protocol: 'TCP' }],
  endpoints: [{ addresses: [address], conditions: { ready: true }, nodeName: 'alder' }],
});

const rulesOf = {
  nftables: ['nft', 'list', 'map', 'ip', 'kube-proxy', 'endpoints'],
  iptables: ['iptables-save', '-t', 'nat'],
} as const;

describe('an API server that flaps', { skip }, () => {
  const node = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-flap-'));
  let server: ApiServer;
  before(async () => {
    await node.open();
    const tls = makeCertificates();
    server = await ApiServer.start({ tls, clientCertificates: true });
    for (const [name, content] of [
      ['ca.crt', tls.authority],
      ['client.crt', tls.clientCertificate],
      ['client.key', tls.clientKey],
      [
        'kubeconfig',
        JSON.stringify({
          apiVersion: 'v1',
          kind: 'Config',
          clusters: [{ name: 'double', cluster: { server: server.url, 'certificate-authority': 'ca.crt' } }],
          users: [{ name: 'me', user: { 'client-certificate': 'client.crt', 'client-key': 'client.key' } }],
          contexts: [{ name: 'double', context: { cluster: 'double', user: 'me' } }],
          'current-context': 'double',
        }),
      ],
    ] as const) {
      writeFileSync(join(folder, name), content);
    }
    for (const object of [
      ownNode,
      service('pear', serviceIP),
      slice('pear', podIP),
      service('plum', '10.177.0.60'),
    ]) {
      server.store.put(object);
    }
  });
  after(async () => {
    await server.close();
    await node.close();
    rmSync(folder, { recursive: true });
  });

  const proxy = (mode: string): Child =>
    start(
      program,
      `--kubeconfig=${join(folder, 'kubeconfig')}`,
      '--hostname-override=alder',
      '--cluster-cidr=10.61.0.0/16',
      `--proxy-mode=${mode}`,
      '--v=2',
    );

  for (const mode of ['nftables', 'iptables'] as const) {
    test(`mode ${mode}, ${rounds} rounds: right again within 5 s, in half of them within 1 s`, async (t) => {
      const [command, ...args] = rulesOf[mode];
      const holds = async (address: string): Promise<boolean> =>
        (await execute(command, args, { maxBuffer: 1e8 })).stdout.includes(address);
      const child = proxy(mode);
      t.after(async () => {
        child.kill('SIGTERM');
        await child.end();
      });
      await child.waitFor(bothCompared);
      const traffic = await node.traffic(serviceIP, 80);
      const random = new Random(mode === 'nftables' ? 11 : 12);
      const names = Object.keys(flaps);
      const took: { readonly seconds: number; readonly story: string }[] = [];
      for (let round = 0; round < rounds; round++) {
        const story: string[] = [];
        for (let left = 1 + random.below(3); left > 0; left--) {
          const name = names[random.below(names.length)] ?? '';
          const ms = 1000 + random.below(1000);
          story.push(`${name} for ${ms} ms`);
          const end = flaps[name]?.(server, random, ms);
          const until = performance.now() + ms;
          for (let n = 0; performance.now() < until; n++) {
            server.store.put(slice('plum', `10.61.3.${1 + (n % 200)}`));
            await sleep(Math.max(0, Math.min(200, until - performance.now())));
          }
          end?.();
          if (left > 1) await sleep(500);
        }
        const ended = performance.now();
        const address = `10.61.${4 + (round >> 7)}.${1 + (round & 127)}`;
        server.store.put(slice('plum', address));
        while (!(await holds(`${address} `)) && !(await holds(`${address}:`))) {
          assert.ok(
            performance.now() - ended < patiently(60_000),
            `${story.join(', ')}: never\n${child.output}`,
          );
          await sleep(20);
        }
        took.push({ seconds: (performance.now() - ended) / 1000, story: story.join(', ') });
        await sleep(random.below(2000));
      }
      const { newFailed, linesLost, newConnections } = await trafficResult(traffic);
      took.sort((a, b) => a.seconds - b.seconds);
      const worst = took.at(-1);
      const median = took[took.length >> 1]?.seconds ?? Infinity;
      t.diagnostic(
        `right again: median ${median.toFixed(2)} s, worst ${worst?.seconds.toFixed(2) ?? ''} s (${worst?.story ?? ''}); ` +
          `${newConnections} connections, ${newFailed} failed`,
      );
      assert.deepEqual({ newFailed, linesLost }, { newFailed: 0, linesLost: 0 });
      assert.equal(child.process.exitCode, null);
      // With a handful of rounds chance alone moves the median.
      assert.ok(median <= patiently(rounds < 20 ? 2 : 1), `median ${median} s`);
      assert.ok((worst?.seconds ?? Infinity) <= patiently(5), JSON.stringify(worst));
    });
  }

  test('a server that refuses everybody until it has read its rules ends no start', async (t) => {
    server.failNext({ status: 403, count: 1_000_000 });
    const child = proxy('nftables');
    t.after(async () => {
      child.kill('SIGTERM');
      await child.end();
    });
    await child.waitFor('does not let us');
    await sleep(1500);
    server.faults.clear();
    const healed = performance.now();
    await child.waitFor(bothCompared);
    assert.ok(performance.now() - healed < patiently(3000), `${performance.now() - healed} ms`);
  });

  test('one that goes on refusing ends it after 10 s', async () => {
    server.failNext({ status: 403, count: 1_000_000 });
    const started = performance.now();
    const child = proxy('nftables');
    assert.equal(await child.end(patiently(20_000)), 7);
    assert.ok(performance.now() - started > 9000);
    server.faults.clear();
  });
});
