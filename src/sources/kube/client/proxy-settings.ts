/**
 * Which HTTP proxy leads to the API server: proxy-url of the kubeconfig's cluster, else what HTTPS_PROXY, HTTP_PROXY and
 * NO_PROXY say, by the rules that Go programs follow (golang.org/x/net/http/httpproxy, Config).
 */
import net from 'node:net';
import { KubeError } from '../errors.js';

export type Environment = Readonly<Record<string, string | undefined>>;

/** Reached by CONNECT; one that itself speaks TLS ('https:') is fine, too. */
const spoken = new Set(['http:', 'https:']);

/** @throws KubeError KUBE_PROXY for a proxy that can't be used */
export function proxyURL(text: string, origin: string): URL {
  const full = text.includes('://') ? text : `http://${text}`;
  const url = URL.canParse(full) ? new URL(full) : undefined;
  if (url === undefined || !spoken.has(url.protocol) || url.hostname === '') {
    throw new KubeError(
      'KUBE_PROXY',
      `${origin} ${JSON.stringify(text)} is not supported: only http://host:port and https://host:port are`,
    );
  }
  return url;
}

/** @throws KubeError KUBE_PROXY for a proxy that can't be used */
export function proxyFromEnvironment(server: URL, environment: Environment): URL | undefined {
  const names = server.protocol === 'https:' ? ['HTTPS_PROXY', 'https_proxy'] : ['HTTP_PROXY', 'http_proxy'];
  const name = names.find((candidate) => (environment[candidate] ?? '') !== '');
  if (name === undefined) return undefined;
  if (excluded(server, environment['NO_PROXY'] ?? environment['no_proxy'] ?? '')) return undefined;
  return proxyURL(environment[name] ?? '', `environment variable ${name}`);
}

/** Whether NO_PROXY takes the server out; loopback is always out. */
function excluded(server: URL, list: string): boolean {
  const host = server.hostname.replace(/^\[|\]$/g, '').toLowerCase();
  const port = server.port || (server.protocol === 'https:' ? '443' : '80');
  const version = net.isIP(host);
  if (host === 'localhost' || contains(loopback, host, version)) return true;
  return list.split(',').some((item) => {
    const entry = item.trim().toLowerCase();
    if (entry === '') return false;
    if (entry === '*') return true;
    const [, cidr = '', length = ''] = /^([0-9a-f.:]+)\/(\d{1,3})$/.exec(entry) ?? [];
    if (cidr !== '') return isInside(host, version, cidr, Number(length));
    const { name, onlyPort } = splitPort(entry);
    if (onlyPort !== '' && onlyPort !== port) return false;
    if (net.isIP(name) !== 0) return version !== 0 && isInside(host, version, name, undefined);
    if (version !== 0) return false;
    const domain = name.replace(/^\*(?=\.)/, '');
    return domain.startsWith('.') ? host.endsWith(domain) : host === domain || host.endsWith(`.${domain}`);
  });
}

const loopback = new net.BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

function contains(list: net.BlockList, host: string, version: number): boolean {
  return version !== 0 && list.check(host, version === 6 ? 'ipv6' : 'ipv4');
}

function isInside(host: string, version: number, ip: string, prefixLength: number | undefined): boolean {
  const family = net.isIP(ip) === 6 ? 'ipv6' : 'ipv4';
  const whole = family === 'ipv6' ? 128 : 32;
  if (net.isIP(ip) === 0 || (prefixLength ?? 0) > whole) return false;
  const list = new net.BlockList();
  list.addSubnet(ip, prefixLength ?? whole, family);
  return contains(list, host, version);
}

/** 'name:port', '[v6]:port', or just a name or address. */
function splitPort(entry: string): { readonly name: string; readonly onlyPort: string } {
  const [, name = '', onlyPort = ''] = /^(\[[^\]]+\]|[^:]+)(?::(\d+))?$/.exec(entry) ?? ['', entry];
  return { name: name.replace(/^\[|\]$/g, ''), onlyPort };
}
