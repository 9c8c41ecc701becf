/**
 * Clients that affinity remembers, and that it should not: those of a service port or an endpoint that is gone, and those whose
 * Service has a shorter timeout by now. Packets fill the map `affinity`, so only reading it tells who is in it; that
 * happens when a number became free or a timeout was lowered, and once when the table was taken over. Until then the number
 * is given to nobody (affinity-numbers.ts), and the rules pass it over.
 *
 * The map may hold a million clients. It is read on libuv's thread pool over a connection of its own, and what has to go
 * goes some hundred at a time.
 */
import { performance } from 'node:perf_hooks';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import type { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { readHostUint32 } from '../../nft/keys.js';
import { forgetUntil } from './affinity-numbers.js';
import type { Committer } from '../transaction/committer.js';
import { maps } from '../layout/names.js';
import type { SyncStats } from '../transaction/sync-stats.js';
import type { AppliedState } from '../state/applied-state.js';

/** A packet may be so long on its way, and write down a number that has just become free. */
const graceMs = 200;
/** The map is read no more often than this, … */
const leastPauseMs = 1000;
/** … and no more than so small a part of the time. */
const pauseFactor = 20;
/** After a failure. */
const longestPauseMs = 60_000;
/** Elements that one turn looks at again and deletes: 1 to 3 ms. */
const turnElements = 250;
/** Pause between two turns, and between two looks whether the reading has ended. */
const turnPauseMs = 10;
/** Elements that are noted before they are deleted; then the map is read anew. */
const mostNoted = 20_000;
/** What is left of a lifetime is told in steps of the kernel's clock. */
const slackMs = 1000;

/** At a start: the map is read no further, and for no longer. */
const mostRead = 100_000;
const longestReadMs = 500;

export interface AffinitySweepOptions {
  readonly connection: NftablesConnection;
  /** For reading the map. */
  readonly open: () => NftablesConnection;
  readonly family: 'ip' | 'ip6';
  readonly table: string;
  readonly committer: Committer;
  readonly written: AppliedState;
}

/** What should become of an element: it stays, it goes, or so many milliseconds are left to it. */
type Judgement = 'stays' | 'goes' | { readonly timeoutMs: number; readonly leftMs: number };

interface Element {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly timeoutMs: number | undefined;
  readonly expiresMs: number | undefined;
}

export class AffinitySweep {
  /** performance.now() when the map may be read; undefined: nothing asks for it. */
  private wantedAt: number | undefined;
  private restUntil = -Infinity;
  private pauseMs = leastPauseMs;
  private lastTurn = -Infinity;
  private reading: AbortController | undefined;
  /** Keys of what has to go or to be shortened, found by the last reading. */
  private noted: Buffer[] = [];
  /** The last reading saw the whole map, as of that time at the earliest. */
  private readSince: number | undefined;

  constructor(private readonly options: AffinitySweepOptions) {}

  /** Everything is about to be compared, or over: what was found is worth nothing. */
  reset(): void {
    this.reading?.abort();
    this.reading = undefined;
    this.noted = [];
    this.wantedAt = this.readSince = undefined;
  }

  /** There may be something to delete. */
  request(): void {
    this.wantedAt ??= performance.now() + graceMs;
  }

  /** When turn() has something to do, performance.now(). */
  get dueAt(): number | undefined {
    if (this.reading !== undefined || this.noted.length > 0) return this.lastTurn + turnPauseMs;
    if (this.wantedAt === undefined && !this.isSettled) this.request();
    return this.wantedAt === undefined ? undefined : Math.max(this.wantedAt, this.restUntil);
  }

  private get isSettled(): boolean {
    const { affinityNumbers, affinityChanges } = this.options.written;
    return affinityNumbers.retired.size === 0 && affinityChanges.isEmpty;
  }

  /** A small part of the work. @param now performance.now() */
  turn(now: number, stats: SyncStats): void {
    const due = this.dueAt;
    if (due === undefined || due > now) return;
    this.lastTurn = performance.now();
    if (this.reading !== undefined) return;
    try {
      if (this.noted.length > 0) this.deleteSome(stats);
      else void this.read();
      if (this.noted.length === 0) this.settle();
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      this.failed();
    }
  }

  private async read(): Promise<void> {
    const start = performance.now();
    const reading = new AbortController();
    this.reading = reading;
    this.wantedAt = undefined;
    const { open, family, table } = this.options;
    let connection: NftablesConnection | undefined;
    let failure: unknown;
    let whole = false;
    try {
      connection = open();
      await connection.listElementsAsync(
        family,
        table,
        maps.affinity,
        (key, value, { timeoutMs, expiresMs }) => {
          if (reading.signal.aborted || !Buffer.isBuffer(value)) return;
          if (this.judge({ key, value, timeoutMs, expiresMs }) === 'stays') return;
          this.noted.push(Buffer.from(key));
          if (this.noted.length >= mostNoted) reading.abort();
        },
        { signal: reading.signal, inconsistent: true },
      );
      whole = true;
    } catch (error) {
      if (error instanceof NetlinkError || !reading.signal.aborted) failure = error;
    } finally {
      connection?.close();
    }
    // Else it was reset meanwhile.
    if (this.reading !== reading) return;
    this.reading = undefined;
    const end = performance.now();
    if (failure !== undefined) {
      this.failed();
    } else if (whole) {
      this.pauseMs = leastPauseMs;
      this.restUntil = end + Math.max(leastPauseMs, pauseFactor * (end - start));
      this.readSince = start;
    } else {
      this.request();
    }
  }

  private failed(): void {
    this.noted = [];
    this.readSince = undefined;
    this.pauseMs = Math.min(this.pauseMs * 2, longestPauseMs);
    this.restUntil = performance.now() + this.pauseMs;
    this.request();
  }

  /** All that the last reading found is gone. */
  private settle(): void {
    if (this.readSince === undefined) return;
    const until = this.readSince - graceMs;
    this.readSince = undefined;
    forgetUntil(this.options.written.affinityNumbers.retired, until);
    this.options.written.affinityChanges.settle(until);
  }

  private deleteSome(stats: SyncStats): void {
    const { connection, family, table } = this.options;
    const found: Element[] = [];
    // The packets of the client may have changed it meanwhile.
    connection.getElements(
      family,
      table,
      maps.affinity,
      this.noted.splice(-turnElements),
      (key, value, { timeoutMs, expiresMs }) => {
        if (!Buffer.isBuffer(value)) return;
        const element = { key: Buffer.from(key), value: Buffer.from(value), timeoutMs, expiresMs };
        if (this.judge(element) !== 'stays') found.push(element);
      },
    );
    this.write(found, stats);
  }

  /** What has expired since it was read makes the kernel refuse a transaction: the others get one of their own. */
  private write(elements: readonly Element[], stats: SyncStats): void {
    if (elements.length === 0) return;
    const tx = this.options.committer.begin();
    for (const element of elements) {
      const { key, value } = element;
      const judgement = this.judge(element);
      tx.batch.deleteElement(maps.affinity, key);
      tx.deleted++;
      if (typeof judgement === 'string') continue;
      const { timeoutMs, leftMs: expiresMs } = judgement;
      tx.batch.addElementLast(maps.affinity, key, value, { timeoutMs, expiresMs });
      tx.added++;
    }
    try {
      this.options.committer.commit(tx, stats, 'repair');
    } catch (error) {
      if (!(error instanceof NetlinkError && error.code === 'ENOENT')) throw error;
      if (elements.length === 1) return;
      const middle = elements.length >> 1;
      this.write(elements.slice(0, middle), stats);
      this.write(elements.slice(middle), stats);
    }
  }

  /** @param element views will do */
  private judge({ key, value, timeoutMs, expiresMs }: Element): Judgement {
    const { states, affinityChanges } = this.options.written;
    const service = readHostUint32(key.toString('latin1', key.length - 4)) >>> 16;
    const state = states.withAffinityNumber(service);
    if (state?.affinity === undefined) return 'goes';
    const number = readHostUint32(value.toString('latin1'));
    if (number >>> 16 !== service || !state.affinity.numbers.isUsed(number & 0xffff)) return 'goes';
    const timeout = state.port.affinitySeconds * 1000;
    if (expiresMs === undefined || expiresMs <= timeout + slackMs) return 'stays';
    // An element that was kept alive by packets says how long it was to live at first.
    const former = affinityChanges.lowered.get(service)?.formerMs ?? timeoutMs ?? expiresMs;
    const left = timeout - Math.max(0, former - expiresMs);
    return left <= 0 ? 'goes' : { timeoutMs: timeout, leftMs: left };
  }
}

/**
 * Before numbers are given out beside those found in the kernel: none of those under which clients are remembered may be
 * given to others.
 */
export async function retireRemembered(
  { open, family, table, written }: AffinitySweepOptions,
  now: number,
): Promise<void> {
  const limit = new AbortController();
  const remembered = new Map<number, Set<number>>();
  let left = mostRead;
  const until = performance.now() + longestReadMs;
  const connection = open();
  try {
    await connection.listElementsAsync(
      family,
      table,
      maps.affinity,
      (key, value) => {
        if (!Buffer.isBuffer(value)) return;
        const number = readHostUint32(value.toString('latin1'));
        const service = readHostUint32(key.toString('latin1', key.length - 4)) >>> 16;
        let minors = remembered.get(service);
        if (minors === undefined) remembered.set(service, (minors = new Set()));
        minors.add(number & 0xffff);
        if (--left <= 0 || (left % 256 === 0 && performance.now() > until)) limit.abort();
      },
      { signal: limit.signal, inconsistent: true },
    );
  } catch (error) {
    if (!limit.signal.aborted) throw error;
  } finally {
    connection.close();
  }
  for (const [service, minors] of remembered) {
    written.affinityNumbers.retired.set(service, now);
    written.affinityChanges.retire(service, [...minors], now);
  }
  written.affinityIsKnown = !limit.signal.aborted;
  if (limit.signal.aborted) written.affinityNumbers.startAnywhere();
}
