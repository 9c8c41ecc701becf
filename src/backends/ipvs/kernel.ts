/** What the dataplane needs of the kernel beside nftables; a test can put something else in its place. */
import type { Rejection } from '@kube-proxy-ts/netlink';
import type { IpvsCommand, RealServer, VirtualServer, VirtualServerKey } from '@kube-proxy-ts/netlink/ipvs';

/** IpvsConnection is one. */
export interface IpvsKernel {
  listServices(): VirtualServer[];
  /**
   * The same in many turns of the event loop; some may be passed over when they change meanwhile. Nothing else is asked of
   * this connection until it is done.
   */
  listServicesAsync(onService: (service: VirtualServer) => void, signal?: AbortSignal): Promise<void>;
  /** undefined: there is none. */
  getService(key: VirtualServerKey): VirtualServer | undefined;
  /** @throws NetlinkError ESRCH when there is no such virtual server */
  listDestinations(service: VirtualServerKey): RealServer[];
  executeAll(commands: Iterable<IpvsCommand>): Rejection[];
  close(): void;
}

export interface AddressChange {
  readonly do: 'add' | 'delete';
  /** Canonical text. */
  readonly ip: string;
}

/** The addresses of the service interface, of one family. */
export interface ServiceInterface {
  /** Makes the interface unless it is there. @returns its addresses, canonical text */
  open(): readonly string[];
  /** @returns those that the kernel refused, by index */
  change(changes: readonly AddressChange[]): Rejection[];
  close(): void;
}
