/**
 * Deletes connection tracking entries that lead where nothing is any more (docs/conntrack.md). A client that keeps its source
 * port stays on the endpoint of its entry for as long as it keeps sending, also when that endpoint is gone; the
 * entry has to go for the next packet to meet the rules.
 *
 * It works beside the sync loop: changes are noted, the table is read on libuv's thread pool, one dump at a time
 * and family, and what comes meanwhile is taken together for the next look. What fails is tried again.
 */
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { guarded } from '../callbacks/guarded.js';
import { errorText, type Logger } from '../log/logger.js';
import type { IPFamily, Protocol, ReleasedAddress, ServicePort } from '../model/types.js';
import { ConntrackConnection, type Flow, type FlowIdentity } from '@kube-proxy-ts/netlink/conntrack';
import { StaleEntries } from './stale-entries.js';
import { destination, Candidates, type PendingQueries } from './candidates.js';
import { queriesFor, type TableSize } from './queries.js';

/** One look at the table. */
export interface CleanupPass {
  readonly family: IPFamily;
  readonly protocol: Protocol;
  /** From its start to the last deletion. */
  readonly seconds: number;
  /** How often the kernel walked through its table. */
  readonly walks: number;
  /** Entries that the kernel delivered. */
  readonly read: number;
  /** Entries deleted. */
  readonly deleted: number;
}

export interface ConntrackCleanerOptions {
  readonly family: IPFamily;
  /** Addresses on which this node serves node ports, canonical text. */
  readonly nodePortAddresses: () => readonly string[];
  readonly log: Logger;
  /** Called after every look at the table, also one in which not every deletion succeeded. */
  readonly onCleaned?: (reconciliation: CleanupPass) => void;
  /** Called for every look that failed; it is tried again. */
  readonly onFailure?: (error: unknown) => void;
  /**
   * SCTP associations of addresses that are no service's any more stay for so many milliseconds: a load balancer that
   * loses its status for a moment does not cut them. Default 3 s. Flows of UDP are cut at once: their next packet meets the rules.
   */
  readonly retireAfterMs?: number;
  /** How often all entries of UDP and SCTP are looked at without a reason. */
  readonly fullPass?: {
    /** Milliseconds between two, at least. Default 1 min. */
    readonly periodMs: number;
    /** They take no more than this part of the time. Default 1/2000: one that takes 0.5 s comes every quarter of an hour. */
    readonly share: number;
  };
}

const defaultRetireAfterMs = 3_000;
const defaultFullPass = { periodMs: 60_000, share: 1 / 2000 };
/** At the end, addresses that are no service's any more are still looked at, for so many milliseconds at most. */
const finishMs = 1_000;
/** Entries deleted with one datagram: a fraction of a millisecond. */
const deleteTogether = 128;
const assumedBuckets = 65_536;

export class ConntrackCleaner {
  private readonly candidatesByProtocol: Readonly<Record<Protocol, Candidates>>;
  /** Dumps on one, deletes on the other. */
  private connections: readonly [reader: ConntrackConnection, writer: ConntrackConnection] | undefined;
  private buckets: number | undefined;
  private timer: NodeJS.Timeout | undefined;
  /** When the timer will go off (performance.now()); Infinity: it is not set. */
  private timerDue = Infinity;
  private fullPassTimer: NodeJS.Timeout | undefined;
  private fullPassRequested = false;
  private closing = false;
  private running: Promise<void> | undefined;
  private readonly abort = new AbortController();
  private waiting: (() => void)[] = [];

  constructor(private readonly options: ConntrackCleanerOptions) {
    const retireAfterMs = options.retireAfterMs ?? defaultRetireAfterMs;
    // Some fifth of the time for UDP and SCTP, where clients wait; a hundredth for TCP, where few do.
    const flows = { delayMs: 0, rest: 4, maxRestMs: 1_000 };
    const connections = { delayMs: 250, rest: 100, maxRestMs: 10_000, retireAfterMs: undefined };
    this.candidatesByProtocol = {
      UDP: new Candidates({ protocol: 'UDP', number: 17, ...flows, retireAfterMs: 0 }),
      SCTP: new Candidates({ protocol: 'SCTP', number: 132, ...flows, retireAfterMs }),
      TCP: new Candidates({ protocol: 'TCP', number: 6, ...connections }),
    };
    this.planFullLook(0);
  }

  /** @param ports service ports that are new or changed, and are in the kernel now */
  changed(ports: Iterable<ServicePort>): void {
    for (const port of ports) this.candidatesByProtocol[port.protocol].changed(port);
    this.schedule();
  }

  /** @param keys of service ports that the kernel has no more */
  removed(keys: Iterable<string>): void {
    for (const key of keys) for (const candidates of this.all()) candidates.removed(key);
    this.schedule();
  }

  /** What the kernel's rules led somewhere until now. Call it after changed() has named all service ports. */
  released(addresses: Iterable<ReleasedAddress>): void {
    for (const { protocol, ip, port, endpoints } of addresses)
      this.candidatesByProtocol[protocol].retire([destination(ip, port)], [endpoints]);
    this.schedule();
  }

  /** Packets may have passed the rules by, for instance while the table was gone: every service port is looked at. */
  checkAll(): void {
    for (const candidates of this.all()) candidates.checkAll();
    this.schedule();
  }

  /** Resolves when all changes so far have been looked at, or wait for another try after a failure. */
  async idle(): Promise<void> {
    if (this.isIdle()) return;
    await new Promise<void>((resolve) => this.waiting.push(resolve));
  }

  /**
   * Ends after what the kernel is doing now, and after a look at the addresses that are no service's any more: the next
   * process will not know of them.
   */
  async close(): Promise<void> {
    this.closing = true;
    clearTimeout(this.timer);
    clearTimeout(this.fullPassTimer);
    const late = setTimeout(
      guarded('end the deletion of stale entries', () => {
        this.abort.abort();
      }),
      finishMs,
    );
    if (!this.all().some((candidates) => candidates.hasRetired)) this.abort.abort();
    await this.running;
    for (const candidates of this.all()) candidates.hurry();
    await this.run();
    clearTimeout(late);
    this.abort.abort();
    this.disconnect();
    this.wake();
  }

  /** What no change has told of is found now and then. */
  private planFullLook(tookMs: number): void {
    this.fullPassRequested = false;
    clearTimeout(this.fullPassTimer);
    if (this.closing) return;
    const { periodMs, share } = this.options.fullPass ?? defaultFullPass;
    this.fullPassTimer = setTimeout(
      guarded('look at all entries', () => {
        this.fullPassRequested = true;
        const { UDP, SCTP } = this.candidatesByProtocol;
        for (const candidates of [UDP, SCTP]) candidates.checkAll();
        this.schedule();
      }),
      Math.max(periodMs, tookMs / share),
    ).unref();
  }

  private all(): Candidates[] {
    return Object.values(this.candidatesByProtocol);
  }

  private isClosed(): boolean {
    return this.abort.signal.aborted;
  }

  private isIdle(): boolean {
    return this.isClosed() || (this.running === undefined && !this.all().some(({ busy }) => busy));
  }

  private wake(): void {
    const waiting = this.waiting;
    this.waiting = [];
    for (const resolve of waiting) resolve();
  }

  private schedule(): void {
    if (this.running !== undefined || this.isClosed()) return;
    if (this.waiting.length > 0 && this.isIdle()) this.wake();
    const { UDP, SCTP, TCP } = this.candidatesByProtocol;
    const due = this.closing ? Infinity : Math.min(UDP.dueAt, SCTP.dueAt, TCP.dueAt);
    if (due === this.timerDue) return;
    clearTimeout(this.timer);
    this.timerDue = due;
    if (due === Infinity) return;
    this.timer = setTimeout(
      guarded('delete stale entries', () => {
        this.start();
      }),
      Math.max(0, due - performance.now()),
    );
  }

  private start(): void {
    this.timerDue = Infinity;
    if (this.running !== undefined || this.isClosed()) return;
    const start = performance.now();
    this.running = this.run().finally(() => {
      this.running = undefined;
      if (this.fullPassRequested) this.planFullLook(performance.now() - start);
      this.schedule();
    });
  }

  private async run(): Promise<void> {
    for (const candidates of this.all()) {
      if (candidates.dueAt > performance.now() || this.isClosed()) continue;
      const work = candidates.take();
      const start = performance.now();
      const { family } = this.options;
      const { protocol } = candidates.options;
      try {
        const looked = await this.look(candidates, work, start);
        if (candidates.done(looked ? performance.now() - start : 0))
          this.options.log.info('conntrack cleanup works again', { family, protocol });
      } catch (error) {
        // Answers to what failed may still come.
        this.disconnect();
        const { first, retryMs } = candidates.failed(work);
        if (this.isClosed()) return;
        this.options.onFailure?.(error);
        const fields = { family, protocol, why: errorText(error), retryMs };
        const message = 'Stale connection tracking entries may remain; trying again';
        if (first) this.options.log.warn(message, fields);
        else this.options.log.debug(2, message, fields);
      }
    }
  }

  /** @returns whether there was a reason to look at the table */
  private async look(candidates: Candidates, work: PendingQueries, start: number): Promise<boolean> {
    this.connections ??= [ConntrackConnection.open(), ConntrackConnection.open()];
    const [reader, writer] = this.connections;
    const { family, log } = this.options;
    const { filters, whole, destinations } = await queriesFor(
      family,
      candidates,
      work,
      this.tableSize(writer),
    );
    if (filters.length === 0) return false;
    const staleEntries = new StaleEntries(
      candidates,
      destinations,
      work.retired,
      new Set(this.options.nodePortAddresses()),
    );
    let [read, deleted] = [0, 0];
    let failure: unknown;
    const stale: FlowIdentity[] = [];
    const flush = (): void => {
      try {
        deleted += writer.deleteFlows(stale);
      } catch (error) {
        failure ??= error;
      }
      stale.length = 0;
    };
    const onFlow = (flow: Flow): void => {
      read++;
      if (staleEntries.isStale(flow) && stale.push(flow.identity()) === deleteTogether) flush();
    };
    for (const filter of filters) {
      const options = {
        signal: this.abort.signal,
        // Each entry was judged for itself: what was found so far holds.
        onRestart: () => undefined,
      };
      await reader.listFlowsAsync(family === 'IPv4' ? 'ip' : 'ip6', filter, onFlow, options);
    }
    flush();
    const { protocol } = candidates.options;
    if (whole) candidates.matching = read;
    const ms = performance.now() - start;
    this.options.onCleaned?.({
      family,
      protocol,
      seconds: ms / 1000,
      walks: filters.length,
      read,
      deleted,
    });
    log.debug(deleted > 0 ? 2 : 4, 'Connection tracking reconciled', {
      family,
      protocol,
      deleted,
      read,
      walks: filters.length,
      ms: Math.round(ms * 10) / 10,
    });
    if (failure !== undefined) throw failure as Error;
    return true;
  }

  private tableSize(connection: ConntrackConnection): TableSize {
    this.buckets ??= readBuckets();
    return { entries: connection.usage().entries, buckets: this.buckets };
  }

  private disconnect(): void {
    for (const connection of this.connections ?? []) connection.close();
    this.connections = undefined;
  }
}

function readBuckets(): number {
  try {
    const buckets = Number(readFileSync('/proc/sys/net/netfilter/nf_conntrack_buckets', 'utf8'));
    return Number.isSafeInteger(buckets) ? buckets : assumedBuckets;
  } catch {
    return assumedBuckets;
  }
}
