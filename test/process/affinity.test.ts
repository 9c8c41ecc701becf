/** Who remembers whom: session affinity when endpoints, Services and timeouts go, and an endpoint that moves to this node. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import type { Json } from '../apiserver/defaults.js';
import { servedKinds } from '../apiserver/resources.js';
import { ApiServer } from '../apiserver/server.js';
import { patiently } from '../patience.js';
import { service, slice } from './hostile-objects.js';
import { type Child, kubeconfigFor, ownNode, podIP, program, SmallNode, start } from './node.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace() || missingNft();

const namespace = 'orchard';
const clients = Array.from({ length: 8 }, (_, i) => `198.51.100.${11 + i}`);
/** One, and twenty more. */
const firstPod = '10.180.1.1';
const otherPods = ['10.180.1.2', ...Array.from({ length: 20 }, (_, i) => `10.180.2.${i + 1}`)];

const kindOf = (kind: string) => {
  const found = servedKinds.find((candidate) => candidate.kind === kind);
  assert.ok(found !== undefined);
  return found;
};

describe('session affinity, and endpoints that move', { skip }, () => {
  const node = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-affinity-'));
  let server: ApiServer;
  let proxy: Child;
  const eye = skip === false ? NftablesConnection.open() : undefined;

  const launch = async (): Promise<void> => {
    proxy = start(
      program,
      `--kubeconfig=${kubeconfigFor(server.url, folder)}`,
      '--proxy-mode=nftables',
      '--hostname-override=alder',
      '--cluster-cidr=10.61.0.0/16',
    );
    await proxy.waitFor(bothCompared);
  };
  const stop = async (): Promise<void> => {
    proxy.kill('SIGTERM');
    await proxy.end();
  };

  before(async () => {
    await node.open();
    const pod = node.namespace(0);
    for (const ip of [firstPod, ...otherPods])
      run('ip', '-n', pod, 'address', 'add', `${ip}/32`, 'dev', 'lo');
    for (const ip of clients) run('ip', '-n', node.namespace(1), 'address', 'add', `${ip}/24`, 'dev', 'eth0');
    run('ip', 'route', 'add', '10.180.0.0/16', 'via', podIP);
    await node.inNamespace(0, 'whoami.js', '9001', firstPod, ...otherPods).waitFor('ready');
    server = await ApiServer.start();
    server.store.put(ownNode);
    await launch();
  });
  after(async () => {
    proxy.kill('SIGKILL');
    eye?.close();
    await server.close();
    await node.close();
    rmSync(folder, { recursive: true });
  });

  const putService = (name: string, ip: string, timeoutSeconds: number): void => {
    const spec: Json = {
      clusterIP: ip,
      sessionAffinity: 'ClientIP',
      sessionAffinityConfig: { clientIP: { timeoutSeconds } },
    };
    server.store.put(service(name, spec, { namespace }));
  };
  const putEndpoints = (name: string, ips: readonly string[]): void => {
    const ports = [{ name: 'web', port: 9001, protocol: 'TCP' }];
    const endpoints = ips.map((ip) => ({
      addresses: [ip],
      conditions: { ready: true },
      nodeName: 'other',
    }));
    server.store.put(slice(name, ips, { ports, endpoints }, { namespace }));
  };
  const remove = (name: string): void => {
    server.store.delete(kindOf('EndpointSlice'), `${namespace}/${name}-1`);
    server.store.delete(kindOf('Service'), `${namespace}/${name}`);
  };
  const ask = async (ip: string, sources: readonly string[] = clients): Promise<string[]> => {
    const child = node.inNamespace(1, 'ask-each.js', ip, '80', ...sources);
    await child.end();
    return JSON.parse(child.output) as string[];
  };
  const count = (set: string): number => {
    let found = 0;
    eye?.listElements('ip', 'kube-proxy', set, () => found++, {
      onRestart: () => {
        found = 0;
      },
    });
    return found;
  };
  const until = async (what: string, isSo: () => boolean, ms = 5000): Promise<void> => {
    const deadline = performance.now() + patiently(ms);
    while (!isSo()) {
      assert.ok(performance.now() < deadline, `${what}: not in time\n${proxy.output}`);
      await sleep(10);
    }
  };
  const spread = (answers: readonly string[]): number => {
    for (const answer of answers) assert.match(answer, /^10\.180\./);
    return new Set(answers).size;
  };
  /** Runs with a Service of its own and without clients of others. */
  const serve = async (name: string, ip: string, timeoutSeconds: number, pods: readonly string[]) => {
    await until('what was there is gone', () => count('affinity-slots') === 0);
    putService(name, ip, timeoutSeconds);
    putEndpoints(name, pods);
    await until(`${name} is served`, () => count('affinity-slots') === pods.length);
  };

  test('an endpoint that is gone: its clients are not those of the next one', async () => {
    const ip = '172.30.11.1';
    await serve('s', ip, 10_800, [firstPod]);
    assert.deepEqual(
      await ask(ip),
      clients.map(() => firstPod),
    );
    assert.equal(count('affinity'), clients.length);
    putEndpoints('s', []);
    await until('nothing is left to draw', () => count('affinity-slots') === 0);
    await until('clients are forgotten', () => count('affinity') === 0);
    putEndpoints('s', otherPods);
    await until('21 endpoints', () => count('affinity-slots') === otherPods.length);
    const answers = await ask(ip);
    assert.ok(spread(answers) >= 3, answers.join());
    assert.deepEqual(await ask(ip), answers, 'and they stay where they are now');
  });

  test('so it is when the next one comes at once, before clients are forgotten', async () => {
    const ip = '172.30.11.1';
    const before = await ask(ip);
    putEndpoints('s', []);
    putEndpoints('s', [firstPod]);
    await until('another endpoint', () => count('affinity-slots') === 1);
    assert.deepEqual(
      await ask(ip),
      clients.map(() => firstPod),
    );
    putEndpoints('s', []);
    await until('nothing is left to draw', () => count('affinity-slots') === 0);
    putEndpoints('s', otherPods);
    await until('21 endpoints', () => count('affinity-slots') === otherPods.length);
    const answers = await ask(ip);
    assert.ok(spread(answers) >= 3, `${answers.join()}, before ${before.join()}`);
    remove('s');
    await until('clients are forgotten', () => count('affinity') === 0);
  });

  for (const [how, whileAway] of [
    ['starts over in place', false],
    ['is started again', false],
    ['does not run', true],
  ] as const) {
    test(`a Service that is gone: a new one does not inherit its clients when the program ${how}`, async () => {
      const [first, second] = ['172.30.11.2', '172.30.11.3'];
      await serve('first', first, 10_800, [firstPod]);
      await ask(first);
      assert.equal(count('affinity'), clients.length);
      if (whileAway) await stop();
      remove('first');
      if (how === 'starts over in place') {
        const times = (): number => proxy.output.split('Resync complete').length;
        const starts = times();
        proxy.kill('SIGHUP');
        await until('it has started over', () => times() === starts + 2, 10_000);
      } else {
        if (!whileAway) await stop();
        await launch();
      }
      await serve('second', second, 5, otherPods);
      const answers = await ask(second);
      assert.ok(spread(answers) >= 3, answers.join());
      await until('only its own clients', () => count('affinity') <= clients.length);
      remove('second');
      await until('clients are forgotten', () => count('affinity') === 0);
    });
  }

  test('a lowered timeout holds for clients that are remembered', async () => {
    const ip = '172.30.11.4';
    await serve('s', ip, 10_800, otherPods);
    const before = await ask(ip);
    await sleep(1500);
    putService('s', ip, 600);
    const shortened = (): boolean => {
      let ok = true;
      eye?.listElements('ip', 'kube-proxy', 'affinity', (_key, _value, { expiresMs = 0 }) => {
        ok &&= expiresMs < 599_500;
      });
      return ok;
    };
    await until('they have as long as they would have', shortened);
    assert.equal(count('affinity'), clients.length);
    assert.deepEqual(await ask(ip), before, 'who came within the new time keeps its endpoint');
    await sleep(1500);
    putService('s', ip, 1);
    await until('they are forgotten', () => count('affinity') === 0);
    const answers = await ask(ip);
    assert.notDeepEqual(answers, before);
    remove('s');
  });

  test('an endpoint that comes to this node with its address reaches itself through its Service', async () => {
    const ip = '172.30.11.9';
    const pod = (nodeName: string): void => {
      const endpoints = [{ addresses: [podIP], conditions: { ready: true }, nodeName }];
      server.store.put(slice('self', [podIP], { endpoints }, { namespace }));
    };
    const ask = async (): Promise<string[]> => {
      const child = node.inNamespace(0, 'ask-each.js', ip, '80', ...Array<string>(8).fill(podIP));
      await child.end();
      return JSON.parse(child.output) as string[];
    };
    server.store.put(service('self', { clusterIP: ip }, { namespace }));
    pod('other');
    await until('it is served', () => count('endpoints') === 1);
    assert.deepEqual(await ask(), Array(8).fill('silence'));
    pod('alder');
    await until('it may reach itself', () => count('hairpin-connections') === 1);
    assert.deepEqual(await ask(), Array(8).fill('hello'));
  });
});
