/**
 * Which entries are stale. Only entries whose destination is an address of a service port in question are judged, by
 * what the service port is at that moment:
 *
 * - UDP and SCTP: stale when the answers come from none of the endpoints that keep their flows. An entry that was never
 *   translated answers from the address itself, so it is stale, too.
 * - TCP: the same, but only entries of no connection: reset ones, and first packets that were never answered.
 * - An address that is no service's any more: stale when it leads to an endpoint that it led to as a service's address.
 *
 * For node ports the destination has to be an address on which this node serves them: flows to other machines that share
 * the port number are others'. So are entries in a zone of their own, which only other programs' rules make.
 */
import { formatIpPort } from '../model/addresses.js';
import type { ServicePort } from '../model/types.js';
import { formatAddress } from '../netlink/address.js';
import { type Flow, flowStatus, tcpState } from '../netlink/conntrack/index.js';
import { destination, endpointsOf, type Lane, type Retired } from './lane.js';

export class Judge {
  private readonly endpoints = new Map<ServicePort, ReadonlySet<string>>();
  private readonly tcp: boolean;

  /** @param nodePortAddresses on which node ports are served, canonical text */
  constructor(
    private readonly lane: Lane,
    private readonly destinations: ReadonlyMap<string, string>,
    private readonly retired: ReadonlyMap<string, Retired>,
    private readonly nodePortAddresses: ReadonlySet<string>,
  ) {
    this.tcp = lane.options.protocol === 'TCP';
  }

  isStale(flow: Flow): boolean {
    if (flow.zone !== 0 || (this.tcp && !isNoConnection(flow))) return false;
    const ip = formatAddress(flow.original.destination);
    const port = flow.original.destinationPort;
    const byAddress = this.bound(destination(ip, port), flow);
    if (byAddress !== undefined) return byAddress;
    return this.nodePortAddresses.has(ip) && this.bound(destination('', port), flow) === true;
  }

  /** Whether an entry to this destination is stale; undefined: the destination is nobody's. */
  private bound(to: string, flow: Flow): boolean | undefined {
    const key = this.destinations.get(to);
    const owner = key === undefined ? undefined : this.lane.known.get(key);
    if (owner !== undefined) return !this.endpointsOf(owner).has(replyFrom(flow));
    const endpoints = this.retired.get(to)?.endpoints;
    return endpoints?.has(replyFrom(flow));
  }

  private endpointsOf(port: ServicePort): ReadonlySet<string> {
    let endpoints = this.endpoints.get(port);
    if (endpoints === undefined) {
      endpoints = new Set(endpointsOf(port));
      this.endpoints.set(port, endpoints);
    }
    return endpoints;
  }
}

function replyFrom({ reply }: Flow): string {
  return formatIpPort(formatAddress(reply.source), reply.sourcePort);
}

function isNoConnection({ tcpState: state, status }: Flow): boolean {
  return state === tcpState.close || (state === tcpState.synSent && (status & flowStatus.seenReply) === 0);
}
