/**
 * GET requests to one API server: all of them on one HTTP/2 connection where the server speaks it, else on HTTP/1.1
 * connections that are kept alive. Nothing here waits without a limit.
 */
import { createHash } from 'node:crypto';
import http from 'node:http';
import http2 from 'node:http2';
import type net from 'node:net';
import type { Duplex, Readable } from 'node:stream';
import tls from 'node:tls';
import { guarded } from '../../../callbacks/guarded.js';
import type { ApiCredentials, TlsMaterial } from '../auth/credentials.js';
import { KubeError } from '../errors.js';
import { decompressed } from './decompressed.js';
import { dial, type Dialled, type DialOptions } from './dial.js';
import { connectFailure, lostConnection } from './failures.js';
import { noRateLimit, RateLimiter, type RateLimit } from './rate-limit.js';

export interface ClientTimeouts {
  /** TCP and TLS handshake. */
  readonly connectMs: number;
  /** From the request to the response headers. */
  readonly headersMs: number;
  /** HTTP/2: a ping is sent when nothing was received for so long … */
  readonly pingAfterMs: number;
  /** … and the connection is given up when its answer takes longer than this. */
  readonly pongMs: number;
}

export const defaultTimeouts: ClientTimeouts = {
  connectMs: 10_000,
  headersMs: 60_000,
  // Together with the steps of a look at the connection (#watchPulse), a dead peer is noticed within 30 s.
  pingAfterMs: 15_000,
  pongMs: 10_000,
};

type Method = 'GET' | 'POST';

/** What happens to requests, for metrics. `host` is that of the server, with its port where the URL has one. */
export interface ClientObserver {
  /** A request was in line for the rate limit; told of every request while there is a limit. */
  waited?(request: { readonly method: Method; readonly host: string; readonly seconds: number }): void;
  /** The headers of the answer are there, or it failed: then there is no status. */
  answered(request: {
    readonly method: Method;
    readonly host: string;
    readonly status: number | undefined;
    readonly seconds: number;
    readonly requestBytes: number;
  }): void;
  /** A body has arrived completely; not told of watches. Bytes after decompression. */
  received(body: { readonly method: Method; readonly host: string; readonly bytes: number }): void;
  /** Sent once more, because a kept connection ended under it. */
  retried(request: { readonly method: Method; readonly host: string }): void;
}

export interface ApiClientOptions {
  readonly userAgent: string;
  /** The defaults when absent. */
  readonly timeouts?: Partial<ClientTimeouts>;
  /** For all requests together; none when absent. */
  readonly rateLimit?: RateLimit;
  /** Certificates are looked at anew after this time; 60000 ms when absent. */
  readonly rereadMs?: number;
  readonly observer?: ClientObserver;
  /** There is a new connection, perhaps to another server than before. */
  readonly connected?: () => void;
  /** How connections are made; over the network when absent. */
  readonly dial?: (options: DialOptions) => Promise<Dialled>;
}

export interface ApiRequest {
  /** Path and query. */
  readonly target: string;
  /** It continues something that counted already, or has a limit of its own. */
  readonly pastRateLimit?: boolean;
  /** The body ends when it wants: it is not measured. */
  readonly watch?: boolean;
  /** JSON to send with POST; a GET when absent. */
  readonly post?: Buffer;
  readonly accept: string;
  /** Let the server compress the body. */
  readonly gzip: boolean;
  /** The body is given up when nothing arrives for so long. */
  readonly stallMs: number;
  readonly signal: AbortSignal;
  /**
   * Asked now and then while there is no answer to a request that was sent.
   * @param sentAt performance.now()
   * @returns why to wait no longer; then new requests use a new connection
   */
  readonly isHung?: (sentAt: number) => KubeError | undefined;
}

export interface ApiResponse {
  readonly status: number;
  readonly contentType: string;
  /** Retry-After in seconds; 0: not given. */
  readonly retryAfterSeconds: number;
  /** The body came compressed. */
  readonly compressed: boolean;
  /** Decompressed. Throws KubeError when the connection breaks or stalls. Leaving the loop cancels the request. */
  readonly body: AsyncIterable<Buffer>;
}

/** Per stream and per connection: large enough that a list is not held up by window updates. */
const streamWindow = 1024 * 1024;
const connectionWindow = 8 * 1024 * 1024;

type Headers = Readonly<Record<string, string | string[]>>;

interface RawResponse {
  readonly status: number;
  readonly header: (name: string) => string;
  readonly stream: Readable;
  readonly cancel: () => void;
}

/** How finely the quiet of a connection is measured, … */
const looksPerPing = 5;
/** … and that of a request. */
const looksPerAnswer = 60;

/** Certificates on disk are looked at this often, as client-go does. */
const defaultRereadMs = 60_000;

export class ApiClient {
  readonly credentials: ApiCredentials;
  private readonly timeouts: ClientTimeouts;
  private readonly userAgent: string;
  private readonly limiter: RateLimiter;
  private readonly rereadMs: number;
  private readonly observer: ClientObserver | undefined;
  private readonly dialWith: (options: DialOptions) => Promise<Dialled>;
  /** Path in front of every request: the server URL may have one. */
  private readonly prefix: string;
  /** The HTTP/2 connection that new requests use. */
  private session: http2.ClientHttp2Session | undefined;
  /** A connection that is being made; what it speaks is known when it is there. */
  private dialling: Promise<void> | undefined;
  private readonly agent = new SocketAgent();
  private readonly connectedTo: () => void;
  /** What the newest connection was made with, and when that was last compared with what is on disk. */
  private material: { readonly fingerprint: string; comparedAt: number } | undefined;
  private closed = false;

  constructor(credentials: ApiCredentials, options: ApiClientOptions) {
    this.credentials = credentials;
    this.userAgent = options.userAgent;
    this.timeouts = { ...defaultTimeouts, ...options.timeouts };
    this.limiter = new RateLimiter(options.rateLimit ?? noRateLimit);
    this.rereadMs = options.rereadMs ?? defaultRereadMs;
    this.observer = options.observer;
    this.dialWith = options.dial ?? dial;
    this.connectedTo = options.connected ?? (() => undefined);
    this.prefix = credentials.server.pathname.replace(/\/+$/, '');
  }

  /** 'https://host:port', for messages. */
  get server(): string {
    return this.credentials.server.origin;
  }

  /** @throws KubeError; an answer of any status is an answer */
  async request(request: ApiRequest): Promise<ApiResponse> {
    const method: Method = request.post === undefined ? 'GET' : 'POST';
    const { host } = this.credentials.server;
    if (request.pastRateLimit !== true) {
      const waitedMs = await this.limiter.take(request.signal);
      if (waitedMs !== undefined) this.observer?.waited?.({ method, host, seconds: waitedMs / 1000 });
    }
    const started = performance.now();
    let status: number | undefined;
    try {
      const response = await this.send(method, request);
      status = response.status;
      return response;
    } finally {
      const seconds = (performance.now() - started) / 1000;
      const requestBytes = request.post?.length ?? 0;
      this.observer?.answered({ method, host, status, seconds, requestBytes });
    }
  }

  private async send(method: Method, request: ApiRequest): Promise<ApiResponse> {
    if (this.closed) throw new KubeError('KUBE_CONNECTION_LOST', 'the client is closed');
    const headers: Headers = {
      ...(await this.credentials.headers()),
      accept: request.accept,
      'user-agent': this.userAgent,
      ...(request.gzip ? { 'accept-encoding': 'gzip' } : {}),
      ...(request.post === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': String(request.post.length) }),
    };
    await this.followRenewal();
    const raw = await this.exchange(this.prefix + request.target, headers, request);
    if (raw.status === 401) {
      this.credentials.rejected();
      // A renewed client certificate only counts on a new connection.
      this.leaveConnections();
    }
    const retryAfter = Number(raw.header('retry-after'));
    return {
      status: raw.status,
      contentType: raw.header('content-type'),
      retryAfterSeconds: Number.isFinite(retryAfter) && retryAfter > 0 ? retryAfter : 0,
      compressed: isCompressed(raw),
      body: readBody(raw, request.stallMs, this.server, (bytes) => {
        if (request.watch === true) return;
        this.observer?.received({ method, host: this.credentials.server.host, bytes });
      }),
    };
  }

  close(): void {
    this.closed = true;
    this.credentials.close?.();
    this.agent.destroy();
    this.session?.destroy();
    this.session = undefined;
  }

  /**
   * What is spoken is a property of each connection: behind one address may be servers of several kinds, one after the other.
   */
  private async exchange(target: string, headers: Headers, request: ApiRequest): Promise<RawResponse> {
    for (;;) {
      const session = this.openSession();
      if (session !== undefined) return await this.send2(session, target, headers, request);
      if (this.agent.hasFree()) return await this.send1(target, headers, request);
      // All requests wait for the same attempt. If it yields a connection for one request only, the first takes it.
      this.dialling ??= this.connect().finally(() => {
        this.dialling = undefined;
      });
      await this.dialling;
    }
  }

  private openSession(): http2.ClientHttp2Session | undefined {
    // It ended, but its events are still on their way.
    if (this.session?.closed === true || this.session?.destroyed === true) this.session = undefined;
    return this.session;
  }

  private async connect(): Promise<void> {
    const { socket, protocol } = await this.dial();
    if (this.closed) {
      socket.destroy();
      throw new KubeError('KUBE_CONNECTION_LOST', 'the client is closed');
    }
    this.connectedTo();
    if (protocol === 'h2') this.startSession(socket);
    else this.agent.spare(socket);
  }

  private async dial(): Promise<Dialled> {
    return this.dialWith({
      server: this.credentials.server,
      proxy: this.credentials.proxy,
      tls: async () => {
        const material = await this.credentials.tls();
        this.material = { fingerprint: fingerprint(material), comparedAt: performance.now() };
        return material;
      },
      timeoutMs: this.timeouts.connectMs,
    });
  }

  /**
   * Certificates are renewed on disk while connections live on. New requests then go over a new connection; what is
   * under way stays on the old one, so nothing is cut.
   */
  private async followRenewal(): Promise<void> {
    const held = this.material;
    if (held === undefined || performance.now() - held.comparedAt < this.rereadMs) return;
    held.comparedAt = performance.now();
    try {
      const material = await this.credentials.tls();
      if (fingerprint(material) === held.fingerprint || this.material !== held) return;
      // Half written (a certificate without its key): the connection that works is worth more.
      tls.createSecureContext(material);
    } catch {
      return;
    }
    this.leaveConnections();
  }

  private startSession(socket: net.Socket): void {
    const session = http2.connect(this.credentials.server.origin, {
      createConnection: () => socket,
      settings: { enablePush: false, initialWindowSize: streamWindow },
      maxSessionMemory: 64,
    });
    session.once('connect', () => {
      // It may have been destroyed before this is told.
      if (!session.destroyed) session.setLocalWindowSize(connectionWindow);
    });
    // No more requests on a connection that is ending; those under way go on.
    const forget = (): void => {
      if (this.session === session) this.session = undefined;
    };
    this.session = session;
    session.once('goaway', forget);
    session.once('close', forget);
    session.on('error', forget);
    this.watchPulse(session, socket);
  }

  /** New requests use new connections; those under way keep theirs until they end. */
  private leaveConnections(): void {
    this.agent.leaveIdle();
    const old = this.session;
    this.session = undefined;
    old?.close();
  }

  /** Ping a connection that went quiet; end it when no answer comes. */
  private watchPulse(session: http2.ClientHttp2Session, socket: net.Socket): void {
    const { pingAfterMs, pongMs } = this.timeouts;
    let received = socket.bytesRead;
    let quietLooks = 0;
    let give: NodeJS.Timeout | undefined;
    const timer = setInterval(
      guarded('ping the API server', () => {
        if (give !== undefined) return;
        const now = socket.bytesRead;
        quietLooks = now === received ? quietLooks + 1 : 0;
        received = now;
        if (quietLooks < looksPerPing) return;
        give = setTimeout(
          guarded('end a dead connection', () => {
            session.destroy(
              new KubeError(
                'KUBE_TIMEOUT',
                `API server ${this.server} did not answer a ping within ${pongMs / 1000} s`,
              ),
            );
          }),
          pongMs,
        );
        const answered = (): void => {
          clearTimeout(give);
          give = undefined;
          quietLooks = 0;
          received = socket.bytesRead;
        };
        if (session.destroyed || !session.ping(answered)) answered();
      }),
      pingAfterMs / looksPerPing,
    );
    timer.unref();
    session.once('close', () => {
      clearInterval(timer);
      clearTimeout(give);
    });
  }

  private async send2(
    session: http2.ClientHttp2Session,
    target: string,
    headers: Headers,
    what: ApiRequest,
  ): Promise<RawResponse> {
    const { post } = what;
    if (session.destroyed || session.closed) {
      throw new KubeError('KUBE_CONNECTION_LOST', `connection to API server ${this.server} was closed`);
    }
    const method = post === undefined ? 'GET' : 'POST';
    const stream = session.request(
      { ':method': method, ':path': target, ...headers },
      { endStream: post === undefined },
    );
    if (post !== undefined) stream.end(post);
    const cancel = (): void => {
      stream.close(http2.constants.NGHTTP2_CANCEL);
    };
    const answer = await this.answer<http2.IncomingHttpHeaders>(stream, what, cancel, (resolve) => {
      stream.once('response', resolve);
    });
    return {
      status: Number(answer[':status'] ?? 0),
      header: (name) => String(answer[name] ?? ''),
      stream,
      cancel,
    };
  }

  private async send1(target: string, headers: Headers, what: ApiRequest): Promise<RawResponse> {
    const { signal, post } = what;
    const request = http.request({
      agent: this.agent,
      // The agent dials; host and port only name the pool and the Host header.
      host: this.credentials.server.hostname.replace(/^\[|\]$/g, ''),
      port: this.credentials.server.port || (this.credentials.server.protocol === 'https:' ? 443 : 80),
      method: post === undefined ? 'GET' : 'POST',
      path: target,
      headers: { host: this.credentials.server.host, ...headers },
    });
    const cancel = (): void => {
      request.destroy();
    };
    try {
      const answer = await this.answer<http.IncomingMessage>(request, what, cancel, (resolve) => {
        request.once('response', resolve);
        request.end(post);
      });
      return {
        status: answer.statusCode ?? 0,
        header: (name) => String(answer.headers[name] ?? ''),
        stream: answer,
        cancel,
      };
    } catch (error) {
      // The server closed a kept connection at the moment we used it: not a failure, ask again on another one.
      const closed = error instanceof KubeError && error.code === 'KUBE_CONNECTION_LOST';
      if (!request.reusedSocket || !closed || signal.aborted) throw error;
      const method: Method = post === undefined ? 'GET' : 'POST';
      this.observer?.retried({ method, host: this.credentials.server.host });
      return await this.exchange(target, headers, what);
    }
  }

  /** Wait for the response, an error, the time limit or the caller's change of mind. */
  private answer<T>(
    emitter: NodeJS.EventEmitter,
    { signal, isHung }: ApiRequest,
    cancel: () => void,
    start: (resolve: (answer: T) => void) => void,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const sentAt = performance.now();
      const abort = (): void => {
        finish();
        cancel();
        reject(new KubeError('KUBE_CONNECTION_LOST', 'the request was cancelled'));
      };
      const timer = setTimeout(
        guarded('give a request up', () => {
          finish();
          cancel();
          reject(
            new KubeError(
              'KUBE_TIMEOUT',
              `API server ${this.server} took more than ${this.timeouts.headersMs / 1000} s to answer a request`,
            ),
          );
        }),
        this.timeouts.headersMs,
      );
      const looks = setInterval(
        guarded('look after a request', () => {
          const reason = isHung?.(sentAt);
          if (reason === undefined) return;
          finish();
          cancel();
          // It may be the connection, or where it leads to.
          this.leaveConnections();
          reject(reason);
        }),
        this.timeouts.headersMs / looksPerAnswer,
      );
      const fail = (error: unknown): void => {
        finish();
        reject(error instanceof KubeError ? error : connectFailure(error, this.server));
      };
      const closed = (): void => {
        fail(new Error('closed before the answer'));
      };
      const finish = (): void => {
        clearTimeout(timer);
        clearInterval(looks);
        signal.removeEventListener('abort', abort);
        emitter.off('close', closed);
      };
      // Stays: an error after the answer is also reported by the body, and must not be unhandled here.
      emitter.on('error', fail);
      emitter.once('close', closed);
      if (signal.aborted) {
        abort();
        return;
      }
      signal.addEventListener('abort', abort, { once: true });
      start((answer) => {
        finish();
        // From here on a change of mind ends the body.
        const stop = (): void => {
          cancel();
        };
        signal.addEventListener('abort', stop, { once: true });
        emitter.once('close', () => {
          signal.removeEventListener('abort', stop);
        });
        resolve(answer);
      });
    });
  }
}

/** Equal for equal certificates and keys. */
function fingerprint(material: TlsMaterial): string {
  const hash = createHash('sha256');
  for (const part of [material.ca, material.cert, material.key]) hash.update(part ?? '').update('\0');
  return hash.digest('base64');
}

function isCompressed(raw: RawResponse): boolean {
  return raw.header('content-encoding') === 'gzip';
}

async function* readBody(
  raw: RawResponse,
  stallMs: number,
  server: string,
  complete: (bytes: number) => void,
): AsyncGenerator<Buffer, void> {
  const stream = isCompressed(raw) ? decompressed(raw.stream) : raw.stream;
  let failure: KubeError | undefined;
  const timer = setTimeout(
    guarded('give a body up', () => {
      failure = new KubeError(
        'KUBE_TIMEOUT',
        `nothing came from API server ${server} for ${stallMs / 1000} s`,
      );
      stream.destroy(failure);
      raw.cancel();
    }),
    stallMs,
  );
  let finished = false;
  let bytes = 0;
  try {
    for await (const chunk of stream as AsyncIterable<Buffer>) {
      timer.refresh();
      bytes += chunk.length;
      yield chunk;
    }
    finished = true;
    if (failure !== undefined) throw failure;
    complete(bytes);
  } catch (error) {
    throw failure ?? lostConnection(error, server);
  } finally {
    clearTimeout(timer);
    if (!finished) raw.cancel();
  }
}

/** Keeps HTTP/1.1 connections. It makes none: a request comes here when there is one for it. */
class SocketAgent extends http.Agent {
  private spareSession: net.Socket | undefined;
  /** In use when leaveIdle() was called: they end with what they carry. */
  private leaving = new WeakSet<object>();

  constructor() {
    super({ keepAlive: true, maxFreeSockets: 2 });
    this.on('free', (socket: Duplex) => {
      if (this.leaving.has(socket)) socket.destroy();
    });
  }

  /** Whether the next request has a connection. */
  hasFree(): boolean {
    if (this.spareSession !== undefined && !this.spareSession.destroyed) return true;
    return Object.values(this.freeSockets).some((sockets) => sockets?.some(isUsable) === true);
  }

  /** A connection that is open already; the next request takes it. */
  spare(socket: net.Socket): void {
    this.spareSession = socket;
    socket.once('close', () => {
      if (this.spareSession === socket) this.spareSession = undefined;
    });
    socket.on('error', () => undefined);
  }

  override createConnection(): net.Socket {
    const spare = this.spareSession;
    this.spareSession = undefined;
    if (spare === undefined) throw new KubeError('KUBE_CONNECTION_LOST', 'there is no connection');
    return spare;
  }

  /** No request that comes from now on uses a connection that exists now. */
  leaveIdle(): void {
    this.spareSession?.destroy();
    for (const sockets of Object.values(this.freeSockets)) {
      for (const socket of sockets ?? []) socket.destroy();
    }
    for (const sockets of Object.values(this.sockets)) {
      for (const socket of sockets ?? []) this.leaving.add(socket);
    }
  }

  override destroy(): void {
    this.spareSession?.destroy();
    super.destroy();
  }
}

/** As Node's agent judges a kept connection. */
function isUsable(socket: net.Socket): boolean {
  return !socket.destroyed && socket.writable;
}
