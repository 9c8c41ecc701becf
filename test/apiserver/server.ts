/**
 * A double of kube-apiserver for tests and benchmarks: the part of the API that kube-proxy uses, over HTTP/1.1, or over
 * TLS with HTTP/2 and HTTP/1.1. Real clients work with it (kubectl get, create, replace, delete), and it misbehaves
 * on command. See README.md.
 */
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { gzipSync } from 'node:zlib';
import { compressed, faulty, type Output } from './body.js';
import type { CertificateSet } from './certificates.js';
import { handleControl } from './control.js';
import {
  contentType,
  encodeErrorEvent,
  encodeList,
  encodeOne,
  encodeStatus,
  type Encoding,
  type StatusBody,
} from './encoding.js';
import { memorySockets, type MemorySocket } from './wire.js';
import { Faults, isBodyFault, type Aim, type AnswerFault, type Fault } from './faults.js';
import type { Json } from './defaults.js';
import { discovery, targetOf, type Target } from './resources.js';
import { selector, type Selector } from './selectors.js';
import { Store, StoredObject } from './store.js';
import { Watch } from './watch.js';

/**
 * on: as a current server. refused: the watch answers with an ERROR event, as where etcd is too old. invalid: status
 * 422, as from servers without the feature. ignored: initial events come, but never their end.
 */
export type StreamingLists = 'on' | 'refused' | 'invalid' | 'ignored';

/** on: spoken. off: JSON is sent where the client also accepts that. refused: status 406 for asking. */
export type ProtobufSupport = 'on' | 'off' | 'refused';

export interface ApiServerOptions {
  /** 127.0.0.1 when absent. */
  readonly host?: string;
  /** 0 or absent: any free port. */
  readonly port?: number;
  readonly streamingLists?: StreamingLists;
  readonly protobuf?: ProtobufSupport;
  /** Serve https with these. */
  readonly tls?: CertificateSet;
  /** With tls: offer HTTP/2 (true when absent). Without: speak nothing else (false when absent). */
  readonly http2?: boolean;
  /** Accepted bearer tokens; when neither this nor clientCertificates is given, everybody is let in. */
  readonly tokens?: readonly string[];
  /** With tls: accept clients with a certificate of the set's CA. */
  readonly clientCertificates?: boolean;
  /** Milliseconds between bookmarks; 60000 when absent. */
  readonly bookmarkMs?: number;
  /** Compress list bodies from this size on, where the client accepts it; 128 KiB when absent. */
  readonly gzipFrom?: number;
  /** Write bodies in pieces of this size; 0 or absent: as they come. */
  readonly chunkBytes?: number;
}

type Request = http.IncomingMessage | http2.Http2ServerRequest;
type Response = http.ServerResponse | http2.Http2ServerResponse;

/** A read of a collection that is understood and allowed. */
interface Asked {
  readonly request: Request;
  readonly response: Response;
  readonly encoding: Encoding;
  readonly target: Target;
  readonly select: Selector;
  readonly query: URLSearchParams;
}

export interface SeenRequest {
  readonly target: string;
  readonly accept: string;
  readonly httpVersion: string;
  readonly authorization: string;
  readonly userAgent: string;
  readonly acceptEncoding: string;
}

const eventsPath = /^\/apis\/events\.k8s\.io\/v1\/namespaces\/[^/]+\/events$/;

const reasons: Readonly<Record<number, string>> = {
  400: 'BadRequest',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'NotFound',
  405: 'MethodNotAllowed',
  406: 'NotAcceptable',
  410: 'Expired',
  415: 'UnsupportedMediaType',
  422: 'Invalid',
  429: 'TooManyRequests',
  500: 'InternalError',
  503: 'ServiceUnavailable',
  504: 'Timeout',
};

export class ApiServer {
  readonly store = new Store();
  port = 0;
  /** Settings that may be changed while it runs. */
  streamingLists: StreamingLists;
  protobuf: ProtobufSupport;
  tokens: readonly string[] | undefined;
  /** Events that clients reported (events.k8s.io/v1), oldest first. */
  readonly events: Json[] = [];
  /** Every API request, oldest first. */
  readonly requests: SeenRequest[] = [];
  private readonly options: ApiServerOptions;
  private readonly server: http.Server | http2.Http2Server | http2.Http2SecureServer;
  private readonly openWatches = new Set<Watch>();
  private readonly sessions = new Set<http2.ServerHttp2Session>();
  private readonly sockets = new Set<{ destroy(): void }>();
  /** What goes wrong with the next requests. */
  readonly faults = new Faults();
  private silent = false;
  private stalled = false;
  private slamming = false;
  private refusing: NodeJS.Timeout | undefined;
  private slammingUntil: NodeJS.Timeout | undefined;
  private bookmarks: NodeJS.Timeout | undefined;

  /** Without a network: clients come through connect(). */
  static inMemory(options: ApiServerOptions = {}): ApiServer {
    return new ApiServer(options);
  }

  /** Listening when the promise resolves. */
  static async start(options: ApiServerOptions = {}): Promise<ApiServer> {
    const server = new ApiServer(options);
    await new Promise<void>((resolve, reject) => {
      server.server.once('error', reject);
      server.server.listen(options.port ?? 0, options.host ?? '127.0.0.1', resolve);
    });
    server.port = (server.server.address() as AddressInfo).port;
    return server;
  }

  private constructor(options: ApiServerOptions) {
    this.options = options;
    this.streamingLists = options.streamingLists ?? 'on';
    this.protobuf = options.protobuf ?? 'on';
    this.tokens = options.tokens;
    const handler = (request: Request, response: Response): void => {
      this.handle(request, response).catch((error: unknown) => {
        if (!response.headersSent) {
          this.status(response, 'json', {
            code: 500,
            reason: 'InternalError',
            message: error instanceof Error ? error.message : String(error),
          });
        } else {
          response.destroy();
        }
      });
    };
    const { tls } = options;
    if (tls === undefined) {
      if (options.http2 === true) {
        const server = http2.createServer(handler);
        this.keepSessions(server);
        this.server = server;
      } else {
        this.server = http.createServer(handler);
      }
    } else {
      const secure = {
        key: tls.serverKey,
        cert: tls.serverCertificate,
        ...(options.clientCertificates === true
          ? { ca: tls.authority, requestCert: true, rejectUnauthorized: false }
          : {}),
      };
      if (options.http2 === false) {
        this.server = https.createServer(secure, handler);
      } else {
        const server = http2.createSecureServer({ ...secure, allowHTTP1: true }, handler);
        this.keepSessions(server);
        this.server = server;
      }
    }
    this.server.on('connection', (socket: NodeJS.Socket & { destroy(): void }) => {
      if (this.slamming) {
        socket.destroy();
        return;
      }
      this.sockets.add(socket);
      socket.once('close', () => this.sockets.delete(socket));
    });
    this.bookmarks = setInterval(() => {
      this.bookmark();
    }, options.bookmarkMs ?? 60_000);
    this.bookmarks.unref();
  }

  private keepSessions(server: http2.Http2Server | http2.Http2SecureServer): void {
    server.on('session', (session) => {
      this.sessions.add(session);
      session.once('close', () => this.sessions.delete(session));
    });
  }

  /**
   * The client's end of a new connection, without a network.
   * @param latencyMs how long each piece is on its way, by the clock of setTimeout
   * @throws Error with code ECONNREFUSED while connections are refused
   */
  connect(latencyMs = 0): MemorySocket {
    if (this.refusing !== undefined) {
      throw Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
    }
    const [client, server] = memorySockets(latencyMs);
    this.server.emit('connection', server);
    return client;
  }

  /** What connect() yields speaks this. */
  get protocol(): 'h2' | 'http/1.1' {
    return this.options.http2 === true ? 'h2' : 'http/1.1';
  }

  get url(): string {
    const host = this.options.host ?? '127.0.0.1';
    return `${this.options.tls === undefined ? 'http' : 'https'}://${host.includes(':') ? `[${host}]` : host}:${this.port}`;
  }

  /** Open watches. */
  get watches(): readonly Watch[] {
    return [...this.openWatches];
  }

  async close(): Promise<void> {
    clearInterval(this.bookmarks);
    clearTimeout(this.slammingUntil);
    clearTimeout(this.refusing);
    if (!this.server.listening) {
      this.cutConnections();
      return;
    }
    const closed = new Promise<void>((resolve) => {
      this.server.close(() => {
        resolve();
      });
    });
    this.cutConnections();
    await closed;
  }

  // ---------------------------------------------------------------- misbehaving

  /** The next requests fail with a status: the fault that tests need most, in short. */
  failNext(failure: Omit<Extract<Fault, { kind: 'status' }>, 'kind'> & Aim): void {
    const { count, match, ...fault } = failure;
    this.faults.arm(
      { kind: 'status', ...fault },
      { ...(count === undefined ? {} : { count }), ...(match === undefined ? {} : { match }) },
    );
  }

  /** Requests are taken but never answered. */
  silence(on: boolean): void {
    this.silent = on;
  }

  /** Break all open watches. */
  cutWatches(): void {
    for (const watch of this.openWatches) watch.cut();
  }

  /** End all open watches in good order, as at the end of their time. */
  endWatches(): void {
    for (const watch of this.openWatches) watch.end();
  }

  /** Break all connections. */
  cutConnections(): void {
    for (const watch of this.openWatches) watch.close();
    this.openWatches.clear();
    // HTTP/2 sessions end with theirs.
    for (const socket of this.sockets) socket.destroy();
  }

  /** Ask HTTP/2 clients to move to a new connection; what is open goes on. */
  goAway(): void {
    for (const session of this.sessions) if (!session.destroyed) session.goaway();
  }

  /** Put bytes that are no event into all open watches of a kind. */
  garbage(kind: string, bytes: Buffer = Buffer.from('\xff\xff\xff\xffgarbage\n', 'latin1')): void {
    for (const watch of this.openWatches) if (watch.request.kind.kind === kind) watch.raw(bytes);
  }

  /** New connections are refused for a while; what is open goes on. */
  refuseFor(ms: number): void {
    const { port } = this;
    clearTimeout(this.refusing);
    if (this.server.listening) this.server.close();
    this.refusing = setTimeout(() => {
      this.refusing = undefined;
      if (port !== 0) this.server.listen(port, this.options.host ?? '127.0.0.1');
    }, ms);
  }

  /** New connections are closed as soon as they are there, for a while. */
  slamFor(ms: number): void {
    this.slamming = true;
    clearTimeout(this.slammingUntil);
    this.slammingUntil = setTimeout(() => {
      this.slamming = false;
    }, ms).unref();
  }

  /** Go back to the backup. Who watches is cut off: the server was down for that. */
  restore(): void {
    if (this.store.restore()) this.cutConnections();
  }

  /** Serve with a new certificate of the same authority; connections are made anew. */
  renewCertificate(set: CertificateSet | undefined = this.options.tls): void {
    if (set === undefined || this.server instanceof http.Server) return;
    const { serverKey: key, serverCertificate: cert, authority } = set;
    // Without the authority no client's certificate would be known any more.
    const clients = this.options.clientCertificates === true ? { ca: authority } : {};
    if ('setSecureContext' in this.server) this.server.setSecureContext({ key, cert, ...clients });
    this.cutConnections();
  }

  /** Everything is as it should be from now on. */
  heal(): void {
    this.faults.clear();
    this.silence(false);
    this.stall(false);
    clearTimeout(this.slammingUntil);
    this.slamming = false;
    if (this.refusing !== undefined) this.refuseFor(0);
  }

  /** Keep events and bookmarks back; watches that are opened meanwhile do the same. */
  stall(on: boolean): void {
    this.stalled = on;
    for (const watch of this.openWatches) watch.stall(on);
  }

  /** Forget old versions; `expireWatches` also ends the open watches with status 410. */
  compact(expireWatches = false): void {
    this.store.compact();
    if (expireWatches) for (const watch of this.openWatches) watch.expire();
  }

  bookmark(): void {
    for (const watch of this.openWatches) watch.bookmark();
  }

  // ---------------------------------------------------------------- requests

  private async handle(request: Request, response: Response): Promise<void> {
    response.on('error', () => undefined);
    const target = request.url ?? '/';
    const url = new URL(target, 'http://localhost');
    if (url.pathname.startsWith('/control/')) {
      await handleControl(this, request, response, url);
      return;
    }
    const accept = request.headers.accept ?? '';
    this.requests.push({
      target,
      accept,
      httpVersion: request.httpVersion,
      authorization: request.headers.authorization ?? '',
      userAgent: request.headers['user-agent'] ?? '',
      acceptEncoding: [request.headers['accept-encoding']].join(),
    });
    if (this.requests.length > 10_000) this.requests.splice(0, 5_000);
    if (this.silent) return;

    const watch = ['1', 'true'].includes(url.searchParams.get('watch') ?? '');
    const encoding = this.negotiate(accept);
    const named = targetOf(url.pathname);
    const isRead = request.method === 'GET' && named?.name === '';
    const fault = this.faults.take({ target, what: !isRead ? 'other' : watch ? 'watch' : 'list' });
    if (fault !== undefined && this.answerWrongly(fault, request, response, encoding ?? 'json')) return;
    if (!this.authenticated(request)) {
      this.status(response, encoding ?? 'json', {
        code: 401,
        reason: 'Unauthorized',
        message: 'Unauthorized',
      });
      return;
    }
    const document = discovery(url.pathname);
    if (document !== undefined) {
      this.send(response, 200, 'application/json', [Buffer.from(JSON.stringify(document))]);
      return;
    }
    if (encoding === undefined) {
      this.status(response, 'json', {
        code: 406,
        reason: 'NotAcceptable',
        message: 'only the following media types are accepted: application/json',
      });
      return;
    }
    if (request.method === 'POST' && eventsPath.test(url.pathname)) {
      const event = JSON.parse((await readAll(request)).toString()) as Json;
      this.events.push(event);
      if (this.events.length > 10_000) this.events.splice(0, 5_000);
      this.send(response, 201, 'application/json', [Buffer.from(JSON.stringify(event))]);
      return;
    }
    if (named === undefined) {
      this.status(response, encoding, {
        code: 404,
        reason: 'NotFound',
        message: 'the server could not find the requested resource',
      });
      return;
    }
    if (request.method !== 'GET') {
      await this.write(request, response, encoding, named);
      return;
    }
    if (named.name !== '') {
      this.get(response, encoding, named);
      return;
    }
    let select: Selector;
    try {
      select = selector(
        url.searchParams.get('labelSelector') ?? '',
        url.searchParams.get('fieldSelector') ?? '',
      );
    } catch (error) {
      this.status(response, encoding, { code: 400, reason: 'BadRequest', message: String(error) });
      return;
    }
    const asked: Asked = { request, response, encoding, target: named, select, query: url.searchParams };
    if (watch) this.watch(asked, fault);
    else this.list(asked, fault);
  }

  /** @returns false for a fault of another kind, which is not an answer in itself */
  private answerWrongly(fault: Fault, request: Request, response: Response, encoding: Encoding): boolean {
    const wrong = fault as AnswerFault;
    switch (wrong.kind) {
      case 'status': {
        const { status: code, message, retryAfterSeconds } = wrong;
        this.status(response, encoding, {
          code,
          reason: reasons[code] ?? 'Unknown',
          message: message ?? `failed on command with ${code}`,
          ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
        });
        return true;
      }
      case 'web-page':
        this.send(response, 200, wrong.contentType, [
          Buffer.from('<!doctype html><html><head><title>Sign in</title></head><body>…</body></html>'),
        ]);
        return true;
      case 'no-answer':
        return true;
      case 'hang-up':
        breakOff(request, response);
        return true;
      default:
        return false;
    }
  }

  /** undefined: nothing that the client accepts can be sent. */
  private negotiate(accept: string): Encoding | undefined {
    const types = accept === '' ? ['*/*'] : accept.split(',').map((type) => type.trim());
    const asksProtobuf = types.some((type) => type.startsWith('application/vnd.kubernetes.protobuf'));
    if (asksProtobuf && this.protobuf === 'refused') return undefined;
    for (const type of types) {
      if (type.startsWith('application/vnd.kubernetes.protobuf') && this.protobuf === 'on') return 'protobuf';
      if (/^application\/json(;stream=watch)?$|^\*\/\*|^application\/\*/.test(type)) return 'json';
    }
    return undefined;
  }

  private authenticated(request: Request): boolean {
    if (this.tokens === undefined && this.options.clientCertificates !== true) return true;
    const token = /^Bearer (.*)$/.exec(request.headers.authorization ?? '')?.[1];
    if (token !== undefined && this.tokens?.includes(token) === true) return true;
    if (this.options.clientCertificates !== true) return false;
    const socket = (
      request instanceof http.IncomingMessage ? request.socket : request.stream.session?.socket
    ) as TLSSocket | undefined;
    return socket?.authorized === true;
  }

  private get(response: Response, encoding: Encoding, target: Target): void {
    const object = this.store.get(target.kind, keyOf(target));
    if (object === undefined) this.notFound(response, encoding, target);
    else this.send(response, 200, contentType(encoding, false), [encodeOne(encoding, object)]);
  }

  private notFound(response: Response, encoding: Encoding, { kind, name }: Target): void {
    this.status(response, encoding, {
      code: 404,
      reason: 'NotFound',
      message: `${kind.plural} "${name}" not found`,
    });
  }

  private list(
    { request, response, encoding, target, select, query }: Asked,
    fault: Fault | undefined,
  ): void {
    const type = contentType(encoding, false);
    const wanted = Number(query.get('resourceVersion') ?? '');
    if (wanted > this.store.version) {
      this.status(response, encoding, tooLarge(wanted, this.store.version));
      return;
    }
    let version = this.store.version;
    let after = '';
    const token = query.get('continue') ?? '';
    if (token !== '') {
      const start = JSON.parse(Buffer.from(token, 'base64url').toString()) as { rv: number; after: string };
      if (start.rv < this.store.compacted || fault?.kind === 'expired-token') {
        this.status(response, encoding, {
          code: 410,
          reason: 'Expired',
          message: 'The provided continue parameter is too old to display a consistent list result.',
          continueToken: Buffer.from(JSON.stringify({ rv: version, after: start.after })).toString(
            'base64url',
          ),
        });
        return;
      }
      version = start.rv;
      after = start.after;
    }
    const all = fault?.kind === 'empty-list' ? [] : this.store.list(target.kind);
    const limit = Number(query.get('limit') ?? '0') || Infinity;
    let i = after === '' ? 0 : firstAfter(all, after);
    const page = [];
    for (; i < all.length && page.length < limit; i++) {
      const object = all[i];
      if (object === undefined || (target.namespace !== '' && object.namespace !== target.namespace))
        continue;
      if (select(object)) page.push(object);
    }
    const last = page.at(-1);
    const next =
      i < all.length && last !== undefined
        ? Buffer.from(JSON.stringify({ rv: version, after: last.key })).toString('base64url')
        : '';
    if (fault?.kind === 'nameless-item') {
      // In the place of another one, as if its name had been lost.
      page.pop();
      page.push(new StoredObject(target.kind, { metadata: { resourceVersion: String(version) } }, version));
    }
    let pieces = encodeList(
      encoding,
      target.kind,
      page,
      fault?.kind === 'list-without-version' ? '' : String(version),
      next,
      fault?.kind === 'other-kind' ? 'PodList' : undefined,
    );
    const headers: Record<string, string> = {};
    const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (
      /\bgzip\b/.test([request.headers['accept-encoding']].join()) &&
      size >= (this.options.gzipFrom ?? 128 * 1024)
    ) {
      pieces = [gzipSync(Buffer.concat(pieces), { level: 1 })];
      headers['content-encoding'] = 'gzip';
    }
    if (!isBodyFault(fault)) {
      this.send(response, 200, type, pieces, headers);
      return;
    }
    response.writeHead(200, { 'content-type': type, ...headers });
    const output = faulty(this.output(request, response), fault);
    for (const piece of pieces) output.write(piece);
    output.end();
  }

  private watch(
    { request, response, encoding, target, select, query }: Asked,
    fault: Fault | undefined,
  ): void {
    const sendInitial = query.get('sendInitialEvents') === 'true';
    const asked = query.get('resourceVersion') ?? '';
    if (sendInitial && this.streamingLists === 'invalid') {
      this.status(response, encoding, {
        code: 422,
        reason: 'Invalid',
        message:
          'ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: ' +
          'sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled',
      });
      return;
    }
    const compresses = sendInitial && /\bgzip\b/.test([request.headers['accept-encoding']].join());
    response.writeHead(200, {
      'content-type': contentType(encoding, true),
      'cache-control': 'no-cache, private',
      ...(compresses ? { 'content-encoding': 'gzip' } : {}),
    });
    if ('flushHeaders' in response) response.flushHeaders();
    const plain = this.output(request, response);
    const straight = compresses ? compressed(plain) : plain;
    const fail = (status: StatusBody): void => {
      straight.write(encodeErrorEvent(encoding, status));
      straight.end();
    };
    if (sendInitial && this.streamingLists === 'refused') {
      fail({
        code: 500,
        reason: 'InternalError',
        message:
          'a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled',
      });
      return;
    }
    const version = Number(asked);
    if (sendInitial && version > this.store.version) {
      fail(tooLarge(version, this.store.version));
      return;
    }
    if (fault?.kind === 'ends-at-once') {
      straight.end();
      return;
    }
    if (fault?.kind === 'expired-start' || (!sendInitial && version > 0 && version < this.store.compacted)) {
      fail({
        code: 410,
        reason: 'Expired',
        message: `too old resource version: ${version} (${this.store.version})`,
      });
      return;
    }
    const output = isBodyFault(fault) ? faulty(straight, fault) : straight;
    const ignored = this.streamingLists === 'ignored' || fault?.kind === 'no-end-of-list';
    const watch = new Watch(
      this.store,
      {
        kind: target.kind,
        namespace: target.namespace,
        select,
        encoding,
        bookmarks: query.get('allowWatchBookmarks') === 'true',
        initialEvents: sendInitial || version === 0,
        end: !sendInitial || ignored ? 'silent' : fault?.kind === 'unmarked-end' ? 'unmarked' : 'marked',
        version: sendInitial ? 0 : version,
      },
      fault?.kind === 'echo' ? echo(output) : output,
    );
    if (this.stalled) watch.stall(true);
    this.openWatches.add(watch);
    const seconds = Number(query.get('timeoutSeconds') ?? '0');
    const timer =
      seconds > 0
        ? setTimeout(() => {
            watch.end();
          }, seconds * 1000)
        : undefined;
    response.once('close', () => {
      clearTimeout(timer);
      watch.close();
      this.openWatches.delete(watch);
    });
  }

  private async write(
    request: Request,
    response: Response,
    encoding: Encoding,
    target: Target,
  ): Promise<void> {
    if (request.method === 'DELETE' && target.name !== '') {
      const object = this.store.get(target.kind, keyOf(target));
      if (object === undefined) {
        this.notFound(response, encoding, target);
        return;
      }
      this.store.delete(target.kind, object.key);
      this.send(response, 200, contentType(encoding, false), [encodeOne(encoding, object)]);
      return;
    }
    const creates = request.method === 'POST' && target.name === '';
    if (!creates && !(request.method === 'PUT' && target.name !== '')) {
      this.status(response, encoding, {
        code: 405,
        reason: 'MethodNotAllowed',
        message: `the double has no ${request.method ?? ''}`,
      });
      return;
    }
    const body = JSON.parse((await readAll(request)).toString()) as { metadata?: Record<string, unknown> };
    const metadata = { ...body.metadata };
    if (target.kind.namespaced) metadata['namespace'] ??= target.namespace;
    const key = keyOf({
      ...target,
      namespace: target.kind.namespaced ? String(metadata['namespace']) : '',
      name: String(metadata['name']),
    });
    if (creates && this.store.get(target.kind, key) !== undefined) {
      this.status(response, encoding, {
        code: 409,
        reason: 'AlreadyExists',
        message: `${target.kind.plural} "${key}" already exists`,
      });
      return;
    }
    const object = this.store.put({ ...body, metadata });
    this.send(response, creates ? 201 : 200, contentType(encoding, false), [encodeOne(encoding, object)]);
  }

  private status(response: Response, encoding: Encoding, status: StatusBody): void {
    this.send(
      response,
      status.code,
      contentType(encoding, false),
      [encodeStatus(encoding, status)],
      status.retryAfterSeconds === undefined ? {} : { 'retry-after': String(status.retryAfterSeconds) },
    );
  }

  private send(
    response: Response,
    status: number,
    type: string,
    pieces: readonly Buffer[],
    headers: Readonly<Record<string, string>> = {},
  ): void {
    const body = Buffer.concat(pieces);
    response.writeHead(status, {
      'content-type': type,
      'content-length': String(body.length),
      'cache-control': 'no-cache, private',
      ...headers,
    });
    this.writeBytes(response, body);
    response.end();
  }

  private output(request: Request, response: Response): Output {
    return {
      write: (bytes) => {
        this.writeBytes(response, bytes);
      },
      end: () => {
        response.end();
      },
      destroy: () => {
        breakOff(request, response);
      },
    };
  }

  private writeBytes(response: Response, bytes: Buffer): void {
    const size = this.options.chunkBytes ?? 0;
    // The two response types differ in the overloads of write() only.
    const target = response as http.ServerResponse;
    if (size === 0) {
      target.write(bytes);
      return;
    }
    for (let i = 0; i < bytes.length; i += size) target.write(bytes.subarray(i, i + size));
  }
}

function tooLarge(wanted: number, current: number): StatusBody {
  return {
    code: 504,
    reason: 'Timeout',
    message: `Timeout: Too large resource version: ${wanted}, current: ${current}`,
    cause: 'ResourceVersionTooLarge',
    retryAfterSeconds: 1,
  };
}

/** In HTTP/2 only the stream breaks. */
function breakOff(request: Request, response: Response): void {
  if (response instanceof http.ServerResponse) request.socket.destroy();
  else response.stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
}

/** Says everything twice. */
function echo(output: Output): Output {
  return {
    ...output,
    write: (bytes) => {
      output.write(bytes);
      output.write(bytes);
    },
  };
}

export async function readAll(request: Request): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

function keyOf({ namespace, name }: Target): string {
  return namespace === '' ? name : `${namespace}/${name}`;
}

/** Index of the first object whose key comes after `key`. */
function firstAfter(objects: readonly { readonly key: string }[], key: string): number {
  let low = 0;
  let high = objects.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((objects[middle]?.key ?? '') <= key) low = middle + 1;
    else high = middle;
  }
  return low;
}
