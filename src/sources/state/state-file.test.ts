/** The state file from outside: what is on the disk after deliveries, and what a start makes of it. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { patiently } from '../../../test/patience.js';
import type { ClusterSink, EndpointSlice, Node, ResourceKind, Service, ServiceCIDR } from '../objects.js';
import type { Logger } from '../../log/logger.js';
import { StateFile, type StateFileOptions } from './state-file.js';

const service = (name: string, clusterIP: string): Service => ({
  namespace: 'a',
  name,
  uid: '',
  creationTimestamp: '2026-01-01T00:00:00Z',
  serviceProxyName: undefined,
  type: 'ClusterIP',
  clusterIP,
  clusterIPs: [clusterIP],
  ipFamilies: ['IPv4'],
  ports: [{ name: 'http', protocol: 'TCP', port: 80, nodePort: 0 }],
  externalIPs: [],
  loadBalancerIngress: [],
  loadBalancerSourceRanges: [],
  sessionAffinity: 'None',
  affinityTimeoutSeconds: undefined,
  internalTrafficPolicy: 'Cluster',
  externalTrafficPolicy: '',
  healthCheckNodePort: 0,
});
const slice = (name: string, ...addresses: readonly string[]): EndpointSlice => ({
  namespace: 'a',
  name,
  serviceName: name,
  headless: false,
  addressType: 'IPv4',
  ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
  endpoints: addresses.map((address) => ({
    address,
    ready: true,
    serving: true,
    terminating: false,
    nodeName: 'n1',
    zoneHints: [],
    nodeHints: [],
  })),
  triggerTime: '',
});
const node: Node = {
  name: 'n1',
  uid: 'u1',
  addresses: [{ type: 'InternalIP', address: '192.0.2.1' }],
  podCIDRs: ['10.1.0.0/24'],
  zone: 'z1',
  taintKeys: [],
  deleting: false,
};

/** The cluster as a sink knows it, and every call in words. */
class Picture implements ClusterSink {
  readonly objects = new Map<string, unknown>();
  readonly calls: string[] = [];

  private note(kind: ResourceKind, key: string, object: unknown): void {
    this.calls.push(`${kind} ${key}${object === undefined ? ' gone' : ''}`);
    if (object === undefined) this.objects.delete(`${kind} ${key}`);
    else this.objects.set(`${kind} ${key}`, object);
  }
  service(key: string, object: Service | undefined): void {
    this.note('Service', key, object);
  }
  endpointSlice(key: string, object: EndpointSlice | undefined): void {
    this.note('EndpointSlice', key, object);
  }
  node(key: string, object: Node | undefined): void {
    this.note('Node', key, object);
  }
  serviceCIDR(key: string, object: ServiceCIDR | undefined): void {
    this.note('ServiceCIDR', key, object);
  }
  synced(kind: ResourceKind): void {
    this.calls.push(`synced ${kind}`);
  }
  flush(): void {
    this.calls.push('flush');
  }
  take(): string[] {
    return this.calls.splice(0);
  }
}

interface Stand {
  readonly folder: string;
  readonly path: string;
  readonly lines: string[];
  load(more?: Partial<StateFileOptions>): Promise<{ file: StateFile; sink: ClusterSink; seen: Picture }>;
}

function stand(t: TestContext): Stand {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'state-'));
  const lines: string[] = [];
  const say = (level: string) => (message: string, fields: unknown) =>
    void lines.push(`${level} ${message} ${JSON.stringify(fields)}`);
  const log: Logger = {
    info: say('info'),
    warn: say('warn'),
    error: (message, error, fields) =>
      void lines.push(`error ${message} ${String(error)} ${JSON.stringify(fields)}`),
    debug: () => undefined,
    named: () => log,
  };
  const open: StateFile[] = [];
  t.after(async () => {
    await Promise.all(open.map((file) => file.close()));
    rmSync(folder, { recursive: true });
  });
  const file = path.join(folder, 'state');
  return {
    folder,
    path: file,
    lines,
    load: async (more) => {
      const loaded = await StateFile.load({
        path: file,
        node: 'n1',
        server: 'https://192.0.2.9:6443',
        program: '0.1.0',
        log,
        intervalMs: 10,
        retryMs: 20,
        ...more,
      });
      open.push(loaded);
      const seen = new Picture();
      return { file: loaded, sink: loaded.sink(seen), seen };
    },
  };
}

function deliverAll(sink: ClusterSink): void {
  sink.service('a/one', service('one', '10.96.0.1'));
  sink.service('a/two', service('two', '10.96.0.2'));
  sink.synced('Service');
  sink.endpointSlice('a/one', slice('one', '10.1.0.1', '10.1.0.2'));
  sink.endpointSlice('a/two', slice('two', '10.1.0.3'));
  sink.synced('EndpointSlice');
  sink.node('n1', node);
  sink.synced('Node');
  sink.serviceCIDR('kubernetes', { name: 'kubernetes', cidrs: ['10.96.0.0/12'] });
  sink.synced('ServiceCIDR');
  sink.flush();
}

/** A file as an earlier process leaves it. */
async function leave(at: Stand, more?: (sink: ClusterSink) => void): Promise<Picture> {
  const { file, sink, seen } = await at.load();
  deliverAll(sink);
  more?.(sink);
  await file.close();
  return seen;
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  const deadline = Date.now() + patiently(5000);
  while (!isSo()) {
    assert.ok(Date.now() < deadline, `waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const commits = (at: Stand): number => readFileSync(at.path, 'utf8').split('{"commit"').length - 1;

test('what was delivered is served by the next process, the same in every field', async (t) => {
  const at = stand(t);
  const before = await leave(at, (sink) => {
    sink.service('a/three', service('three', '10.96.0.3'));
    sink.service('a/two', undefined);
  });
  const { file, seen } = await at.load();
  assert.ok((file.storedAt ?? 0) > Date.now() - 10_000);
  assert.equal(file.staleSince, undefined, 'nothing is served yet');
  assert.equal(await file.serve(), true);
  assert.deepEqual(seen.objects, before.objects);
  assert.ok(seen.objects.has('Service a/three') && !seen.objects.has('Service a/two'));
  assert.equal(file.staleSince, file.storedAt);
  assert.deepEqual(seen.take().slice(-5), [
    'synced Service',
    'synced EndpointSlice',
    'synced Node',
    'synced ServiceCIDR',
    'flush',
  ]);
});

test('the file holds no more than it has to, and is for its owner only', async (t) => {
  const at = stand(t);
  await leave(at);
  assert.equal(statSync(at.path).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(at.folder), ['state'], 'nothing is left beside it');
  const [head, first] = readFileSync(at.path, 'utf8').split('\n');
  assert.equal(head, '{"kubeProxyState":1,"node":"n1","server":"https://192.0.2.9:6443","program":"0.1.0"}');
  assert.deepEqual(JSON.parse(first ?? ''), [
    'Service',
    'a/one',
    {
      metadata: { namespace: 'a', name: 'one', creationTimestamp: '2026-01-01T00:00:00Z' },
      spec: {
        type: 'ClusterIP',
        clusterIP: '10.96.0.1',
        clusterIPs: ['10.96.0.1'],
        ipFamilies: ['IPv4'],
        ports: [{ name: 'http', protocol: 'TCP', port: 80 }],
        sessionAffinity: 'None',
        internalTrafficPolicy: 'Cluster',
      },
    },
  ]);
});

test('no file: nothing to serve, no word about it', async (t) => {
  const at = stand(t);
  const { file, seen } = await at.load();
  assert.equal(file.storedAt, undefined);
  assert.equal(await file.serve(), false);
  assert.deepEqual([seen.calls, at.lines], [[], []]);
});

test('the API server comes back: only differences, and nothing is gone before its list is complete', async (t) => {
  const at = stand(t);
  await leave(at);
  const { file, sink, seen } = await at.load();
  await file.serve();
  seen.take();
  // Service one is as it was, two is gone, three is new.
  sink.service('a/one', service('one', '10.96.0.1'));
  sink.service('a/three', service('three', '10.96.0.3'));
  sink.flush();
  assert.deepEqual(seen.take(), ['Service a/one', 'Service a/three', 'flush']);
  assert.ok(seen.objects.has('Service a/two'));
  sink.synced('Service');
  assert.deepEqual(seen.take(), ['Service a/two gone'], 'told to be complete once already');
  sink.endpointSlice('a/one', slice('one', '10.1.0.1'));
  sink.endpointSlice('a/two', undefined);
  sink.synced('EndpointSlice');
  assert.deepEqual(seen.take(), ['EndpointSlice a/one', 'EndpointSlice a/two gone']);
  assert.notEqual(file.staleSince, undefined, 'the Node is still missing');
  sink.node('n1', node);
  sink.synced('Node');
  assert.equal(file.staleSince, undefined);
  sink.synced('ServiceCIDR');
  assert.deepEqual(seen.take(), ['Node n1', 'ServiceCIDR kubernetes gone']);
});

test('what the API server delivered before is not overwritten by what is stored', async (t) => {
  const at = stand(t);
  await leave(at);
  const { file, sink, seen } = await at.load();
  // Services are complete, slices have begun to arrive, the rest has not.
  sink.service('a/one', service('one', '10.96.9.9'));
  sink.synced('Service');
  sink.endpointSlice('a/one', slice('one', '10.9.9.9'));
  seen.take();
  await file.serve();
  assert.deepEqual(seen.take(), [
    'EndpointSlice a/two',
    'Node n1',
    'ServiceCIDR kubernetes',
    'synced EndpointSlice',
    'synced Node',
    'synced ServiceCIDR',
    'flush',
  ]);
});

test('everything is there before the file was asked for: it is not served', async (t) => {
  const at = stand(t);
  await leave(at);
  const { file, sink } = await at.load();
  deliverAll(sink);
  assert.equal(await file.serve(), false);
  assert.equal(file.staleSince, undefined);
});

test('an incomplete start leaves the file of the process before alone', async (t) => {
  const at = stand(t);
  await leave(at);
  const before = readFileSync(at.path);
  const { file, sink } = await at.load();
  await file.serve();
  sink.service('a/new', service('new', '10.96.0.9'));
  sink.synced('Service');
  await file.close();
  assert.deepEqual(readFileSync(at.path), before);
  assert.deepEqual(readdirSync(at.folder), ['state']);
});

test('the first group holds everything, however much waits when the lists end', async (t) => {
  const at = stand(t);
  const { file, sink, seen } = await at.load();
  const count = 20_000;
  for (let i = 0; i < count; i++) {
    sink.service(`a/${i}`, service(String(i), '10.96.0.1'));
    // Lists arrive in pieces; what came is being written meanwhile.
    if (i % 5000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  deliverAll(sink);
  await until('the first group', () => existsSync(at.path));
  const lines = readFileSync(at.path, 'utf8').split('\n');
  assert.equal(lines.filter((line) => line.startsWith('["Service"')).length, count + 2);
  assert.match(lines[count + 7] ?? '', /^\{"commit":1,/);
  await file.close();
  const next = await at.load();
  await next.file.serve();
  assert.deepEqual(next.seen.objects, seen.objects);
});

test('changes follow within the interval, one record each', async (t) => {
  const at = stand(t);
  const { sink } = await at.load();
  deliverAll(sink);
  await until('the first group', () => existsSync(at.path));
  const size = statSync(at.path).size;
  for (let i = 0; i < 5; i++) sink.endpointSlice('a/one', slice('one', `10.1.1.${i}`));
  await until('the second group', () => commits(at) === 2);
  const added = readFileSync(at.path).subarray(size).toString();
  assert.equal(added.split('\n').length, 3, `one record and the line that closes the group: ${added}`);
  assert.match(added, /10\.1\.1\.4/);
});

test('a file that is mostly out of date is written anew, and the same comes of it', async (t) => {
  const at = stand(t);
  const { file, sink, seen } = await at.load();
  deliverAll(sink);
  const many = Array.from({ length: 1000 }, (_, i) => `10.2.${i >> 8}.${i & 255}`);
  let largest = 0;
  for (let round = 0; round < 120; round++) {
    sink.endpointSlice('a/one', slice('one', `10.3.0.${round}`, ...many));
    await until('the group', () => existsSync(at.path) && readFileSync(at.path).includes(`10.3.0.${round}"`));
    largest = Math.max(largest, statSync(at.path).size);
  }
  await file.close();
  assert.ok(largest > 4 * 1024 * 1024 && largest < 5 * 1024 * 1024, `${largest} bytes`);
  assert.ok(statSync(at.path).size < largest, 'rewritten at least once');
  const next = await at.load();
  await next.file.serve();
  assert.deepEqual(next.seen.objects, seen.objects);
});

test('a file that somebody removes is put back', async (t) => {
  const at = stand(t);
  const { file, sink, seen } = await at.load();
  deliverAll(sink);
  await until('the file', () => existsSync(at.path));
  rmSync(at.path);
  sink.service('a/one', service('one', '10.96.7.7'));
  await until('the file again', () => existsSync(at.path));
  await file.close();
  const next = await at.load();
  await next.file.serve();
  assert.deepEqual(next.seen.objects, seen.objects);
});

test('a file that is swapped under us is not written to, but replaced', async (t) => {
  const at = stand(t);
  const { file, sink, seen } = await at.load();
  deliverAll(sink);
  await until('the file', () => existsSync(at.path));
  renameSync(at.path, `${at.path}.kept`);
  writeFileSync(at.path, 'somebody else\n', { mode: 0o600 });
  sink.service('a/one', service('one', '10.96.7.7'));
  await until('our file again', () => readFileSync(at.path, 'utf8').includes('10.96.7.7'));
  await file.close();
  const next = await at.load();
  await next.file.serve();
  assert.deepEqual(next.seen.objects, seen.objects);
});

test('a place that can not be written is a warning, and nothing is lost once it can', async (t) => {
  const at = stand(t);
  const place = path.join(at.folder, 'later');
  const there = path.join(place, 'state');
  const { file, sink, seen } = await at.load({ path: there });
  writeFileSync(place, '');
  deliverAll(sink);
  await until('the warning', () => at.lines.length > 0);
  assert.match(at.lines[0] ?? '', /^warn The state file can not be written; trying again.*(ENOTDIR|EEXIST)/);
  sink.service('a/three', service('three', '10.96.0.3'));
  rmSync(place);
  await until('the file', () => existsSync(there));
  await until('the word of it', () => at.lines.some((line) => line.includes('State file writable again')));
  await file.close();
  assert.equal(at.lines.filter((line) => line.startsWith('warn')).length, 1, 'one warning for all tries');
  const next = await at.load({ path: there });
  await next.file.serve();
  assert.deepEqual(next.seen.objects, seen.objects);
});

test('a link in the place of the new file is not followed', async (t) => {
  const at = stand(t);
  const victim = path.join(at.folder, 'victim');
  writeFileSync(victim, 'precious');
  symlinkSync(victim, `${at.path}.tmp`);
  await leave(at);
  assert.equal(readFileSync(victim, 'utf8'), 'precious');
});

test('a folder that is missing is made', async (t) => {
  const at = stand(t);
  const there = path.join(at.folder, 'x', 'y', 'state');
  const { file, sink } = await at.load({ path: there });
  deliverAll(sink);
  await file.close();
  assert.equal(statSync(path.dirname(there)).mode & 0o777, 0o700);
});

test('the time of the state is that of the proof', async (t) => {
  const at = stand(t);
  const first = await at.load();
  first.file.proveWith(() => 1_800_000_000_000);
  deliverAll(first.sink);
  await first.file.close();
  const next = await at.load({ maxAgeMs: Infinity });
  assert.equal(next.file.storedAt, 1_800_000_000_000);
});

// ---------------------------------------------------------------- files that are not right

/** Name, what is done to a good file of two groups, and what is said: a warning, or the number of Services served. */
const damages: readonly (readonly [name: string, spoil: (at: Stand) => void, outcome: RegExp | number])[] = [
  [
    'a crash within a record',
    (at) => {
      truncateSync(at.path, statSync(at.path).size - 130);
    },
    2,
  ],
  [
    'a crash within the last line',
    (at) => {
      truncateSync(at.path, statSync(at.path).size - 10);
    },
    2,
  ],
  [
    'blocks of the last group that never reached the disk',
    (at) => {
      zero(at, -200, 60);
    },
    2,
  ],
  [
    'zeros after the end',
    (at) => {
      append(at, Buffer.alloc(4096));
    },
    3,
  ],
  [
    'garbage after the end',
    (at) => {
      append(at, Buffer.from('["Service","a/x",{"met'));
    },
    3,
  ],
  [
    'one flipped bit in the first group',
    (at) => {
      flip(at, 300);
    },
    /STATE_FILE_CORRUPT.*damaged after byte/,
  ],
  [
    'zeros in the first group',
    (at) => {
      zero(at, 200, 100);
    },
    /STATE_FILE_CORRUPT.*damaged after byte/,
  ],
  [
    'a crash within the first group',
    (at) => {
      truncateSync(at.path, 500);
    },
    /STATE_FILE_CORRUPT.*no complete state/,
  ],
  [
    'an empty file',
    (at) => {
      truncateSync(at.path, 0);
    },
    /STATE_FILE_UNKNOWN/,
  ],
  [
    "another program's file",
    (at) => {
      writeFileSync(at.path, '{"version":3}\n{}\n');
    },
    /STATE_FILE_UNKNOWN/,
  ],
  [
    'binary data',
    (at) => {
      writeFileSync(at.path, Buffer.alloc(100_000, 0xff));
    },
    /STATE_FILE_UNKNOWN/,
  ],
  [
    'one endless line',
    (at) => {
      writeFileSync(at.path, Buffer.alloc(17 * 1024 * 1024, 0x20));
    },
    /never ends/,
  ],
  [
    'a newer format',
    (at) => {
      replace(at, '"kubeProxyState":1', '"kubeProxyState":2');
    },
    /STATE_FILE_VERSION.*version 2, this program reads version 1/,
  ],
  [
    'another node',
    (at) => {
      replace(at, '"node":"n1"', '"node":"n2"');
    },
    /STATE_FILE_FOREIGN.*node.*n2.*n1/,
  ],
  [
    'another cluster',
    (at) => {
      replace(at, '192.0.2.9', '192.0.2.8');
    },
    /STATE_FILE_FOREIGN.*API server/,
  ],
  [
    'others may write it',
    (at) => {
      chmodSync(at.path, 0o666);
    },
    /STATE_FILE_UNSAFE.*mode 666/,
  ],
  [
    'a folder',
    (at) => {
      rmSync(at.path);
      mkdirSync(at.path);
    },
    /STATE_FILE_UNSAFE.*not a regular file|EISDIR/,
  ],
];
function append(at: Stand, bytes: Buffer): void {
  writeFileSync(at.path, bytes, { flag: 'a' });
}
function zero(at: Stand, from: number, count: number): void {
  const bytes = readFileSync(at.path);
  const start = from < 0 ? bytes.length + from : from;
  writeFileSync(at.path, bytes.fill(0, start, start + count));
}
function flip(at: Stand, position: number): void {
  const bytes = readFileSync(at.path);
  bytes[position] = (bytes[position] ?? 0) ^ 1;
  writeFileSync(at.path, bytes);
}
function replace(at: Stand, text: string, by: string): void {
  writeFileSync(at.path, readFileSync(at.path, 'utf8').replace(text, by));
}
for (const [name, spoil, outcome] of damages) {
  test(`${name}: ${typeof outcome === 'number' ? 'the whole groups are served' : 'a warning, and as if there were none'}`, async (t) => {
    const at = stand(t);
    const first = await at.load();
    deliverAll(first.sink);
    await until('the first group', () => existsSync(at.path));
    first.sink.service('a/three', service('three', '10.96.0.3'));
    await until('the second group', () => commits(at) === 2);
    first.file.proveWith(() => 0);
    await first.file.close();
    assert.equal(commits(at), 2);
    at.lines.length = 0;
    spoil(at);
    const { file, seen } = await at.load();
    const served = await file.serve();
    if (typeof outcome === 'number') {
      assert.ok(served, at.lines.join('\n'));
      assert.equal([...seen.objects.keys()].filter((key) => key.startsWith('Service ')).length, outcome);
    } else {
      assert.equal(served, false);
      assert.deepEqual(seen.calls, []);
      assert.match(at.lines.join('\n'), outcome);
      assert.equal(at.lines.length, 1, 'one line');
      assert.ok(at.lines[0]?.startsWith('warn State file ignored'));
    }
  });
}

test('a state that is too old is not served', async (t) => {
  const at = stand(t);
  const first = await at.load();
  first.file.proveWith(() => Date.now() - 8 * 24 * 3_600_000);
  deliverAll(first.sink);
  await first.file.close();
  const { file } = await at.load();
  assert.equal(await file.serve(), false);
  assert.match(at.lines.join(), /STATE_FILE_TOO_OLD.*more than 168 hours old/);
});

test('a bad file is replaced by the next complete state', async (t) => {
  const at = stand(t);
  writeFileSync(at.path, 'nonsense', { mode: 0o600 });
  const before = await leave(at);
  const { file, seen } = await at.load();
  await file.serve();
  assert.deepEqual(seen.objects, before.objects);
});
