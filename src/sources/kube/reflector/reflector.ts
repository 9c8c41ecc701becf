/**
 * Keeps a sink equal to one collection of the API server: a list, then a watch that continues where the list ended.
 * Behaves as the reflector of client-go does (Kubernetes API concepts: efficient detection of changes, streaming
 * lists, resource versions); where this differs, a comment says why. What follows a failure is the table of outcome.ts;
 * what is known of the server is shared by all kinds (server.ts).
 */
import { guarded } from '../../../callbacks/guarded.js';
import type { Logger } from '../../../log/logger.js';
import { follow } from './abort.js';
import { defaultBackoff, OutageBackoff, type BackoffOptions } from './backoff.js';
import { Collection } from './collection.js';
import type { BrokenObject, Identified, ListMeta, WatchDecoder, WatchEvent } from '../decode/decoded.js';
import { GarbageError, KubeError } from '../errors.js';
import { HeldObjects, newSweep, type ObjectSink, type Sweep } from './held-objects.js';
import type { ApiClient } from '../client/client.js';
import { failureOf, reactions, type Failure, type Reaction } from './outcome.js';
import {
  AnswerBroke,
  causeOf,
  NewHistory,
  NoStreamingList,
  StatusError,
  streamingRefusal,
  Unanswered,
  Unconfirmed,
} from './request-errors.js';
import type { Resource } from '../resources.js';
import type { Member, ServerState } from './server.js';
import type { StringTable } from '../../strings.js';
import { Turn } from '../../../callbacks/turn.js';
import { UnfinishedEvent } from '../decode/unfinished-event.js';
import { isOlder } from './versions.js';

export interface ReflectorTimings {
  readonly backoff: BackoffOptions;
  /** A watch asks the server to end it after a random time in [min, 2 * min]. */
  readonly watchMinMs: number;
  /** How much longer than that we wait for the end. */
  readonly watchGraceMs: number;
  /** A watch that brings nothing for so long, not even a bookmark, is asked for anew. */
  readonly watchStallMs: number;
  /** An event that has begun may pause for so long: what does not go on may be a length that is wrong. */
  readonly eventPauseMs: number;
  /** An event that has begun is complete by then. */
  readonly eventLimitMs: number;
  /**
   * A watch whose initial events came compressed is followed by a plain one after a random time in [this, 2 * this]: each small
   * event would go through the decompressor, a thread of its own.
   */
  readonly compressedWatchMs: number;
  /** The initial events of a streaming list may pause for so long. */
  readonly initialEventsStallMs: number;
  /** A list body may pause for so long. */
  readonly listStallMs: number;
  /** How long a refusal of streaming lists is remembered. */
  readonly streamingRetryMs: number;
  /** The same, when it may have been trouble that passes. */
  readonly streamingTroubleMs: number;
  /** A kind that the server had is believed to be there no more when it has said so for so long. */
  readonly absentAfterMs: number;
  /** How often to ask again for a kind that the server does not have. */
  readonly absentRetryMs: number;
  /** Objects that can't be read make us list again at most so often. */
  readonly brokenRetryMs: number;
  /** Retry-After is honoured up to this. */
  readonly longestRetryAfterMs: number;
}

/** So many refusals in a row are needed as well. */
const absentAfter = 5;

export const defaultReflectorTimings: ReflectorTimings = {
  backoff: defaultBackoff,
  watchMinMs: 300_000,
  watchGraceMs: 15_000,
  watchStallMs: 180_000,
  eventPauseMs: 3000,
  eventLimitMs: 30_000,
  compressedWatchMs: 10_000,
  initialEventsStallMs: 15_000,
  listStallMs: 15_000,
  streamingRetryMs: 3_600_000,
  streamingTroubleMs: 60_000,
  absentAfterMs: 25_000,
  absentRetryMs: 300_000,
  brokenRetryMs: 300_000,
  longestRetryAfterMs: 120_000,
};

/** Doubts about what was said are forgotten after such a time without any. */
const doubtResetMs = 120_000;

export interface ReflectorStatus {
  /** The initial list is complete. */
  readonly synced: boolean;
  /** A watch is open now. */
  readonly watching: boolean;
  /** The last failure; undefined after the next success. */
  readonly lastError: KubeError | undefined;
  /** Milliseconds since the epoch of the last bytes from the server; 0: never. */
  readonly lastContact: number;
  /** Milliseconds since the epoch when the objects were last known to be the server's; 0: never. Grows only by proof. */
  readonly currentAt: number;
  readonly objects: number;
}

export interface ReflectorSink<T> extends ObjectSink<T> {
  synced(): void;
  flush(): void;
  /** A list is not believed for now, because it takes so many of those held away after the history changed. */
  unconfirmed(missing: number, held: number): void;
}

export interface ReflectorOptions<T> {
  readonly resource: Resource<T>;
  readonly client: ApiClient;
  readonly server: ServerState;
  readonly strings: StringTable;
  readonly sink: ReflectorSink<T>;
  readonly log: Logger;
  readonly pageSize: number;
  readonly gzip: boolean;
  readonly timings: ReflectorTimings;
}

export class Reflector<T> {
  private readonly resource: Resource<T>;
  private readonly options: ReflectorOptions<T>;
  private readonly server: ServerState;
  private readonly member: Member;
  private readonly collection: Collection<T>;
  private readonly objects: HeldObjects<T>;
  private readonly log: Logger;
  private readonly timings: ReflectorTimings;
  private readonly backoff: OutageBackoff;
  private readonly doubts: OutageBackoff;
  private doubtedAt = -Infinity;
  private readonly abort = new AbortController();
  /** Where the next watch starts; '' before the first list. */
  private version = '';
  /** The server has forgotten #version, or never heard of it: the next list takes what is newest. */
  private versionLost = false;
  /** The next thing to do is a watch, not a list. */
  private listed = false;
  /** Something came by that could not be understood or ordered: a list is due at this time, performance.now(). */
  private listDueAt = Infinity;
  /** Sees to it that the open watch does not outlive that time. */
  private shorten: (() => void) | undefined;
  /** Ends the request that is open, because another kind found a new history. */
  private interrupt: ((reason: KubeError) => void) | undefined;
  private newHistory = false;
  /** Looks again at how long to wait. */
  private reconsider: (() => void) | undefined;
  private brokenListAt = -Infinity;
  /** The list before this one was complete, and was not believed. */
  private askedAgain = false;
  /** What the last list lacked, and was not believed in. */
  private unconfirmed: { readonly missing: number; readonly held: number } | undefined;
  /** The end of the time in which that was reported. */
  private heldBackReported = -Infinity;
  private synced = false;
  private watching = false;
  private lastError: KubeError | undefined;
  /** performance.now(), which no step of the clock changes; undefined: never. */
  private lastContact: number | undefined;
  private currentAt: number | undefined;
  /** Failures since the last watch that lived and delivered. */
  private failuresInRow = 0;
  private lastFailure: Failure | undefined;
  /** A failure was logged that is not over yet. */
  private complained = false;
  /** How long the last watch was open. */
  private livedMs = 0;
  private absent = false;
  private running: Promise<void> | undefined;

  constructor(options: ReflectorOptions<T>) {
    this.options = options;
    this.resource = options.resource;
    this.server = options.server;
    this.log = options.log;
    this.timings = options.timings;
    this.collection = new Collection(options);
    this.objects = new HeldObjects(options.resource.kind, options.sink, options.log);
    this.backoff = new OutageBackoff(options.timings.backoff);
    this.doubts = new OutageBackoff(options.timings.backoff);
    this.member = this.server.join(
      () => this.reconsider?.(),
      () => {
        this.newHistory = true;
        this.interrupt?.(new NewHistory('The API server has another history than before; listing again'));
        this.reconsider?.();
      },
      options.resource.urgent,
    );
  }

  get status(): ReflectorStatus {
    return {
      synced: this.synced,
      watching: this.watching,
      lastError: this.lastError ?? this.heldBackError(),
      lastContact: sinceEpoch(this.lastContact),
      currentAt: sinceEpoch(this.currentAt),
      objects: this.objects.size,
    };
  }

  start(): void {
    this.running ??= this.run();
  }

  async stop(): Promise<void> {
    this.abort.abort();
    await this.running;
  }

  private isStopped(): boolean {
    return this.abort.signal.aborted;
  }

  private async run(): Promise<void> {
    const signal = this.abort.signal;
    while (!this.isStopped()) {
      this.followHistory();
      try {
        let watched = true;
        if (this.listed) await this.watch({ resourceVersion: this.version });
        // A streaming list is a watch already, and goes on as one.
        else watched = await this.streamingList();
        if (!watched) await this.list();
        this.succeeded();
        if (watched) await sleep(this.restAfterWatch(), signal);
      } catch (error) {
        if (this.isStopped()) return;
        await this.pause(this.failed(error));
      }
      if (performance.now() >= this.listDueAt) this.listed = false;
    }
  }

  /** Another kind has found that versions mean something else now. */
  private followHistory(): void {
    if (!this.newHistory) return;
    this.newHistory = false;
    this.objects.forgetVersions();
    this.version = '';
    this.versionLost = true;
    this.listed = false;
  }

  /** This kind has found it. */
  private historyWentBack(version: string): void {
    this.objects.forgetVersions();
    this.version = version;
    this.member.historyChanged();
  }

  /** A server that ends watches as soon as they have brought something is not asked again at once. */
  private restAfterWatch(): number {
    return Math.max(0, Math.min(1000, this.timings.backoff.firstMs) - this.livedMs);
  }

  private heard(): void {
    this.lastContact = performance.now();
    this.member.heard();
  }

  /** The server cooperates, so far. */
  private succeeded(): void {
    if (this.complained) {
      this.complained = false;
      this.server.forgetReports();
      this.log.info('API server connection restored', { kind: this.resource.kind });
    }
    this.lastError = undefined;
    this.absent = false;
  }

  /** It does so for a while: the next failure is the first one. */
  private recovered(): void {
    this.failuresInRow = 0;
    this.lastFailure = undefined;
    this.backoff.succeeded();
  }

  // ---------------------------------------------------------------- failures

  /** Report, and see what follows. @returns when to go on */
  private failed(error: unknown): { readonly due: number; readonly notBefore: number } {
    const failure =
      error instanceof KubeError
        ? error
        : new KubeError('KUBE_CONNECTION_LOST', error instanceof Error ? error.message : String(error), {
            cause: error,
          });
    const what = failureOf(failure);
    const reaction = reactions[what];
    this.lastError = failure;
    this.failuresInRow++;
    // A cut that follows a cut within moments waits; an expiry that follows one does.
    const again = this.lastFailure === what || (what === 'answer broke off' && this.failuresInRow > 1);
    this.lastFailure = what;
    const soon = !again && (what !== 'answer broke off' || this.livedMs > this.timings.backoff.firstMs);
    this.livedMs = 0;
    if (this.reflectsAbsence(failure)) {
      // It waits for nothing any more: it does not take turns with the others.
      this.member.observed('served');
      return this.absentUntil(failure);
    }
    this.member.observed(reaction.shows);
    this.prepare(what, reaction);
    const now = performance.now();
    // Whoever asks for days of silence did not mean us.
    const retryAfterMs = Math.min(
      failure instanceof StatusError ? failure.status.retryAfterSeconds * 1000 : 0,
      this.timings.longestRetryAfterMs,
    );
    const rest = { due: now + this.waitMs(what, soon), notBefore: now + retryAfterMs * (1 + Math.random()) };
    this.report(what, failure, soon, this.member.askAt(rest.due, rest.notBefore) - now);
    return rest;
  }

  private waitMs(what: Failure, soon: boolean): number {
    const { firstMs } = this.timings.backoff;
    const backoffMs = this.backoff.next();
    return reactions[what].wait === 'soon' && soon ? (firstMs / 4) * Math.random() : backoffMs;
  }

  private prepare(what: Failure, { next, version }: Reaction): void {
    if (what === 'version of the future') this.historyWentBack('');
    if (version === 'newest') this.versionLost = true;
    // What was set back and has passed our version since looks as if nothing had happened: a server that was away is asked
    // for everything.
    if (next === 'list' || (next === 'resume once' && this.failuresInRow > 1)) this.listed = false;
  }

  private report(what: Failure, failure: KubeError, soon: boolean, waitMs: number): void {
    const kind = this.resource.kind;
    switch (what) {
      case 'unconfirmed':
      case 'new history':
        this.log.info(failure.message, { kind, version: this.version });
        return;
      case 'expired watch':
      case 'expired list':
      case 'version of the future':
        this.log.info('The API server does not have our version, listing anew', {
          kind,
          version: this.version,
        });
        return;
      case 'unanswered':
        if (!soon) break;
        this.log.info('A request was not answered, asking again over a new connection', {
          kind,
          err: failure.message,
        });
        return;
      case 'answer broke off':
        if (!soon || failure instanceof GarbageError) break;
        this.log.info('Watch closed, reopening', { kind, err: failure.message });
        return;
      default:
    }
    const status = failure instanceof StatusError ? { status: failure.status.code } : {};
    const fields = { kind, code: failure.code, ...status, retryInSeconds: Math.round(waitMs / 100) / 10 };
    this.complained = true;
    const report = this.server.report(causeOf(failure, kind));
    if (report === 'first') this.log.error('API server connection lost', failure, fields);
    else if (report === 'reminder') this.log.error('API server still unreachable', undefined, fields);
    else this.log.debug(2, 'API server still unreachable', fields);
  }

  /** Until it is this kind's turn; that may change while it waits. */
  private async pause({
    due,
    notBefore,
  }: {
    readonly due: number;
    readonly notBefore: number;
  }): Promise<void> {
    const { signal } = this.abort;
    while (!this.isStopped() && !this.newHistory) {
      const waitMs = this.member.askAt(due, notBefore) - performance.now();
      if (waitMs <= 0) return;
      const changed = new AbortController();
      const unfollow = follow(signal, changed);
      this.reconsider = () => {
        changed.abort();
      };
      await sleep(Math.min(waitMs, longestTimerMs), changed.signal);
      this.reconsider = undefined;
      unfollow();
    }
  }

  /** A server need not have every kind; one that has just started says so of what it has, too. */
  private reflectsAbsence(failure: KubeError): failure is StatusError {
    if (!this.resource.optional || !(failure instanceof StatusError)) return false;
    if (![403, 404].includes(failure.status.code)) return false;
    return this.lastsAbsent() || this.objects.size === 0;
  }

  private lastsAbsent(): boolean {
    return this.failuresInRow >= absentAfter && this.backoff.failingForMs >= this.timings.absentAfterMs;
  }

  private absentUntil(failure: StatusError): { readonly due: number; readonly notBefore: number } {
    this.markAbsent(failure);
    const waitMs = this.lastsAbsent()
      ? this.timings.absentRetryMs * (1 + Math.random())
      : this.backoff.next();
    return { due: performance.now() + waitMs, notBefore: 0 };
  }

  private markAbsent(failure: StatusError): void {
    const kind = this.resource.kind;
    if (!this.absent) {
      this.log.info('The API server does not serve this kind to us, going on without it', {
        kind,
        reason: failure.message,
      });
      this.absent = true;
    }
    this.lastError = undefined;
    this.objects.removeAll();
    this.version = '';
    this.versionLost = false;
    this.listed = false;
    this.complete();
    this.options.sink.flush();
  }

  // ---------------------------------------------------------------- lists

  /** Oldest state that a list may show: never older than what was delivered, anything at the first time. */
  private listVersion(): string {
    if (this.versionLost) return '';
    return this.version === '' ? '0' : this.version;
  }

  private async list(): Promise<void> {
    const sweep: Sweep = newSweep();
    const version = this.listVersion();
    try {
      let meta = await this.page(
        {
          limit: String(this.options.pageSize),
          ...(version === '' ? {} : { resourceVersion: version }),
          ...(version === '' || version === '0' ? {} : { resourceVersionMatch: 'NotOlderThan' }),
        },
        sweep,
      );
      while (meta.continueToken !== '') {
        meta = await this.nextPage(meta.continueToken, sweep);
      }
      this.listDone(sweep, meta.version);
    } finally {
      this.options.sink.flush();
    }
  }

  private async nextPage(continueToken: string, sweep: Sweep): Promise<ListMeta> {
    try {
      return await this.page({ limit: String(this.options.pageSize), continue: continueToken }, sweep);
    } catch (error) {
      // The pages no longer belong to one state of the server: start over, as fresh as it gets.
      if (error instanceof StatusError && error.expired) this.versionLost = true;
      throw error;
    }
  }

  /** The one that follows may take all the time that there is: a server that is slow has as much to do with each. */
  private readonly isHung = (sentAt: number): KubeError | undefined => {
    if (this.lastFailure === 'unanswered' || !this.member.isHung(sentAt)) return undefined;
    const seconds = Math.round((performance.now() - sentAt) / 1000);
    return new Unanswered(
      `API server ${this.options.client.server} left a request for ${this.resource.kind} objects unanswered for ${seconds} s`,
    );
  };

  private async page(parameters: Readonly<Record<string, string>>, sweep: Sweep): Promise<ListMeta> {
    const interrupted = new AbortController();
    const unfollow = follow(this.abort.signal, interrupted);
    this.interrupt = (reason) => {
      interrupted.abort(reason);
    };
    let answered = false;
    try {
      const response = await this.collection.get({
        parameters,
        verb: 'list',
        stallMs: this.timings.listStallMs,
        signal: interrupted.signal,
        isHung: this.isHung,
        large: true,
        continues: 'continue' in parameters,
      });
      answered = true;
      this.heard();
      const decoder = this.collection.codecOf(response).list({
        item: (item) => {
          this.identify(item);
          this.objects.put(item, sweep);
        },
        broken: (broken) => {
          this.skip(broken, sweep);
        },
      });
      const turn = new Turn();
      for await (const chunk of response.body) {
        this.heard();
        decoder.push(chunk);
        if (turn.isOver) await turn.next();
      }
      return decoder.end();
    } catch (error) {
      throw causeOfEnd(error, interrupted.signal, answered);
    } finally {
      this.interrupt = undefined;
      unfollow();
    }
  }

  /**
   * The list is complete: what it did not show is gone, and a watch can continue from `version`.
   * @throws KubeError when it is not to be believed
   */
  private listDone(sweep: Sweep, version: string): void {
    if (version === '') {
      throw new KubeError(
        'KUBE_API_STATUS',
        `${this.options.client.server} sent a list of ${this.resource.kind} objects without a version`,
      );
    }
    this.member.observed('served');
    if (isOlder(version, this.version)) {
      this.historyWentBack(version);
      throw new Unconfirmed('The API server went back to an earlier version; listing again');
    }
    this.unconfirmed = this.doubtful(sweep);
    if (this.unconfirmed === undefined) {
      this.confirm(sweep);
      if (!sweep.nameless) this.objects.removeUnseen(sweep);
      this.listDueAt = sweep.doubtAt;
      this.currentAt = performance.now();
    } else {
      this.holdBack(this.unconfirmed, sweep);
    }
    this.shorten?.();
    this.version = version;
    this.versionLost = false;
    this.listed = true;
    this.log.debug(2, 'List complete', { kind: this.resource.kind, objects: this.objects.size, version });
    this.complete();
  }

  /**
   * What would take something away is believed when it is said twice. At the start nothing is held yet, but the kernel
   * may still hold what an earlier process was told: then that goes for objects that can't be read, too.
   * @throws Unconfirmed
   */
  private confirm(sweep: Sweep): void {
    const incomplete = sweep.nameless || (!this.synced && sweep.doubtAt < Infinity);
    const { missing, held } = this.objects.missing(sweep);
    const newHistory = this.server.now() < this.server.heldBackUntil;
    const takesMuch = newHistory ? missing > 0 : held >= manyObjects && missing > held / 2;
    if (this.askedAgain || (sweep.seen.size > 0 && !incomplete && !takesMuch)) {
      this.askedAgain = false;
      return;
    }
    this.askedAgain = true;
    if (incomplete) {
      throw new Unconfirmed('List from API server can not be read in full, confirming with another list');
    }
    throw new Unconfirmed(
      sweep.seen.size === 0
        ? 'Empty list from API server, confirming with another list'
        : `List from API server lacks ${missing} of ${held} objects, confirming with another list`,
    );
  }

  /**
   * An API server on an empty database is well, and so is that of another cluster: what they do not have is kept for a
   * minute or two, for somebody may notice.
   */
  private doubtful(sweep: Sweep): { readonly missing: number; readonly held: number } | undefined {
    if (this.heldBackMs() <= 0 || sweep.nameless) return undefined;
    const { missing, held } = this.objects.missing(sweep);
    return missing > held / 2 ? { missing, held } : undefined;
  }

  /** Nothing is removed before another list, but all that is said from now on is followed. */
  private holdBack(
    { missing, held }: { readonly missing: number; readonly held: number },
    sweep: Sweep,
  ): void {
    const leftMs = this.heldBackMs();
    const { firstMs } = this.timings.backoff;
    this.listDueAt = Math.min(sweep.doubtAt, performance.now() + leftMs + firstMs * Math.random());
    if (this.heldBackReported === this.server.heldBackUntil) return;
    this.heldBackReported = this.server.heldBackUntil;
    this.log.warn('Holding back list from API server: different history, most objects missing', {
      kind: this.resource.kind,
      missing,
      held,
      seconds: Math.ceil(leftMs / 1000),
    });
    this.options.sink.unconfirmed(missing, held);
  }

  private heldBackMs(): number {
    return this.server.heldBackUntil - this.server.now();
  }

  private heldBackError(): KubeError | undefined {
    if (this.unconfirmed === undefined) return undefined;
    const { missing, held } = this.unconfirmed;
    const seconds = Math.max(0, Math.ceil(this.heldBackMs() / 1000));
    return new KubeError(
      'KUBE_API_STATUS',
      `the API server has another history and lacks ${missing} of ${held} ${this.resource.kind} objects; ` +
        `they are kept for another ${seconds} s`,
    );
  }

  private identify({ key, object }: { readonly key: string; readonly object: T }): void {
    const uid = this.resource.clusterIdentity?.(key, object) ?? '';
    if (uid !== '') this.member.identified(uid);
  }

  private complete(): void {
    if (this.synced) return;
    this.synced = true;
    this.options.sink.synced();
  }

  /** @returns false when the server has no streaming lists: nothing is lost, take a plain one */
  private async streamingList(): Promise<boolean> {
    if (!this.server.hasStreamingLists) return false;
    const version = this.listVersion();
    try {
      await this.watch(
        {
          sendInitialEvents: 'true',
          resourceVersionMatch: 'NotOlderThan',
          ...(version === '' || version === '0' ? {} : { resourceVersion: version }),
        },
        newSweep(),
      );
      return true;
    } catch (error) {
      const refusal = streamingRefusal(error);
      if (this.isStopped() || this.listed || refusal === undefined) throw error;
      const { streamingRetryMs, streamingTroubleMs } = this.timings;
      const forMs = refusal === 'lasting' ? streamingRetryMs : streamingTroubleMs;
      if (this.server.streamingRefused(forMs)) {
        this.log.info('The API server has no streaming lists, using plain ones', {
          kind: this.resource.kind,
          reason: error instanceof Error ? error.message : String(error),
          retryInSeconds: Math.round(forMs / 1000),
        });
      }
      return false;
    }
  }

  // ---------------------------------------------------------------- watches

  /**
   * One watch, until it ends. @throws KubeError when it ends badly.
   * @param sweep given when the watch starts with initial events
   */
  private async watch(parameters: Readonly<Record<string, string>>, sweep?: Sweep): Promise<void> {
    const timings = this.timings;
    const lengthMs = Math.round(timings.watchMinMs * (1 + Math.random()));
    // Our own limits, each with its reason; the client only knows that the request is over.
    const limit = new AbortController();
    const unfollow = follow(this.abort.signal, limit);
    const { server } = this.options.client;
    const deadline = setTimeout(
      guarded('end a watch', () => {
        const what = `the watch for ${this.resource.kind} objects did not end at its time`;
        limit.abort(new KubeError('KUBE_TIMEOUT', `${what} (API server ${server})`));
      }),
      lengthMs + timings.watchGraceMs,
    );
    let shortened: NodeJS.Timeout | undefined;
    this.shorten = () => {
      clearTimeout(shortened);
      if (this.listDueAt === Infinity) return;
      shortened = setTimeout(
        guarded('end a watch', () => {
          limit.abort(
            new Unconfirmed(
              this.unconfirmed === undefined
                ? 'Something from the API server could not be understood, listing again'
                : 'What the API server lacks was kept long enough, listing again',
            ),
          );
        }),
        Math.max(0, this.listDueAt - performance.now()),
      );
    };
    // A list that is due is not cut short by itself; afterwards it says when the next one is.
    if (sweep === undefined) this.shorten();
    this.interrupt = (reason) => {
      limit.abort(reason);
    };
    let initial: NodeJS.Timeout | undefined;
    let plain: NodeJS.Timeout | undefined;
    let opened: number | undefined;
    const unfinished = new UnfinishedEvent(timings.eventPauseMs, timings.eventLimitMs, () => {
      limit.abort(
        new AnswerBroke(new KubeError('KUBE_TIMEOUT', `an event does not go on (API server ${server})`)),
      );
    });
    let events = 0;
    let initialEvents = sweep;
    try {
      const response = await this.collection.get({
        parameters: {
          watch: '1',
          allowWatchBookmarks: 'true',
          timeoutSeconds: String(Math.max(1, Math.round(lengthMs / 1000))),
          ...parameters,
        },
        verb: 'watch',
        stallMs: timings.watchStallMs,
        signal: limit.signal,
        isHung: this.isHung,
        large: sweep !== undefined,
      });
      opened = performance.now();
      this.heard();
      const decoder: WatchDecoder<T> = this.collection.codecOf(response).watch();
      if (initialEvents === undefined) {
        this.watching = true;
        this.lastError = undefined;
        this.member.observed('served');
      } else {
        initial = setTimeout(
          guarded('give a streaming list up', () => {
            limit.abort(new NoStreamingList(`the initial events stopped coming (API server ${server})`));
          }),
          timings.initialEventsStallMs,
        );
      }
      const turn = new Turn();
      for await (const chunk of response.body) {
        this.heard();
        const before = sweep?.seen.size;
        const eventsBefore = events;
        decoder.push(chunk, (event) => {
          events++;
          initialEvents = this.event(event, initialEvents);
        });
        if (initialEvents === undefined) {
          clearTimeout(initial);
          if (response.compressed) {
            plain ??= setTimeout(
              guarded('go on with a plain watch', () => {
                limit.abort(goOnPlain);
              }),
              timings.compressedWatchMs * (1 + Math.random()),
            );
          }
          this.watching = true;
          // A beginning proves nothing.
          if (events > eventsBefore) {
            if (this.unconfirmed === undefined) this.currentAt = performance.now();
            this.succeeded();
            if (performance.now() - opened >= timings.backoff.firstMs) this.recovered();
            this.options.sink.flush();
          }
        } else if (sweep?.seen.size !== before) {
          // Changes of what is known already are not initial events.
          initial?.refresh();
        }
        unfinished.bytes(decoder.unfinished, events > eventsBefore);
        if (initialEvents !== undefined && turn.isOver) await turn.next();
      }
      decoder.end();
      this.checkEnd(performance.now() - opened, events, initialEvents);
      this.recovered();
    } catch (error) {
      if (limit.signal.reason === goOnPlain) {
        this.recovered();
        return;
      }
      const cause = causeOfEnd(error, limit.signal, opened !== undefined);
      // A quiet watch that something in between has cut after a while was a good one; one that stayed mute was not.
      const lived = opened === undefined ? 0 : performance.now() - opened;
      const mute = cause instanceof KubeError && cause.code === 'KUBE_TIMEOUT';
      if (initialEvents === undefined && !mute && lived >= goodWatch * timings.backoff.firstMs)
        this.recovered();
      throw cause;
    } finally {
      unfollow();
      clearTimeout(deadline);
      clearTimeout(initial);
      clearTimeout(plain);
      unfinished.end();
      clearTimeout(shortened);
      this.shorten = undefined;
      this.interrupt = undefined;
      this.watching = false;
      this.options.sink.flush();
      this.livedMs = opened === undefined ? 0 : performance.now() - opened;
    }
  }

  /** A watch that ended in good order but brought nothing is no success. */
  private checkEnd(livedMs: number, events: number, initialEvents: Sweep | undefined): void {
    if (initialEvents !== undefined) {
      throw new KubeError('KUBE_CONNECTION_LOST', 'the watch ended before the initial events were complete');
    }
    if (events === 0 && livedMs < Math.min(1000, this.timings.backoff.firstMs)) {
      throw new KubeError('KUBE_CONNECTION_LOST', 'the watch ended as soon as it was open');
    }
  }

  /** @returns the sweep while initial events go on */
  private event(event: WatchEvent<T>, sweep: Sweep | undefined): Sweep | undefined {
    switch (event.type) {
      case 'ADDED':
      case 'MODIFIED':
        if (sweep === undefined && !this.isNext(event.item, false)) return sweep;
        this.identify(event.item);
        this.objects.put(event.item, sweep);
        return sweep;
      case 'DELETED':
        if (sweep !== undefined) sweep.seen.delete(event.item.key);
        else if (!this.isNext(event.item, true)) return sweep;
        this.objects.remove(event.item.key);
        return sweep;
      case 'BOOKMARK':
        if (sweep !== undefined) {
          // Until the one that ends them there is none, where there are streaming lists.
          if (!event.initialEventsEnd)
            throw new NoStreamingList('a bookmark came before the initial events ended');
          this.listDone(sweep, event.version);
          return undefined;
        }
        this.advance(event.version);
        return undefined;
      case 'BROKEN':
        this.skip(event.broken, sweep);
        if (sweep === undefined) this.advance(event.broken.version ?? '');
        return sweep;
      case 'ERROR':
        throw this.collection.statusError(event.status.code, event.status, 'watch');
    }
  }

  /**
   * Whether an event of a running watch is news; then the watch would continue after it. Versions of one kind grow (Kubernetes API
   * concepts, resource versions), so an event that does not is a repetition, or from another history.
   */
  private isNext({ key, version }: Identified, gone: boolean): boolean {
    if (version !== this.version && !isOlder(version, this.version)) {
      this.advance(version);
      return true;
    }
    const held = this.objects.version(key);
    if (gone ? held !== undefined : held !== version) this.listBy(this.soon());
    return false;
  }

  private advance(version: string): void {
    if (version !== '' && !isOlder(version, this.version)) this.version = version;
  }

  /** What is held may not be what the server has: list again at that time, performance.now(). */
  private listBy(time: number): void {
    if (time >= this.listDueAt) return;
    this.listDueAt = time;
    this.shorten?.();
  }

  private soon(): number {
    const now = performance.now();
    if (now - this.doubtedAt > doubtResetMs) this.doubts.succeeded();
    this.doubtedAt = now;
    return now + this.doubts.next();
  }

  // ---------------------------------------------------------------- objects

  /** An object may have been broken on its way, so it is asked for again; if it is broken in itself, that does not go on. */
  private skip(broken: BrokenObject, sweep: Sweep | undefined): void {
    let again = Infinity;
    const mayHeal = this.objects.skip(broken);
    if (broken.key === undefined) {
      if (sweep !== undefined) sweep.nameless = true;
      again = this.soon();
    } else {
      sweep?.seen.add(broken.key);
      if (mayHeal) {
        again = Math.max(this.soon(), this.brokenListAt + this.timings.brokenRetryMs);
        this.brokenListAt = again;
      }
    }
    if (sweep === undefined) this.listBy(again);
    else sweep.doubtAt = Math.min(sweep.doubtAt, again);
  }
}

/** By the clock as it is now. */
function sinceEpoch(at: number | undefined): number {
  return at === undefined ? 0 : Math.round(Date.now() - (performance.now() - at));
}

/** Node's timers know no longer time. */
const longestTimerMs = 2 ** 31 - 1;
/** A list that takes most of so many objects away is asked for again. */
const manyObjects = 10;
/** Why a watch is ended that was a good one. */
const goOnPlain = new Error('the next watch is a plain one');
/** A watch that lived for so many first pauses was a good one. */
const goodWatch = 10;

/** Why a request is over: our own limits have their reasons, the client only knows that it was cancelled. */
function causeOfEnd(error: unknown, limit: AbortSignal, answered: boolean): unknown {
  const cause: unknown = limit.aborted ? limit.reason : error;
  const connection =
    cause instanceof KubeError &&
    !(cause instanceof AnswerBroke) &&
    !(cause instanceof NoStreamingList) &&
    (cause.code === 'KUBE_CONNECTION_LOST' || cause.code === 'KUBE_TIMEOUT');
  return answered && connection ? new AnswerBroke(cause) : cause;
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (ms <= 0) return Promise.resolve();
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
}
