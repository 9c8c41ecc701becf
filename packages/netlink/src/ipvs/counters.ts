/**
 * Traffic of a virtual or a real server since it was made or zeroed (linux/ip_vs.h, enum ip_vs_genl_stats_attr_t):
 *
 *     STATS64 nested
 *         CONNS(1) | INPKTS(2) | OUTPKTS(3) | INBYTES(4) | OUTBYTES(5)
 *         CPS(6) | INPPS(7) | OUTPPS(8) | INBPS(9) | OUTBPS(10): per second, estimated every two seconds
 *
 * All are u64 in host byte order. There is an older STATS, of 32 bits; kernels since 4.1 send both.
 */
import type { AttributeDecoder } from '../attribute.js';

const STATS = {
  CONNS: 1,
  INPKTS: 2,
  OUTPKTS: 3,
  INBYTES: 4,
  OUTBYTES: 5,
  CPS: 6,
  INPPS: 7,
  OUTPPS: 8,
  INBPS: 9,
  OUTBPS: 10,
} as const;

/** Traffic since the last zeroCounters(), and its rates (linux/ip_vs.h, enum IPVS_STATS_ATTR_*). */
export interface IpvsStats {
  readonly connections: bigint;
  /** From clients. */
  readonly packetsIn: bigint;
  readonly bytesIn: bigint;
  /** From real servers; only where replies pass this machine. */
  readonly packetsOut: bigint;
  readonly bytesOut: bigint;
  readonly perSecond: {
    readonly connections: bigint;
    readonly packetsIn: bigint;
    readonly bytesIn: bigint;
    readonly packetsOut: bigint;
    readonly bytesOut: bigint;
  };
}

/** Reads the contents of STATS64. */
export function decodeStats(d: AttributeDecoder): IpvsStats {
  const values = new Map<number, bigint>();
  while (d.next()) if (d.type >= STATS.CONNS && d.type <= STATS.OUTBPS) values.set(d.type, d.hostU64());
  const value = (type: number): bigint => values.get(type) ?? 0n;
  return {
    connections: value(STATS.CONNS),
    packetsIn: value(STATS.INPKTS),
    bytesIn: value(STATS.INBYTES),
    packetsOut: value(STATS.OUTPKTS),
    bytesOut: value(STATS.OUTBYTES),
    perSecond: {
      connections: value(STATS.CPS),
      packetsIn: value(STATS.INPPS),
      bytesIn: value(STATS.INBPS),
      packetsOut: value(STATS.OUTPPS),
      bytesOut: value(STATS.OUTBPS),
    },
  };
}
