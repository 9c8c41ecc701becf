import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { withoutRights } from '../../../test/rights.js';
import type { ClusterSink, EndpointSlice, Node, Service, ServiceCIDR } from '../objects.js';
import type { Logger } from '../../log/logger.js';
import { ManifestError } from './errors.js';
import { ManifestLoader, type ManifestSet } from './load.js';
import { ManifestSource } from './source.js';

function folder(t: TestContext): string {
  const made = mkdtempSync(path.join(os.tmpdir(), 'manifests-'));
  t.after(() => {
    rmSync(made, { recursive: true, force: true });
  });
  return made;
}

function load(t: TestContext, text: string, name = 'a.yaml'): ManifestSet {
  const root = folder(t);
  writeFileSync(path.join(root, name), text);
  const set = new ManifestLoader(root, 'node-1').load();
  if (set.errors[0] !== undefined) throw set.errors[0];
  return set;
}

const service = (name: string, ip: string, more = ''): string => `apiVersion: v1
kind: Service
metadata:
  name: ${name}
spec:
  clusterIP: ${ip}
  selector: { app: ${name} }
  ports:
    - port: 80
      targetPort: 8080
${more}`;

const pod = (name: string, app: string, ip: string, more = ''): string => `apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  labels: { app: ${app}, pod-template-hash: x }
${more}
spec:
  nodeName: node-1
  containers:
    - name: main
      ports:
        - { name: web, containerPort: 9090 }
status:
  podIP: ${ip}
`;

test('a Service gets the defaults of the API server', (t) => {
  const { services } = load(t, service('web', '10.96.0.10'));
  assert.deepEqual(services.get('default/web'), {
    namespace: 'default',
    name: 'web',
    uid: '',
    creationTimestamp: '',
    serviceProxyName: undefined,
    type: 'ClusterIP',
    clusterIP: '10.96.0.10',
    clusterIPs: ['10.96.0.10'],
    ipFamilies: ['IPv4'],
    ports: [{ name: '', protocol: 'TCP', port: 80, nodePort: 0 }],
    externalIPs: [],
    loadBalancerIngress: [],
    loadBalancerSourceRanges: [],
    sessionAffinity: 'None',
    affinityTimeoutSeconds: undefined,
    internalTrafficPolicy: 'Cluster',
    externalTrafficPolicy: '',
    healthCheckNodePort: 0,
  } satisfies Service);
});

test('defaults that depend on other fields', (t) => {
  const { services } = load(
    t,
    `${service('aff', '10.96.0.1', '  sessionAffinity: ClientIP\n')}---
${service('np', 'fd00::1', '      nodePort: 30080\n  type: NodePort\n')}---
${service('lb', '10.96.0.3', '  type: LoadBalancer\nstatus:\n  loadBalancer:\n    ingress: [{ip: 203.0.113.1}, {hostname: x}]\n')}---
${service('ext', '10.96.0.4', '  externalIPs: [192.0.2.1]\n')}---
apiVersion: v1
kind: Service
metadata: { name: dual, namespace: other }
spec:
  clusterIPs: [fd00::2, 10.96.0.5]
  ports: [{ port: 53, protocol: UDP }]
`,
  );
  assert.equal(services.get('default/aff')?.affinityTimeoutSeconds, 10800);
  assert.equal(services.get('default/np')?.externalTrafficPolicy, 'Cluster');
  assert.equal(services.get('default/np')?.ports[0]?.nodePort, 30080);
  assert.deepEqual(services.get('default/np')?.ipFamilies, ['IPv6']);
  assert.deepEqual(services.get('default/lb')?.loadBalancerIngress, [
    { ip: '203.0.113.1', ipMode: 'VIP' },
    { ip: '', ipMode: '' },
  ]);
  assert.equal(services.get('default/ext')?.externalTrafficPolicy, 'Cluster');
  assert.equal(services.get('other/dual')?.clusterIP, 'fd00::2');
  assert.deepEqual(services.get('other/dual')?.ipFamilies, ['IPv6', 'IPv4']);
});

test('what the selectors of the API server would leave out is left out', (t) => {
  const set = load(
    t,
    `${service('headless', 'None')}---
apiVersion: v1
kind: Service
metadata: { name: foreign, labels: { service.kubernetes.io/service-proxy-name: '' } }
spec: { clusterIP: 10.96.0.1, ports: [{ port: 1 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: s, labels: { kubernetes.io/service-name: headless, service.kubernetes.io/headless: '' } }
addressType: IPv4
---
apiVersion: v1
kind: Node
metadata: { name: node-2 }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: x }
`,
  );
  assert.equal(set.services.size, 0);
  assert.equal(set.endpointSlices.size, 0);
  assert.equal(set.nodes.size, 0);
  assert.deepEqual(set.ignored, ['ConfigMap (v1)']);
});

test('slices, nodes and service CIDRs; a List; JSON', (t) => {
  const set = load(
    t,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'List',
      items: [
        {
          apiVersion: 'discovery.k8s.io/v1',
          kind: 'EndpointSlice',
          metadata: { name: 'web-1', labels: { 'kubernetes.io/service-name': 'web' } },
          addressType: 'IPv4',
          ports: [{ port: 8080 }],
          endpoints: [{ addresses: ['10.0.0.1'], nodeName: 'node-1' }],
        },
        {
          apiVersion: 'v1',
          kind: 'Node',
          metadata: { name: 'node-1', labels: { 'topology.kubernetes.io/zone': 'z1' } },
          spec: { podCIDR: '10.0.0.0/24' },
        },
        {
          apiVersion: 'networking.k8s.io/v1',
          kind: 'ServiceCIDRList',
          items: [{ metadata: { name: 'kubernetes' }, spec: { cidrs: ['10.96.0.0/12'] } }],
        },
      ],
    }),
    'all.json',
  );
  const slice = set.endpointSlices.get('default/web-1');
  // A nil port name is '' once the API server has seen it.
  assert.deepEqual(slice?.ports, [{ name: '', protocol: 'TCP', port: 8080 }]);
  assert.equal(slice.endpoints[0]?.ready, true);
  assert.equal(set.nodes.get('node-1')?.zone, 'z1');
  assert.deepEqual(set.nodes.get('node-1')?.podCIDRs, ['10.0.0.0/24']);
  assert.deepEqual(set.serviceCIDRs.get('kubernetes')?.cidrs, ['10.96.0.0/12']);
});

test('Pods become endpoints of the Services that select them and have no slices', (t) => {
  const set = load(
    t,
    [
      service('web', '10.96.0.10'),
      pod('web-1', 'web', '10.0.0.1'),
      pod('web-2', 'web', '10.0.0.2', '  deletionTimestamp: 2026-01-01T00:00:00Z'),
      `${pod('web-3', 'web', '10.0.0.3')}  phase: Running\n  conditions: [{ type: Ready, status: 'False' }]\n`,
      `${pod('web-4', 'web', '10.0.0.4')}  phase: Succeeded\n`,
      pod('other-1', 'other', '10.0.0.5'),
    ].join('---\n'),
  );
  assert.equal(set.endpointSlices.size, 1);
  const slice = [...set.endpointSlices.values()][0];
  assert.equal(slice?.serviceName, 'web');
  assert.deepEqual(slice.ports, [{ name: '', protocol: 'TCP', port: 8080 }]);
  assert.deepEqual(
    slice.endpoints.map((e) => [e.address, e.ready, e.serving, e.terminating, e.nodeName]),
    [
      ['10.0.0.1', true, true, false, 'node-1'],
      ['10.0.0.2', false, true, true, 'node-1'],
      ['10.0.0.3', false, false, false, 'node-1'],
    ],
  );
});

test('named target ports are looked up in each Pod', (t) => {
  const set = load(
    t,
    [
      service('web', '10.96.0.10').replace('targetPort: 8080', 'targetPort: web'),
      pod('web-1', 'web', '10.0.0.1'),
      pod('web-2', 'web', '10.0.0.2').replace('9090', '9091'),
    ].join('---\n'),
  );
  assert.deepEqual(
    [...set.endpointSlices.values()].map((slice) => [slice.ports[0]?.port, slice.endpoints[0]?.address]),
    [
      [9090, '10.0.0.1'],
      [9091, '10.0.0.2'],
    ],
  );
});

test('a Deployment without Pods has no addresses, and that is said', (t) => {
  const set = load(
    t,
    `${service('web', '10.96.0.10')}---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec: { template: { metadata: { labels: { app: web } } } }
`,
  );
  assert.equal(set.endpointSlices.size, 0);
  assert.match(set.warnings[0] ?? '', /a\.yaml:7:13: Service web selects the Pods of Deployment web, but/);
});

const mistakes: readonly (readonly [string, string, string, RegExp])[] = [
  ['syntax', 'kind: [', 'MANIFEST_SYNTAX', /a\.yaml:1:8: not valid YAML or JSON: /],
  [
    'duplicate key',
    'kind: A\nkind: B\n',
    'MANIFEST_SYNTAX',
    /a\.yaml:2:1: not valid YAML or JSON: Map keys must be unique/,
  ],
  ['text only', 'hello', 'MANIFEST_INVALID', /a\.yaml:1:1: is not a Kubernetes object/],
  ['no kind', 'apiVersion: v1\n', 'MANIFEST_INVALID', /a\.yaml:1:1: kind is missing/],
  [
    'no name',
    'apiVersion: v1\nkind: Service\nmetadata: {}\n',
    'MANIFEST_INVALID',
    /a\.yaml:3:11: Service: metadata\.name is missing/,
  ],
  [
    'wrong type',
    service('web', '10.96.0.1').replace('port: 80\n', 'port: http\n'),
    'MANIFEST_INVALID',
    /a\.yaml:9:13: Service web: spec\.ports\[0\]\.port must be a whole number, not string "http"/,
  ],
  [
    'no address',
    service('web', '""'),
    'MANIFEST_INVALID',
    /a\.yaml:6:14: Service web: spec\.clusterIP is missing: manifests have no address allocator/,
  ],
  [
    'bad address',
    service('web', '10.96.0.300'),
    'MANIFEST_INVALID',
    /a\.yaml:6:14: Service web: spec\.clusterIP must be an IP address or None, not "10\.96\.0\.300"/,
  ],
  [
    'port out of range',
    service('web', '10.96.0.1').replace('port: 80\n', 'port: 70000\n'),
    'MANIFEST_INVALID',
    /spec\.ports\[0\]\.port must be 1 to 65535, not 70000/,
  ],
  [
    'label with dots',
    `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: x
  labels:
    kubernetes.io/service-name: 7
`,
    'MANIFEST_INVALID',
    /a\.yaml:6:33: EndpointSlice x: metadata\.labels\.kubernetes\.io\/service-name must be a string/,
  ],
  [
    'second document, in a List',
    `apiVersion: v1
kind: Node
metadata: { name: n }
---
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Node
    metadata: { name: m }
  - apiVersion: v1
    kind: Node
    metadata: { name: o }
    spec: { podCIDRs: 10.0.0.0/8 }
`,
    'MANIFEST_INVALID',
    /a\.yaml:14:23: Node o: spec\.podCIDRs must be a list/,
  ],
  [
    'defined twice',
    `${service('web', '10.96.0.1')}---\n${service('web', '10.96.0.2')}`,
    'MANIFEST_INVALID',
    /a\.yaml:15:9: Service default\/web is defined twice, before this at .*a\.yaml:4:9/,
  ],
];

for (const [name, text, code, message] of mistakes) {
  test(`mistake: ${name}`, (t) => {
    assert.throws(
      () => load(t, text),
      (error) => {
        assert.ok(error instanceof ManifestError);
        assert.equal(error.code, code);
        assert.match(error.message, message);
        return true;
      },
    );
  });
}

const deepest = '['.repeat(8000) + ']'.repeat(8000);
const list = (depth: number): string =>
  '{"apiVersion":"v1","kind":"List","items":['.repeat(depth) + ']}'.repeat(depth);
const tooDeep: readonly (readonly [string, string, string, RegExp])[] = [
  ['brackets', 'a.yaml', `kind: ${deepest}`, /a\.yaml:1:10\d: nested more than 100 levels deep/],
  ['brackets that do not end', 'a.yaml', '['.repeat(100_000), /a\.yaml:1:10\d: nested more than 100 levels/],
  ['lists in one line', 'a.yaml', '- '.repeat(8000), /nested more than 100 levels deep/],
  // The parser's time doubles with each few levels.
  ['keys of keys', 'a.yaml', '? '.repeat(8000), /nested more than 100 levels deep/],
  ['JSON', 'a.json', `{\n "kind": ${deepest}}`, /a\.json:2:10\d: nested more than 100 levels deep/],
  ['Lists of Lists', 'a.json', list(4000), /nested more than 100 levels deep/],
];
for (const [name, file, text, message] of tooDeep) {
  test(`nested too deep: ${name}`, (t) => {
    const started = performance.now();
    assert.throws(
      () => load(t, text, file),
      (error) => error instanceof ManifestError && message.test(error.message),
    );
    assert.ok(performance.now() - started < 3000, 'it took too long');
  });
}

test('what looks nested in strings of JSON is not', (t) => {
  const text = JSON.stringify({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    data: { a: '\\"' + '[{'.repeat(5000) },
  });
  assert.deepEqual(load(t, text, 'a.json').ignored, ['ConfigMap (v1)']);
});

test('a file that is too large is not read', (t) => {
  const root = folder(t);
  const file = path.join(root, 'a.yaml');
  writeFileSync(file, '# ');
  truncateSync(file, 65 * 1024 * 1024);
  const { errors } = new ManifestLoader(root, 'n').load();
  assert.match(errors.join(), /a\.yaml: can't be read \(it is larger than 64 MiB\)/);
});

test('mistake in JSON that is not YAML-parsed at first', (t) => {
  assert.throws(
    () => load(t, '{\n  "apiVersion": "v1",\n  "kind": "Node",\n  "metadata": 5\n}', 'x.json'),
    /x\.json:4:15: Node: metadata must be an object, not number 5/,
  );
});

test('a path that does not exist', () => {
  assert.throws(
    () => new ManifestLoader('/nowhere/at/all', 'n').load(),
    (error) => error instanceof ManifestError && error.code === 'MANIFEST_PATH',
  );
});

// ---------------------------------------------------------------- following changes

class Recorder implements ClusterSink {
  readonly log: string[] = [];
  readonly errors: string[] = [];

  service(key: string, object: Service | undefined): void {
    this.log.push(`service ${key} ${object?.clusterIP ?? 'gone'}`);
  }
  endpointSlice(key: string, object: EndpointSlice | undefined): void {
    this.log.push(`slice ${key} ${object?.endpoints.map((e) => e.address).join() ?? 'gone'}`);
  }
  node(key: string, object: Node | undefined): void {
    this.log.push(`node ${key} ${object?.zone ?? ''}`);
  }
  serviceCIDR(key: string, object: ServiceCIDR | undefined): void {
    this.log.push(`cidr ${key} ${object?.cidrs.join() ?? 'gone'}`);
  }
  synced(kind: string): void {
    this.log.push(`synced ${kind}`);
  }
  flush(): void {
    this.log.push('flush');
  }

  /** The log since the last call. */
  take(): string[] {
    return this.log.splice(0);
  }

  readonly logger: Logger = {
    info: (message) => void this.errors.push(message),
    warn: (message) => void this.errors.push(message),
    error: (message, error) =>
      void this.errors.push(`${message}: ${error instanceof Error ? error.message : ''}`),
    debug: () => undefined,
    named: () => this.logger,
  };

  async until(done: () => boolean): Promise<void> {
    const deadline = Date.now() + 3000;
    while (!done()) {
      assert.ok(
        Date.now() < deadline,
        `timed out; so far: ${this.log.join('; ')} / ${this.errors.join('; ')}`,
      );
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async flushed(): Promise<string[]> {
    await this.until(() => this.log.includes('flush'));
    return this.take();
  }
}

function follow(t: TestContext, root: string, pollMs = 60_000): Recorder {
  const recorder = new Recorder();
  const source = new ManifestSource(root, recorder, recorder.logger, { nodeName: 'node-1', pollMs });
  t.after(() => {
    source.stop();
  });
  source.start();
  return recorder;
}

test('changes are delivered as differences', async (t) => {
  const root = folder(t);
  const file = path.join(root, 'a.yaml');
  writeFileSync(file, `${service('a', '10.96.0.1')}---\n${service('b', '10.96.0.2')}`);
  const recorder = follow(t, root);
  assert.deepEqual(recorder.take(), [
    'service default/a 10.96.0.1',
    'service default/b 10.96.0.2',
    'synced Service',
    'synced EndpointSlice',
    'synced Node',
    'synced ServiceCIDR',
    'flush',
  ]);
  writeFileSync(file, `${service('a', '10.96.0.1')}---\n${service('b', '10.96.0.3')}`);
  assert.deepEqual(await recorder.flushed(), ['service default/b 10.96.0.3', 'flush']);
  writeFileSync(path.join(root, 'pods.yaml'), pod('a-1', 'a', '10.0.0.1'));
  assert.deepEqual(await recorder.flushed(), ['slice default/a.ipv4-0 10.0.0.1', 'flush']);
  unlinkSync(path.join(root, 'pods.yaml'));
  assert.deepEqual(await recorder.flushed(), ['slice default/a.ipv4-0 gone', 'flush']);
});

test('a broken file is reported, the last good state stays, and a repaired one goes on', async (t) => {
  const root = folder(t);
  const file = path.join(root, 'a.yaml');
  writeFileSync(file, service('a', '10.96.0.1'));
  const recorder = follow(t, root);
  recorder.take();
  writeFileSync(file, service('a', '10.96.0.1').replace('port: 80\n', 'port: x\n'));
  await recorder.until(() => recorder.errors.length > 0);
  assert.match(
    recorder.errors[0] ?? '',
    /keeping its last good state: .*a\.yaml:9:13: Service a: spec\.ports\[0\]\.port/,
  );
  assert.deepEqual(recorder.take(), []);
  writeFileSync(file, service('a', '10.96.0.9'));
  assert.deepEqual(await recorder.flushed(), ['service default/a 10.96.0.9', 'flush']);
  assert.equal(recorder.errors.at(-1), 'Manifest file loaded again');
});

/** What can be wrong with a file, beside one that is good. */
const badFiles: readonly (readonly [string, (file: string) => void, RegExp])[] = [
  [
    'a dangling symlink',
    (file) => {
      symlinkSync('/nowhere/x', file);
    },
    /bad\.yaml: is a symbolic link to nothing/,
  ],
  [
    'a symlink to itself',
    (file) => {
      symlinkSync(file, file);
    },
    /bad\.yaml: can't be read \(ELOOP/,
  ],
  [
    'no YAML',
    (file) => {
      writeFileSync(file, 'a: [');
    },
    /bad\.yaml:1:5: not valid YAML or JSON/,
  ],
  [
    'nested brackets',
    (file) => {
      writeFileSync(file, deepest);
    },
    /bad\.yaml:1:10\d: nested more than 100/,
  ],
  [
    'an object that another file has',
    (file) => {
      writeFileSync(file, `${service('new', '10.96.0.8')}---\n${service('a', '10.96.0.7')}`);
    },
    /bad\.yaml:15:9: Service default\/a is defined twice, before this at .*\/a\.yaml:4:9/,
  ],
];
for (const [name, make, message] of badFiles) {
  test(`${name}: it is named and the others are served, at the start and later`, async (t) => {
    const root = folder(t);
    writeFileSync(path.join(root, 'a.yaml'), service('a', '10.96.0.1'));
    const bad = path.join(root, 'bad.yaml');
    make(bad);
    const recorder = follow(t, root);
    assert.deepEqual(recorder.take().slice(0, 2), ['service default/a 10.96.0.1', 'synced Service']);
    assert.equal(recorder.errors.length, 1, recorder.errors.join());
    assert.match(recorder.errors[0] ?? '', message);
    // It becomes usable, and unusable again: then it keeps its last good state.
    rmSync(bad);
    writeFileSync(bad, service('b', '10.96.0.2'));
    assert.deepEqual(await recorder.flushed(), ['service default/b 10.96.0.2', 'flush']);
    assert.equal(recorder.errors.at(-1), 'Manifest file loaded again');
    rmSync(bad);
    make(bad);
    writeFileSync(path.join(root, 'c.yaml'), service('c', '10.96.0.3'));
    assert.deepEqual(await recorder.flushed(), ['service default/c 10.96.0.3', 'flush']);
    assert.equal(recorder.errors.length, 3, recorder.errors.join());
    assert.match(recorder.errors[2] ?? '', message);
    // Another change does not tell it again, and its end takes its objects with it.
    writeFileSync(path.join(root, 'c.yaml'), service('c', '10.96.0.4'));
    assert.deepEqual(await recorder.flushed(), ['service default/c 10.96.0.4', 'flush']);
    assert.equal(recorder.errors.length, 3, recorder.errors.join());
    rmSync(bad);
    assert.deepEqual(await recorder.flushed(), ['service default/b gone', 'flush']);
  });
}

test('a folder that goes away keeps what it held, and is taken again when it is back', async (t) => {
  const above = folder(t);
  const root = path.join(above, 'm');
  mkdirSync(root);
  writeFileSync(path.join(root, 'a.yaml'), service('a', '10.96.0.1'));
  const recorder = follow(t, root, 20);
  recorder.take();
  renameSync(root, `${root}2`);
  symlinkSync(root, root);
  await recorder.until(() => recorder.errors.length > 0);
  assert.match(recorder.errors[0] ?? '', /keeping the last good state: .*ELOOP/);
  assert.deepEqual(recorder.take(), []);
  rmSync(root);
  renameSync(`${root}2`, root);
  writeFileSync(path.join(root, 'b.yaml'), service('b', '10.96.0.2'));
  assert.deepEqual(await recorder.flushed(), ['service default/b 10.96.0.2', 'flush']);
});

test('a folder that may not be read keeps what it held, and is taken again afterwards', async (t) => {
  const above = folder(t);
  const root = path.join(above, 'm');
  mkdirSync(root);
  writeFileSync(path.join(root, 'a.yaml'), service('a', '10.96.0.1'));
  const recorder = follow(t, root, 20);
  recorder.take();
  await withoutRights(above, () => recorder.until(() => recorder.errors.length > 0));
  assert.match(recorder.errors[0] ?? '', /keeping the last good state: .*EACCES/);
  writeFileSync(path.join(root, 'a.yaml'), service('a', '10.96.0.2'));
  assert.deepEqual(await recorder.flushed(), ['service default/a 10.96.0.2', 'flush']);
  assert.deepEqual(recorder.errors.slice(1), ['Manifests loaded again']);
});

test('a file replaced by rename', async (t) => {
  const root = folder(t);
  const file = path.join(root, 'a.yaml');
  writeFileSync(file, service('a', '10.96.0.1'));
  const recorder = follow(t, file);
  recorder.take();
  for (const ip of ['10.96.0.2', '10.96.0.3']) {
    writeFileSync(path.join(root, '.tmp'), service('a', ip));
    renameSync(path.join(root, '.tmp'), file);
    assert.deepEqual(await recorder.flushed(), [`service default/a ${ip}`, 'flush']);
  }
});

test('a mounted ConfigMap: the link ..data is swapped', async (t) => {
  const root = folder(t);
  const version = (name: string, ip: string): void => {
    mkdirSync(path.join(root, name));
    writeFileSync(path.join(root, name, 'a.yaml'), service('a', ip));
    symlinkSync(name, path.join(root, '..data_tmp'));
    renameSync(path.join(root, '..data_tmp'), path.join(root, '..data'));
  };
  version('..1', '10.96.0.1');
  symlinkSync('..data/a.yaml', path.join(root, 'a.yaml'));
  const recorder = follow(t, root);
  recorder.take();
  version('..2', '10.96.0.2');
  assert.deepEqual(await recorder.flushed(), ['service default/a 10.96.0.2', 'flush']);
  version('..3', '10.96.0.3');
  assert.deepEqual(await recorder.flushed(), ['service default/a 10.96.0.3', 'flush']);
});

test('without notifications, polling finds the change', async (t) => {
  const root = folder(t);
  const elsewhere = folder(t);
  const target = path.join(elsewhere, 'deep');
  mkdirSync(target);
  writeFileSync(path.join(target, 'a.yaml'), service('a', '10.96.0.1'));
  // Neither the folder of the link nor the file's own folder sees a change of the middle link's target.
  symlinkSync(target, path.join(elsewhere, 'middle'));
  symlinkSync(path.join(elsewhere, 'middle', 'a.yaml'), path.join(root, 'a.yaml'));
  const recorder = follow(t, root, 30);
  recorder.take();
  const second = path.join(elsewhere, 'second');
  mkdirSync(second);
  writeFileSync(path.join(second, 'a.yaml'), service('a', '10.96.0.2'));
  symlinkSync(second, path.join(elsewhere, 'next'));
  renameSync(path.join(elsewhere, 'next'), path.join(elsewhere, 'middle'));
  assert.deepEqual(await recorder.flushed(), ['service default/a 10.96.0.2', 'flush']);
});

test('broken at the start: nothing is delivered', (t) => {
  const root = folder(t);
  writeFileSync(path.join(root, 'a.yaml'), 'kind: [');
  const recorder = new Recorder();
  const source = new ManifestSource(root, recorder, recorder.logger, { nodeName: 'node-1' });
  assert.throws(() => {
    source.start();
  }, ManifestError);
  source.stop();
  assert.deepEqual(recorder.take(), []);
});
