/** The source against the API server double: what the sink sees when things go well, and when they do not. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect as connectTcp, type Socket } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { makeCertificates, type CertificateSet } from '../../../test/apiserver/certificates.js';
import { Relay } from '../../../test/apiserver/relay.js';
import { ApiServer, type ApiServerOptions } from '../../../test/apiserver/server.js';
import { servedKinds } from '../../../test/apiserver/resources.js';
import type { LogFields, Logger } from '../../log/logger.js';
import { loadCredentials, type ApiCredentials, type TlsMaterial } from './auth/credentials.js';
import { KubeError } from './errors.js';
import { dial } from './client/dial.js';
import type { ClusterSink, EndpointSlice, Node, ResourceKind, Service, ServiceCIDR } from '../objects.js';
import { ApiServerSource, type ApiSourceOptions } from './source.js';
import { userAgent } from './auth/user-agent.js';

class Recorder implements ClusterSink {
  /** 'service a/b 10.96.0.1', 'service a/b gone', 'synced Service', 'flush'. */
  readonly calls: string[] = [];
  readonly services = new Map<string, Service>();
  readonly slices = new Map<string, EndpointSlice>();
  readonly syncedKinds = new Set<ResourceKind>();
  readonly lines: { level: string; message: string; error: unknown; fields: LogFields }[] = [];

  service(key: string, object: Service | undefined): void {
    this.calls.push(`service ${key} ${object?.clusterIP ?? 'gone'}`);
    if (object === undefined) this.services.delete(key);
    else this.services.set(key, object);
  }
  endpointSlice(key: string, object: EndpointSlice | undefined): void {
    this.calls.push(`slice ${key} ${object?.endpoints.map((e) => e.address).join() ?? 'gone'}`);
    if (object === undefined) this.slices.delete(key);
    else this.slices.set(key, object);
  }
  node(key: string, object: Node | undefined): void {
    this.calls.push(`node ${key} ${object === undefined ? 'gone' : (object.zone ?? '')}`);
  }
  serviceCIDR(key: string, object: ServiceCIDR | undefined): void {
    this.calls.push(`cidr ${key} ${object?.cidrs.join() ?? 'gone'}`);
  }
  synced(kind: ResourceKind): void {
    this.calls.push(`synced ${kind}`);
    this.syncedKinds.add(kind);
  }
  flush(): void {
    this.calls.push('flush');
  }

  /** Calls since the last time, without flushes. */
  take(): string[] {
    return this.calls.splice(0).filter((call) => call !== 'flush');
  }

  errors(): string[] {
    return this.lines
      .filter((line) => line.level === 'error')
      .map(({ message, error }) => `${message}: ${error instanceof Error ? error.message : ''}`);
  }

  readonly logger: Logger = {
    info: (message, fields = {}) =>
      void this.lines.push({ level: 'info', message, error: undefined, fields }),
    warn: (message, fields = {}) =>
      void this.lines.push({ level: 'warn', message, error: undefined, fields }),
    error: (message, error, fields = {}) => void this.lines.push({ level: 'error', message, error, fields }),
    debug: (level, message, fields = {}) =>
      void this.lines.push({ level: `debug ${level}`, message, error: undefined, fields }),
    named: () => this.logger,
  };
}

async function until(what: string, done: () => boolean, recorder?: Recorder): Promise<void> {
  const deadline = Date.now() + 4000;
  while (!done()) {
    if (Date.now() > deadline) {
      assert.fail(
        `waited in vain: ${what}${recorder === undefined ? '' : `\n${recorder.calls.join('\n')}\n${recorder.lines.map((l) => JSON.stringify({ ...l, error: String(l.error) })).join('\n')}`}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
}

const service = (name: string, ip: string, more: object = {}): object => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'a', ...more },
  spec: { clusterIP: ip, ports: [{ port: 80 }] },
});
const slice = (name: string, address: string): object => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name, namespace: 'a', labels: { 'kubernetes.io/service-name': 'web' } },
  addressType: 'IPv4',
  ports: [{ port: 8080 }],
  endpoints: [{ addresses: [address] }],
});
const [serviceKind, nodeKind] = servedKinds;
assert.ok(serviceKind !== undefined && nodeKind !== undefined);

const quickBackoff = { firstMs: 20, maxMs: 100 };

interface Setup {
  readonly server: ApiServer;
  readonly recorder: Recorder;
  readonly source: ApiServerSource;
}

async function connect(
  t: TestContext,
  url: string,
  options: Partial<ApiSourceOptions> = {},
  credentials?: ApiCredentials,
): Promise<Omit<Setup, 'server'>> {
  const recorder = new Recorder();
  const connection = credentials ?? (await loadCredentials({ master: url }, recorder.logger));
  const source = new ApiServerSource(
    {
      connection,
      nodeName: 'node-1',
      kinds: ['Service'],
      ...options,
      timings: { backoff: quickBackoff, ...options.timings },
    },
    recorder,
    recorder.logger,
  );
  t.after(() => source.stop());
  return { recorder, source };
}

async function serve(t: TestContext, options: ApiServerOptions = {}): Promise<ApiServer> {
  const server = await ApiServer.start(options);
  t.after(() => server.close());
  return server;
}

/** A running server with two services, and a source that has them. */
async function setup(
  t: TestContext,
  serverOptions: ApiServerOptions = {},
  options: Partial<ApiSourceOptions> = {},
  secure = false,
): Promise<Setup> {
  const server = await serve(t, serverOptions);
  server.store.put(service('one', '10.96.0.1'));
  server.store.put(service('two', '10.96.0.2'));
  const { recorder, source } = await connect(
    t,
    server.url,
    options,
    secure ? credentialsFor(server) : undefined,
  );
  source.start();
  await until('the first list', () => recorder.syncedKinds.has('Service') && watching(source), recorder);
  assert.deepEqual(recorder.take(), ['service a/one 10.96.0.1', 'service a/two 10.96.0.2', 'synced Service']);
  return { server, recorder, source };
}

const watching = (source: ApiServerSource): boolean => source.status().Service?.watching === true;
const watchRequests = (server: ApiServer): number =>
  server.requests.filter(({ target }) => target.includes('watch=1')).length;
const listRequests = (server: ApiServer): string[] =>
  server.requests.map(({ target }) => target).filter((target) => !target.includes('watch=1'));

let madeCertificates: CertificateSet | undefined;
const certificates = (): CertificateSet => (madeCertificates ??= makeCertificates());

function credentialsFor(server: ApiServer, more: Partial<ApiCredentials> = {}): ApiCredentials {
  const { authority, clientCertificate, clientKey } = certificates();
  return {
    server: new URL(server.url),
    proxy: undefined,
    source: 'the test',
    tls: () => Promise.resolve({ ca: Buffer.from(authority), cert: clientCertificate, key: clientKey }),
    headers: () => Promise.resolve({}),
    rejected: () => undefined,
    ...more,
  };
}

// ---------------------------------------------------------------- when all goes well

for (const transport of ['http', 'https with HTTP/1.1', 'https with HTTP/2'] as const) {
  for (const contentType of ['protobuf', 'json'] as const) {
    for (const streamingLists of ['on', 'refused', 'invalid'] as const) {
      test(`${transport}, ${contentType}, streaming lists ${streamingLists}: list, then follow`, async (t) => {
        const server = await serve(t, {
          streamingLists,
          ...(transport === 'http'
            ? {}
            : { tls: certificates(), http2: transport === 'https with HTTP/2', clientCertificates: true }),
        });
        server.store.put(service('web', '10.96.0.1'));
        server.store.put(service('headless', 'None'));
        server.store.put(
          service('foreign', '10.96.0.2', { labels: { 'service.kubernetes.io/service-proxy-name': '' } }),
        );
        server.store.put(slice('web-1', '10.0.0.1'));
        for (const name of ['node-1', 'node-2']) {
          server.store.put({
            apiVersion: 'v1',
            kind: 'Node',
            metadata: { name, labels: { 'topology.kubernetes.io/zone': 'z1' } },
          });
        }
        server.store.put({
          apiVersion: 'networking.k8s.io/v1',
          kind: 'ServiceCIDR',
          metadata: { name: 'kubernetes' },
          spec: { cidrs: ['10.96.0.0/12'] },
        });
        const { recorder, source } = await connect(
          t,
          server.url,
          { contentType, kinds: ['Service', 'EndpointSlice', 'Node', 'ServiceCIDR'] },
          transport === 'http' ? undefined : credentialsFor(server),
        );
        source.start();
        await until(
          'all kinds',
          () =>
            recorder.syncedKinds.size === 4 &&
            Object.values(source.status()).every((status) => status.watching) &&
            server.watches.length === 4,
          recorder,
        );
        assert.deepEqual(recorder.take().sort(), [
          'cidr kubernetes 10.96.0.0/12',
          'node node-1 z1',
          'service a/web 10.96.0.1',
          'slice a/web-1 10.0.0.1',
          'synced EndpointSlice',
          'synced Node',
          'synced Service',
          'synced ServiceCIDR',
        ]);
        const asked = contentType === 'json' ? 'application/json' : 'application/vnd.kubernetes.protobuf';
        assert.ok(server.requests.every(({ accept }) => accept.startsWith(asked)));
        const version = transport === 'https with HTTP/2' ? '2.0' : '1.1';
        assert.ok(server.requests.every(({ httpVersion }) => httpVersion === version));

        server.store.put(slice('web-1', '10.0.0.2'));
        await until('the change', () => recorder.calls.length >= 2, recorder);
        assert.deepEqual(recorder.calls.splice(0), ['slice a/web-1 10.0.0.2', 'flush']);
        // The label of another proxy makes the Service leave our selection.
        server.store.put(
          service('web', '10.96.0.1', { labels: { 'service.kubernetes.io/service-proxy-name': 'x' } }),
        );
        await until('the removal', () => recorder.calls.length >= 2, recorder);
        assert.deepEqual(recorder.calls.splice(0), ['service a/web gone', 'flush']);
        server.store.put(service('web', '10.96.0.3'));
        await until('the return', () => recorder.calls.length >= 2, recorder);
        assert.deepEqual(recorder.calls.splice(0), ['service a/web 10.96.0.3', 'flush']);
        assert.deepEqual(recorder.errors(), []);
        assert.equal(source.status().Service?.lastError, undefined);
      });
    }
  }
}

test('all requests share one HTTP/2 connection', async (t) => {
  const server = await serve(t, { tls: certificates(), streamingLists: 'refused' });
  server.store.put(service('one', '10.96.0.1'));
  const relay = await Relay.start(server.port);
  t.after(() => relay.close());
  const { recorder, source } = await connect(
    t,
    '',
    { kinds: ['Service', 'EndpointSlice', 'Node', 'ServiceCIDR'] },
    credentialsFor(server, { server: new URL(`https://127.0.0.1:${relay.port}`) }),
  );
  source.start();
  await until('all watches', () => server.watches.length === 4, recorder);
  assert.equal(relay.connections, 1);
});

test('small chunks and compressed lists', async (t) => {
  const { server, recorder } = await setup(t, { streamingLists: 'refused', gzipFrom: 1, chunkBytes: 7 });
  server.store.put(service('one', '10.96.0.9'));
  await until('the change', () => recorder.calls.length >= 2, recorder);
  assert.deepEqual(recorder.take(), ['service a/one 10.96.0.9']);
});

test('lists come in pages', async (t) => {
  const server = await serve(t, { streamingLists: 'invalid' });
  for (let i = 0; i < 7; i++) server.store.put(service(`s${i}`, `10.96.0.${i + 1}`));
  const { recorder, source } = await connect(t, server.url, { pageSize: 3 });
  source.start();
  await until('the list', () => recorder.syncedKinds.size === 1, recorder);
  assert.equal(recorder.services.size, 7);
  const lists = listRequests(server);
  assert.equal(lists.length, 3);
  assert.match(lists[0] ?? '', /limit=3&resourceVersion=0$/);
  assert.match(lists[2] ?? '', /limit=3&continue=/);
  assert.doesNotMatch(lists[2] ?? '', /resourceVersion/);
});

test('bookmarks move the version on, so that a later reconnect is cheap', async (t) => {
  const { server, recorder, source } = await setup(t);
  server.store.put(service('x', 'None'));
  server.bookmark();
  await until('the bookmark', () => recorder.calls.length >= 1, recorder);
  server.endWatches();
  await until('the next watch', () => watching(source) && watchRequests(server) === 2, recorder);
  assert.match(server.requests.at(-1)?.target ?? '', new RegExp(`resourceVersion=${server.store.version}$`));
  assert.deepEqual(recorder.take(), []);
});

test('GOAWAY: the open watch goes on, the next request uses a new connection', async (t) => {
  const server = await serve(t, { tls: certificates() });
  server.store.put(service('one', '10.96.0.1'));
  const relay = await Relay.start(server.port);
  t.after(() => relay.close());
  const { recorder, source } = await connect(
    t,
    '',
    {},
    credentialsFor(server, { server: new URL(`https://127.0.0.1:${relay.port}`) }),
  );
  source.start();
  await until('the watch', () => watching(source), recorder);
  server.goAway();
  server.store.put(service('one', '10.96.0.2'));
  await until('the change', () => recorder.services.get('a/one')?.clusterIP === '10.96.0.2', recorder);
  assert.equal(relay.connections, 1);
  server.endWatches();
  await until('the next watch', () => watching(source) && watchRequests(server) === 2, recorder);
  assert.equal(relay.connections, 2);
  assert.deepEqual(recorder.errors(), []);
});

test('through an HTTP proxy', async (t) => {
  const server = await serve(t, { tls: certificates() });
  server.store.put(service('one', '10.96.0.1'));
  const asked: string[] = [];
  const proxy = createServer();
  proxy.on('connect', (request, client: Socket) => {
    asked.push(`${request.url ?? ''} ${request.headers['proxy-authorization'] ?? ''}`);
    const upstream = connectTcp(server.port, '127.0.0.1', () => {
      client.write('HTTP/1.1 200 Connection established\r\n\r\n');
      client.pipe(upstream).pipe(client);
    });
    client.on('error', () => upstream.destroy());
    upstream.on('error', () => client.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    proxy.closeAllConnections();
    proxy.close();
  });
  const address = proxy.address();
  assert.ok(typeof address === 'object' && address !== null);
  const { recorder, source } = await connect(
    t,
    '',
    {},
    credentialsFor(server, { proxy: new URL(`http://me:pass@127.0.0.1:${address.port}`) }),
  );
  source.start();
  await until('the list', () => recorder.services.size === 1, recorder);
  assert.deepEqual(asked, [`127.0.0.1:${server.port} Basic ${Buffer.from('me:pass').toString('base64')}`]);
});

test('the same trouble of all kinds is one line in the log, and its end is told', async (t) => {
  const server = await ApiServer.start();
  const { port, url } = server;
  await server.close();
  const { recorder, source } = await connect(t, url, { kinds: ['Service', 'EndpointSlice', 'Node'] });
  source.start();
  const failed = (): boolean =>
    Object.values(source.status()).every((status) => status.lastError?.code === 'KUBE_CONNECT_REFUSED');
  await until('the failures', failed, recorder);
  assert.equal(recorder.errors().length, 1);
  await serve(t, { port });
  await until('all kinds', () => recorder.syncedKinds.size === 3, recorder);
  assert.ok(recorder.lines.some(({ message }) => message === 'API server connection restored'));
});

for (const status of [429, 503]) {
  test(`${status} for all kinds: the message once, then kind, code and the next try`, async (t) => {
    const server = await serve(t);
    server.failNext({ status, count: 1000 });
    const { recorder, source } = await connect(t, server.url, {
      kinds: ['Service', 'EndpointSlice', 'Node'],
    });
    source.start();
    const again = (): LogFields[] =>
      recorder.lines
        .filter(({ message }) => message === 'API server still unreachable')
        .map(({ fields }) => fields);
    const tries = (kind: string): number => again().filter((fields) => fields['kind'] === kind).length;
    await until(
      'later tries',
      () => ['Service', 'EndpointSlice', 'Node'].every((kind) => tries(kind) > 1),
      recorder,
    );
    assert.equal(recorder.errors().length, 1, recorder.errors().join('\n'));
    for (const fields of again()) {
      assert.deepEqual(Object.keys(fields), ['kind', 'code', 'status', 'retryInSeconds']);
      assert.equal(fields['status'], status);
    }
  });
}

test('403 names each kind that is not granted, once', async (t) => {
  const server = await serve(t);
  server.failNext({ status: 403, count: 1000 });
  const { recorder, source } = await connect(t, server.url, { kinds: ['Service', 'EndpointSlice'] });
  source.start();
  await until('later tries', () => recorder.lines.length > 6, recorder);
  assert.deepEqual(
    recorder
      .errors()
      .map((text) => /list (services|endpointslices)|watch (services|endpointslices)/.exec(text)?.[0])
      .sort(),
    ['watch endpointslices', 'watch services'],
  );
});

// ---------------------------------------------------------------- servers that lack something

test('a server that ignores the wish for initial events does not hang us', async (t) => {
  const server = await serve(t, { streamingLists: 'ignored' });
  server.store.put(service('one', '10.96.0.1'));
  const { recorder, source } = await connect(t, server.url, { timings: { initialEventsStallMs: 60 } });
  source.start();
  await until('the list', () => recorder.syncedKinds.size === 1 && watching(source), recorder);
  // Delivered by the watch, then found unchanged by the list.
  assert.deepEqual(recorder.take(), ['service a/one 10.96.0.1', 'synced Service']);
});

test('streaming lists are not asked for when they are switched off', async (t) => {
  const server = await serve(t);
  const { recorder, source } = await connect(t, server.url, { streamingLists: false });
  source.start();
  await until('the list', () => recorder.syncedKinds.size === 1 && watching(source), recorder);
  assert.equal(server.requests.filter(({ target }) => target.includes('sendInitialEvents')).length, 0);
});

test('a refusal of streaming lists is remembered for all kinds', async (t) => {
  const { server, recorder, source } = await setup(t, { streamingLists: 'refused' });
  server.compact(true);
  await until('the new list', () => listRequests(server).length === 2 && watching(source), recorder);
  assert.equal(server.requests.filter(({ target }) => target.includes('sendInitialEvents')).length, 1);
});

for (const protobuf of ['off', 'refused'] as const) {
  test(`a server where protobuf is ${protobuf} is read in JSON`, async (t) => {
    const { server, recorder } = await setup(t, { protobuf });
    server.store.put(service('one', '10.96.0.9'));
    await until('the change', () => recorder.calls.length >= 2, recorder);
    assert.deepEqual(recorder.take(), ['service a/one 10.96.0.9']);
  });
}

for (const status of [404, 403]) {
  test(`service CIDRs that answer ${status} count as none`, async (t) => {
    const server = await serve(t);
    server.failNext({ status, count: 100, match: 'servicecidrs' });
    const { recorder, source } = await connect(t, server.url, { kinds: ['ServiceCIDR'] });
    source.start();
    await until('synced', () => recorder.syncedKinds.has('ServiceCIDR'), recorder);
    assert.deepEqual(recorder.errors(), []);
    assert.equal(source.status().ServiceCIDR?.lastError, undefined);
    assert.equal(recorder.lines.filter(({ message }) => message.includes('does not serve')).length, 1);
  });
}

const kubernetesCIDR = {
  apiVersion: 'networking.k8s.io/v1',
  kind: 'ServiceCIDR',
  metadata: { name: 'kubernetes' },
  spec: { cidrs: ['10.96.0.0/12'] },
};

for (const status of [404, 403]) {
  test(`service CIDRs that answer ${status} once are there again soon, and what was known stays`, async (t) => {
    const server = await serve(t);
    server.store.put(kubernetesCIDR);
    server.failNext({ status, count: 1, match: 'servicecidrs' });
    // Minutes, as in life: nothing here may wait for that.
    const timings = { absentRetryMs: 300_000 };
    const { recorder, source } = await connect(t, server.url, { kinds: ['ServiceCIDR'], timings });
    source.start();
    await until('the object', () => recorder.calls.includes('cidr kubernetes 10.96.0.0/12'), recorder);
    recorder.take();
    server.failNext({ status, count: 3, match: 'servicecidrs' });
    server.compact(true);
    await until('the failures', () => source.status().ServiceCIDR?.lastError !== undefined, recorder);
    await until('a watch', () => source.status().ServiceCIDR?.watching === true, recorder);
    assert.deepEqual(recorder.take(), []);
  });

  test(`service CIDRs that answer ${status} again and again are gone`, async (t) => {
    const server = await serve(t);
    server.store.put(kubernetesCIDR);
    const timings = { absentAfterMs: 100 };
    const { recorder, source } = await connect(t, server.url, { kinds: ['ServiceCIDR'], timings });
    source.start();
    await until('the object', () => recorder.calls.includes('cidr kubernetes 10.96.0.0/12'), recorder);
    server.failNext({ status, count: 100, match: 'servicecidrs' });
    server.compact(true);
    await until('the end of it', () => recorder.calls.includes('cidr kubernetes gone'), recorder);
  });
}

// ---------------------------------------------------------------- trouble in a watch

test('a watch that is cut goes on where it was', async (t) => {
  const { server, recorder, source } = await setup(t);
  for (let i = 3; i < 6; i++) {
    server.cutWatches();
    server.store.put(service('one', `10.96.0.${i}`));
    await until('the change', () => recorder.calls.some((call) => call.startsWith('service')), recorder);
    assert.deepEqual(recorder.take(), [`service a/one 10.96.0.${i}`]);
    await until('the watch', () => watching(source), recorder);
  }
  assert.deepEqual(listRequests(server), []);
});

test('all connections cut, HTTP/2', async (t) => {
  const server = await serve(t, { tls: certificates() });
  server.store.put(service('one', '10.96.0.1'));
  const { recorder, source } = await connect(t, '', {}, credentialsFor(server));
  source.start();
  await until('the list', () => recorder.syncedKinds.size === 1, recorder);
  recorder.take();
  server.cutConnections();
  server.store.put(service('one', '10.96.0.2'));
  await until('the change', () => recorder.services.get('a/one')?.clusterIP === '10.96.0.2', recorder);
  assert.deepEqual(recorder.take(), ['service a/one 10.96.0.2']);
});

for (const contentType of ['protobuf', 'json'] as const) {
  test(`garbage in a watch, ${contentType}: reported with its position, then on from the last good version`, async (t) => {
    const { server, recorder } = await setup(t, {}, { contentType });
    server.store.put(service('one', '10.96.0.3'));
    server.garbage('Service');
    server.store.put(service('one', '10.96.0.4'));
    await until('the change', () => recorder.services.get('a/one')?.clusterIP === '10.96.0.4', recorder);
    assert.deepEqual(recorder.take(), ['service a/one 10.96.0.3', 'service a/one 10.96.0.4']);
    assert.match(recorder.errors()[0] ?? '', /\(byte \d+ of the response\)/);
    assert.deepEqual(listRequests(server), []);
  });
}

for (const way of ['as an ERROR event', 'as an HTTP status']) {
  test(`410 ${way}: a new list brings only the differences`, async (t) => {
    const { server, recorder } = await setup(t, { streamingLists: 'invalid' });
    if (way === 'as an HTTP status') server.failNext({ status: 410, match: 'watch=1&allow' });
    server.stall(true);
    server.store.put(service('one', '10.96.0.3'));
    server.store.delete(serviceKind, 'a/two');
    server.store.put(service('three', '10.96.0.7'));
    server.store.compact();
    server.cutWatches();
    server.stall(false);
    await until(
      'the changes',
      () => recorder.services.has('a/three') && !recorder.services.has('a/two'),
      recorder,
    );
    assert.deepEqual(recorder.take(), [
      'service a/one 10.96.0.3',
      'service a/three 10.96.0.7',
      'service a/two gone',
    ]);
    // The watch cache holds later states than ours: the database is not asked.
    assert.match(listRequests(server).at(-1) ?? '', /resourceVersion=\d+&resourceVersionMatch=NotOlderThan$/);
  });
}

test('410 with streaming lists: the differences come in a new stream', async (t) => {
  const { server, recorder } = await setup(t);
  server.stall(true);
  server.store.delete(serviceKind, 'a/two');
  server.store.compact();
  server.cutWatches();
  server.stall(false);
  await until('the removal', () => !recorder.services.has('a/two'), recorder);
  assert.deepEqual(recorder.take(), ['service a/two gone']);
});

test('a server that was restored to an older version', async (t) => {
  const old = await ApiServer.start({ streamingLists: 'invalid' });
  for (let i = 0; i < 50; i++) old.store.put(service('one', '10.96.0.1'));
  const { recorder, source } = await connect(t, old.url);
  source.start();
  await until('the list', () => recorder.syncedKinds.size === 1 && watching(source), recorder);
  const { port } = old;
  old.compact();
  await old.close();
  recorder.take();
  const restored = await serve(t, { port, streamingLists: 'invalid' });
  restored.failNext({ status: 410, match: 'watch=1&allow' });
  restored.store.put(service('one', '10.96.0.1'));
  restored.store.put(service('two', '10.96.0.2'));
  await until('the new state', () => recorder.services.has('a/two'), recorder);
  assert.equal(source.status().Service?.objects, 2);
});

test('a silent watch is opened anew', async (t) => {
  const { server, recorder, source } = await setup(t, {}, { timings: { watchStallMs: 80 } });
  server.stall(true);
  await until('a second watch', () => watchRequests(server) >= 2, recorder);
  server.stall(false);
  server.store.put(service('one', '10.96.0.5'));
  await until('the change', () => recorder.services.get('a/one')?.clusterIP === '10.96.0.5', recorder);
  assert.ok(source.status().Service !== undefined);
  assert.deepEqual(listRequests(server), []);
});

test('a connection that is dead without a word is found by a ping', async (t) => {
  const server = await serve(t, { tls: certificates() });
  server.store.put(service('one', '10.96.0.1'));
  const relay = await Relay.start(server.port);
  t.after(() => relay.close());
  const { recorder, source } = await connect(
    t,
    '',
    { timeouts: { pingAfterMs: 60, pongMs: 60, connectMs: 200 } },
    credentialsFor(server, { server: new URL(`https://127.0.0.1:${relay.port}`) }),
  );
  source.start();
  await until('the list', () => watching(source), recorder);
  // Pings are answered: nothing happens to a quiet connection.
  await new Promise((resolve) => setTimeout(resolve, 250));
  const before = relay.connections;
  assert.equal(before, 1);
  relay.freeze(true);
  await until('the loss', () => !watching(source), recorder);
  relay.freeze(false);
  server.store.put(service('one', '10.96.0.6'));
  await until('the change', () => recorder.services.get('a/one')?.clusterIP === '10.96.0.6', recorder);
  assert.ok(relay.connections > before);
  assert.ok(recorder.lines.some(({ fields }) => String(fields['err']).includes('did not answer a ping')));
});

test('a watch that outlives its time is ended by us', async (t) => {
  const { server, recorder } = await setup(t, {}, { timings: { watchMinMs: 40, watchGraceMs: 20 } });
  // The double ends watches after whole seconds only, so these limits are ours.
  await until('a third watch', () => watchRequests(server) >= 3, recorder);
  assert.deepEqual(listRequests(server), []);
});

// ---------------------------------------------------------------- trouble in a list

test('a list that breaks in the middle is started over; nothing is delivered twice', async (t) => {
  for (const contentType of ['protobuf', 'json'] as const) {
    const server = await serve(t, { streamingLists: 'invalid' });
    for (let i = 0; i < 20; i++) server.store.put(service(`s${i}`, `10.96.0.${i + 1}`));
    server.faults.arm({ kind: 'reset', after: 1500 }, { match: 'limit=', count: 2 });
    const { recorder, source } = await connect(t, server.url, { contentType });
    source.start();
    await until('the list', () => recorder.syncedKinds.size === 1, recorder);
    assert.equal(recorder.take().length, 21);
    assert.ok(listRequests(server).length >= 3);
  }
});

test('an expired continue token: the list starts over at the newest version', async (t) => {
  const server = await serve(t, { streamingLists: 'invalid' });
  for (let i = 0; i < 5; i++) server.store.put(service(`s${i}`, `10.96.0.${i + 1}`));
  server.failNext({ status: 410, match: 'continue=' });
  const { recorder, source } = await connect(t, server.url, { pageSize: 2 });
  source.start();
  await until('the list', () => recorder.syncedKinds.size === 1, recorder);
  assert.equal(recorder.take().length, 6);
  assert.match(listRequests(server)[2] ?? '', /limit=2$/);
});

for (const contentType of ['json', 'protobuf'] as const) {
  test(`an object that makes no sense is skipped by name, ${contentType}`, async (t) => {
    const server = await serve(t, { streamingLists: 'invalid' });
    const bad = (protocol: string): object => ({
      ...service('bad', '10.96.0.2'),
      spec: { clusterIP: '10.96.0.2', ports: [{ port: 80, protocol }] },
    });
    server.store.put(service('one', '10.96.0.1'));
    server.store.put(bad('QUIC'));
    server.store.put(service('two', '10.96.0.3'));
    const { recorder, source } = await connect(t, server.url, { contentType });
    source.start();
    await until('the list', () => watching(source), recorder);
    assert.deepEqual(recorder.take(), [
      'service a/one 10.96.0.1',
      'service a/two 10.96.0.3',
      'synced Service',
    ]);
    assert.match(recorder.errors()[0] ?? '', /can not be read and is skipped: .*unknown protocol "QUIC"/);
    assert.equal(recorder.lines.find(({ level }) => level === 'error')?.fields['object'], 'a/bad');
    // It is taken in once it is repaired, and its last good state stays when it breaks again.
    server.store.put(bad('UDP'));
    await until('the repaired object', () => recorder.services.has('a/bad'), recorder);
    server.store.put(bad('HTTP'));
    server.store.put(service('three', '10.96.0.4'));
    await until('the next object', () => recorder.services.has('a/three'), recorder);
    assert.deepEqual(recorder.take(), ['service a/bad 10.96.0.2', 'service a/three 10.96.0.4']);
    const lists = listRequests(server).length;
    server.compact(true);
    await until('the new list', () => listRequests(server).length > lists && watching(source), recorder);
    assert.ok(recorder.services.has('a/bad'));
    // For its end, nobody has to understand what it was.
    recorder.take();
    server.store.delete(serviceKind, 'a/bad');
    await until('its deletion', () => !recorder.services.has('a/bad'), recorder);
    assert.deepEqual(recorder.take(), ['service a/bad gone']);
    assert.equal(listRequests(server).length, lists + 1, 'the event was enough');
  });
}

// ---------------------------------------------------------------- a server that says no

const refusals: readonly (readonly [number, string, RegExp])[] = [
  [401, 'KUBE_UNAUTHORIZED', /does not accept our credentials from --master .*renew the token/],
  [
    403,
    'KUBE_FORBIDDEN',
    /does not let us watch services .*grant list and watch on it, as ClusterRole system:node-proxier/,
  ],
  [429, 'KUBE_API_STATUS', /answered 429 when asked to watch services: failed on command/],
  [503, 'KUBE_API_STATUS', /answered 503/],
];
for (const [status, code, message] of refusals) {
  test(`${status} is reported once, asked again with growing pauses, and forgotten after success`, async (t) => {
    const server = await serve(t);
    server.store.put(service('one', '10.96.0.1'));
    server.failNext({ status, count: 4 });
    const { recorder, source } = await connect(t, server.url);
    source.start();
    await until('the failure', () => source.status().Service?.lastError !== undefined, recorder);
    assert.equal(source.status().Service?.lastError?.code, code);
    assert.match(source.status().Service?.lastError?.message ?? '', message);
    await until('the list', () => watching(source), recorder);
    assert.equal(source.status().Service?.lastError, undefined);
    assert.equal(recorder.errors().length, 1);
  });
}

test('Retry-After is honoured', async (t) => {
  const server = await serve(t, { streamingLists: 'invalid' });
  server.failNext({ status: 429, match: 'limit=', retryAfterSeconds: 1 });
  const { recorder, source } = await connect(t, server.url);
  source.start();
  await until('the failure', () => source.status().Service?.lastError !== undefined, recorder);
  const at = Date.now();
  await until('the list', () => recorder.syncedKinds.size === 1, recorder);
  assert.ok(Date.now() - at >= 900, `only ${Date.now() - at} ms`);
});

test('a watch that is refused once keeps its place; after two failures in a row everything is listed', async (t) => {
  const { server, recorder, source } = await setup(t, { streamingLists: 'invalid' });
  await new Promise((resolve) => setTimeout(resolve, quickBackoff.firstMs));
  server.cutWatches();
  await until('the watch', () => watching(source) && watchRequests(server) >= 2, recorder);
  assert.equal(listRequests(server).length, 1, 'one cut');
  server.failNext({ status: 500, count: 1 });
  server.cutWatches();
  await until('the list', () => watching(source) && listRequests(server).length === 2, recorder);
  assert.match(listRequests(server).at(-1) ?? '', /NotOlderThan$/);
});

test('a watch that is asked to wait keeps its place: a list would cost more', async (t) => {
  const { server, recorder, source } = await setup(t, { streamingLists: 'invalid' });
  server.failNext({ status: 429, count: 3 });
  server.cutWatches();
  await until('the watch', () => watching(source) && server.faults.armed === 0, recorder);
  assert.equal(listRequests(server).length, 1);
});

test('a server that is not there, and then is', async (t) => {
  const server = await ApiServer.start();
  const { port, url } = server;
  await server.close();
  const { recorder, source } = await connect(t, url);
  source.start();
  await until(
    'the failure',
    () => source.status().Service?.lastError?.code === 'KUBE_CONNECT_REFUSED',
    recorder,
  );
  assert.match(recorder.errors()[0] ?? '', /refuses the connection: check that it runs/);
  const back = await serve(t, { port });
  back.store.put(service('one', '10.96.0.1'));
  await until('the list', () => recorder.services.size === 1, recorder);
});

test('a server that takes requests and never answers', async (t) => {
  const server = await serve(t);
  server.silence(true);
  const { recorder, source } = await connect(t, server.url, { timeouts: { headersMs: 60 } });
  source.start();
  await until('the failure', () => source.status().Service?.lastError?.code === 'KUBE_TIMEOUT', recorder);
  server.silence(false);
  await until('the list', () => recorder.syncedKinds.size === 1, recorder);
});

test('a request that is not answered, while others are, is asked again soon', async (t) => {
  const server = await serve(t);
  server.store.put(service('web', '10.96.0.1'));
  server.faults.arm({ kind: 'no-answer' }, { match: '/services' });
  const { recorder, source } = await connect(t, server.url, {
    kinds: ['Service', 'EndpointSlice'],
    serverTimings: { patienceMs: 100 },
  });
  source.start();
  await until('the Service', () => recorder.services.size === 1, recorder);
  assert.deepEqual(recorder.errors(), []);
});

test('where nothing is answered, one kind asks once more, and the others follow when it is answered', async (t) => {
  const server = await serve(t);
  server.store.put(service('web', '10.96.0.1'));
  server.store.put(slice('web-1', '10.61.0.1'));
  server.faults.arm({ kind: 'no-answer' }, { count: 2 });
  const { recorder, source } = await connect(t, server.url, {
    kinds: ['Service', 'EndpointSlice'],
    serverTimings: { patienceMs: 100 },
  });
  source.start();
  await until('both', () => recorder.services.size === 1 && recorder.slices.size === 1, recorder);
  assert.equal(server.requests.length, 4);
});

test('a server that answers nothing is asked once more, not again and again', async (t) => {
  const server = await serve(t);
  server.silence(true);
  const { source } = await connect(t, server.url, {
    kinds: ['Service', 'EndpointSlice'],
    serverTimings: { patienceMs: 20 },
    timeouts: { headersMs: 1800 },
  });
  source.start();
  await until('the first two and one more', () => server.requests.length === 3);
  // Long enough for tens of looks; what is given up for good is so after 1.8 s.
  await new Promise((resolve) => setTimeout(resolve, 800));
  assert.equal(server.requests.length, 3);
});

test('something that is not an API server', async (t) => {
  const other = createServer((_request, response) => {
    response.setHeader('content-type', 'text/html').end('<html>hello</html>');
  });
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    other.closeAllConnections();
    other.close();
  });
  const address = other.address();
  assert.ok(typeof address === 'object' && address !== null);
  const { recorder, source } = await connect(t, `http://127.0.0.1:${address.port}`);
  source.start();
  await until('the failure', () => source.status().Service?.lastError !== undefined, recorder);
  assert.match(
    recorder.errors()[0] ?? '',
    /answered with text\/html, which is not what an API server sends: check the URL/,
  );
});

// ---------------------------------------------------------------- TLS and credentials

const tlsTroubles: readonly (readonly [string, string, (set: CertificateSet) => ApiServerOptions, object])[] =
  [
    ['another CA', 'KUBE_TLS_UNTRUSTED', () => ({ tls: makeCertificates() }), {}],
    ['another name', 'KUBE_TLS_HOSTNAME', (set) => ({ tls: set }), { servername: 'elsewhere.example' }],
    ['plain HTTP', 'KUBE_TLS_FAILED', () => ({}), {}],
  ];
for (const [name, code, options, material] of tlsTroubles) {
  test(`TLS trouble: ${name}`, async (t) => {
    const server = await serve(t, options(certificates()));
    const url = new URL(server.url);
    url.protocol = 'https:';
    const { recorder, source } = await connect(
      t,
      '',
      {},
      credentialsFor(server, {
        server: new URL(`https://${url.host}`),
        tls: () => Promise.resolve({ ca: Buffer.from(certificates().authority), ...material }),
      }),
    );
    source.start();
    await until('the failure', () => source.status().Service?.lastError !== undefined, recorder);
    assert.equal(source.status().Service?.lastError?.code, code, source.status().Service?.lastError?.message);
  });
}

test('TLS trouble: expired', async (t) => {
  const expired = makeCertificates({ expired: true });
  const server = await serve(t, { tls: expired });
  const { recorder, source } = await connect(
    t,
    '',
    {},
    credentialsFor(server, { tls: () => Promise.resolve({ ca: Buffer.from(expired.authority) }) }),
  );
  source.start();
  await until('the failure', () => source.status().Service?.lastError !== undefined, recorder);
  assert.equal(source.status().Service?.lastError?.code, 'KUBE_TLS_EXPIRED');
});

test('a name that does not resolve', async (t) => {
  const { recorder, source } = await connect(t, 'http://no-such-host.invalid:1');
  source.start();
  await until('the failure', () => source.status().Service?.lastError !== undefined, recorder);
  assert.equal(source.status().Service?.lastError?.code, 'KUBE_DNS');
});

test('a token file is read again when the server refuses the old token', async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'token-'));
  t.after(() => {
    rmSync(folder, { recursive: true });
  });
  const server = await serve(t, { tokens: ['old'] });
  server.store.put(service('one', '10.96.0.1'));
  writeFileSync(path.join(folder, 'token'), 'old\n');
  writeFileSync(
    path.join(folder, 'config'),
    JSON.stringify({
      clusters: [{ name: 'c', cluster: { server: server.url } }],
      users: [{ name: 'u', user: { tokenFile: 'token' } }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'x',
    }),
  );
  const credentials = await loadCredentials(
    { kubeconfig: path.join(folder, 'config') },
    new Recorder().logger,
  );
  const { recorder, source } = await connect(t, '', {}, credentials);
  source.start();
  await until('the list', () => watching(source), recorder);
  assert.equal(server.requests.at(-1)?.authorization, 'Bearer old');
  server.tokens = ['new'];
  server.cutWatches();
  await until(
    'the refusal',
    () => source.status().Service?.lastError?.code === 'KUBE_UNAUTHORIZED',
    recorder,
  );
  writeFileSync(path.join(folder, 'token'), 'new\n');
  await until('the watch', () => watching(source), recorder);
  assert.equal(server.requests.at(-1)?.authorization, 'Bearer new');
});

test('after stop() nothing is delivered any more', async (t) => {
  const { server, recorder, source } = await setup(t);
  await source.stop();
  recorder.take();
  server.store.put(service('one', '10.96.0.9'));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(recorder.calls, []);
  await until('no watch left', () => server.watches.length === 0);
});

test('a sink that fails for one object does not lose the others', async (t) => {
  const server = await serve(t);
  server.store.put(service('one', '10.96.0.1'));
  server.store.put(service('two', '10.96.0.2'));
  const recorder = new Recorder();
  const sink: ClusterSink = {
    service: (key, object) => {
      if (key === 'a/one') throw new KubeError('KUBE_OBJECT_BROKEN', 'not this one');
      recorder.service(key, object);
    },
    endpointSlice: () => undefined,
    node: () => undefined,
    serviceCIDR: () => undefined,
    synced: (kind) => {
      recorder.synced(kind);
    },
    flush: () => undefined,
  };
  const connection = await loadCredentials({ master: server.url }, recorder.logger);
  const source = new ApiServerSource(
    { connection, nodeName: 'n', kinds: ['Service'] },
    sink,
    recorder.logger,
  );
  t.after(() => source.stop());
  source.start();
  await until('the list', () => recorder.syncedKinds.size === 1, recorder);
  assert.deepEqual(recorder.take(), ['service a/two 10.96.0.2', 'synced Service']);
  assert.match(recorder.errors()[0] ?? '', /Failed to apply object: not this one/);
});

// ---------------------------------------------------------------- answers that can't be true

test('an empty list is believed when it is said twice', async (t) => {
  for (const mistakes of [1, 0]) {
    const { server, recorder } = await setup(t, { streamingLists: 'invalid' });
    if (mistakes === 0) for (const name of ['one', 'two']) server.store.delete(serviceKind, `a/${name}`);
    else server.faults.arm({ kind: 'empty-list' }, { match: '/services' });
    server.compact(true);
    const asked = listRequests(server).length;
    await until('two more lists', () => listRequests(server).length === asked + 2, recorder);
    await until('the watch', () => server.watches.length === 1, recorder);
    assert.equal(recorder.services.size, mistakes === 0 ? 0 : 2);
    assert.doesNotMatch(
      listRequests(server).at(-1) ?? '',
      /resourceVersion/,
      'the newest state, not a cached one',
    );
    assert.equal(recorder.lines.filter(({ message }) => message.startsWith('Empty list')).length, 1);
  }
});

test('an empty list at the very start is asked about, too', async (t) => {
  const server = await serve(t, { streamingLists: 'invalid' });
  server.store.put(service('one', '10.96.0.1'));
  server.faults.arm({ kind: 'empty-list' });
  const { recorder, source } = await connect(t, server.url);
  source.start();
  await until('the list', () => recorder.syncedKinds.size === 1, recorder);
  assert.deepEqual(recorder.take(), ['service a/one 10.96.0.1', 'synced Service']);
});

test('a list that does not say its version is no list: a watch could not continue it', async (t) => {
  for (const contentType of ['json', 'protobuf'] as const) {
    const server = await serve(t, { streamingLists: 'invalid' });
    server.store.put(service('one', '10.96.0.1'));
    server.faults.arm({ kind: 'list-without-version' }, { count: 2 });
    const { recorder, source } = await connect(t, server.url, { contentType });
    source.start();
    await until('the list', () => watching(source), recorder);
    assert.equal(listRequests(server).length, 3);
    assert.match(recorder.errors()[0] ?? '', /a list of Service objects without a version/);
  }
});

test('an item without a name: nothing is taken for gone, and the list is asked for again', async (t) => {
  for (const contentType of ['json', 'protobuf'] as const) {
    const { server, recorder, source } = await setup(t, { streamingLists: 'invalid' }, { contentType });
    server.faults.arm({ kind: 'nameless-item' }, { match: '/services' });
    const asked = listRequests(server).length;
    server.compact(true);
    await until(
      'two more lists',
      () => listRequests(server).length === asked + 2 && watching(source),
      recorder,
    );
    assert.deepEqual(recorder.take(), [], 'a/two was there all the time');
  }
});

test('a database that was set back: the same version number means something else', async (t) => {
  const { server, recorder, source } = await setup(
    t,
    { streamingLists: 'invalid' },
    { timings: { watchStallMs: 60 } },
  );
  server.store.backup(0);
  const { version } = server.store.put(service('one', '10.96.0.7'));
  for (let i = 0; i < 5; i++) server.store.put(service('two', `10.96.1.${i}`));
  await until('the changes', () => recorder.services.get('a/two')?.clusterIP === '10.96.1.4', recorder);
  server.restore();
  assert.equal(server.store.put(service('one', '10.96.0.8')).version, version);
  await until('the truth', () => recorder.services.get('a/one')?.clusterIP === '10.96.0.8', recorder);
  await until('the watch', () => watching(source), recorder);
  assert.equal(recorder.services.get('a/two')?.clusterIP, '10.96.0.2');
});

test('a server that knows nothing of our version and says nothing is asked for a list', async (t) => {
  const { server, recorder, source } = await setup(
    t,
    { streamingLists: 'invalid' },
    { timings: { watchStallMs: 60 } },
  );
  server.store.backup();
  server.store.put(service('one', '10.96.0.7'));
  await until('the change', () => recorder.services.get('a/one')?.clusterIP === '10.96.0.7', recorder);
  server.restore();
  await until('the state before', () => recorder.services.get('a/one')?.clusterIP === '10.96.0.1', recorder);
  await until('the watch', () => watching(source), recorder);
  // Two watches that bring nothing, a list that the server can't answer, and one that it can.
  assert.equal(listRequests(server).length, 3);
});

test('events that come again change nothing, and one out of order leads to a list', async (t) => {
  const { server, recorder, source } = await setup(t, { streamingLists: 'invalid' });
  const watch = server.watches[0];
  assert.ok(watch !== undefined);
  server.store.put(service('one', '10.96.0.3'));
  watch.repeat();
  server.store.put(service('two', '10.96.0.4'));
  server.store.put(service('one', '10.96.0.5'));
  await until('the changes', () => recorder.services.get('a/one')?.clusterIP === '10.96.0.5', recorder);
  assert.deepEqual(recorder.take(), [
    'service a/one 10.96.0.3',
    'service a/two 10.96.0.4',
    'service a/one 10.96.0.5',
  ]);
  const asked = listRequests(server).length;
  // The first of these is an older state of service one.
  watch.repeat();
  await until('a list', () => listRequests(server).length > asked && watching(source), recorder);
  assert.deepEqual(recorder.take(), []);
});

test('Retry-After is not taken literally when it would silence us for a day', async (t) => {
  const server = await serve(t, { streamingLists: 'invalid' });
  server.store.put(service('one', '10.96.0.1'));
  server.failNext({ status: 429, match: 'limit=', retryAfterSeconds: 86_400 });
  const { recorder, source } = await connect(t, server.url, { timings: { longestRetryAfterMs: 50 } });
  source.start();
  await until('the list', () => recorder.syncedKinds.size === 1, recorder);
});

test('watches that end as soon as they have brought something are not opened in a loop', async (t) => {
  const { server, recorder } = await setup(
    t,
    {},
    { timings: { backoff: { ...quickBackoff, firstMs: 100 } } },
  );
  const timer = setInterval(() => {
    server.bookmark();
    server.endWatches();
  }, 1);
  t.after(() => {
    clearInterval(timer);
  });
  const before = watchRequests(server);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const opened = watchRequests(server) - before;
  assert.ok(opened >= 2 && opened <= 6, `${opened} watches in half a second`);
  assert.deepEqual(recorder.errors(), []);
});

// ---------------------------------------------------------------- how we ask

test('the headers: who we are, and what we accept', async (t) => {
  const cases: readonly (readonly [string, string, string])[] = [
    ['', 'application/vnd.kubernetes.protobuf;stream=watch,application/json', '2 kinds of answers'],
    ['application/json', 'application/json', 'JSON only'],
    [
      'application/json, application/vnd.kubernetes.protobuf',
      'application/json,application/vnd.kubernetes.protobuf;stream=watch',
      'JSON first',
    ],
    [
      'application/cbor,*/*',
      'application/vnd.kubernetes.protobuf;stream=watch,application/json',
      'a wildcard',
    ],
  ];
  for (const [acceptContentTypes, accept, what] of cases) {
    const server = await serve(t);
    server.store.put(service('one', '10.96.0.1'));
    const { recorder, source } = await connect(t, server.url, {
      acceptContentTypes,
      userAgent: userAgent('1.2.3'),
    });
    source.start();
    await until('the list', () => recorder.syncedKinds.size === 1, recorder);
    const request = server.requests[0];
    assert.ok(request !== undefined);
    assert.equal(request.accept, accept, what);
    assert.match(request.userAgent, /^kube-proxy\/v1\.\d+\.\d+ \(linux\/\w+\) kube-proxy-ts\/1\.2\.3$/);
  }
});

test('content types that can not be read are refused at the start', async (t) => {
  await assert.rejects(
    connect(t, 'http://127.0.0.1:1', { acceptContentTypes: 'application/cbor' }),
    /acceptContentTypes "application\/cbor" holds nothing that can be read/,
  );
});

test('a server that refuses protobuf when nothing else is accepted is an error', async (t) => {
  const server = await serve(t, { protobuf: 'refused' });
  const { recorder, source } = await connect(t, server.url, {
    acceptContentTypes: 'application/vnd.kubernetes.protobuf',
  });
  source.start();
  await until('the failure', () => source.status().Service?.lastError !== undefined, recorder);
  assert.match(source.status().Service?.lastError?.message ?? '', /answered 406/);
});

test('requests wait for their turn; the pages of a list are one request, and all of it is told', async (t) => {
  const server = await serve(t, { streamingLists: 'invalid' });
  for (let i = 0; i < 9; i++) server.store.put(service(`s${i}`, `10.96.0.${i + 1}`));
  const answered: (number | undefined)[] = [];
  const waits: number[] = [];
  let bytes = 0;
  const { recorder, source } = await connect(t, server.url, {
    pageSize: 3,
    rateLimit: { qps: 20, burst: 1 },
    observer: {
      waited: ({ seconds }) => waits.push(seconds),
      answered: ({ status }) => answered.push(status),
      received: (body) => (bytes += body.bytes),
      retried: () => undefined,
    },
  });
  const started = performance.now();
  source.start();
  await until('the watch', () => watching(source), recorder);
  assert.deepEqual(answered, [422, 200, 200, 200, 200], 'refused, three pages, the watch');
  assert.equal(waits.length, 3);
  assert.ok(performance.now() - started >= 95, 'two of the three waited 50 ms');
  assert.ok(bytes > 500 && bytes < 10_000, `${bytes} bytes of lists`);
});

for (const version of ['2', '1.1'] as const) {
  test(`renewed certificates are used for new connections, and nothing is cut, HTTP/${version}`, async (t) => {
    const server = await serve(t, { tls: certificates(), http2: version === '2' });
    server.store.put(service('one', '10.96.0.1'));
    const relay = await Relay.start(server.port);
    t.after(() => relay.close());
    const { authority, clientCertificate, clientKey } = certificates();
    let material: TlsMaterial = { ca: Buffer.from(authority), cert: clientCertificate, key: clientKey };
    const { recorder, source } = await connect(
      t,
      '',
      { rereadMs: 0 },
      credentialsFor(server, {
        server: new URL(`https://127.0.0.1:${relay.port}`),
        tls: () => Promise.resolve(material),
      }),
    );
    source.start();
    await until('the watch', () => watching(source), recorder);
    const renew = async (next: TlsMaterial): Promise<number> => {
      const before = relay.connections;
      material = next;
      const watches = watchRequests(server);
      server.endWatches();
      await until('the next watch', () => watching(source) && watchRequests(server) > watches, recorder);
      return relay.connections - before;
    };
    assert.equal(await renew({ ...material }), 0, 'the same again');
    const other = makeCertificates();
    assert.equal(await renew({ ...material, cert: other.clientCertificate }), 0, 'half of a renewal');
    assert.equal(
      await renew({ ...material, cert: other.clientCertificate, key: other.clientKey }),
      1,
      'a new certificate with its key',
    );
    assert.equal(
      await renew({ ...material, ca: Buffer.from(`${authority}${other.authority}`) }),
      1,
      'a second authority',
    );
    assert.deepEqual(
      recorder.errors().filter((text) => !text.includes('ended as soon as it was open')),
      [],
    );
  });
}

test('the authority changes on both sides: trouble until ours has followed, and no longer', async (t) => {
  const before = certificates();
  const after = makeCertificates();
  const server = await serve(t, { tls: before });
  server.store.put(service('one', '10.96.0.1'));
  let ca = before.authority;
  const { recorder, source } = await connect(
    t,
    '',
    {},
    credentialsFor(server, { tls: () => Promise.resolve({ ca: Buffer.from(ca) }) }),
  );
  source.start();
  await until('the watch', () => watching(source), recorder);
  server.renewCertificate(after);
  await until(
    'the failure',
    () => source.status().Service?.lastError?.code === 'KUBE_TLS_UNTRUSTED',
    recorder,
  );
  assert.equal(source.health().kinds.Service?.synced, true);
  ca = after.authority;
  await until('the watch', () => watching(source), recorder);
  assert.deepEqual(recorder.take(), ['service a/one 10.96.0.1', 'synced Service']);
});

// ---------------------------------------------------------------- servers that change behind one address

test('a front that speaks HTTP/1.1 for a while, and then a server that speaks HTTP/2', async (t) => {
  const tls = certificates();
  const front = await serve(t, { tls, http2: false });
  front.failNext({ status: 429, count: 1_000_000 });
  const real = await serve(t, { tls });
  real.store.put(service('one', '10.96.0.1'));
  const relay = await Relay.start(front.port);
  t.after(() => relay.close());
  const url = new URL(`https://127.0.0.1:${relay.port}`);
  const { recorder, source } = await connect(t, '', {}, credentialsFor(front, { server: url }));
  source.start();
  await until('refusals', () => front.requests.length >= 3, recorder);
  relay.retarget(real.port);
  await until('the watch', () => watching(source), recorder);
  assert.equal(real.requests.at(-1)?.httpVersion, '2.0');
  // And back again: there is a server that does not speak HTTP/2.
  front.faults.clear();
  front.store.put(service('one', '10.96.0.1'));
  relay.retarget(front.port);
  const before = front.requests.length;
  await until('the watch at the other', () => watching(source) && front.requests.length > before, recorder);
});

test('JSON is spoken until there is another connection, not for ever', async (t) => {
  const { server, recorder, source } = await setup(t, { tls: certificates(), protobuf: 'refused' }, {}, true);
  assert.equal(server.requests.at(-1)?.accept, 'application/json');
  server.protobuf = 'on';
  server.cutConnections();
  await until('the watch', () => watching(source) && watchRequests(server) > 2, recorder);
  assert.match(server.requests.at(-1)?.accept ?? '', /protobuf/);
});

test('a database that was set back and has written past our version is listed when its server was away', async (t) => {
  const { server, recorder, source } = await setup(t, { streamingLists: 'invalid' });
  server.store.backup(0);
  server.store.put(service('lost', '10.96.0.7'));
  server.store.delete(serviceKind, 'a/two');
  await until('the changes', () => !recorder.services.has('a/two'), recorder);
  server.store.restore();
  server.cutConnections();
  server.refuseFor(200);
  for (let i = 0; i < 10; i++) server.store.put(service('one', `10.96.1.${i}`));
  await until('the watch', () => watching(source) && recorder.services.has('a/two'), recorder);
  assert.equal(recorder.services.has('a/lost'), false);
});

for (const trouble of ['401', '403'] as const) {
  test(`after a ${trouble} everything is listed: it may be another server`, async (t) => {
    const { server, recorder, source } = await setup(t, { streamingLists: 'invalid' });
    server.failNext({ status: Number(trouble), count: 1 });
    server.cutWatches();
    await until('the list', () => watching(source) && listRequests(server).length === 2, recorder);
  });
}

test('the first 410 is followed at once, whatever went before', async (t) => {
  const backoff = { firstMs: 1600, maxMs: 30_000 };
  const { server, recorder, source } = await setup(
    t,
    { streamingLists: 'invalid' },
    { timings: { backoff } },
  );
  server.stall(true);
  server.store.put(service('one', '10.96.0.9'));
  server.store.compact();
  server.stall(false);
  await new Promise((resolve) => setTimeout(resolve, 2 * backoff.firstMs));
  server.store.compact();
  const at = performance.now();
  server.failNext({ status: 410, match: 'watch=1' });
  server.cutWatches();
  await until('the watch', () => watching(source) && listRequests(server).length === 2, recorder);
  assert.ok(performance.now() - at < 1400, `${performance.now() - at} ms`);
});

test('one kind learns that history went back: the others follow, though their watches are open', async (t) => {
  const server = await serve(t);
  server.store.put(service('one', '10.96.0.1'));
  server.store.put(slice('one', '10.0.0.1'));
  const { recorder, source } = await connect(t, server.url, { kinds: ['Service', 'EndpointSlice'] });
  source.start();
  await until('the lists', () => server.watches.length === 2 && recorder.syncedKinds.size === 2, recorder);
  server.store.backup();
  server.store.put(service('one', '10.96.0.2'));
  server.store.put(slice('one', '10.0.0.2'));
  await until(
    'the changes',
    () => recorder.slices.get('a/one')?.endpoints[0]?.address === '10.0.0.2',
    recorder,
  );
  server.store.restore();
  for (const watch of server.watches) if (watch.request.kind.kind === 'Service') watch.expire();
  await until(
    'the slice',
    () => recorder.slices.get('a/one')?.endpoints[0]?.address === '10.0.0.1',
    recorder,
  );
  await until('the Service', () => recorder.services.get('a/one')?.clusterIP === '10.96.0.1', recorder);
});

const kubernetesService = (uid: string): object => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'kubernetes', namespace: 'default', uid },
  spec: { clusterIP: '10.96.0.1', ports: [{ port: 443 }] },
});

for (const [what, changes] of [
  ['versions that went back', 0],
  ['another UID of default/kubernetes', 100],
] as const) {
  test(`an API server on an empty database, known by ${what}: most is held back, then believed`, async (t) => {
    const first = await ApiServer.start();
    const { port, url } = first;
    first.store.put(kubernetesService('before'));
    for (let i = 0; i < 20; i++) first.store.put(service(`s${i}`, `10.96.0.${i + 10}`));
    const told: string[] = [];
    const { recorder, source } = await connect(t, url, {
      serverTimings: { holdBackMs: 500 },
      onUnconfirmedList: (kind, missing, held) => told.push(`${kind} ${missing} of ${held}`),
    });
    source.start();
    await until('the list', () => watching(source), recorder);
    await first.close();
    await until(
      'the loss',
      () => source.status().Service?.lastError?.code === 'KUBE_CONNECT_REFUSED',
      recorder,
    );
    const empty = await serve(t, { port });
    empty.store.put(kubernetesService('after'));
    for (let i = 0; i < changes; i++) empty.store.put(kubernetesService('after'));
    await until('the doubt', () => told.length > 0, recorder);
    const doubted = performance.now();
    assert.deepEqual(told, ['Service 20 of 21']);
    assert.equal(recorder.services.size, 21);
    empty.store.put(service('new', '10.96.1.1'));
    await until('the new one', () => recorder.services.size === 22, recorder);
    assert.ok(performance.now() - doubted < 400, 'followed at once');
    assert.equal(source.status().Service?.watching, true);
    assert.match(source.status().Service?.lastError?.message ?? '', /lacks 20 of 21 Service objects/);
    await until('the belief', () => recorder.services.size === 2 && watching(source), recorder);
    assert.equal(source.status().Service?.lastError, undefined);
    assert.ok(performance.now() - doubted > 400, `${performance.now() - doubted} ms`);
    const warnings = recorder.lines.filter(({ level }) => level === 'warn');
    assert.deepEqual(
      warnings.map(({ fields }) => [fields['missing'], fields['held']]),
      [[20, 21]],
    );
  });
}

for (const [what, fault] of [
  // The low half of the first frame's length.
  ['with a length that is wrong', { kind: 'garbage', after: 2, count: 2 }],
  ['that stop in the middle of one', { kind: 'pause', after: 30 }],
] as const) {
  test(`initial events ${what} are asked for again soon, and as a stream`, async (t) => {
    const server = await serve(t);
    server.store.put(service('web', '10.96.0.1'));
    server.faults.arm(fault);
    const { recorder, source } = await connect(t, server.url, { gzip: false, timings: { eventPauseMs: 60 } });
    source.start();
    await until('the Service', () => recorder.services.size === 1, recorder);
    assert.deepEqual(
      server.requests.map(({ target }) => target.includes('sendInitialEvents')),
      [true, true],
    );
  });
}

test('streaming lists are asked for with gzip, watches without', async (t) => {
  const { server, recorder, source } = await setup(t);
  assert.equal(server.requests[0]?.acceptEncoding, 'gzip');
  server.store.put(service('one', '10.96.0.9'));
  await until(
    'an event through gzip',
    () => recorder.services.get('a/one')?.clusterIP === '10.96.0.9',
    recorder,
  );
  await new Promise((resolve) => setTimeout(resolve, quickBackoff.firstMs));
  server.endWatches();
  await until('the next watch', () => watching(source) && watchRequests(server) === 2, recorder);
  assert.equal(server.requests.at(-1)?.acceptEncoding, '');
});

test('a compressed watch is followed by a plain one soon, and no event is missed on the way', async (t) => {
  const { server, recorder, source } = await setup(t, {}, { timings: { compressedWatchMs: 100 } });
  let version = 0;
  while (watchRequests(server) < 2) {
    server.store.put(service('one', `10.96.1.${++version % 250}`));
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert.ok(version < 2000, 'a second watch');
  }
  server.store.put(service('one', '10.96.2.1'));
  await until('the last event', () => recorder.services.get('a/one')?.clusterIP === '10.96.2.1', recorder);
  assert.equal(server.requests.at(-1)?.acceptEncoding, '');
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.ok(watching(source));
  assert.equal(watchRequests(server), 2, 'a plain one lives on');
  assert.deepEqual(listRequests(server), []);
  // Each once, in order.
  const seen = recorder.take().filter((line) => line.startsWith('service a/one'));
  assert.equal(seen.length, version + 1);
});

test('a connection that dies just after a ping was answered is noticed as soon', async (t) => {
  const server = await serve(t, { tls: certificates() });
  server.store.put(service('one', '10.96.0.1'));
  const relay = await Relay.start(server.port);
  t.after(() => relay.close());
  const timeouts = { pingAfterMs: 600, pongMs: 200, connectMs: 200 };
  const url = new URL(`https://127.0.0.1:${relay.port}`);
  const { recorder, source } = await connect(t, '', { timeouts }, credentialsFor(server, { server: url }));
  source.start();
  await until('the list', () => watching(source), recorder);
  const quietSince = performance.now();
  await until('a ping', () => relay.lastBytesAt > quietSince + 300, recorder);
  relay.freeze(true);
  const died = performance.now();
  await until('the loss', () => !watching(source), recorder);
  // 15 and 10 s in life: 600 + 200 + 200 ms here; with room for a busy machine, but not for another 600.
  assert.ok(performance.now() - died < 1250, `${performance.now() - died} ms`);
});

test('trouble with a streaming list is remembered for a minute, a refusal for an hour', async (t) => {
  const timings = { streamingTroubleMs: 100, streamingRetryMs: 3_600_000 };
  const streamed = (server: ApiServer): number =>
    server.requests.filter(({ target }) => target.includes('sendInitialEvents')).length;
  const server = await serve(t);
  server.store.put(service('one', '10.96.0.1'));
  server.failNext({ status: 500, match: 'sendInitialEvents' });
  const { recorder, source } = await connect(t, server.url, { timings });
  source.start();
  await until('the list', () => watching(source), recorder);
  await new Promise((resolve) => setTimeout(resolve, 120));
  server.compact(true);
  await until('a streaming list', () => watching(source) && streamed(server) === 2, recorder);
});

test('a slow connection is no sign of a server without streaming lists', async (t) => {
  const server = await serve(t);
  server.store.put(service('one', '10.96.0.1'));
  const { recorder, source } = await connect(t, server.url, {
    timings: { initialEventsStallMs: 100 },
    dial: async (options) => {
      await new Promise((resolve) => setTimeout(resolve, 200));
      return await dial(options);
    },
  });
  source.start();
  await until('the list', () => watching(source), recorder);
  assert.deepEqual(listRequests(server), []);
});

test('a token file that is away for a moment fails no request', async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'token-'));
  t.after(() => {
    rmSync(folder, { recursive: true });
  });
  const server = await serve(t, { tokens: ['good'] });
  server.store.put(service('one', '10.96.0.1'));
  const token = path.join(folder, 'token');
  writeFileSync(token, 'good\n');
  writeFileSync(
    path.join(folder, 'config'),
    JSON.stringify({
      clusters: [{ name: 'c', cluster: { server: server.url } }],
      users: [{ name: 'u', user: { tokenFile: 'token' } }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'x',
    }),
  );
  const log = new Recorder();
  const credentials = await loadCredentials({ kubeconfig: path.join(folder, 'config') }, log.logger);
  const { recorder, source } = await connect(t, '', {}, credentials);
  source.start();
  await until('the list', () => watching(source), recorder);
  rmSync(token);
  // It is read again after a 401.
  credentials.rejected();
  server.cutWatches();
  await until('the watch', () => watching(source) && watchRequests(server) === 2, recorder);
  assert.equal(log.lines.filter(({ level }) => level === 'warn').length, 1);
});
