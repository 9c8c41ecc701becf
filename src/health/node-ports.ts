/**
 * Health check node ports (observability.md section 4): one HTTP listener per Service with externalTrafficPolicy
 * Local and per family, that tells a load balancer whether this node has endpoints for it.
 */
import type { RequestListener, Server } from 'node:http';
import type { HealthCheckPort, IPFamily } from '../model/types.js';
import { listen } from './listen.js';

interface Entry {
  check: HealthCheckPort;
  servers: Server[];
  state: 'closed' | 'opening' | 'open';
  reported: boolean;
}

export interface NodePortHealthOptions {
  readonly family: IPFamily;
  /** 'all': the wildcard address; else one listener per address. */
  readonly addresses: 'all' | readonly string[];
  readonly proxyHealthy: () => boolean;
  /** A listener could not be opened; told once until it can. */
  readonly onFailure: (check: HealthCheckPort, error: unknown) => void;
  /** Milliseconds until a failed one is tried again. */
  readonly retryMs: number;
}

export class NodePortHealth {
  private readonly entries = new Map<string, Entry>();
  private retry: NodeJS.Timeout | undefined;

  constructor(private readonly options: NodePortHealthOptions) {}

  set(check: HealthCheckPort): void {
    const entry = this.entries.get(check.service);
    if (entry !== undefined && entry.check.port !== check.port) this.remove(check.service);
    const kept = this.entries.get(check.service);
    if (kept === undefined)
      this.entries.set(check.service, { check, servers: [], state: 'closed', reported: false });
    else kept.check = check;
  }

  remove(service: string): void {
    const entry = this.entries.get(service);
    if (entry === undefined) return;
    this.entries.delete(service);
    closeAll(entry.servers);
  }

  /** Opens what is not open yet. A port that is taken is reported, and tried again. */
  async openAll(): Promise<void> {
    clearTimeout(this.retry);
    await Promise.all(this.closed().map((entry) => this.open(entry)));
    if (this.closed().length === 0) return;
    clearTimeout(this.retry);
    this.retry = setTimeout(() => void this.openAll(), this.options.retryMs).unref();
  }

  close(): void {
    clearTimeout(this.retry);
    for (const service of [...this.entries.keys()]) this.remove(service);
  }

  private closed(): Entry[] {
    return [...this.entries.values()].filter((entry) => entry.state === 'closed');
  }

  /** Removed, or moved to another port, while it was being opened. */
  private isStale(entry: Entry): boolean {
    return this.entries.get(entry.check.service) !== entry;
  }

  private async open(entry: Entry): Promise<void> {
    entry.state = 'opening';
    const v6 = this.options.family === 'IPv6';
    const hosts = this.options.addresses === 'all' ? [v6 ? '::' : '0.0.0.0'] : this.options.addresses;
    const servers: Server[] = [];
    try {
      for (const host of hosts) {
        servers.push(await listen({ host, port: entry.check.port, ipv6Only: v6 }, this.answer(entry)));
      }
    } catch (error) {
      closeAll(servers);
      entry.state = 'closed';
      if (this.isStale(entry)) return;
      if (!entry.reported) this.options.onFailure(entry.check, error);
      entry.reported = true;
      return;
    }
    entry.state = 'open';
    entry.reported = false;
    entry.servers = servers;
    if (this.isStale(entry)) closeAll(servers);
  }

  private answer(entry: Entry): RequestListener {
    return (request, response) => {
      request.resume();
      const { namespace, name, localReadyEndpoints } = entry.check;
      const healthy = this.options.proxyHealthy();
      const body = JSON.stringify(
        { service: { namespace, name }, localEndpoints: localReadyEndpoints, serviceProxyHealthy: healthy },
        undefined,
        '\t',
      );
      response.writeHead(healthy && localReadyEndpoints > 0 ? 200 : 503, {
        'Content-Type': 'application/json',
        'X-Content-Type-Options': 'nosniff',
        'X-Load-Balancing-Endpoint-Weight': String(localReadyEndpoints),
        'Content-Length': Buffer.byteLength(body),
      });
      response.end(body);
    };
  }
}

function closeAll(servers: readonly Server[]): void {
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
}
