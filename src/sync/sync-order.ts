/**
 * What is programmed first when a node starts with nothing in its kernel: with tens of thousands of Services that takes
 * seconds, and each works as soon as its transaction is in. First come the Services that the operator names, then those to
 * whose addresses there are connections or attempts already, then the others.
 */
import type { IPFamily, Protocol, ServicePort, VirtualAddress } from '../model/types.js';
import { formatAddress } from '@kube-proxy-ts/netlink';
import { ConntrackConnection } from '@kube-proxy-ts/netlink/conntrack';

/** With fewer service ports than this it makes no difference. */
const worthwhile = 2_000;
/** Entries of connection tracking that are looked at, of each protocol: 30 to 60 ms. */
const maxFlows = 20_000;

const protocolNumbers: readonly (readonly [Protocol, number])[] = [
  ['TCP', 6],
  ['UDP', 17],
];

/** Called with the destination of a connection as its first packet had it. */
export type OnDestination = (protocol: Protocol, ip: string, port: number) => void;

export interface SyncOrderOptions {
  /** 'namespace/name' of Services, the first one first. */
  readonly first: readonly string[];
  /** Tells where connections go; those of connection tracking when absent. */
  readonly destinations?: (family: IPFamily, onDestination: OnDestination) => void;
}

export class SyncOrder {
  private readonly arranged = new Set<IPFamily>();
  private readonly ranks: ReadonlyMap<string, number>;

  constructor(private readonly options: SyncOrderOptions) {
    this.ranks = new Map(options.first.map((name, rank) => [name, rank]));
  }

  /** The same service ports, in the order in which they are to be programmed. Only the first time of a family matters. */
  arrange(family: IPFamily, ports: readonly ServicePort[]): readonly ServicePort[] {
    if (this.arranged.has(family)) return ports;
    this.arranged.add(family);
    if (ports.length < worthwhile) return ports;
    const wanted = this.destinations(family);
    const named: ServicePort[][] = this.options.first.map(() => []);
    const used: ServicePort[] = [];
    const others: ServicePort[] = [];
    for (const port of ports) {
      const rank = this.ranks.get(`${port.namespace}/${port.serviceName}`);
      if (rank !== undefined) named[rank]?.push(port);
      else if (port.addresses.some((address) => wanted.has(idOf(port.protocol, address)))) used.push(port);
      else others.push(port);
    }
    return [...named.flat(), ...used, ...others];
  }

  private destinations(family: IPFamily): ReadonlySet<string> {
    const found = new Set<string>();
    const read = this.options.destinations ?? conntrackDestinations;
    read(family, (protocol, ip, port) => {
      found.add(`${protocol} ${ip} ${port}`);
      // Perhaps a node port.
      found.add(`${protocol}  ${port}`);
    });
    return found;
  }
}

function idOf(protocol: Protocol, { ip, port }: VirtualAddress): string {
  return `${protocol} ${ip} ${port}`;
}

/** Ends a dump. */
class Enough extends Error {
  readonly code = 'ENOUGH';
}

/** Best effort: a kernel without ctnetlink tells nothing. */
export function conntrackDestinations(family: IPFamily, onDestination: OnDestination, most = maxFlows): void {
  for (const [protocol, number] of protocolNumbers) {
    let connection: ConntrackConnection | undefined;
    let seen = 0;
    try {
      connection = ConntrackConnection.open();
      connection.listFlows(family === 'IPv4' ? 'ip' : 'ip6', { protocol: number }, ({ original }) => {
        onDestination(protocol, formatAddress(original.destination), original.destinationPort);
        if (++seen === most) throw new Enough();
      });
    } catch {
      // Enough, or nothing to be had: the order is a favour, nothing depends on it.
    } finally {
      connection?.close();
    }
  }
}
