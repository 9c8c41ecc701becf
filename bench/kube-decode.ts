/**
 * Reading a cluster's lists in both encodings: time, throughput, and what the trimmed objects keep in memory.
 *
 *     node --expose-gc dist/bench/kube-decode.js [services] [endpoints per service]
 */
import { clusterObjects } from '../test/apiserver/generate.js';
import { encodeList, type Encoding } from '../test/apiserver/encoding.js';
import { servedKinds } from '../test/apiserver/resources.js';
import { Store } from '../test/apiserver/store.js';
import { endpointSlices, services, type Resource } from '../src/sources/kube/resources.js';
import { StringTable } from '../src/sources/strings.js';

const serviceCount = Number(process.argv[2] ?? 10_000);
const endpointCount = Number(process.argv[3] ?? 10);
const rounds = 3;
/** As HTTP/2 delivers. */
const chunkBytes = 64 * 1024;

if (globalThis.gc === undefined) {
  process.stderr.write('run with --expose-gc\n');
  process.exit(2);
}
const collect = globalThis.gc;

interface Bodies {
  readonly services: readonly Buffer[];
  readonly slices: readonly Buffer[];
  readonly bytes: number;
}

function makeBodies(store: Store, encoding: Encoding): Bodies {
  const [list, slices] = ['Service', 'EndpointSlice'].map((name) => {
    const kind = servedKinds.find((served) => served.kind === name);
    if (kind === undefined) throw new Error(name);
    const body = Buffer.concat(encodeList(encoding, kind, store.list(kind), String(store.version), ''));
    const chunks: Buffer[] = [];
    for (let i = 0; i < body.length; i += chunkBytes)
      chunks.push(Buffer.from(body.subarray(i, i + chunkBytes)));
    return chunks;
  });
  if (list === undefined || slices === undefined) throw new Error('no bodies');
  const size = (chunks: readonly Buffer[]): number => chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  return { services: list, slices, bytes: size(list) + size(slices) };
}

function read<T>(
  resource: Resource<T>,
  encoding: Encoding,
  strings: StringTable,
  chunks: readonly Buffer[],
): Map<string, T> {
  const objects = new Map<string, T>();
  const decoder = resource.codec(encoding, strings).list({
    item: ({ key, object }) => objects.set(key, object),
    broken: ({ error }) => {
      throw error;
    },
  });
  for (const chunk of chunks) decoder.push(chunk);
  decoder.end();
  return objects;
}

/** The store itself is garbage afterwards. */
function makeAll(): Readonly<Record<Encoding, Bodies>> {
  const store = new Store();
  for (const object of clusterObjects({ services: serviceCount, endpoints: endpointCount, nodes: 500 })) {
    store.put(managed(object));
  }
  return { protobuf: makeBodies(store, 'protobuf'), json: makeBodies(store, 'json') };
}
const bodies = makeAll();

/** What controllers and kubectl leave in real objects, and what a reader has to pass over. */
function managed(object: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const metadata = object['metadata'] as Record<string, unknown>;
  const note = JSON.stringify({ ...object, metadata: { name: metadata['name'] } }).slice(0, 600);
  const annotations = {
    ...(metadata['annotations'] as object),
    'kubectl.kubernetes.io/last-applied-configuration': note,
  };
  return { ...object, metadata: { ...metadata, annotations } };
}

const line = (...cells: readonly string[]): void => {
  process.stdout.write(
    `${cells.map((cell, i) => (i === 0 ? cell.padEnd(10) : cell.padStart(14))).join('')}\n`,
  );
};
process.stdout.write(`${serviceCount} services x ${endpointCount} endpoints, Node ${process.version}\n`);
line('', 'body MB', 'first ms', 'best ms', 'MB/s', 'objects/s', 'heap kept MB');
/** One round in a frame of its own, so that nothing of the round before is still alive. */
function measure(encoding: Encoding): { readonly ms: number; readonly kept: number; readonly count: number } {
  collect();
  const before = process.memoryUsage().heapUsed;
  const start = performance.now();
  const strings = new StringTable();
  const held = [
    read(services, encoding, strings, bodies[encoding].services),
    read(endpointSlices, encoding, strings, bodies[encoding].slices),
  ];
  const ms = performance.now() - start;
  collect();
  const kept = process.memoryUsage().heapUsed - before;
  return { ms, kept, count: held.reduce((sum, map) => sum + map.size, 0) };
}

for (const encoding of ['protobuf', 'json'] as const) {
  const results = Array.from({ length: rounds }, () => measure(encoding));
  const [first] = results;
  if (first === undefined) continue;
  const best = Math.min(...results.map(({ ms }) => ms));
  const { bytes } = bodies[encoding];
  line(
    encoding,
    (bytes / 1e6).toFixed(1),
    first.ms.toFixed(0),
    best.toFixed(0),
    (bytes / 1e3 / best).toFixed(0),
    ((first.count / best) * 1000).toFixed(0),
    (first.kept / 1e6).toFixed(1),
  );
}
