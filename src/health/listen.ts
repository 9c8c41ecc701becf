/** HTTP servers that may find their port taken: try again, or give up at once. */
import { createServer, type RequestListener, type Server } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

export interface ListenAddress {
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

/** @throws BindError */
export async function listen(address: ListenAddress, handler: RequestListener): Promise<Server> {
  const server = createServer(handler);
  // Both wildcards mean "both families" unless asked otherwise; without IPv6 in the kernel only 0.0.0.0 works.
  const wildcard = ['0.0.0.0', '::'].includes(address.host) && address.ipv6Only === undefined;
  const hosts = wildcard ? ['::', '0.0.0.0'] : [address.host];
  let failure: unknown;
  for (const host of hosts) {
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host, port: address.port, ipv6Only: address.ipv6Only ?? false }, () => {
          server.off('error', reject);
          resolve();
        });
      });
      server.on('error', () => undefined);
      return server;
    } catch (error) {
      failure = error;
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') break;
    }
  }
  const code = failure instanceof Error && 'code' in failure ? failure.code : undefined;
  const reason =
    code === 'EADDRINUSE'
      ? 'the port is taken by another process (is another kube-proxy running? `ss -ltnp` shows which)'
      : failure instanceof Error
        ? failure.message
        : String(failure);
  throw new BindError(`cannot listen on ${printAddress(address)}: ${reason}`, { cause: failure });
}

/** Tries until it works or `signal` ends it. `onFailure` hears of each failure. */
export async function listenWithRetry(
  address: ListenAddress,
  handler: RequestListener,
  retryMs: number,
  signal: AbortSignal,
  onFailure: (error: unknown) => void,
): Promise<Server | undefined> {
  while (!signal.aborted) {
    try {
      return await listen(address, handler);
    } catch (error) {
      onFailure(error);
      await sleep(retryMs, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }
  return undefined;
}
