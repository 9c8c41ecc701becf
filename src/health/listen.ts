/**
 * HTTP servers as upstream's bind rules have them (observability.md section 1): the wildcard address of either family
 * means both, a port that is taken is tried again for ever, or ends the process if the operator wants it so.
 */
import { readFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { guarded } from '../callbacks/guarded.js';

export interface ListenAddress {
  /** An IP address. */
  readonly host: string;
  readonly port: number;
  /** Only this family, even on the wildcard address. */
  readonly ipv6Only?: boolean;
}

export class BindError extends Error {
  readonly code = 'BIND_FAILED';
}

export function printAddress({ host, port }: ListenAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Probes and scrapers keep their connections. Node closes those that were idle for 5 s, at the moment in which the next
 * request may be on its way: a failed probe. Longer than any of them waits between two requests.
 */
const keepAliveMs = 10 * 60_000;

/** Connections that one server keeps at most: probes and scrapers need a handful. */
const mostConnections = 128;

/**
 * Further connections are closed at once, so that clients can't take the descriptors that the kernel's sockets and files need: a
 * server gets a quarter of what the process may open.
 */
function maxConnections(): number {
  let allowed = Infinity;
  try {
    const limits = readFileSync('/proc/self/limits', 'utf8');
    allowed = Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Infinity);
  } catch {
    // Without /proc there is nothing to be adapted to.
  }
  return Math.min(mostConnections, Math.max(1, Math.floor(allowed / 4)));
}

/** So long a server that ends waits for answers under way; then it closes every connection. */
const closeGraceMs = 5_000;

/** @throws BindError */
export async function listen(address: ListenAddress, handler: RequestListener): Promise<Server> {
  // Both wildcards mean "both families" unless asked otherwise; without IPv6 in the kernel only 0.0.0.0 works.
  const wildcard = ['0.0.0.0', '::'].includes(address.host) && address.ipv6Only === undefined;
  const hosts = wildcard ? ['::', '0.0.0.0'] : [address.host];
  let failure: unknown;
  for (const host of hosts) {
    const server = createServer({ keepAliveTimeout: keepAliveMs }, (request, response) => {
      // It was on its way when the server closed: the last one on this connection.
      if (!server.listening) response.setHeader('Connection', 'close');
      handler(request, response);
    });
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host, port: address.port, ipv6Only: address.ipv6Only ?? false }, () => {
          server.off('error', reject);
          resolve();
        });
      });
      // Connections that could not be accepted (no descriptors left): the next one may.
      server.on(
        'error',
        guarded('accept a connection', () => undefined),
      );
      server.maxConnections = maxConnections();
      return server;
    } catch (error) {
      failure = error;
      const code = codeOf(error);
      if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') break;
    }
  }
  const reason =
    codeOf(failure) === 'EADDRINUSE'
      ? 'the port is taken by another process (is another kube-proxy running? `ss -ltnp` shows which)'
      : failure instanceof Error
        ? failure.message
        : String(failure);
  throw new BindError(`cannot listen on ${printAddress(address)}: ${reason}`, { cause: failure });
}

/**
 * Ends it without waiting for those who keep their connections open; answers under way are finished. Connections that have sent
 * nothing, or half a request, count as neither idle nor answered: they end after a grace.
 */
export function closeServer(server: Server, graceMs = closeGraceMs): void {
  const timer = setTimeout(
    guarded('close connections', () => {
      server.closeAllConnections();
    }),
    graceMs,
  ).unref();
  server.close(
    guarded('close a server', () => {
      clearTimeout(timer);
    }),
  );
  server.closeIdleConnections();
}

export interface KeptServerOptions {
  readonly address: ListenAddress;
  readonly handler: RequestListener;
  /** A port that can't be had makes start() reject, instead of being tried again. */
  readonly hardFail: boolean;
  /** Milliseconds between two tries. */
  readonly retryMs: number;
  /** @param again it had failed before, and was told then */
  readonly onRetry: (error: BindError, again: boolean) => void;
  /** Listens after all. */
  readonly onRecovered?: () => void;
}

/** Keeps a server up until it is closed. Once it listens, nothing but close() makes it stop. */
export class KeptServer {
  private readonly abort = new AbortController();
  private server: Server | undefined;

  constructor(private readonly options: KeptServerOptions) {}

  /** Settles with hardFail when it listens, without when the first try is over. @throws BindError with hardFail */
  async start(): Promise<void> {
    try {
      this.take(await listen(this.options.address, this.options.handler));
    } catch (error) {
      if (this.options.hardFail || !(error instanceof BindError)) throw error;
      this.options.onRetry(error, false);
      void this.keepTrying();
    }
  }

  /** Where it listens; undefined: nowhere. */
  get port(): number | undefined {
    const address = this.server?.address();
    return typeof address === 'object' ? address?.port : undefined;
  }

  close(): void {
    this.abort.abort();
    if (this.server === undefined) return;
    closeServer(this.server);
    this.server.closeAllConnections();
    this.server = undefined;
  }

  private async keepTrying(): Promise<void> {
    const { address, handler, retryMs, onRetry, onRecovered } = this.options;
    const { signal } = this.abort;
    for (;;) {
      await sleep(retryMs, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted) return;
      try {
        const server = await listen(address, handler);
        this.take(server);
        if (server.listening) onRecovered?.();
        return;
      } catch (error) {
        if (!(error instanceof BindError)) throw error;
        onRetry(error, true);
      }
    }
  }

  private take(server: Server): void {
    if (this.abort.signal.aborted) closeServer(server);
    else this.server = server;
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}
