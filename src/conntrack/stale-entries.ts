/**
 * Which entries are stale. Only entries whose destination is an address of a service port in question are judged, by
 * what the service port that has the address is at that moment, whichever had it when the question was asked:
 *
 * - UDP and SCTP: stale when the answers come from none of the endpoints that keep their flows. An entry that was never
 *   translated answers from the address itself, so it is stale, too.
 * - TCP: the same, but only entries of no connection: reset ones, and first packets that were never answered.
 * - An address that is no service's any more: stale when it leads to an endpoint that it led to as a service's address.
 *
 * For node ports the destination has to be an address on which this node serves them: flows to other machines that share
 * the port number are others'. So are entries in a zone of their own, which only other programs' rules make.
 */
import { formatIpPort } from '../model/addresses/addresses.js';
import type { ServicePort } from '../model/types.js';
import { formatAddress } from '@kube-proxy-ts/netlink';
import { type Flow, flowStatus, tcpState } from '@kube-proxy-ts/netlink/conntrack';
import { destination, endpointsOf, type Candidates, type Retired } from './candidates.js';

export class StaleEntries {
  /** By service port, or list of endpoints. */
  private readonly endpoints = new Map<ServicePort | readonly string[], ReadonlySet<string>>();
  private readonly addresses = new Map<ServicePort, ReadonlySet<string>>();
  private readonly tcp: boolean;

  /** @param nodePortAddresses on which node ports are served, canonical text */
  constructor(
    private readonly candidates: Candidates,
    private readonly destinations: ReadonlyMap<string, string>,
    private readonly retired: ReadonlyMap<string, Retired>,
    private readonly nodePortAddresses: ReadonlySet<string>,
  ) {
    this.tcp = candidates.options.protocol === 'TCP';
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
    const retired = this.retired.get(to);
    if (key === undefined && retired === undefined) return undefined;
    const owner = this.candidates.ownerOf(to, key);
    if (owner !== undefined && this.addressesOf(owner).has(to)) {
      const endpoints = once(this.endpoints, owner, () => new Set(endpointsOf(owner)));
      // An address that was nobody's when the question was asked is its new owner's to ask about.
      return key !== undefined && !endpoints.has(replyFrom(flow));
    }
    if (retired === undefined) return undefined;
    const from = replyFrom(flow);
    return retired.endpoints.some((list) => once(this.endpoints, list, () => new Set(list)).has(from));
  }

  private addressesOf(port: ServicePort): ReadonlySet<string> {
    return once(
      this.addresses,
      port,
      () => new Set(port.addresses.map(({ ip, port: number }) => destination(ip, number))),
    );
  }
}

function once<K, V>(made: Map<K, V>, of: K, make: () => V): V {
  let value = made.get(of);
  if (value === undefined) made.set(of, (value = make()));
  return value;
}

function replyFrom({ reply }: Flow): string {
  return formatIpPort(formatAddress(reply.source), reply.sourcePort);
}

function isNoConnection({ tcpState: state, status }: Flow): boolean {
  return state === tcpState.close || (state === tcpState.synSent && (status & flowStatus.seenReply) === 0);
}
