/**
 * A small API server for the proxy under test. It runs inside alder's namespace on 127.0.0.1, so that any
 * kube-proxy-compatible command reaches it with `--master http://127.0.0.1:PORT`: LIST, WATCH with bookmarks, label and
 * field selectors, and events. JSON only, over HTTP/1.1. Controlled by the runner with JSON lines on standard input.
 *
 * Objects are served as they were written, without an API server's validation and defaults: some rows are about fields
 * that a real server would fill in. Apart from that it shares nothing with the proxy's own code and test doubles, because
 * the cases judge other proxies as well.
 */
import http from 'node:http';
import readline from 'node:readline';
import type { KubeObject } from './objects.js';
import { objectKey } from './objects.js';

export type ApiRequest =
  | { readonly op: 'put'; readonly objects: readonly KubeObject[] }
  /** Keys of objects.ts objectKey. */
  | { readonly op: 'delete'; readonly keys: readonly string[] }
  /** While withheld, lists and watches of EndpointSlices get no answer. */
  | { readonly op: 'withhold'; readonly slices: boolean }
  /** Reasons of the events that clients have posted so far. */
  | { readonly op: 'events' };

export interface ApiCall {
  readonly id: number;
  readonly request: ApiRequest;
}

interface Resource {
  readonly kind: string;
  readonly list: string;
  readonly apiVersion: string;
  readonly path: string;
}

const resources: readonly Resource[] = [
  { kind: 'Service', list: 'ServiceList', apiVersion: 'v1', path: '/api/v1/services' },
  { kind: 'Node', list: 'NodeList', apiVersion: 'v1', path: '/api/v1/nodes' },
  {
    kind: 'EndpointSlice',
    list: 'EndpointSliceList',
    apiVersion: 'discovery.k8s.io/v1',
    path: '/apis/discovery.k8s.io/v1/endpointslices',
  },
  {
    kind: 'ServiceCIDR',
    list: 'ServiceCIDRList',
    apiVersion: 'networking.k8s.io/v1',
    path: '/apis/networking.k8s.io/v1/servicecidrs',
  },
];

type Selector = (object: KubeObject) => boolean;

/** `!key`, `key`, `key=value`, `key!=value`, joined by commas: what a kube-proxy asks for. */
function labelSelector(text: string): Selector {
  const terms = text.split(',').filter((term) => term !== '');
  return ({ metadata: { labels = {} } }) =>
    terms.every((term) => {
      if (term.startsWith('!')) return !(term.slice(1) in labels);
      const [key = '', operator, value] = term.split(/(!=|==?)/);
      if (operator === undefined) return key in labels;
      return (labels[key] === value) === (operator !== '!=');
    });
}

function fieldAt(object: unknown, path: string): string {
  let value: unknown = object;
  for (const name of path.split('.')) {
    value =
      typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
  }
  return typeof value === 'string' ? value : '';
}

function fieldSelector(text: string): Selector {
  const terms = text.split(',').filter((term) => term !== '');
  return (object) =>
    terms.every((term) => {
      const [path = '', operator, value] = term.split(/(!=|==?)/);
      return (fieldAt(object, path) === value) === (operator !== '!=');
    });
}

interface Stored {
  readonly object: KubeObject;
  readonly version: number;
}

interface Watch {
  readonly resource: Resource;
  readonly matches: Selector;
  readonly response: http.ServerResponse;
}

const store = new Map<string, Stored>();
/** Old changes, so that a watch can start at the version of an earlier list. */
const history: {
  readonly version: number;
  readonly key: string;
  readonly before: Stored | undefined;
  readonly after: Stored | undefined;
}[] = [];
const watches = new Set<Watch>();
const eventReasons: string[] = [];
let version = 1000;
let slicesWithheld = false;
let release: (() => void)[] = [];

function stamped({ object, version: at }: Stored): KubeObject {
  return {
    ...object,
    metadata: { ...object.metadata, resourceVersion: String(at) } as KubeObject['metadata'],
  };
}

function send(watch: Watch, type: string, object: unknown): void {
  watch.response.write(`${JSON.stringify({ type, object })}\n`);
}

/** What a change means for one watch: an object that starts or stops to match is added or deleted there. */
function deliver(watch: Watch, before: Stored | undefined, after: Stored | undefined, at: number): void {
  const kind = (after ?? before)?.object.kind;
  if (kind !== watch.resource.kind) return;
  const matched = before !== undefined && watch.matches(before.object);
  if (after !== undefined && watch.matches(after.object))
    send(watch, matched ? 'MODIFIED' : 'ADDED', stamped(after));
  else if (matched) send(watch, 'DELETED', stamped({ object: (after ?? before).object, version: at }));
}

function record(key: string, after: KubeObject | undefined): void {
  version++;
  const before = store.get(key);
  const stored = after === undefined ? undefined : { object: after, version };
  if (stored === undefined) store.delete(key);
  else store.set(key, stored);
  if (before === undefined && stored === undefined) return;
  history.push({ version, key, before, after: stored });
  if (history.length > 20_000) history.splice(0, 10_000);
  for (const watch of watches) deliver(watch, before, stored, version);
}

function bookmark(resource: Resource, initial: boolean): unknown {
  return {
    kind: resource.kind,
    apiVersion: resource.apiVersion,
    metadata: {
      resourceVersion: String(version),
      ...(initial ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {}),
    },
  };
}

function json(response: http.ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}

function status(code: number, reason: string, message: string): unknown {
  return { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code };
}

function startWatch(
  resource: Resource,
  matches: Selector,
  query: URLSearchParams,
  response: http.ServerResponse,
): void {
  const from = Number(query.get('resourceVersion') ?? '0');
  response.writeHead(200, { 'content-type': 'application/json' });
  const watch: Watch = { resource, matches, response };
  const initial = query.get('sendInitialEvents') === 'true';
  if (initial || from === 0) {
    for (const stored of store.values()) deliver(watch, undefined, stored, stored.version);
    if (initial) send(watch, 'BOOKMARK', bookmark(resource, true));
  } else if ((history[0]?.version ?? version + 1) > from + 1 && from < version) {
    send(watch, 'ERROR', status(410, 'Expired', `too old resource version: ${from} (${version})`));
    response.end();
    return;
  } else {
    for (const change of history) {
      if (change.version > from) deliver(watch, change.before, change.after, change.version);
    }
  }
  response.flushHeaders();
  watches.add(watch);
  const bookmarks = setInterval(() => {
    if (query.get('allowWatchBookmarks') === 'true') send(watch, 'BOOKMARK', bookmark(resource, false));
  }, 20_000);
  const seconds = Number(query.get('timeoutSeconds') ?? '0');
  const end = seconds > 0 ? setTimeout(() => response.end(), seconds * 1000) : undefined;
  response.on('close', () => {
    clearInterval(bookmarks);
    clearTimeout(end);
    watches.delete(watch);
  });
}

function serveResource(
  resource: Resource,
  name: string | undefined,
  query: URLSearchParams,
  response: http.ServerResponse,
): void {
  if (name !== undefined) {
    const stored = store.get(`${resource.kind} /${name}`);
    if (stored === undefined) json(response, 404, status(404, 'NotFound', `${name} not found`));
    else json(response, 200, stamped(stored));
    return;
  }
  const byLabel = labelSelector(query.get('labelSelector') ?? '');
  const byField = fieldSelector(query.get('fieldSelector') ?? '');
  const matches: Selector = (object) => byLabel(object) && byField(object);
  if (['1', 'true'].includes(query.get('watch') ?? '')) {
    startWatch(resource, matches, query, response);
    return;
  }
  const items = [...store.values()].filter(({ object }) => object.kind === resource.kind && matches(object));
  json(response, 200, {
    kind: resource.list,
    apiVersion: resource.apiVersion,
    metadata: { resourceVersion: String(version) },
    items: items.map(stamped),
  });
}

function handle(request: http.IncomingMessage, response: http.ServerResponse): void {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://api');
  if (request.method === 'POST' || request.method === 'PATCH') {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      // The reason is plain text in JSON and in protobuf: enough to find it in either.
      eventReasons.push(body);
      json(response, 201, { kind: 'Event', apiVersion: 'events.k8s.io/v1', metadata: { name: 'stored' } });
    });
    return;
  }
  if (pathname === '/version') {
    json(response, 200, { major: '1', minor: '37', gitVersion: 'v1.37.2' });
    return;
  }
  for (const resource of resources) {
    if (pathname !== resource.path && !pathname.startsWith(`${resource.path}/`)) continue;
    const name = pathname === resource.path ? undefined : pathname.slice(resource.path.length + 1);
    const serve = (): void => {
      serveResource(resource, name, searchParams, response);
    };
    if (resource.kind === 'EndpointSlice' && slicesWithheld) release.push(serve);
    else serve();
    return;
  }
  json(
    response,
    404,
    status(404, 'NotFound', `the server could not find the requested resource ${pathname}`),
  );
}

function carryOut(request: ApiRequest): unknown {
  switch (request.op) {
    case 'put':
      for (const object of request.objects) record(objectKey(object), object);
      return null;
    case 'delete':
      for (const key of request.keys) record(key, undefined);
      return null;
    case 'withhold': {
      slicesWithheld = request.slices;
      if (slicesWithheld) return null;
      const waiting = release;
      release = [];
      for (const serve of waiting) serve();
      return null;
    }
    case 'events':
      return eventReasons;
  }
}

const server = http.createServer(handle);
server.requestTimeout = 0;
server.listen(Number(process.argv[2] ?? '0'), '127.0.0.1', () => {
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  process.stdout.write(`${JSON.stringify({ id: 0, value: port })}\n`);
});
const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const { id, request } = JSON.parse(line) as ApiCall;
  process.stdout.write(`${JSON.stringify({ id, value: carryOut(request) })}\n`);
});
lines.on('close', () => process.exit(0));
