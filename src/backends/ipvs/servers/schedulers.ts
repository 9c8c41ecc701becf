/**
 * How IPVS chooses an endpoint for a connection (Documentation/networking/ipvs-sysctl.rst and ip_vs_*.c of the kernel; the
 * names are those of ipvsadm(8)). Each is a kernel module of its own, ip_vs_NAME, which the kernel loads when the first
 * virtual server asks for it.
 */
import { IPVS_SVC_F } from '@kube-proxy-ts/netlink/ipvs';

export interface Scheduler {
  readonly title: string;
  /** Bits of IPVS_SVC_F that its virtual servers get. */
  readonly flags: number;
  /**
   * It passes over endpoints of weight 0. One that does not would refuse new clients for as long as an endpoint is drained.
   */
  readonly drains: boolean;
}

const plain = (title: string): Scheduler => ({ title, flags: 0, drains: true });

/** Those that Linux has had so far. Others may come: a name that is not here is tried all the same. */
export const schedulers: Readonly<Record<string, Scheduler>> = {
  rr: plain('round robin'),
  wrr: plain('weighted round robin'),
  lc: plain('least connections'),
  wlc: plain('weighted least connections'),
  lblc: plain('locality-based least connections'),
  lblcr: plain('locality-based least connections with replication'),
  // By the destination, which for one virtual server is always the same: all of its clients go to one endpoint.
  dh: { title: 'destination hashing', flags: 0, drains: false },
  // Without the flag a client whose endpoint is being drained is refused, not served by another.
  sh: { title: 'source hashing', flags: IPVS_SVC_F.schedulerFlag1, drains: true },
  sed: plain('shortest expected delay'),
  nq: plain('never queue'),
  fo: plain('weighted failover'),
  ovf: plain('weighted overflow'),
  // With the client's port in the hash, as upstream has it: else a client's connections all go to one endpoint.
  mh: { title: 'Maglev hashing', flags: IPVS_SVC_F.schedulerFlag2, drains: true },
  twos: plain('the better of two at random'),
};

export const defaultScheduler = 'rr';

/** Sends a client to the same endpoint each time; to another while that one is drained. */
export const affinityByHash = { scheduler: 'mh', flags: IPVS_SVC_F.schedulerFlag1 } as const;

export function schedulerNamed(name: string): Scheduler {
  return schedulers[name] ?? plain(name);
}

/** What to do when the kernel does not know a scheduler. */
export function missingScheduler(name: string): string {
  const known = name in schedulers;
  const choice = Object.keys(schedulers).join(', ');
  return known
    ? `the kernel has no IPVS scheduler ${name} (${schedulerNamed(name).title}): load it with 'modprobe ip_vs_${name}'. The module comes with the package of the kernel (Debian: linux-image-*; Fedora, RHEL: kernel-modules); kernels made for clouds or containers may leave it out`
    : `there is no IPVS scheduler ${JSON.stringify(name)}; Linux has ${choice}`;
}
