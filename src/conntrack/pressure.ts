/** Warns before the connection tracking table is full, and when it drops: then new connections fail, of all of the node. */
import type { Logger } from '../log/logger.js';

/** Of the network namespace of this process (packages/netlink/src/conntrack/stats.ts). */
export interface TableState {
  readonly entries: number;
  /** undefined, or 0: no limit is known. */
  readonly max: number | undefined;
  /** Packets dropped since boot because the table was full. */
  readonly drop: number;
  /** Entries of unfinished connections that had to make room. */
  readonly earlyDrop: number;
}

export interface ConntrackPressureOptions {
  /** undefined: not known at the moment. */
  readonly read: () => TableState | undefined;
  readonly log: Logger;
  /** Milliseconds before a warning that still holds is given again. Default 10 min. */
  readonly repeatMs?: number;
  /** Milliseconds; for tests. */
  readonly now?: () => number;
}

const nearlyFull = 0.9;
/** Below this it is over. */
const relaxed = 0.8;
const defaultRepeatMs = 600_000;

const cure = 'raise conntrack.min or conntrack.maxPerCore, or sysctl net.netfilter.nf_conntrack_max';

export class ConntrackPressure {
  private before: TableState | undefined;
  private fullWarnedAt: number | undefined;
  private dropsWarnedAt: number | undefined;
  /** Drops that no warning has told of yet. */
  private unreported = 0;

  constructor(private readonly options: ConntrackPressureOptions) {}

  /** To be called every now and then, some times a minute. */
  check(): void {
    const stats = this.options.read();
    if (stats === undefined) return;
    this.checkFill(stats);
    this.checkDrops(stats);
    this.before = stats;
  }

  private checkFill({ entries, max }: TableState): void {
    const { log } = this.options;
    const fill = max === undefined || max === 0 ? 0 : entries / max;
    if (fill > nearlyFull) {
      if (!this.isDue(this.fullWarnedAt)) return;
      this.fullWarnedAt = this.now();
      log.warn('conntrack table nearly full, new connections are dropped when it is full', {
        percent: Math.floor(fill * 100),
        entries,
        max,
        cure,
      });
    } else if (fill < relaxed && this.fullWarnedAt !== undefined) {
      this.fullWarnedAt = undefined;
      log.info('conntrack table has room again', { entries, max });
    }
  }

  /**
   * What happened before the first look is no news. Failed insertions are not counted: most often two datagrams raced
   * for the same entry, which has nothing to do with room.
   */
  private checkDrops({ drop, earlyDrop, entries, max }: TableState): void {
    const { before } = this;
    if (before === undefined) return;
    this.unreported += rise(before.drop, drop) + rise(before.earlyDrop, earlyDrop);
    if (this.unreported === 0 || !this.isDue(this.dropsWarnedAt)) return;
    this.options.log.warn('conntrack table full, connections dropped', {
      dropped: this.unreported,
      entries,
      max,
      cure,
    });
    this.unreported = 0;
    this.dropsWarnedAt = this.now();
  }

  private isDue(lastAt: number | undefined): boolean {
    return lastAt === undefined || this.now() - lastAt >= (this.options.repeatMs ?? defaultRepeatMs);
  }

  private now(): number {
    return (this.options.now ?? Date.now)();
  }
}

/** The counters wrap around, and begin anew in another network namespace. */
function rise(before: number, now: number): number {
  return Math.max(0, now - before);
}
