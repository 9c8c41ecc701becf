/**
 * How full the table is and what it had to turn away (linux/netfilter/nfnetlink_conntrack.h).
 *
 *     GET_STATS answers with one message (enum ctattr_stats_global): ENTRIES(1) be32 | MAX_ENTRIES(2) be32
 *     GET_STATS_CPU is a dump with one message per processor (enum ctattr_stats_cpu), each be32, counted since boot:
 *         FOUND(2) | INVALID(4) | INSERT(8) | INSERT_FAILED(9) | DROP(10) | EARLY_DROP(11) | ERROR(12) |
 *         SEARCH_RESTART(13) | CLASH_RESOLVE(14) | CHAIN_TOOLONG(15)
 */
import type { AttributeDecoder } from '../attribute.js';

const GLOBAL = { ENTRIES: 1, MAX_ENTRIES: 2 } as const;
const CPU = { INVALID: 4, INSERT_FAILED: 9, DROP: 10, EARLY_DROP: 11, ERROR: 12, CHAIN_TOOLONG: 15 } as const;

/** The table of this network namespace. */
export interface ConntrackUsage {
  /** Entries in use. */
  readonly entries: number;
  /** How many there can be; undefined when the kernel does not say (before Linux 4.18). */
  readonly max: number | undefined;
}

/** Packets, counted in this network namespace since it exists. The kernel's counters have 32 bits and wrap around. */
export interface ConntrackStats {
  /** Dropped because the table was full, or memory was out. */
  readonly drop: number;
  /** Entries of unfinished connections evicted to make room in a full table. */
  readonly earlyDrop: number;
  /** New entries that could not be inserted: most often two packets that raced for the same tuple. */
  readonly insertFailed: number;
  /** Packets that can't be tracked: out of window, malformed. */
  readonly invalid: number;
  /** Packets of ICMP errors that belong to no entry. */
  readonly error: number;
  /** New entries turned away because their hash chain had become too long. */
  readonly chainTooLong: number;
}

export function decodeUsage(d: AttributeDecoder): ConntrackUsage {
  let entries = 0;
  let max: number | undefined;
  while (d.next()) {
    if (d.type === GLOBAL.ENTRIES) entries = d.u32();
    else if (d.type === GLOBAL.MAX_ENTRIES) max = d.u32();
  }
  return { entries, max };
}

export const NO_STATS: ConntrackStats = {
  drop: 0,
  earlyDrop: 0,
  insertFailed: 0,
  invalid: 0,
  error: 0,
  chainTooLong: 0,
};

/** Adds one processor's counters. */
export function decodeStats(d: AttributeDecoder, sum: ConntrackStats): ConntrackStats {
  const total = { ...sum };
  while (d.next()) {
    if (d.type === CPU.DROP) total.drop += d.u32();
    else if (d.type === CPU.EARLY_DROP) total.earlyDrop += d.u32();
    else if (d.type === CPU.INSERT_FAILED) total.insertFailed += d.u32();
    else if (d.type === CPU.INVALID) total.invalid += d.u32();
    else if (d.type === CPU.ERROR) total.error += d.u32();
    else if (d.type === CPU.CHAIN_TOOLONG) total.chainTooLong += d.u32();
  }
  return total;
}
