/**
 * The contract between the program and a way of programming the kernel (a mode). One instance serves one IP family.
 *
 * A dataplane is told what the model wants ("these service ports are now like this, these are gone") and makes the
 * kernel agree. Pacing, retries, metrics and health belong to the caller. What it could not program it names, and
 * everything else goes on.
 */
import type {
  Cidr,
  FamilyChanges,
  IPFamily,
  LocalDetector,
  LocalhostNodePorts,
  ReleasedAddress,
  ServicePort,
} from '../model/types.js';

/** Settings that hold for the life of the process. */
export interface DataplaneOptions {
  readonly family: IPFamily;
  /** One bit of the packet mark, set on packets that are to be masqueraded. */
  readonly masqueradeMark: number;
  readonly masqueradeAll: boolean;
  /** How a pod's packet is recognised; undefined: it is not. */
  readonly detector: LocalDetector | undefined;
  /**
   * 'all': node ports answer on every local address but loopback, evaluated by the kernel per packet.
   * A list: only on these addresses (canonical text); see setNodePortAddresses.
   */
  readonly nodePortAddresses: 'all' | readonly string[];
  /** Node ports also answer processes of this node on loopback addresses; undefined: they do not. */
  readonly localhostNodePorts?: LocalhostNodePorts | undefined;
  /**
   * Drop what neighbours send to this node's loopback addresses (CVE-2020-8558). Needed wherever route_localnet is on,
   * which takes away the kernel's own refusal. IPv4 only: there is no such setting for IPv6.
   */
  readonly guardLoopback?: boolean;
}

export interface ProgrammingFailure {
  /** As printed: 'namespace/name:port'. */
  readonly servicePort: string;
  readonly key: string;
  readonly error: Error;
}

/** The kernel no longer holds what this process left there: somebody deleted or changed it. The cure is resync(). */
export class TableDamagedError extends Error {
  readonly code = 'TABLE_DAMAGED';
}

/** What one call wrote to the kernel. */
export interface ApplyReport {
  /** Kernel transactions that changed something; 0 when the kernel was already as wanted. */
  readonly transactions: number;
  readonly elementsAdded: number;
  readonly elementsDeleted: number;
  /** Milliseconds spent in the kernel, acknowledgements included. */
  readonly kernelMs: number;
  readonly failures: readonly ProgrammingFailure[];
  /** Milliseconds that other programs need before the next call, since this one has kept them out. Absent: none. */
  readonly restMs?: number;
  /**
   * Of resync(): UDP and SCTP addresses that the kernel still led somewhere, and that no service port has. Their flows outlive
   * the rules. Absent: none.
   */
  readonly released?: readonly ReleasedAddress[];
}

export interface CheckReport extends ApplyReport {
  /** The kernel told of the change, too, or would have a moment later. */
  readonly reported: boolean;
}

export interface Dataplane {
  readonly family: IPFamily;
  /**
   * Takes over whatever the kernel holds from an earlier process and writes only the differences to the wanted
   * state. Rejects when the kernel can't be programmed at all; the rules in force stay as they are then.
   * Also used to repair: it reads the kernel again.
   */
  resync(wanted: Iterable<ServicePort>): Promise<ApplyReport>;
  /** Makes the kernel follow a change. Service ports that failed are not retried by themselves. */
  apply(changes: FamilyChanges): Promise<ApplyReport>;
  /**
   * Looks whether the kernel holds what it should, and puts right what does not, in small pieces between which apply() does
   * its work. Absent: only resync() tells.
   * @returns undefined when everything has to be compared (adopt)
   */
  verify?(): Promise<CheckReport | undefined>;
  /** Ranges from which the cluster allocates service addresses: the unallocated ones are dropped. */
  setServiceCIDRs(cidrs: readonly Cidr[]): ApplyReport;
  /** The node's addresses that serve node ports. No effect when the option was 'all'. */
  setNodePortAddresses(addresses: readonly string[]): ApplyReport;
  /**
   * Addresses of this family on the interfaces of this node, for modes that have to name those that they mean. Not those on
   * kube-ipvs0, which are addresses of Services.
   */
  setLocalAddresses?(addresses: readonly string[]): ApplyReport | undefined;
  /**
   * Where load balancers ask for this node's health on behalf of a Service; undefined: no longer. For modes that let such
   * packets in, whatever the host's own rules say.
   * @param service 'namespace/name'
   */
  setHealthCheckPort?(service: string, port: number | undefined): void;
  /**
   * Deletions that had to wait: packets in flight may still need what a change has made unreachable, so it goes in a
   * later transaction. performance.now() when the next of them is due; undefined: none waits. What still waits when the
   * process ends is deleted by the next one's resync().
   */
  readonly deferredDueAt: number | undefined;
  /** Deletes a bounded part of what is due. Called again for as long as deferredDueAt says so. @param now performance.now() */
  deleteDeferred(now: number): Promise<ApplyReport>;
  /** Housekeeping without influence on traffic; called now and then when idle. */
  maintain(): ApplyReport;
  close(): void;
}
