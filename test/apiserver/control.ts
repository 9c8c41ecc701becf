/** Commands to the double over HTTP, for tests and benchmarks that run it as another process. See README.md. */
import type http from 'node:http';
import type http2 from 'node:http2';
import { isObject } from './defaults.js';
import type { Fault } from './faults.js';
import { generateCluster } from './generate.js';
import { loadFiles } from './files.js';
import { servedKinds } from './resources.js';
import { strike, type Strike } from './strikes.js';
import { readAll, type ApiServer, type ProtobufSupport, type StreamingLists } from './server.js';

type Request = http.IncomingMessage | http2.Http2ServerRequest;
type Response = http.ServerResponse | http2.Http2ServerResponse;

export async function handleControl(
  server: ApiServer,
  request: Request,
  response: Response,
  url: URL,
): Promise<void> {
  const query = url.searchParams;
  const number = (name: string, fallback: number): number => Number(query.get(name) ?? fallback);
  const on = (query.get('on') ?? 'true') === 'true';
  let result: unknown = {};
  let status = 200;
  try {
    switch (url.pathname.slice('/control/'.length)) {
      case 'state':
        break;
      case 'put': {
        const body: unknown = JSON.parse((await readAll(request)).toString());
        const list = Array.isArray(body)
          ? body
          : isObject(body) && Array.isArray(body['items'])
            ? body['items']
            : [body];
        for (const object of list as unknown[]) server.store.put(object);
        break;
      }
      case 'delete': {
        const kind = servedKinds.find((served) => served.kind === query.get('kind'));
        if (kind === undefined) throw new Error(`unknown kind ${String(query.get('kind'))}`);
        const namespace = kind.namespaced ? `${query.get('namespace') ?? 'default'}/` : '';
        result = { deleted: server.store.delete(kind, namespace + (query.get('name') ?? '')) };
        break;
      }
      case 'load':
        loadFiles(server.store, query.get('path') ?? '');
        break;
      case 'generate':
        generateCluster(server.store, {
          services: number('services', 100),
          endpoints: number('endpoints', 10),
          nodes: number('nodes', 100),
        });
        break;
      case 'compact':
        server.compact(query.get('expire') === 'true');
        break;
      case 'bookmark':
        server.bookmark();
        break;
      case 'cut':
        if (query.get('what') === 'connections')
          setImmediate(() => {
            server.cutConnections();
          });
        else server.cutWatches();
        break;
      case 'end':
        server.endWatches();
        break;
      case 'go-away':
        server.goAway();
        break;
      case 'arm':
        // The fault is the body: JSON as in faults.ts.
        server.faults.arm(JSON.parse((await readAll(request)).toString()) as Fault, {
          count: number('count', 1),
          match: query.get('match') ?? '',
        });
        break;
      case 'strike':
        strike(server, JSON.parse((await readAll(request)).toString()) as Strike);
        break;
      case 'heal':
        server.heal();
        break;
      case 'garbage':
        server.garbage(query.get('kind') ?? 'Service');
        break;
      case 'stall':
        server.stall(on);
        break;
      case 'silence':
        server.silence(on);
        break;
      case 'fail': {
        const match = query.get('match');
        const retryAfter = query.get('retry-after');
        server.failNext({
          status: number('status', 500),
          count: number('count', 1),
          ...(match === null ? {} : { match }),
          ...(retryAfter === null ? {} : { retryAfterSeconds: Number(retryAfter) }),
        });
        break;
      }
      case 'set':
        server.streamingLists = (query.get('streaming-lists') ?? server.streamingLists) as StreamingLists;
        server.protobuf = (query.get('protobuf') ?? server.protobuf) as ProtobufSupport;
        break;
      default:
        throw new Error(`no command ${url.pathname}`);
    }
  } catch (error) {
    status = 400;
    result = { error: error instanceof Error ? error.message : String(error) };
  }
  const state = {
    ...(result as object),
    resourceVersion: server.store.version,
    objects: Object.fromEntries(servedKinds.map((kind) => [kind.kind, server.store.count(kind)])),
    watches: server.watches.map((watch) => watch.request.kind.kind),
    requests: server.requests.length,
  };
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(state)}\n`);
}
