/** One TCP or TLS connection, through an HTTP proxy where one is set, within a time limit. */
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import tls from 'node:tls';
import { guarded } from '../../../callbacks/guarded.js';
import type { TlsMaterial } from '../auth/credentials.js';
import { KubeError } from '../errors.js';
import { connectFailure } from './failures.js';

export interface DialOptions {
  readonly server: URL;
  readonly proxy: URL | undefined;
  /** Read only for https. */
  readonly tls: () => Promise<TlsMaterial>;
  /** From the first packet to the end of the TLS handshake. */
  readonly timeoutMs: number;
}

export interface Dialled {
  readonly socket: net.Socket;
  /** 'h2' when the server chose it, otherwise HTTP/1.1 is spoken. */
  readonly protocol: 'h2' | 'http/1.1';
}

/** Probe idle connections after this time: the kernel then finds dead peers that HTTP/1.1 can't ask. */
const keepAliveMs = 30_000;

/** @throws KubeError */
export async function dial(options: DialOptions): Promise<Dialled> {
  const { server } = options;
  const secure = server.protocol === 'https:';
  const host = server.hostname.replace(/^\[|\]$/g, '');
  const port = Number(server.port || (secure ? 443 : 80));
  let socket: net.Socket | undefined;
  let timer: NodeJS.Timeout | undefined;
  const givenUp = new AbortController();
  try {
    const material = secure ? await options.tls() : {};
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(
        guarded('give a connection up', () => {
          reject(
            new KubeError(
              'KUBE_TIMEOUT',
              `API server ${server.origin} does not answer the connection within ${options.timeoutMs / 1000} s: ` +
                'check routes and firewalls between this node and it',
            ),
          );
        }),
        options.timeoutMs,
      );
    });
    const connect = async (): Promise<Dialled> => {
      const plain =
        options.proxy === undefined
          ? net.connect({ host, port })
          : await tunnel(options.proxy, host, port, givenUp.signal);
      socket = plain;
      plain.setNoDelay(true);
      plain.setKeepAlive(true, keepAliveMs);
      if (!secure) {
        if (plain.connecting) await event(plain, 'connect');
        return { socket: plain, protocol: 'http/1.1' };
      }
      const secured = tls.connect({
        socket: plain,
        host,
        ...(net.isIP(host) === 0 ? { servername: host } : {}),
        ...material,
        ALPNProtocols: ['h2', 'http/1.1'],
      });
      socket = secured;
      await event(secured, 'secureConnect');
      return { socket: secured, protocol: secured.alpnProtocol === 'h2' ? 'h2' : 'http/1.1' };
    };
    return await Promise.race([connect(), limit]);
  } catch (error) {
    givenUp.abort();
    socket?.destroy();
    throw connectFailure(error, server.origin);
  } finally {
    clearTimeout(timer);
  }
}

function event(socket: net.Socket, name: 'connect' | 'secureConnect'): Promise<void> {
  return new Promise((resolve, reject) => {
    const closed = (): void => {
      reject(new Error('closed during the handshake'));
    };
    socket.once(name, () => {
      socket.off('error', reject);
      socket.off('close', closed);
      resolve();
    });
    socket.once('error', reject);
    socket.once('close', closed);
  });
}

/** CONNECT through an HTTP proxy (RFC 9110 section 9.3.6). */
function tunnel(proxy: URL, host: string, port: number, signal: AbortSignal): Promise<net.Socket> {
  const target = `${host.includes(':') ? `[${host}]` : host}:${port}`;
  const fail = (reason: string, cause?: unknown): KubeError =>
    new KubeError(
      'KUBE_PROXY',
      `proxy ${proxy.origin} does not connect to API server ${target} (${reason}): ` +
        'check proxy-url in the kubeconfig, or HTTPS_PROXY and NO_PROXY in the environment',
      { cause },
    );
  return new Promise((resolve, reject) => {
    const headers: Record<string, string> = { host: target };
    if (proxy.username !== '') {
      const pair = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
      headers['proxy-authorization'] = `Basic ${Buffer.from(pair).toString('base64')}`;
    }
    const secure = proxy.protocol === 'https:';
    const request = (secure ? https : http).request({
      host: proxy.hostname.replace(/^\[|\]$/g, ''),
      port: proxy.port || (secure ? 443 : 80),
      method: 'CONNECT',
      path: target,
      headers,
      agent: false,
      signal,
    });
    request.once('connect', (response, socket: net.Socket) => {
      if (response.statusCode === 200) {
        resolve(socket);
      } else {
        socket.destroy();
        reject(fail(`status ${response.statusCode ?? 0}`));
      }
    });
    request.once('error', (error) => {
      reject(fail(error.message, error));
    });
    request.end();
  });
}
