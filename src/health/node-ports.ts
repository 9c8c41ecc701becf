/**
 * Health check node ports (observability.md section 4): one HTTP listener per Service with externalTrafficPolicy
 * Local, family and address, that tells a load balancer whether this node has endpoints for it.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { guarded } from '../callbacks/guarded.js';
import type { HealthCheckPort, IPFamily } from '../model/types.js';
import { closeServer, listen } from './listen.js';

interface Entry {
  check: HealthCheckPort;
  /** By address; the wildcard address when there are no others. */
  readonly servers: Map<string, Server>;
  /** The listeners are being opened. */
  opening: boolean;
  reported: boolean;
  /** The Service is gone, or has another port. */
  closed: boolean;
}

export interface NodePortHealthOptions {
  readonly family: IPFamily;
  /** 'all': the wildcard address; else one listener per address. */
  readonly addresses: 'all' | readonly string[];
  readonly proxyHealthy: () => boolean;
  /** A listener could not be opened; told once until it can. */
  readonly onFailure: (check: HealthCheckPort, error: unknown) => void;
  /** One that had been told opens after all. */
  readonly onRecovered?: (check: HealthCheckPort) => void;
  /** Milliseconds until a failed one is tried again. */
  readonly retryMs: number;
}

export class NodePortHealth {
  private readonly entries = new Map<string, Entry>();
  private hosts: readonly string[];
  private retry: NodeJS.Timeout | undefined;
  /** Services may be listened for: set by openAll(), and from then on each listener opens by itself. */
  private started = false;
  private openingSoon = false;

  constructor(private readonly options: NodePortHealthOptions) {
    this.hosts = this.hostsOf(options.addresses);
  }

  set(check: HealthCheckPort): void {
    const entry = this.entries.get(check.service);
    if (entry?.check.port === check.port) {
      entry.check = check;
      return;
    }
    this.remove(check.service);
    this.entries.set(check.service, {
      check,
      servers: new Map(),
      opening: false,
      reported: false,
      closed: false,
    });
    this.openSoon();
  }

  remove(service: string): void {
    const entry = this.entries.get(service);
    if (entry === undefined) return;
    this.entries.delete(service);
    entry.closed = true;
    closeAll(entry);
  }

  /** The node's addresses changed: listeners on those that stay are not touched. */
  setAddresses(addresses: 'all' | readonly string[]): void {
    const hosts = this.hostsOf(addresses);
    if (hosts.join() === this.hosts.join()) return;
    this.hosts = hosts;
    for (const entry of this.entries.values()) {
      for (const [host, server] of entry.servers) {
        if (hosts.includes(host)) continue;
        entry.servers.delete(host);
        closeServer(server);
      }
    }
    if (this.started) void this.openAll();
  }

  /** Number of Services with a listener that could not be opened. */
  get failed(): number {
    return this.incomplete().filter(({ reported }) => reported).length;
  }

  /** Opens what is not open yet. A port that is taken is reported, and tried again. */
  async openAll(): Promise<void> {
    this.started = true;
    clearTimeout(this.retry);
    await Promise.all(this.incomplete().map((entry) => this.open(entry)));
    clearTimeout(this.retry);
    if (this.incomplete().length === 0) return;
    this.retry = setTimeout(
      guarded('open health check node ports', () => this.openAll()),
      this.options.retryMs,
    ).unref();
  }

  close(): void {
    this.started = false;
    clearTimeout(this.retry);
    for (const service of [...this.entries.keys()]) this.remove(service);
  }

  /** What changes at one time is opened together. */
  private openSoon(): void {
    if (!this.started || this.openingSoon) return;
    this.openingSoon = true;
    setImmediate(
      guarded('open health check node ports', async () => {
        this.openingSoon = false;
        if (this.started) await this.openAll();
      }),
    );
  }

  private hostsOf(addresses: 'all' | readonly string[]): readonly string[] {
    if (addresses !== 'all') return [...new Set(addresses)].sort();
    return [this.options.family === 'IPv6' ? '::' : '0.0.0.0'];
  }

  private incomplete(): Entry[] {
    return [...this.entries.values()].filter((entry) => this.missing(entry).length > 0);
  }

  private missing(entry: Entry): string[] {
    return this.hosts.filter((host) => !entry.servers.has(host));
  }

  /** One address that can't be had does not keep the others closed. */
  private async open(entry: Entry): Promise<void> {
    if (entry.opening) return;
    entry.opening = true;
    let failure: unknown;
    for (const host of this.missing(entry)) {
      try {
        const server = await listen(
          { host, port: entry.check.port, ipv6Only: this.options.family === 'IPv6' },
          (request, response) => {
            this.answer(entry, request, response);
          },
        );
        if (entry.closed || !this.hosts.includes(host)) closeServer(server);
        else entry.servers.set(host, server);
      } catch (error) {
        if (!entry.closed && this.hosts.includes(host)) failure ??= error;
      }
    }
    entry.opening = false;
    if (failure !== undefined && !entry.reported) this.options.onFailure(entry.check, failure);
    else if (failure === undefined && entry.reported && !entry.closed)
      this.options.onRecovered?.(entry.check);
    entry.reported = failure !== undefined;
  }

  /** Any method, any path. A request that was on its way when its Service went away hears that there is nothing. */
  private answer(entry: Entry, request: IncomingMessage, response: ServerResponse): void {
    request.resume();
    const { namespace, name } = entry.check;
    const localEndpoints = entry.closed ? 0 : entry.check.localReadyEndpoints;
    const healthy = this.options.proxyHealthy();
    const body = JSON.stringify(
      { service: { namespace, name }, localEndpoints, serviceProxyHealthy: healthy },
      undefined,
      '\t',
    );
    response.writeHead(healthy && localEndpoints > 0 ? 200 : 503, {
      'Content-Type': 'application/json',
      'X-Content-Type-Options': 'nosniff',
      'X-Load-Balancing-Endpoint-Weight': String(localEndpoints),
      'Content-Length': Buffer.byteLength(body),
    });
    response.end(body);
  }
}

function closeAll(entry: Entry): void {
  for (const server of entry.servers.values()) closeServer(server);
  entry.servers.clear();
}
