/**
 * The program beside a real kube-apiserver and etcd, in every situation in which it could lose track of them. Of each: how long after
 * the server was right again the kernel's rules are. `make test-apiserver` runs this; RESILIENCE_DOCS=1 writes the table of
 * docs/resilience.md. REAL_LOGS=folder keeps what kube-proxy says.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { appendFileSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { enterNetworkNamespace, Random } from '@kube-proxy-ts/netlink/testing';
import { makeCertificates } from '../apiserver/certificates.js';
import { Relay } from '../apiserver/relay.js';
import { patiently } from '../patience.js';
import {
  type Child,
  nodeIP,
  ownNode,
  podIP,
  program,
  serviceIP,
  SmallNode,
  start,
  trafficResult,
} from '../process/node.js';
import { findBinaries } from './binaries.js';
import { type ApiObject, apiPort, ControlPlane, proxyToken } from './control-plane.js';
import { type Behaviour, Front } from './front.js';

const here = dirname(fileURLToPath(import.meta.url));
const execute = promisify(execFile);
const binaries = findBinaries();
const skip = typeof binaries === 'string' ? binaries : enterNetworkNamespace();
const rounds = Number(process.env['FAULT_ROUNDS'] ?? '20');

const namespace = 'orchard';
const service = (name: string, clusterIP: string): ApiObject => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace },
  spec: { clusterIP, clusterIPs: [clusterIP], ports: [{ port: 80, targetPort: 9000, protocol: 'TCP' }] },
});
const slice = (name: string, address: string): ApiObject => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name, namespace, labels: { 'kubernetes.io/service-name': name } },
  addressType: 'IPv4',
  ports: [{ name: '', port: 9000, protocol: 'TCP' }],
  endpoints: [{ addresses: [address], conditions: { ready: true }, nodeName: 'alder' }],
});

type Mode = 'nftables' | 'iptables';
const rulesOf = {
  nftables: {
    command: ['nft', 'list', 'map', 'ip', 'kube-proxy', 'endpoints'],
    endpoint: /: (10\.61\.\d+\.\d+) \. 9000/g,
  },
  iptables: {
    command: ['iptables-save', '-t', 'nat'],
    endpoint: /--to-destination (10\.61\.\d+\.\d+):9000/g,
  },
} as const;
const table: string[] = [];

describe('a real kube-apiserver and etcd', { skip, timeout: 1_800_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'kpp-real-'));
  const certificates = makeCertificates();
  const node = new SmallNode();
  let server: ControlPlane;
  let front: Relay;
  let proxy: Child | undefined;
  let traffic: Child | undefined;
  let mode: Mode = 'nftables';
  /** What the rules shall have: every Service has one endpoint, by the Service's name. */
  let wanted = new Map<string, string>();
  let made = 0;
  let title = '';

  // ------------------------------------------------------------ what is wanted, and what is there

  /** A Service that the rules shall have. */
  const add = async (): Promise<string> => {
    made++;
    const name = `s${made}`;
    const address = `10.61.${2 + (made >> 7)}.${1 + (made & 127)}`;
    await server.put(service(name, `10.177.${1 + (made >> 7)}.${1 + (made & 127)}`));
    await server.put(slice(name, address));
    wanted.set(name, address);
    return name;
  };
  const remove = async (name: string): Promise<void> => {
    await server.delete(service(name, ''));
    await server.delete(slice(name, ''));
    wanted.delete(name);
  };
  const inRules = async (): Promise<string> => {
    const { command, endpoint } = rulesOf[mode];
    const [file, ...args] = command;
    const { stdout } = await execute(file, args, { maxBuffer: 1e9 }).catch(() => ({ stdout: '' }));
    return [...new Set([...stdout.matchAll(endpoint)].map(([, address]) => address ?? ''))].sort().join(' ');
  };
  const wantedRules = (): string => [...new Set(wanted.values())].sort().join(' ');

  /** @returns seconds from `since` (performance.now()) until the rules are what is wanted */
  const rightSince = async (since: number, mostSeconds = 60): Promise<number> => {
    for (;;) {
      const found = await inRules();
      const seconds = (performance.now() - since) / 1000;
      if (found === wantedRules()) return seconds;
      if (seconds > patiently(mostSeconds)) {
        const log = proxy?.output.split('\n').slice(-40).join('\n') ?? '';
        assert.fail(
          `not right after ${mostSeconds} s\nwanted ${wantedRules()}\nfound  ${found}\n${log}\n${server.logs()}`,
        );
      }
      await sleep(10);
    }
  };
  const until = async (what: string, isSo: () => boolean | Promise<boolean>, seconds = 30): Promise<void> => {
    const deadline = performance.now() + patiently(seconds * 1000);
    while (!(await isSo())) {
      assert.ok(performance.now() < deadline, `${what}: not within ${seconds} s\n${proxy?.output ?? ''}`);
      await sleep(10);
    }
  };
  /** A row of the table. */
  const row = (t: TestContext, situation: string, most: number, ...seconds: readonly number[]): void => {
    const told = seconds.map((s) => s.toFixed(1)).join(', ');
    t.diagnostic(`${situation}: right after ${told} s`);
    table.push(`| ${situation} | ${told} s | ${most} s |`);
    assert.equal(proxy?.process.exitCode, null, 'the process lives');
    for (const s of seconds) assert.ok(s <= patiently(most), `${s} s, at most ${most}`);
  };

  // ------------------------------------------------------------ the program

  const kubeconfig = (name: string, port: number, user: object): string => {
    const path = join(folder, name);
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [
        { name: 'real', cluster: { server: `https://127.0.0.1:${port}`, 'certificate-authority': 'ca.crt' } },
      ],
      users: [{ name: 'me', user }],
      contexts: [{ name: 'real', context: { cluster: 'real', user: 'me' } }],
      'current-context': 'real',
    };
    writeFileSync(path, JSON.stringify(config));
    return path;
  };
  const withCertificate = { 'client-certificate': 'client.crt', 'client-key': 'client.key' };
  const throughFront = (): string => kubeconfig('front', front.port, withCertificate);
  const straight = (): string => kubeconfig('straight', apiPort, withCertificate);

  const launch = (config: string): Child => {
    const child = start(
      program,
      `--kubeconfig=${config}`,
      '--hostname-override=alder',
      '--cluster-cidr=10.61.0.0/16',
      `--proxy-mode=${mode}`,
      `--v=${process.env['REAL_V'] ?? '2'}`,
    );
    proxy = child;
    return child;
  };
  const end = async (): Promise<void> => {
    proxy?.kill('SIGTERM');
    await proxy?.end();
    const logs = process.env['REAL_LOGS'];
    if (logs !== undefined && proxy !== undefined) {
      appendFileSync(join(logs, 'kube-proxy.log'), `=== ${title}\n${proxy.output}`);
    }
    proxy = undefined;
  };
  /** Starts it, with traffic to a Service that never changes. */
  const settle = async (config: string): Promise<void> => {
    launch(config);
    await rightSince(performance.now());
    // What is open for a while is what is cut in life.
    await until('watches', () => (proxy?.output.match(/List complete/g) ?? []).length >= 4);
    await sleep(1000);
    traffic = await node.traffic(serviceIP, 80);
  };
  const noTrafficLost = async (): Promise<void> => {
    if (traffic === undefined) return;
    const child = traffic;
    traffic = undefined;
    const { newFailed, linesLost, newConnections, errors } = await trafficResult(child);
    assert.deepEqual({ newFailed, linesLost }, { newFailed: 0, linesLost: 0 }, errors.join());
    assert.ok(newConnections > 0);
  };

  /** The API server is away, and comes back. @returns when it was ready, performance.now() */
  const backAgain = async (): Promise<number> => {
    server.startApiserver();
    await server.ready();
    return performance.now();
  };
  /** Nothing passes while `work` is under way. @returns when the way was open again */
  const whileShut = async (work: () => Promise<void>): Promise<number> => {
    // A port where nobody listens.
    front.retarget(1);
    await work();
    front.retarget(apiPort);
    return performance.now();
  };
  /** Everybody is sent to another server for a while. */
  const detour = async (behaviour: Behaviour, ms: number): Promise<number> => {
    const other = await Front.start(certificates, behaviour);
    front.retarget(other.port);
    await sleep(ms);
    front.retarget(apiPort);
    const since = performance.now();
    await other.close();
    return since;
  };

  before(async () => {
    if (typeof binaries === 'string') return;
    await node.open();
    for (const [name, content] of [
      ['client.crt', certificates.clientCertificate],
      ['client.key', certificates.clientKey],
      ['token', proxyToken],
    ] as const) {
      writeFileSync(join(folder, name), content);
    }
    server = new ControlPlane(binaries, folder, certificates, nodeIP);
    front = await Relay.start(apiPort);
    server.startEtcd();
  });
  beforeEach((t) => {
    title = t.name;
  });
  afterEach(async () => {
    try {
      await noTrafficLost();
    } finally {
      await end();
    }
  });
  after(async () => {
    if (typeof binaries === 'string') return;
    await server.close();
    await front.close();
    await start(program, '--cleanup').end();
    await node.close();
    rmSync(folder, { recursive: true });
    writeDocs();
  });

  test('a new cluster: started together with a server that has not made its own rights yet', async (t) => {
    const started = performance.now();
    server.startApiserver();
    launch(straight());
    await server.ready();
    const ready = performance.now();
    for (const object of [
      ownNode,
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } },
      service('pear', serviceIP),
      slice('pear', podIP),
    ]) {
      await server.create(object);
    }
    wanted.set('pear', podIP);
    for (let n = 0; n < 12; n++) await add();
    const since = performance.now();
    t.diagnostic(`ready after ${((ready - started) / 1000).toFixed(1)} s`);
    row(t, 'a new cluster, kube-proxy started together with it', 5, await rightSince(since));
  });

  test('started together with a server that comes back', async (t) => {
    await server.killApiserver();
    launch(straight());
    const since = await backAgain();
    await add();
    row(t, 'started together with a server that comes back', 5, await rightSince(since));
  });

  for (const each of ['nftables', 'iptables'] as const) {
    test(`the server is away for 4 s, four times in a row, mode ${each}`, async (t) => {
      mode = each;
      await settle(straight());
      const took: number[] = [];
      for (let n = 0; n < 4; n++) {
        await server.killApiserver();
        await sleep(4000);
        const since = await backAgain();
        await add();
        took.push(await rightSince(since));
      }
      row(t, `the server is killed and comes back after 4 s, four times in a row, mode ${each}`, 3, ...took);
    });

    test(`${rounds} rounds of random faults, mode ${each}`, async (t) => {
      mode = each;
      await settle(throughFront());
      const random = new Random(each === 'nftables' ? 21 : 22);
      const took: number[] = [];
      for (let round = 0; round < rounds; round++) {
        let since = 0;
        for (let left = 1 + random.below(3); left > 0; left--) {
          since = await flap(random);
          if (left > 1) await sleep(500);
        }
        await add();
        took.push(await rightSince(since));
        await sleep(random.below(2000));
      }
      took.sort((a, b) => a - b);
      const median = took[took.length >> 1] ?? Infinity;
      const worst = took.at(-1) ?? Infinity;
      row(
        t,
        `${rounds} rounds of random faults of a second or two, mode ${each}: median, worst`,
        5,
        median,
        worst,
      );
      assert.ok(median <= patiently(rounds < 100 ? 2 : 1), `median ${median} s`);
      mode = 'nftables';
    });
  }

  const flaps: readonly (() => Promise<number>)[] = [429, 500, 503, 403, 401, 410]
    .map((status) => () => detour({ status }, 1500))
    .concat([
      () => whileShut(() => sleep(1500)),
      () => detour('hands on', 1500),
      () => detour('keeps silent', 1500),
      async () => {
        for (let n = 0; n < 4; n++) {
          front.retarget(apiPort);
          await sleep(400);
        }
        return performance.now();
      },
    ]);
  const flap = (random: Random): Promise<number> =>
    (flaps[random.below(flaps.length)] ?? (() => sleep(0).then(() => 0)))();

  test('a front that speaks only HTTP/1.1 for a while', async (t) => {
    await settle(throughFront());
    const page = await detour({ status: 429 }, 25_000);
    await add();
    row(
      t,
      "a load balancer's page (429, HTTP/1.1) for 25 s, then the server (HTTP/2)",
      5,
      await rightSince(page),
    );
    const since = await detour('hands on', 5000);
    await add();
    row(t, 'a proxy that speaks HTTP/1.1 for 5 s, then the server (HTTP/2)', 3, await rightSince(since));
  });

  test('etcd set back, and written past our version', async (t) => {
    await server.stopAll();
    server.backup();
    server.startAll();
    await server.ready();
    await settle(throughFront());
    const before = new Map(wanted);
    await remove([...wanted.keys()].at(-1) ?? '');
    for (let n = 0; n < 3; n++) await add();
    await rightSince(performance.now());
    const reached = await server.version();
    const since = await whileShut(async () => {
      await server.stopAll();
      server.restore();
      server.startAll();
      await server.ready();
      wanted = before;
      const name = await add();
      for (let n = 0; (await server.version()) <= reached; n++) {
        await server.put(slice(name, `10.61.200.${1 + (n % 250)}`));
      }
      await server.put(slice(name, wanted.get(name) ?? ''));
    });
    await add();
    row(
      t,
      'etcd set back to a copy, then written past the version that was known',
      5,
      await rightSince(since),
    );
  });

  test('etcd set back while all kinds watch', async (t) => {
    await server.stopAll();
    server.backup();
    server.startAll();
    await server.ready();
    await settle(straight());
    const before = new Map(wanted);
    await remove([...wanted.keys()].at(-1) ?? '');
    for (let n = 0; n < 30; n++) await add();
    await rightSince(performance.now());
    await server.stopAll();
    server.restore();
    server.startEtcd();
    const since = await backAgain();
    wanted = before;
    await add();
    row(
      t,
      'etcd set back to a copy, while all kinds watch at versions that do not exist yet',
      8,
      await rightSince(since),
    );
  });

  test('versions forgotten while the way is shut', async (t) => {
    await settle(throughFront());
    let mark = 0;
    const since = await whileShut(async () => {
      await sleep(10_000);
      await add();
      await server.killApiserver();
      server.startApiserver();
      await server.ready();
      await add();
      await server.compact();
      mark = server.auditBytes();
    });
    await add();
    row(t, 'versions forgotten (410) while the server was away for 15 s', 5, await rightSince(since));
    const lists = server
      .asked(mark)
      .filter(
        ({ uri }) => uri.searchParams.get('sendInitialEvents') === 'true' || !uri.searchParams.has('watch'),
      );
    assert.ok(lists.length > 0, 'there were lists');
    // A list without a version is read from etcd; with one, from the server's cache.
    for (const { uri } of lists) assert.ok(uri.searchParams.get('resourceVersion') !== null, uri.href);
  });

  test('a peer that is dead without a word', async (t) => {
    await settle(throughFront());
    const since = performance.now();
    front.loseConnections();
    await add();
    row(t, 'a connection whose other end is gone without a word', 30, await rightSince(since));
  });

  test('an etcd that hangs', async (t) => {
    await settle(throughFront());
    server.pauseEtcd(true);
    front.retarget(apiPort);
    await sleep(15_000);
    server.pauseEtcd(false);
    await server.ready();
    const since = performance.now();
    await add();
    row(t, 'an etcd that hangs for 15 s, connections cut', 5, await rightSince(since));
  });

  test('500 for everything, then streaming lists again', async (t) => {
    await settle(throughFront());
    const since = await detour({ status: 500 }, 5000);
    await add();
    row(t, '500 for everything for 5 s', 5, await rightSince(since));
  });

  test('requests that are taken and never answered', async (t) => {
    await settle(throughFront());
    const since = await detour('keeps silent', 5000);
    await add();
    row(t, 'a front that takes requests and never answers, for 5 s', 5, await rightSince(since));
  });

  test('a token file that is missing', async (t) => {
    await settle(kubeconfig('token-file', apiPort, { tokenFile: 'token' }));
    renameSync(join(folder, 'token'), join(folder, 'token-away'));
    await server.killApiserver();
    await sleep(4000);
    const since = await backAgain();
    await add();
    row(t, 'a token file that is missing when the server comes back', 3, await rightSince(since));
    renameSync(join(folder, 'token-away'), join(folder, 'token'));
  });

  test('streaming lists are compressed', async (t) => {
    const many = 2000;
    const names = Array.from({ length: many }, (_, n) => n);
    await Promise.all(
      Array.from({ length: 16 }, async () => {
        for (let n = names.pop(); n !== undefined; n = names.pop()) {
          await server.create(service(`many${n}`, `10.177.${100 + (n >> 7)}.${1 + (n & 127)}`));
          const endpoints = Array.from({ length: 10 }, (_, i) => ({
            addresses: [`10.62.${n >> 3}.${1 + (n & 7) * 10 + i}`],
            conditions: { ready: true, serving: true, terminating: false },
            nodeName: `node-${n % 100}`,
            targetRef: { kind: 'Pod', namespace, name: `many${n}-6c5d4f7b9d-x${i}`, uid: `${n}-${i}` },
          }));
          await server.create({ ...slice(`many${n}`, ''), endpoints });
        }
      }),
    );
    const plain =
      (await server.listBytes('/api/v1/services')) +
      (await server.listBytes('/apis/discovery.k8s.io/v1/endpointslices'));
    const mark = server.auditBytes();
    const before = front.bytesDown;
    await settle(throughFront());
    const bytes = front.bytesDown - before;
    t.diagnostic(`${many} Services with 10 endpoints: ${plain} bytes as they are, ${bytes} on the way`);
    assert.ok(server.asked(mark).some(({ uri }) => uri.searchParams.get('sendInitialEvents') === 'true'));
    assert.ok(!server.asked(mark).some(({ uri }) => uri.searchParams.has('limit')), 'no plain list');
    assert.ok(bytes < plain / 2, `${bytes} of ${plain} bytes`);
  });

  test('an empty etcd', async (t) => {
    await settle(straight());
    const held = new Map(wanted);
    await server.stopAll();
    server.empty();
    server.startEtcd();
    const since = await backAgain();
    await server.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } });
    await add();
    // The server takes 3 s to say that it does not have a version yet.
    row(t, 'an empty etcd: a new Service', 8, await rightSince(since));
    assert.match(proxy?.output ?? '', /held back/);
    // All that was there is served still.
    await noTrafficLost();
    wanted = new Map([...wanted].filter(([name]) => !held.has(name)));
    row(
      t,
      'an empty etcd: what it does not have is kept for a minute or two',
      125,
      await rightSince(since, 150),
    );
    assert.ok((performance.now() - since) / 1000 >= 60);
  });
});

function writeDocs(): void {
  if (process.env['RESILIENCE_DOCS'] !== '1') return;
  const page = join(here, '..', '..', '..', 'docs', 'resilience.md');
  const [begin, close] = [
    '<!-- a real server: written by test/realserver/situations.test.ts -->',
    '<!-- end of a real server -->',
  ];
  const text = readFileSync(page, 'utf8');
  const [head, rest] = text.split(begin);
  const tail = rest?.split(close)[1];
  assert.ok(head !== undefined && tail !== undefined, 'docs/resilience.md has both marks');
  const rows = ['| situation | right after | at most |', '| --- | --- | --- |', ...table].join('\n');
  writeFileSync(page, `${head}${begin}\n\n${rows}\n\n${close}${tail}`);
}
