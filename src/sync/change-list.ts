/** Names what a sync changed, for the log: service port, address, endpoints. Nothing is computed until the line is printed. */
import { longestName, printable } from '../sources/printable.js';
import type { Endpoint, ServicePort } from '../model/types.js';

/** Service ports that a line of verbosity 2 names; the others are a count. */
export const namedAtMost = 20;

/** What one sync changed: `list` is computed when it is called. */
export interface ChangeText {
  /** Service ports that changed. */
  readonly count: number;
  /** One text per service port. @param most the first so many by name */
  list(most?: number): readonly string[];
}

/** Remembers the service ports of a family, by reference, to tell what is different about the new ones. */
export class ChangeList {
  private known = new Map<string, ServicePort>();

  /** After everything was compared. */
  replace(ports: readonly ServicePort[]): void {
    this.known = new Map(ports.map((port) => [port.key, port]));
  }

  /** Takes over what a sync wrote; costs as much as changed. */
  update(upserted: readonly ServicePort[], removed: readonly string[]): ChangeText {
    const changes: Change[] = upserted.map((now) => ({ before: this.known.get(now.key), now }));
    for (const port of upserted) this.known.set(port.key, port);
    for (const key of removed) {
      changes.push({ before: this.known.get(key), now: undefined });
      this.known.delete(key);
    }
    const named = changes.filter(({ before, now }) => before !== undefined || now !== undefined);
    return {
      count: named.length,
      list: (most = Infinity) => [...named].sort(byName).slice(0, most).map(describe),
    };
  }
}

interface Change {
  readonly before: ServicePort | undefined;
  readonly now: ServicePort | undefined;
}

const nameOf = ({ before, now }: Change): string => (now ?? before)?.name ?? '';
const byName = (a: Change, b: Change): number => (nameOf(a) < nameOf(b) ? -1 : 1);

function describe({ before, now }: Change): string {
  const port = now ?? before;
  if (port === undefined) return '';
  const host = port.clusterIP.includes(':') ? `[${port.clusterIP}]` : port.clusterIP;
  const at = `${printable(port.name, 3 * longestName)} ${host}:${port.port}/${port.protocol}`;
  if (now === undefined) return `${at} deleted`;
  const endpoints = endpointsOf(now);
  const { added, removed } = difference(before === undefined ? [] : endpointsOf(before), endpoints);
  return `${at} endpoints=${endpoints.length} added=${added} removed=${removed}`;
}

const endpointsOf = ({ clusterEndpoints, localEndpoints }: ServicePort): readonly Endpoint[] =>
  clusterEndpoints.length > 0 ? clusterEndpoints : localEndpoints;

const same = (a: Endpoint | undefined, b: Endpoint | undefined): boolean =>
  a?.ip === b?.ip && a?.port === b?.port;

/** Both lists have one order: what they have in common at the beginning and the end is only walked over. */
function difference(
  before: readonly Endpoint[],
  now: readonly Endpoint[],
): { readonly added: number; readonly removed: number } {
  const shorter = Math.min(before.length, now.length);
  let head = 0;
  while (head < shorter && same(before[head], now[head])) head++;
  let tail = 0;
  while (tail < shorter - head && same(before.at(-1 - tail), now.at(-1 - tail))) tail++;
  const key = ({ ip, port }: Endpoint): string => `${ip} ${port}`;
  const old = new Set(before.slice(head, before.length - tail).map(key));
  const fresh = now.slice(head, now.length - tail).map(key);
  const kept = fresh.filter((endpoint) => old.has(endpoint)).length;
  return { added: fresh.length - kept, removed: old.size - kept };
}
