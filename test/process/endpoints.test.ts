/**
 * What operators and load balancers see of the real program: its HTTP servers over IPv4 and IPv6, while the API server is
 * away, the Node is tainted or deleted, the kernel refuses everything, and while the program starts over in place.
 */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, createServer, request, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { lint, parseTextFormat, type Family } from '../../src/metrics/testing/text-format.js';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { ApiServer } from '../apiserver/server.js';
import { servedKinds } from '../apiserver/resources.js';
import { patiently } from '../patience.js';
import { type Child, program, start } from './node.js';

const skip = enterNetworkNamespace() || missingNft();

const nodeIP = '100.64.10.11';
const secondIP = '100.64.10.13';
const nodeIPv6 = 'fd00:64::11';
const healthPort = 32190;
/** Twice this is how long a change may wait for the kernel before the program is unhealthy. */
const syncPeriodMs = 1000;

const nodeObject = {
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name: 'alder' },
  status: {
    addresses: [
      { type: 'InternalIP', address: nodeIP },
      { type: 'InternalIP', address: nodeIPv6 },
    ],
  },
};
const tainted = {
  ...nodeObject,
  spec: { taints: [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }] },
};
const service = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'pear', namespace: 'orchard' },
  spec: {
    type: 'LoadBalancer',
    clusterIP: '10.177.0.50',
    clusterIPs: ['10.177.0.50', 'fd00:177::50'],
    ipFamilies: ['IPv4', 'IPv6'],
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: healthPort,
    ports: [{ name: 'web', port: 80, protocol: 'TCP', nodePort: 31050 }],
  },
};
/** @param pods addresses of pods on this node */
const slice = (family: 'IPv4' | 'IPv6', pods: readonly string[], changed?: Date) => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: {
    name: `pear-${family.toLowerCase()}`,
    namespace: 'orchard',
    labels: { 'kubernetes.io/service-name': 'pear' },
    ...(changed === undefined
      ? {}
      : { annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': changed.toISOString() } }),
  },
  addressType: family,
  ports: [{ name: 'web', port: 9000, protocol: 'TCP' }],
  endpoints: pods.map((address) => ({
    addresses: [address],
    conditions: { ready: true },
    nodeName: 'alder',
  })),
});

interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
  reused: boolean;
}

/** @throws Error when nobody listens */
async function ask(
  url: string,
  options: { method?: string; body?: string; agent?: Agent; headers?: Record<string, string> } = {},
): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const { body: sent, ...rest } = { signal: AbortSignal.timeout(patiently(10_000)), ...options };
    const asked = request(url, rest, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => (body += text));
      response.on('end', () => {
        const { statusCode = 0, headers } = response;
        resolve({ status: statusCode, headers, body, reused: asked.reusedSocket });
      });
    });
    asked.on('error', reject);
    asked.end(sent);
  });
}

async function isRefused(url: string): Promise<boolean> {
  return await ask(url).then(
    () => false,
    (error: unknown) => (error as NodeJS.ErrnoException).code === 'ECONNREFUSED',
  );
}

interface HealthBody {
  lastUpdated: string;
  currentTime: string;
  nodeEligible?: boolean;
  healthy: boolean;
  status?: Record<'IPv4' | 'IPv6', { lastUpdated: string; healthy: boolean }>;
  apiServer?: { state: string; staleSince?: string; error?: string };
  reasons?: string[];
}

const hosts = ['127.0.0.1', '[::1]'];

describe('endpoints of the program', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'kpp-endpoints-'));
  const configFile = join(folder, 'config.yaml');
  let port = 0;
  let server: ApiServer | undefined;
  let proxy: Child;

  const configuration = (extra = ''): string => `
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
enableProfiling: true
clusterCIDR: 10.61.0.0/16,fd00:61::/48
nodePortAddresses: [${nodeIP}/24, ${nodeIPv6}/64, 127.0.0.0/8]
nftables: { syncPeriod: ${syncPeriodMs}ms }
${extra}`;
  const health = async (path: '/healthz' | '/livez'): Promise<{ status: number; body: HealthBody }> => {
    const both = () => Promise.all(hosts.map((host) => ask(`http://${host}:10256${path}`)));
    let answers = await both();
    // It may have changed in between.
    if (answers[0]?.status !== answers[1]?.status) answers = await both();
    assert.equal(answers[0]?.status, answers[1]?.status, 'the same over IPv4 and IPv6');
    for (const { headers } of answers) {
      assert.equal(headers['content-type'], 'application/json');
      assert.equal(headers['x-content-type-options'], 'nosniff');
    }
    return { status: answers[0]?.status ?? 0, body: JSON.parse(answers[0]?.body ?? '') as HealthBody };
  };
  const until = async (what: string, isSo: () => Promise<boolean>, limitMs = 10_000): Promise<void> => {
    const deadline = Date.now() + patiently(limitMs);
    while (!(await isSo())) {
      if (Date.now() > deadline) throw new Error(`${what}: not within ${limitMs} ms\n${proxy.output}`);
      await sleep(20);
    }
  };
  const untilHealthz = async (status: number): Promise<HealthBody> => {
    await until(`/healthz ${status}`, async () => (await health('/healthz')).status === status);
    return (await health('/healthz')).body;
  };
  const startServer = async (node: object = nodeObject): Promise<ApiServer> => {
    const started = await ApiServer.start({ port });
    port = Number(new URL(started.url).port);
    for (const object of [node, service, slice('IPv4', ['10.61.1.31']), slice('IPv6', ['fd00:61::31'])])
      started.store.put(object);
    return started;
  };
  const remove = (kind: string, key: string): void => {
    const served = servedKinds.find((candidate) => candidate.kind === kind);
    if (served === undefined) throw new Error(`${kind} is not served`);
    server?.store.delete(served, key);
  };
  const metrics = async (): Promise<ReadonlyMap<string, Family>> =>
    parseTextFormat((await ask('http://127.0.0.1:10249/metrics')).body);
  /** Value of the series that has these labels. */
  const value = async (name: string, labels: Record<string, string> = {}): Promise<number | undefined> => {
    const all = [...(await metrics()).values()].flatMap(({ samples }) => samples);
    return all.find(
      (sample) =>
        sample.name === name &&
        Object.entries(labels).every(([label, text]) => sample.labels[label] === text),
    )?.value;
  };

  before(async () => {
    for (const ip of [nodeIP, secondIP]) run('ip', 'address', 'add', `${ip}/32`, 'dev', 'lo');
    run('ip', 'address', 'add', `${nodeIPv6}/128`, 'dev', 'lo', 'nodad');
    writeFileSync(configFile, configuration());
    // A port that is free, and nobody listens on it yet.
    const probe = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => probe.once('listening', resolve));
    port = (probe.address() as AddressInfo).port;
    await new Promise((resolve) => probe.close(resolve));
    proxy = start(
      program,
      `--config=${configFile}`,
      `--master=http://127.0.0.1:${port}`,
      '--hostname-override=alder',
      '--startup-timeout=0s',
    );
    await until('the health server', async () => !(await isRefused('http://127.0.0.1:10256/')));
    await until('the metrics server', async () => !(await isRefused('http://127.0.0.1:10249/')));
  });
  after(async () => {
    proxy.kill('SIGTERM');
    assert.equal(await proxy.end(), 0, proxy.output);
    await server?.close();
    rmSync(folder, { recursive: true });
  });

  test('without an API server: alive, not fit for traffic, and it says what it waits for', async () => {
    await until('the failure is known', async () => {
      const { body } = await health('/healthz');
      return body.apiServer?.error === 'KUBE_CONNECT_REFUSED';
    });
    const healthz = await health('/healthz');
    assert.equal(healthz.status, 503);
    assert.deepEqual(Object.keys(healthz.body), [
      'lastUpdated',
      'currentTime',
      'nodeEligible',
      'healthy',
      'apiServer',
      'reasons',
    ]);
    assert.equal(healthz.body.lastUpdated, '0001-01-01T00:00:00Z');
    assert.deepEqual(healthz.body.reasons, [
      'the Node object of this node is not known yet',
      'waiting for the first list of Service, EndpointSlice, Node',
    ]);
    const livez = await health('/livez');
    assert.equal(livez.status, 200);
    assert.equal(livez.body.healthy, true);
    assert.equal(livez.body.apiServer?.state, 'starting');
    assert.equal(await value('kubeproxyts_resource_synced', { resource: 'Service' }), 0);
    const host = `127.0.0.1:${port}`;
    assert.ok(((await value('rest_client_requests_total', { code: '<error>', host })) ?? 0) > 0);
  });

  test('the metrics server answers, too', async () => {
    assert.equal((await ask('http://127.0.0.1:10249/healthz')).body, 'ok');
    const { body, headers } = await ask('http://127.0.0.1:10249/proxyMode');
    assert.equal(body, 'nftables');
    assert.equal(headers['x-kube-proxy-mode-reason'], 'as configured');
    assert.equal(await isRefused('http://[::1]:10249/'), true, 'on the address that it was given only');
    assert.equal(await isRefused(`http://${nodeIP}:10249/`), true);
  });

  test('the API server comes: fit for traffic once the first rules are written', async () => {
    server = await startServer();
    const body = await untilHealthz(200);
    assert.deepEqual(Object.keys(body), [
      'lastUpdated',
      'currentTime',
      'nodeEligible',
      'healthy',
      'status',
      'apiServer',
    ]);
    assert.equal(body.lastUpdated, body.currentTime);
    assert.deepEqual(Object.keys(body.status ?? {}), ['IPv4', 'IPv6']);
    assert.match(body.currentTime, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*[1-9])?Z$/);
    assert.equal(body.apiServer?.state, 'current');
    assert.match(run('nft', 'list', 'map', 'ip', 'kube-proxy', 'endpoints'), /10\.61\.1\.31/);
  });

  describe('health check node ports', { skip }, () => {
    const families = [
      { family: 'IPv4', host: nodeIP, pods: ['10.61.1.31', '10.61.1.32'] },
      { family: 'IPv6', host: `[${nodeIPv6}]`, pods: ['fd00:61::31', 'fd00:61::32'] },
    ] as const;
    for (const { family, host, pods } of families) {
      test(`${family}: status, headers and body follow the local endpoints`, async () => {
        const url = `http://${host}:${healthPort}/any/path`;
        await until('it is open', async () => !(await isRefused(url)));
        for (const endpoints of [1, 2, 0, 1]) {
          server?.store.put(slice(family, pods.slice(0, endpoints)));
          await until(`${endpoints} endpoints`, async () => {
            const { headers } = await ask(url);
            return headers['x-load-balancing-endpoint-weight'] === String(endpoints);
          });
          for (const method of ['GET', 'POST', 'HEAD']) {
            const { status, headers, body } = await ask(url, { method });
            assert.equal(status, endpoints > 0 ? 200 : 503);
            assert.equal(headers['content-type'], 'application/json');
            assert.equal(headers['x-content-type-options'], 'nosniff');
            const text = `{\n\t"service": {\n\t\t"namespace": "orchard",\n\t\t"name": "pear"\n\t},\n\t"localEndpoints": ${endpoints},\n\t"serviceProxyHealthy": true\n}`;
            assert.equal(headers['content-length'], String(text.length));
            assert.equal(body, method === 'HEAD' ? '' : text);
          }
        }
      });
    }

    test('an address comes to the node and goes: it listens there, and kept connections elsewhere stay', async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const old = `http://${nodeIP}:${healthPort}/`;
      assert.equal((await ask(old, { agent })).status, 200);
      for (const [address, url] of [
        ['100.64.10.12/32', `http://100.64.10.12:${healthPort}/`],
        ['fd00:64::12/128', `http://[fd00:64::12]:${healthPort}/`],
      ] as const) {
        run('ip', 'address', 'add', address, 'dev', 'lo', ...(address.includes(':') ? ['nodad'] : []));
        await until(
          `it listens on ${address}`,
          async () => (await ask(url).catch(() => undefined))?.status === 200,
        );
        run('ip', 'address', 'delete', address, 'dev', 'lo');
        run('ip', 'address', 'add', address, 'dev', 'lo', ...(address.includes(':') ? ['nodad'] : []));
        run('ip', 'address', 'delete', address, 'dev', 'lo');
      }
      const again = await ask(old, { agent });
      assert.deepEqual([again.status, again.reused], [200, true]);
      agent.destroy();
    });

    test('the Service goes: its port closes, on kept connections as well', async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const url = `http://${nodeIP}:${healthPort}/`;
      assert.equal((await ask(url, { agent })).status, 200);
      remove('Service', 'orchard/pear');
      await until('refused', () => isRefused(url));
      await assert.rejects(ask(url, { agent }));
      agent.destroy();
      server?.store.put(service);
      await until('open again', async () => !(await isRefused(url)));
    });

    test('only the port changes: the new one answers within a second, on loopback addresses, too', async () => {
      const moved = { ...service, spec: { ...service.spec, healthCheckNodePort: healthPort + 1 } };
      server?.store.put(moved);
      for (const host of ['127.0.0.1', nodeIP, `[${nodeIPv6}]`]) {
        const url = `http://${host}:${healthPort + 1}/`;
        await until(url, async () => !(await isRefused(url)), 1000);
        assert.equal((await ask(url)).status, 200);
        assert.equal(await isRefused(`http://${host}:${healthPort}/`), true);
      }
      server?.store.put(service);
      await until('as before', async () => !(await isRefused(`http://${nodeIP}:${healthPort}/`)), 1000);
    });

    test('a Service becomes a load balancer that has no address, or one of the other family only', async () => {
      const plain = {
        ...service,
        spec: { ...service.spec, type: 'NodePort', healthCheckNodePort: undefined },
      };
      const ingress = (ip: string) => ({ ...service, status: { loadBalancer: { ingress: [{ ip }] } } });
      const urls = [nodeIP, `[${nodeIPv6}]`].map((host) => `http://${host}:${healthPort}/`);
      for (const balanced of [service, ingress('203.0.113.77'), ingress('2001:db8:77::77')]) {
        server?.store.put(plain);
        for (const url of urls) await until('closed', () => isRefused(url), 1000);
        server?.store.put(balanced);
        for (const url of urls) {
          await until(url, async () => !(await isRefused(url)), 1000);
          assert.equal((await ask(url)).status, 200);
        }
      }
      server?.store.put(service);
    });

    test('its port is taken: one event and a metric, and it opens when it is free', async () => {
      remove('Service', 'orchard/pear');
      await until('refused', () => isRefused(`http://${nodeIP}:${healthPort}/`));
      const thief = createServer().listen(healthPort, nodeIP);
      server?.store.put(service);
      const failed = (): Promise<number | undefined> =>
        value('kubeproxyts_health_check_node_ports_failed', { ip_family: 'IPv4' });
      await until('the metric tells', async () => (await failed()) === 1);
      assert.equal(
        (await ask(`http://${secondIP}:${healthPort}/`)).status,
        200,
        'the other addresses answer',
      );
      await proxy.waitFor('Failed to start healthcheck');
      assert.ok(server?.requests.some(({ target }) => target.includes('/namespaces/orchard/events')));
      await new Promise((resolve) => thief.close(resolve));
      await until('open', async () => !(await isRefused(`http://${nodeIP}:${healthPort}/`)));
      await until('the metric tells', async () => (await failed()) === 0);
    });
  });

  const nodes: [what: string, change: () => unknown, eligible: boolean][] = [
    ['tainted', () => server?.store.put(tainted), false],
    ['no longer tainted', () => server?.store.put(nodeObject), true],
    [
      'deleted',
      () => {
        remove('Node', 'alder');
      },
      false,
    ],
    ['there again', () => server?.store.put(nodeObject), true],
  ];
  for (const [what, change, eligible] of nodes) {
    test(`the Node is ${what}: /healthz ${eligible ? 200 : 503}, /livez 200`, async () => {
      change();
      const body = await untilHealthz(eligible ? 200 : 503);
      assert.equal(body.nodeEligible, eligible);
      assert.equal(body.healthy, true);
      assert.equal(body.reasons?.length, eligible ? undefined : 1);
      assert.equal((await health('/livez')).status, 200);
      assert.equal(
        (await ask(`http://${nodeIP}:${healthPort}/`)).status,
        200,
        'local endpoints are as good as before',
      );
    });
  }

  test('the kernel refuses everything: unhealthy after two sync periods, everywhere; healthy when it gives in', async () => {
    const failures = (): Promise<number | undefined> =>
      value('kubeproxy_sync_proxy_rules_nftables_sync_failures_total', { ip_family: 'IPv4' });
    const before = (await failures()) ?? 0;
    const owner = takeOwnership();
    await until("the table is somebody else's", () =>
      Promise.resolve(proxy.output.includes('Failed to program')),
    );
    server?.store.put(slice('IPv4', ['10.61.1.31', '10.61.1.33'], new Date()));
    const body = await untilHealthz(503);
    assert.equal(body.nodeEligible, true);
    assert.equal(body.healthy, false);
    assert.deepEqual(body.status?.IPv4.healthy, false);
    assert.deepEqual(body.status.IPv6.healthy, true);
    assert.ok(body.lastUpdated < body.currentTime);
    assert.deepEqual(body.reasons, [
      `IPv4: a change waits for the kernel for more than ${(2 * syncPeriodMs) / 1000} s`,
    ]);
    assert.equal((await health('/livez')).status, 503);
    for (const host of [nodeIP, `[${nodeIPv6}]`]) {
      const check = await ask(`http://${host}:${healthPort}/`);
      assert.equal(check.status, 503);
      assert.match(check.body, /"localEndpoints": [12],\n\t"serviceProxyHealthy": false/);
    }
    assert.ok(((await failures()) ?? 0) > before);
    const queued = await value('kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds', {
      ip_family: 'IPv4',
    });
    const done = await value('kubeproxy_sync_proxy_rules_last_timestamp_seconds', { ip_family: 'IPv4' });
    assert.ok((queued ?? 0) > (done ?? Infinity), 'as alerts on the age of changes expect');
    // Ends the ownership, and with it the table.
    owner.kill('SIGKILL');
    await untilHealthz(200);
    assert.equal((await health('/livez')).status, 200);
    assert.match(run('nft', 'list', 'map', 'ip', 'kube-proxy', 'endpoints'), /10\.61\.1\.33/);
    const waited = await value('kubeproxy_network_programming_duration_seconds_sum', { ip_family: 'IPv4' });
    assert.ok((waited ?? 0) > (2 * syncPeriodMs) / 1000, 'the time in which it failed counts');
    assert.ok(((await value('kubeproxyts_kernel_repairs_total', { ip_family: 'IPv4' })) ?? 0) >= 1);
  });

  test('metrics are what promtool accepts, and they tell what happened', async () => {
    const families = await metrics();
    assert.deepEqual(lint(families.values()), [
      'kubeproxy_sync_proxy_rules_no_local_endpoints_total: not a counter, but its name ends with _total',
    ]);
    const host = `127.0.0.1:${port}`;
    const positive: [name: string, labels?: Record<string, string>][] = [
      ['kubeproxy_sync_proxy_rules_duration_seconds_count', { ip_family: 'IPv4' }],
      ['kubeproxy_sync_full_proxy_rules_duration_seconds_count', { ip_family: 'IPv6' }],
      ['kubeproxy_sync_partial_proxy_rules_duration_seconds_count', { ip_family: 'IPv4' }],
      ['kubeproxy_sync_proxy_rules_last_timestamp_seconds', { ip_family: 'IPv6' }],
      ['kubeproxy_sync_proxy_rules_service_changes_total'],
      ['kubeproxy_sync_proxy_rules_endpoint_changes_total'],
      ['kubeproxy_proxy_healthz_total', { code: '503' }],
      ['kubeproxy_proxy_livez_total', { code: '200' }],
      ['kubeproxyts_kernel_transactions_total', { ip_family: 'IPv4' }],
      ['kubeproxyts_kernel_elements_written_total', { ip_family: 'IPv6' }],
      ['kubeproxyts_conntrack_entries_limit'],
      ['kubeproxyts_resource_watched', { resource: 'EndpointSlice' }],
      ['rest_client_requests_total', { code: '200', method: 'GET', host }],
      ['rest_client_request_duration_seconds_count', { verb: 'GET', host }],
      ['kubernetes_build_info', { major: '1', minor: '37' }],
      ['kubernetes_feature_enabled', { name: 'ComponentStatusz', stage: 'BETA' }],
      ['nodejs_eventloop_lag_p99_seconds'],
      ['process_cpu_seconds_total'],
    ];
    for (const [name, labels] of positive) {
      const found = await value(name, labels);
      assert.ok((found ?? 0) > 0, `${name} ${JSON.stringify(labels)}: ${found ?? 'missing'}`);
    }
    assert.equal(await value('kubeproxy_sync_proxy_rules_endpoint_changes_pending'), 0);
    assert.equal(await value('kubeproxy_sync_proxy_rules_service_changes_pending'), 0);
    const gaps = { traffic_policy: 'external', ip_family: 'IPv4' };
    assert.equal(await value('kubeproxy_sync_proxy_rules_no_local_endpoints_total', gaps), 0);
  });

  test('pages of the metrics server', async () => {
    const page = async (path: string, options: Parameters<typeof ask>[1] = {}): Promise<string> => {
      const { status, body } = await ask(`http://127.0.0.1:10249${path}`, options);
      assert.equal(status, 200, path);
      return body;
    };
    const configz = JSON.parse(await page('/configz')) as Record<string, Record<string, unknown>>;
    assert.equal(configz['kubeproxy.config.k8s.io']?.['mode'], 'nftables');
    assert.match(await page('/flagz'), /\nhostname-override: alder\n/);
    assert.match(await page('/statusz'), /\nPaths: \/configz \/flagz \/healthz \/metrics \/proxyMode\n/);
    const profile = JSON.parse(await page('/debug/pprof/profile?seconds=0.1')) as { nodes: unknown[] };
    assert.ok(profile.nodes.length > 1);
    assert.equal(proxy.output.includes('Sync complete'), false);
    await page('/debug/flags/v', { method: 'PUT', body: '2' });
    server?.store.put(slice('IPv4', ['10.61.1.34']));
    await proxy.waitFor('Sync complete');
  });

  test('it starts over in place: the servers stay up, and nobody is told to go away', async () => {
    const bad: string[] = [];
    let asked = 0;
    const abort = new AbortController();
    const asking = (async () => {
      while (!abort.signal.aborted) {
        const { status, body } = await ask('http://127.0.0.1:10256/healthz').catch((error: unknown) => ({
          status: 0,
          body: String(error),
        }));
        asked++;
        if (status !== 200) bad.push(`${status} ${body}`);
        await sleep(5);
      }
    })();
    const syncs = (): number => proxy.output.split('"Resync complete"').length;
    const before = syncs();
    writeFileSync(configFile, configuration('oomScoreAdj: -998'));
    await proxy.waitFor('Reloading in place');
    await until('both families are compared', () => Promise.resolve(syncs() >= before + 2), 15_000);
    abort.abort();
    await asking;
    assert.deepEqual(bad, []);
    assert.ok(asked > 5);
    assert.ok(((await value('kubeproxy_proxy_healthz_total', { code: '200' })) ?? 0) >= asked, 'counted on');
  });

  test('the API server goes away: the node stays fit for traffic, and it says since when nothing is known', async () => {
    await server?.close();
    await until(
      'it is noticed',
      async () => (await health('/healthz')).body.apiServer?.state === 'stale',
      40_000,
    );
    const healthz = await health('/healthz');
    assert.equal(healthz.status, 200);
    assert.match(healthz.body.apiServer?.staleSince ?? '', /^20\d\d-/);
    assert.equal(healthz.body.apiServer?.error, 'KUBE_CONNECT_REFUSED');
    assert.equal((await health('/livez')).status, 200);
    assert.equal(await value('kubeproxyts_resource_watched', { resource: 'Service' }), 0);
    server = await startServer(tainted);
    // The real one's versions only grow; this one began anew.
    for (let i = 0; i < 200; i++) server.store.put(tainted);
    await until(
      'it is current',
      async () => (await health('/healthz')).body.apiServer?.state === 'current',
      40_000,
    );
    await untilHealthz(503);
  });
});

/** Makes the table of IPv4 another process's own: the kernel lets nobody else change it until that process ends. */
function takeOwnership(): ChildProcess {
  const nft = spawn('nft', ['-i'], { stdio: ['pipe', 'ignore', 'inherit'] });
  nft.stdin.write('delete table ip kube-proxy; add table ip kube-proxy { flags owner; }\n');
  return nft;
}

describe('a server that must not fail', { skip }, () => {
  const cases: [what: string, flag: string, reason: string][] = [
    ['health', '--healthz-bind-address', 'FailedToStartProxierHealthcheck'],
    ['metrics', '--metrics-bind-address', 'FailedToStartMetricServer'],
  ];
  for (const [what, flag, reason] of cases) {
    for (const host of hosts) {
      test(`${what} port taken on ${host}: an event on the Node, and exit code 10`, async () => {
        const events: Record<string, unknown>[] = [];
        const api = createServer((asked, response) => {
          let body = '';
          asked.setEncoding('utf8').on('data', (text: string) => (body += text));
          asked.on('end', () => {
            if (asked.method === 'POST') events.push(JSON.parse(body) as Record<string, unknown>);
            response.writeHead(201, { 'content-type': 'application/json' }).end('{}');
          });
        });
        const thief = createServer();
        const ports = await Promise.all(
          [api, thief].map(async (listener: Server) => {
            listener.listen(0, host.replaceAll(/[[\]]/g, ''));
            await new Promise((resolve) => listener.once('listening', resolve));
            return (listener.address() as AddressInfo).port;
          }),
        );
        const address = `${host}:${ports[1] ?? 0}`;
        const proxy = start(
          program,
          `--master=http://${host}:${ports[0] ?? 0}`,
          '--hostname-override=alder',
          '--bind-address-hard-fail',
          `${flag}=${address}`,
        );
        assert.equal(await proxy.end(20_000), 10, proxy.output);
        const [event] = events;
        assert.equal(event?.['reason'], reason);
        assert.equal(event['type'], 'Warning');
        assert.equal(event['action'], 'StartKubeProxy');
        assert.deepEqual(event['regarding'], { apiVersion: 'v1', kind: 'Node', name: 'alder' });
        assert.match(
          String(event['note']),
          new RegExp(`^${what} server: cannot listen on .*: the port is taken`),
        );
        assert.equal(events.length, 1);
        for (const listener of [api, thief]) {
          listener.close();
          listener.closeAllConnections();
        }
      });
    }
  }
});
