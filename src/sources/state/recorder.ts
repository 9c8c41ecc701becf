/**
 * Keeps the file behind what a source delivers. What arrives waits here, the newest of each object, and is encoded and
 * written in slices of a few milliseconds, so that the process goes on with its work in between. A change costs one
 * record; the file is written whole again when most of it is out of date.
 */
import { guarded } from '../../callbacks/guarded.js';
import type { ResourceKind } from '../objects.js';
import { errorText, type Logger } from '../../log/logger.js';
import { liveLines } from './extents.js';
import { recordLine, type Header } from './format.js';
import { flushBytes, Journal } from './journal.js';
import { kinds, type ObjectOf } from './objects.js';

export interface RecorderOptions {
  readonly path: string;
  readonly header: Header;
  readonly log: Logger;
  /** A change is on the disk after this time at the latest, when all is well; milliseconds. */
  readonly intervalMs: number;
  /** After a failure the next try comes after this time; milliseconds. */
  readonly retryMs: number;
  /** When the state was last known to be the server's, milliseconds since the epoch. */
  readonly currentAt: () => number;
}

/** One turn of encoding. */
const sliceMs = 4;
/** While the first lists arrive, no more than this many objects wait. */
const crowd = 4096;
/** A file is not rewritten for less. */
const slackBytes = 4 * 1024 * 1024;
/** A file says at least so often that nothing has changed. */
const confirmMs = 600_000;

type Pending = { readonly [K in ResourceKind]: Map<string, ObjectOf[K] | undefined> };

export class Recorder {
  private pending: Pending = emptyPending();
  private pendingCount = 0;
  private journal: Journal | undefined;
  /** The journal can't be trusted any more: the next try copies what it holds into a new one. */
  private doubtful = false;
  /** All that a start needs has been delivered once. */
  private complete = false;
  private committedAt = 0;
  private running: Promise<void> | undefined;
  private timer: NodeJS.Timeout | undefined;
  /** When the timer ends, performance.now(). */
  private due = 0;
  private closed = false;
  /** Failures in a row. */
  private failures = 0;

  constructor(private readonly options: RecorderOptions) {}

  put<K extends ResourceKind>(kind: K, key: string, object: ObjectOf[K] | undefined): void {
    const map: Map<string, ObjectOf[K] | undefined> = this.pending[kind];
    const before = map.size;
    // What is being written now may hold it.
    if (object === undefined && this.running === undefined && !this.isRecorded(kind, key)) map.delete(key);
    else map.set(key, object);
    this.pendingCount += map.size - before;
    if (this.complete) this.schedule(this.options.intervalMs);
    else if (this.pendingCount >= crowd) this.schedule(0);
  }

  /** Objects that wait to be written. */
  get waiting(): number {
    return this.pendingCount;
  }

  /** From now on there is a state worth keeping. */
  completed(): void {
    if (this.complete) return;
    this.complete = true;
    this.schedule(0);
  }

  /** Writes what waits, and ends. */
  async close(): Promise<void> {
    this.closed = true;
    clearTimeout(this.timer);
    await this.running;
    if (this.complete && (this.pendingCount > 0 || this.options.currentAt() > this.committedAt)) {
      this.failures = 0;
      await this.run();
    }
    await this.journal?.close();
    this.journal = undefined;
  }

  private schedule(ms: number): void {
    if (this.closed || this.running !== undefined) return;
    const wait = this.failures > 0 ? Math.max(ms, this.options.retryMs) : ms;
    const due = performance.now() + wait;
    if (this.timer !== undefined && this.due <= due) return;
    clearTimeout(this.timer);
    this.due = due;
    this.timer = setTimeout(
      guarded('write the state file', () => {
        this.timer = undefined;
        this.running = this.run().finally(() => {
          this.running = undefined;
          if (this.failures > 0) this.schedule(this.options.retryMs);
          else if (this.pendingCount >= crowd || (this.complete && this.committedAt === 0)) this.schedule(0);
          else if (this.complete) this.schedule(this.pendingCount > 0 ? this.options.intervalMs : confirmMs);
        });
      }),
      wait,
    ).unref();
  }

  private async run(): Promise<void> {
    try {
      await this.write();
      if (this.failures > 0) this.options.log.info('State file writable again', { path: this.options.path });
      this.failures = 0;
    } catch (error) {
      this.failures++;
      this.forgetUnrecorded();
      if (this.failures === 1) {
        this.options.log.warn(
          'The state file can not be written; trying again. Nothing else depends on it until a start without API server',
          { path: this.options.path, error: errorText(error) },
        );
      }
    }
  }

  private async write(): Promise<void> {
    const { path, header, currentAt } = this.options;
    // Both are told of what waits now; more may come while this is written.
    const at = currentAt();
    const { complete } = this;
    this.journal ??= await Journal.create(path, header);
    this.journal = await this.renewed(this.journal);
    if (complete && this.pendingCount === 0 && at <= this.committedAt && this.journal.isNamed) return;
    await this.drain(this.journal);
    if (!complete) return;
    this.doubtful = true;
    await this.journal.commit(at);
    this.doubtful = false;
    this.committedAt = at;
  }

  /** A new journal with the newest records, when those of the old one are few, not in place, or in doubt. */
  private async renewed(old: Journal): Promise<Journal> {
    const wasteful = !this.closed && old.size > 2 * old.liveBytes + slackBytes;
    if (!wasteful && !this.doubtful && (await old.isInPlace())) return old;
    await old.flush();
    const fresh = await Journal.create(this.options.path, this.options.header);
    try {
      for (const kind of kinds) {
        for await (const lines of liveLines(old.file, kind, old.index[kind])) {
          for (const { key, bytes } of lines) fresh.put(kind, key, bytes, false);
          // The bytes are borrowed until the next group.
          await fresh.flush();
        }
      }
    } catch (error) {
      await fresh.close();
      throw error;
    }
    this.doubtful = false;
    await old.close();
    return fresh;
  }

  private async drain(journal: Journal): Promise<void> {
    // What failed to be written the last time goes first.
    await journal.flush();
    const batch = this.pending;
    this.pending = emptyPending();
    this.pendingCount = 0;
    try {
      await this.drainKind(journal, 'Service', batch.Service);
      await this.drainKind(journal, 'EndpointSlice', batch.EndpointSlice);
      await this.drainKind(journal, 'Node', batch.Node);
      await this.drainKind(journal, 'ServiceCIDR', batch.ServiceCIDR);
    } finally {
      this.putBack(batch);
    }
  }

  private async drainKind<K extends ResourceKind>(
    journal: Journal,
    kind: K,
    map: Map<string, ObjectOf[K] | undefined>,
  ): Promise<void> {
    let sliceEnd = performance.now() + sliceMs;
    for (const [key, object] of map) {
      journal.put(kind, key, Buffer.from(recordLine(kind, key, object)), object === undefined);
      map.delete(key);
      if (journal.unwrittenBytes >= flushBytes || performance.now() >= sliceEnd) {
        await journal.flush();
        await immediate();
        sliceEnd = performance.now() + sliceMs;
      }
    }
    await journal.flush();
  }

  private isRecorded(kind: ResourceKind, key: string): boolean {
    return this.journal?.index[kind].has(key) === true;
  }

  /** Objects that came and went while nothing could be written leave nothing behind. */
  private forgetUnrecorded(): void {
    for (const kind of kinds) {
      for (const [key, object] of this.pending[kind]) {
        if (object !== undefined || this.isRecorded(kind, key)) continue;
        this.pending[kind].delete(key);
        this.pendingCount--;
      }
    }
  }

  /** After a failure: what was not taken over waits again, unless something newer does. */
  private putBack(batch: Pending): void {
    for (const kind of kinds) {
      const from: ReadonlyMap<string, unknown> = batch[kind];
      const to = this.pending[kind] as Map<string, unknown>;
      for (const [key, object] of from) {
        if (to.has(key)) continue;
        to.set(key, object);
        this.pendingCount++;
      }
    }
  }
}

function emptyPending(): Pending {
  return { Service: new Map(), EndpointSlice: new Map(), Node: new Map(), ServiceCIDR: new Map() };
}

function immediate(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
