/**
 * What these tables refuse, and whom they lead to virtual servers by mark, holds for as long as somebody keeps it up to date.
 * Otherwise a node that goes from here to upstream's kube-proxy, which does not know the tables, would refuse Services by what
 * they were once. So these rules ask for an element that expires, and that the living process renews.
 *
 * A crash is long over before it does. Where the process ends in good order, its successor is given some seconds: until then IPVS refuses
 * what has no endpoint by itself.
 */
import type { IPFamily } from '../../../model/types.js';
import type { Batch } from '@kube-proxy-ts/netlink/nftables';
import { sets } from './names.js';

const leaseMs = 10 * 60_000;
const renewalMs = 60_000;
/** Left to a successor when the process ends. By mark, new connections of pods would fail without it. */
const lastMs: Readonly<Record<string, number>> = { [sets.refusalLease]: 5_000, [sets.markLease]: 60_000 };

export const leaseSets: readonly string[] = Object.keys(lastMs);

/** NFPROTO_* of linux/netfilter.h: the same in every packet that a table of the family sees. */
const nfproto: Readonly<Record<IPFamily, number>> = { IPv4: 2, IPv6: 10 };

export class Leases {
  private dueAt = -Infinity;
  private readonly key: Buffer;

  constructor(family: IPFamily) {
    this.key = Buffer.of(nfproto[family]);
  }

  /** @param now performance.now() */
  isDue(now: number): boolean {
    return now >= this.dueAt;
  }

  renew(batch: Batch, now: number): void {
    for (const set of leaseSets) extend(batch, set, this.key, leaseMs);
    this.dueAt = now + renewalMs;
  }

  /** The process ends. */
  shorten(batch: Batch): void {
    for (const set of leaseSets) extend(batch, set, this.key, lastMs[set] ?? 0);
    this.dueAt = -Infinity;
  }
}

/** Kernels before 6.12 do not change the time of an element that is there. */
function extend(batch: Batch, set: string, key: Buffer, timeoutMs: number): void {
  batch.flushSet(set);
  batch.addElement(set, key, undefined, { timeoutMs });
}
