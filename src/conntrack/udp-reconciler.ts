/**
 * Stale connection tracking entries of UDP services. A UDP client that keeps its source port stays on the endpoint of
 * its entry for as long as it keeps sending, also when that endpoint is gone; the entry has to go for the next
 * datagram to be balanced anew (conntrack.md).
 *
 * An entry is stale when its destination is an address of a UDP service port and its reply comes from none of the
 * service port's serving endpoints. Flows to other machines that only share a port number with a node port are left
 * alone: for node ports the destination has to be an address of this node.
 */
import { errorText, type Logger } from '../log/logger.js';
import type { IPFamily, ServicePort } from '../model/types.js';
import { formatAddress } from '../netlink/address.js';
import { ConntrackConnection, type Flow, type FlowIdentity } from '../netlink/conntrack/index.js';

const udp = 17;

export class UdpReconciler {
  private connection: ConntrackConnection | undefined;
  /** UDP service ports as of their last reconciliation, by key. */
  private readonly known = new Map<string, ServicePort>();
  /** Service ports whose stale entries could not be deleted yet, by key. */
  private readonly unfinished = new Map<string, ServicePort>();

  constructor(
    private readonly family: IPFamily,
    private readonly localAddresses: () => readonly string[],
    private readonly log: Logger,
  ) {}

  /**
   * @param ports service ports that are new or changed and are in the kernel now
   * @returns number of entries deleted
   */
  reconcile(ports: Iterable<ServicePort>): number {
    for (const port of ports) {
      if (port.protocol !== 'UDP') continue;
      const suspect = this.unfinished.has(port.key) || mayHaveLeftStale(this.known.get(port.key), port);
      if (suspect) this.unfinished.set(port.key, port);
      this.known.set(port.key, port);
    }
    return this.unfinished.size === 0 ? 0 : this.deleteStale([...this.unfinished.values()]);
  }

  forget(keys: Iterable<string>): void {
    for (const key of keys) {
      this.known.delete(key);
      this.unfinished.delete(key);
    }
  }

  close(): void {
    this.connection?.close();
    this.connection = undefined;
  }

  private deleteStale(ports: readonly ServicePort[]): number {
    const serving = new Map<string, ReadonlySet<string>>();
    for (const port of ports) {
      const endpoints = new Set(port.servingEndpoints);
      for (const address of port.addresses) serving.set(destination(address.ip, address.port), endpoints);
    }
    const local = new Set(this.localAddresses());
    const stale: FlowIdentity[] = [];
    let deleted = 0;
    try {
      this.connection ??= ConntrackConnection.open();
      const onFlow = (flow: Flow): void => {
        const ip = formatAddress(flow.original.destination);
        const port = flow.original.destinationPort;
        const endpoints =
          serving.get(destination(ip, port)) ??
          (local.has(ip) ? serving.get(destination('', port)) : undefined);
        if (endpoints === undefined) return;
        const replyFrom = formatAddress(flow.reply.source);
        if (!endpoints.has(endpointText(replyFrom, flow.reply.sourcePort))) stale.push(flow.identity());
      };
      const nft = this.family === 'IPv4' ? 'ip' : 'ip6';
      this.connection.listFlows(nft, udp, onFlow, { onRestart: () => stale.splice(0) });
      for (const flow of stale) if (this.connection.deleteFlow(flow)) deleted++;
      this.unfinished.clear();
    } catch (error) {
      // Answers to what failed may still come.
      this.close();
      this.log.warn('Stale UDP connection tracking entries remain until the next change or their timeout', {
        family: this.family,
        why: errorText(error),
      });
    }
    if (deleted > 0)
      this.log.debug(2, 'Stale UDP connection tracking entries deleted', { family: this.family, deleted });
    return deleted;
  }
}

/** '' for node ports. */
function destination(ip: string, port: number): string {
  return `${ip} ${port}`;
}

function endpointText(ip: string, port: number): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** Endpoints that were only added to a list that had some leave no stale entries behind. */
function mayHaveLeftStale(before: ServicePort | undefined, now: ServicePort): boolean {
  if (before === undefined || before.servingEndpoints.length === 0) return true;
  const addresses = new Set(before.addresses.map(({ ip, port }) => destination(ip, port)));
  if (now.addresses.some(({ ip, port }) => !addresses.has(destination(ip, port)))) return true;
  const serving = new Set(now.servingEndpoints);
  return before.servingEndpoints.some((endpoint) => !serving.has(endpoint));
}
