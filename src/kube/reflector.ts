/**
 * Keeps a sink equal to one collection of the API server: a list, then a watch that continues where the list ended.
 * Behaves as the reflector of client-go does (Kubernetes API concepts: efficient detection of changes, streaming
 * lists, resource versions); where this differs, a comment says why.
 */
import type { Logger } from '../log/logger.js';
import { follow } from './abort.js';
import { Backoff, defaultBackoff, type BackoffOptions } from './backoff.js';
import type {
  ApiStatus,
  BrokenObject,
  Codec,
  Decoded,
  Identified,
  ListMeta,
  WatchDecoder,
  WatchEvent,
} from './decoded.js';
import { KubeError } from './errors.js';
import type { ApiClient, ApiResponse } from './http/client.js';
import { longestName, printable } from './printable.js';
import { acceptHeader, type ContentType, type Resource } from './resources.js';
import { decodeStatus } from './status.js';
import type { StringTable } from './strings.js';
import { Turn } from './turn.js';

export interface ReflectorTimings {
  readonly backoff: BackoffOptions;
  /** A watch asks the server to end it after a random time in [min, 2 * min]. */
  readonly watchMinMs: number;
  /** How much longer than that we wait for the end. */
  readonly watchGraceMs: number;
  /** A watch that brings nothing for so long, not even a bookmark, is asked for anew. */
  readonly watchStallMs: number;
  /** The initial events of a streaming list may pause for so long. */
  readonly initialEventsStallMs: number;
  /** A list body may pause for so long. */
  readonly listStallMs: number;
  /** How long a refusal of streaming lists is remembered. */
  readonly streamingRetryMs: number;
  /** How often to ask again for a kind that the server does not have. */
  readonly absentRetryMs: number;
  /** Objects that can't be read make us list again at most so often. */
  readonly brokenRetryMs: number;
  /** Retry-After is honoured up to this. */
  readonly longestRetryAfterMs: number;
}

/** So many refusals in a row, and a kind that the server had is believed to be there no more. */
const absentAfter = 5;

export const defaultReflectorTimings: ReflectorTimings = {
  backoff: defaultBackoff,
  watchMinMs: 300_000,
  watchGraceMs: 15_000,
  watchStallMs: 180_000,
  initialEventsStallMs: 15_000,
  listStallMs: 30_000,
  streamingRetryMs: 3_600_000,
  absentRetryMs: 300_000,
  brokenRetryMs: 300_000,
  longestRetryAfterMs: 120_000,
};

/** A failure that lasts is an error in the log again after this time, without its advice. */
const remindMs = 60_000;

/** What was learned about the server; shared by the reflectors of all kinds. */
export class ServerTraits {
  /** performance.now() until which streaming lists are not tried. */
  streamingRefusedUntil = -Infinity;
  /** What to ask for, best first; never empty. */
  contentTypes: readonly ContentType[];
  /** Failures whose message was logged, and when the last error was: all kinds usually fail for the same reason. */
  readonly #reported = new Map<string, number>();

  constructor(contentTypes: readonly ContentType[]) {
    this.contentTypes = contentTypes;
  }

  /**
   * How to log a failure: with its message the first time, as a reminder now and then, otherwise as a detail.
   * @param cause the same for failures with the same cure
   */
  report(cause: string): 'first' | 'reminder' | 'detail' {
    const now = performance.now();
    const at = this.#reported.get(cause);
    if (at !== undefined && now - at < remindMs) return 'detail';
    if (this.#reported.size > 100) this.#reported.clear();
    this.#reported.set(cause, now);
    return at === undefined ? 'first' : 'reminder';
  }

  /** Something works again: the next failure is news. */
  forgetReports(): void {
    this.#reported.clear();
  }
}

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

export interface ReflectorSink<T> {
  deliver(key: string, object: T | undefined): void;
  /** An object can't be read, and why; undefined: it can again, or is gone. */
  unreadable(key: string, uid: string, why: string | undefined): void;
  synced(): void;
  flush(): void;
}

export interface ReflectorOptions<T> {
  readonly resource: Resource<T>;
  readonly client: ApiClient;
  readonly traits: ServerTraits;
  readonly strings: StringTable;
  readonly sink: ReflectorSink<T>;
  readonly log: Logger;
  readonly pageSize: number;
  readonly gzip: boolean;
  readonly timings: ReflectorTimings;
}

/** An answer that is not 2xx, or an ERROR event. */
class StatusError extends KubeError {
  readonly status: ApiStatus;

  constructor(status: ApiStatus, message: string) {
    const code =
      status.code === 401
        ? 'KUBE_UNAUTHORIZED'
        : status.code === 403
          ? 'KUBE_FORBIDDEN'
          : ('KUBE_API_STATUS' as const);
    super(code, message);
    this.status = status;
  }

  get expired(): boolean {
    return this.status.code === 410 || this.status.reason === 'Expired' || this.status.reason === 'Gone';
  }

  get versionTooLarge(): boolean {
    return (
      this.status.causes.includes('ResourceVersionTooLarge') ||
      /too large resource version/i.test(this.message)
    );
  }
}

/** The server does not know streaming lists, though it may not say so: plain ones are taken instead. */
class NoStreamingList extends KubeError {
  override readonly name = 'NoStreamingList';

  constructor(message: string) {
    super('KUBE_TIMEOUT', message);
  }
}

/** What a list found: needed to tell at its end what is gone. */
interface Sweep {
  readonly seen: Set<string>;
  /** An object without a readable name was there: nothing can be said about what is gone. */
  nameless: boolean;
  /** When to list again because of what could not be read, performance.now(); Infinity: no need. */
  doubtAt: number;
}

function newSweep(): Sweep {
  return { seen: new Set(), nameless: false, doubtAt: Infinity };
}

/** What was said is not believed before it was said once more: the next thing to do is a list of what is newest. */
class Disbelief extends KubeError {
  override readonly name = 'Disbelief';

  constructor(message: string) {
    super('KUBE_API_STATUS', message);
  }
}

export class Reflector<T> {
  readonly #resource: Resource<T>;
  readonly #options: ReflectorOptions<T>;
  readonly #log: Logger;
  readonly #timings: ReflectorTimings;
  readonly #backoff: Backoff;
  readonly #abort = new AbortController();
  /** What was delivered: key to resource version. */
  readonly #known = new Map<string, string>();
  /** Where the next watch starts; '' before the first list. */
  #version = '';
  /** The server has forgotten #version, or never heard of it: the next list takes what is newest. */
  #versionLost = false;
  /** The next thing to do is a watch, not a list. */
  #listed = false;
  /** Something came by that could not be understood or ordered: a list is due at this time, performance.now(). */
  #listDueAt = Infinity;
  /** Sees to it that the open watch does not outlive that time. */
  #shorten: (() => void) | undefined;
  /** Objects that can't be read, by key, with their version: what is broken in itself is not asked for again. */
  readonly #broken = new Map<string, string>();
  #brokenListAt = -Infinity;
  /** The list before this one was complete, and was not believed. */
  #askedAgain = false;
  /** Watches in a row that brought nothing, not even a bookmark, until we gave them up. */
  #muteWatches = 0;
  #synced = false;
  #watching = false;
  #lastError: KubeError | undefined;
  #lastContact = 0;
  #currentAt = 0;
  #failuresInRow = 0;
  /** A failure was logged that is not over yet. */
  #complained = false;
  /** How long the last watch was open. */
  #livedMs = 0;
  #absent = false;
  #running: Promise<void> | undefined;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#resource = options.resource;
    this.#log = options.log;
    this.#timings = options.timings;
    this.#backoff = new Backoff(options.timings.backoff);
  }

  get status(): ReflectorStatus {
    return {
      synced: this.#synced,
      watching: this.#watching,
      lastError: this.#lastError,
      lastContact: this.#lastContact,
      currentAt: this.#currentAt,
      objects: this.#known.size,
    };
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }

  #isStopped(): boolean {
    return this.#abort.signal.aborted;
  }

  async #run(): Promise<void> {
    const signal = this.#abort.signal;
    while (!this.#isStopped()) {
      try {
        if (this.#listed) await this.#watch({ resourceVersion: this.#version });
        // A streaming list is a watch already, and goes on as one.
        else if (!(await this.#streamingList())) await this.#list();
        this.#succeeded();
        await sleep(this.#restAfterWatch(), signal);
      } catch (error) {
        if (this.#isStopped()) return;
        const wait = this.#failed(error);
        if (this.#listNeededAfter(error)) this.#listed = false;
        await sleep(wait, signal);
      }
      if (performance.now() >= this.#listDueAt) this.#listed = false;
    }
  }

  /** A server that ends watches as soon as they have brought something is not asked again at once. */
  #restAfterWatch(): number {
    return Math.max(0, Math.min(1000, this.#timings.backoff.firstMs) - this.#livedMs);
  }

  #succeeded(): void {
    if (this.#complained) {
      this.#complained = false;
      this.#options.traits.forgetReports();
      this.#log.info('Data from the API server again', { kind: this.#resource.kind });
    }
    this.#failuresInRow = 0;
    this.#lastError = undefined;
    this.#absent = false;
  }

  #listNeededAfter(error: unknown): boolean {
    if (error instanceof StatusError) {
      if (error.versionTooLarge) {
        this.#forgetVersions();
        this.#version = '';
      }
      if (error.expired || error.versionTooLarge) {
        this.#versionLost = true;
        return true;
      }
      // Overload and rights come and go; the version we hold stays good meanwhile.
      if ([401, 403, 429].includes(error.status.code) || error.status.code >= 500) return this.#stuck();
      return true;
    }
    if (error instanceof Disbelief) {
      this.#versionLost = true;
      return true;
    }
    // A database that was set back has nothing to say about versions that it does not know yet, and says nothing.
    return this.#muteWatches >= 2 || this.#stuck();
  }

  /**
   * The server's counter of versions went back: a version number may come a second time and mean something else, so
   * nothing counts as known by its number.
   */
  #forgetVersions(): void {
    for (const key of this.#known.keys()) this.#known.set(key, '');
  }

  /** The same place fails again and again: perhaps it is the place. */
  #stuck(): boolean {
    return this.#failuresInRow >= 5 && this.#failuresInRow % 5 === 0;
  }

  /** Report, and say how many milliseconds to wait. */
  #failed(error: unknown): number {
    const failure =
      error instanceof KubeError
        ? error
        : new KubeError('KUBE_CONNECTION_LOST', error instanceof Error ? error.message : String(error), {
            cause: error,
          });
    const kind = this.#resource.kind;
    this.#lastError = failure;
    this.#failuresInRow++;
    if (
      this.#resource.optional &&
      failure instanceof StatusError &&
      [403, 404].includes(failure.status.code)
    ) {
      // Servers that have just started say so of what they have, too.
      const lasts = this.#failuresInRow >= absentAfter;
      if (lasts || this.#known.size === 0) {
        this.#markAbsent(failure);
        return lasts ? this.#timings.absentRetryMs * (1 + Math.random()) : this.#backoff.next();
      }
    }
    if (failure instanceof Disbelief) {
      this.#log.info(failure.message, { kind, version: this.#version });
      return (this.#timings.backoff.firstMs / 4) * Math.random();
    }
    if (failure instanceof StatusError && (failure.expired || failure.versionTooLarge)) {
      this.#log.info('The API server does not have our version, listing anew', {
        kind,
        version: this.#version,
      });
      // Nothing is wrong with the server: only a repetition has to wait.
      return this.#failuresInRow > 1 ? this.#backoff.next() : 0;
    }
    if (
      (failure.code === 'KUBE_CONNECTION_LOST' || failure.code === 'KUBE_TIMEOUT') &&
      this.#failuresInRow === 1 &&
      this.#livedMs > this.#timings.backoff.firstMs
    ) {
      // A connection that was good until it was cut: the server may be another one the next moment.
      this.#livedMs = 0;
      this.#log.info('The watch was cut, opening it again', { kind, err: failure.message });
      return (this.#timings.backoff.firstMs / 4) * Math.random();
    }
    // Whoever asks for days of silence did not mean us.
    const retryAfter = Math.min(
      failure instanceof StatusError ? failure.status.retryAfterSeconds * 1000 : 0,
      this.#timings.longestRetryAfterMs,
    );
    const wait = this.#backoff.next(retryAfter);
    const status = failure instanceof StatusError ? { status: failure.status.code } : {};
    const fields = { kind, code: failure.code, ...status, retryInSeconds: Math.round(wait / 100) / 10 };
    this.#complained = true;
    const report = this.#options.traits.report(causeOf(failure, kind));
    if (report === 'first') this.#log.error('No data from the API server', failure, fields);
    else if (report === 'reminder') this.#log.error('Still no data from the API server', undefined, fields);
    else this.#log.debug(2, 'Still no data from the API server', fields);
    return wait;
  }

  #markAbsent(failure: StatusError): void {
    const kind = this.#resource.kind;
    if (!this.#absent) {
      this.#log.info('The API server does not serve this kind to us, going on without it', {
        kind,
        reason: failure.message,
      });
      this.#absent = true;
    }
    this.#lastError = undefined;
    for (const key of [...this.#known.keys()]) this.#remove(key);
    this.#version = '';
    this.#versionLost = false;
    this.#listed = false;
    this.#complete();
    this.#options.sink.flush();
  }

  // ---------------------------------------------------------------- lists

  #query(parameters: Readonly<Record<string, string>>): string {
    const { path, labelSelector, fieldSelector } = this.#resource;
    const query = new URLSearchParams();
    if (labelSelector !== '') query.set('labelSelector', labelSelector);
    if (fieldSelector !== '') query.set('fieldSelector', fieldSelector);
    for (const [key, value] of Object.entries(parameters)) query.set(key, value);
    return `${path}?${query.toString()}`;
  }

  /** Oldest state that a list may show: never older than what was delivered, anything at the first time. */
  #listVersion(): string {
    if (this.#versionLost) return '';
    return this.#version === '' ? '0' : this.#version;
  }

  async #list(): Promise<void> {
    const sweep: Sweep = newSweep();
    const version = this.#listVersion();
    try {
      let meta = await this.#page(
        {
          limit: String(this.#options.pageSize),
          ...(version === '' ? {} : { resourceVersion: version }),
          ...(version === '' || version === '0' ? {} : { resourceVersionMatch: 'NotOlderThan' }),
        },
        sweep,
      );
      while (meta.continueToken !== '') {
        meta = await this.#nextPage(meta.continueToken, sweep);
      }
      this.#listDone(sweep, meta.version);
    } finally {
      this.#options.sink.flush();
    }
  }

  async #nextPage(continueToken: string, sweep: Sweep): Promise<ListMeta> {
    try {
      return await this.#page({ limit: String(this.#options.pageSize), continue: continueToken }, sweep);
    } catch (error) {
      // The pages no longer belong to one state of the server: start over, as fresh as it gets.
      if (error instanceof StatusError && error.expired) this.#versionLost = true;
      throw error;
    }
  }

  async #page(parameters: Readonly<Record<string, string>>, sweep: Sweep): Promise<ListMeta> {
    const response = await this.#get(
      this.#query(parameters),
      { watch: false, stallMs: this.#timings.listStallMs, signal: this.#abort.signal },
      'continue' in parameters,
    );
    const decoder = this.#codecOf(response).list({
      item: (item) => {
        sweep.seen.add(item.key);
        this.#put(item);
      },
      broken: (broken) => {
        this.#skip(broken, sweep);
      },
    });
    const turn = new Turn();
    for await (const chunk of response.body) {
      this.#lastContact = Date.now();
      decoder.push(chunk);
      await turn.end();
    }
    return decoder.end();
  }

  /**
   * The list is complete: what it did not show is gone, and a watch can continue from `version`.
   * @throws KubeError when it is not to be believed
   */
  #listDone(sweep: Sweep, version: string): void {
    if (version === '') {
      throw new KubeError(
        'KUBE_API_STATUS',
        `${this.#options.client.server} sent a list of ${this.#resource.kind} objects without a version`,
      );
    }
    if (isOlder(version, this.#version)) {
      this.#forgetVersions();
      this.#version = version;
      throw new Disbelief('The API server went back to an earlier version; asking again for everything');
    }
    this.#believe(sweep);
    this.#muteWatches = 0;
    if (!sweep.nameless) {
      for (const key of [...this.#known.keys()]) {
        if (!sweep.seen.has(key)) this.#remove(key);
      }
      for (const key of [...this.#broken.keys()]) {
        if (!sweep.seen.has(key)) this.#mended(key);
      }
    }
    this.#listDueAt = sweep.doubtAt;
    this.#shorten?.();
    this.#version = version;
    this.#versionLost = false;
    this.#listed = true;
    this.#currentAt = Date.now();
    this.#log.debug(2, 'List complete', { kind: this.#resource.kind, objects: this.#known.size, version });
    this.#complete();
  }

  /**
   * What would take something away is believed when it is said twice. At the start nothing is held yet, but the kernel
   * may still hold what an earlier process was told: then that goes for objects that can't be read, too.
   * @throws Disbelief
   */
  #believe(sweep: Sweep): void {
    const incomplete = sweep.nameless || (!this.#synced && sweep.doubtAt < Infinity);
    if (this.#askedAgain || (sweep.seen.size > 0 && !incomplete)) {
      this.#askedAgain = false;
      return;
    }
    this.#askedAgain = true;
    throw new Disbelief(
      incomplete
        ? 'The API server sent a list that can not be read in full; asking once more before it is believed'
        : 'The API server says that there is nothing; asking once more before that is believed',
    );
  }

  #complete(): void {
    if (this.#synced) return;
    this.#synced = true;
    this.#options.sink.synced();
  }

  /** @returns false when the server has no streaming lists: nothing is lost, take a plain one */
  async #streamingList(): Promise<boolean> {
    const { traits } = this.#options;
    if (performance.now() < traits.streamingRefusedUntil) return false;
    const version = this.#listVersion();
    try {
      await this.#watch(
        {
          sendInitialEvents: 'true',
          resourceVersionMatch: 'NotOlderThan',
          ...(version === '' || version === '0' ? {} : { resourceVersion: version }),
        },
        newSweep(),
      );
      return true;
    } catch (error) {
      if (this.#isStopped() || this.#listed || !refusesStreaming(error)) throw error;
      const first = performance.now() >= traits.streamingRefusedUntil;
      traits.streamingRefusedUntil = performance.now() + this.#timings.streamingRetryMs;
      if (!first) return false;
      this.#log.info('The API server has no streaming lists, using plain ones', {
        kind: this.#resource.kind,
        reason: error instanceof Error ? error.message : String(error),
      });
      return false;
    }
  }

  // ---------------------------------------------------------------- watches

  /**
   * One watch, until it ends. @throws KubeError when it ends badly.
   * @param sweep given when the watch starts with initial events
   */
  async #watch(parameters: Readonly<Record<string, string>>, sweep?: Sweep): Promise<void> {
    const timings = this.#timings;
    const lengthMs = Math.round(timings.watchMinMs * (1 + Math.random()));
    // Our own limits, each with its reason; the client only knows that the request is over.
    const limit = new AbortController();
    const unfollow = follow(this.#abort.signal, limit);
    const { server } = this.#options.client;
    const deadline = setTimeout(() => {
      const what = `the watch for ${this.#resource.kind} objects did not end at its time`;
      limit.abort(new KubeError('KUBE_TIMEOUT', `${what} (API server ${server})`));
    }, lengthMs + timings.watchGraceMs);
    let shortened: NodeJS.Timeout | undefined;
    this.#shorten = () => {
      clearTimeout(shortened);
      if (this.#listDueAt === Infinity) return;
      shortened = setTimeout(
        () => {
          limit.abort(
            new Disbelief(
              'Something from the API server could not be understood; asking again for everything',
            ),
          );
        },
        Math.max(0, this.#listDueAt - performance.now()),
      );
    };
    // A list that is due is not cut short by itself; afterwards it says when the next one is.
    if (sweep === undefined) this.#shorten();
    const initial =
      sweep === undefined
        ? undefined
        : setTimeout(() => {
            limit.abort(new NoStreamingList(`the initial events stopped coming (API server ${server})`));
          }, timings.initialEventsStallMs);
    const opened = performance.now();
    let events = 0;
    let initialEvents = sweep;
    try {
      const response = await this.#get(
        this.#query({
          watch: '1',
          allowWatchBookmarks: 'true',
          timeoutSeconds: String(Math.max(1, Math.round(lengthMs / 1000))),
          ...parameters,
        }),
        { watch: true, stallMs: timings.watchStallMs, signal: limit.signal },
      );
      const decoder: WatchDecoder<T> = this.#codecOf(response).watch();
      this.#watching = initialEvents === undefined;
      if (this.#watching) this.#lastError = undefined;
      const turn = new Turn();
      for await (const chunk of response.body) {
        this.#lastContact = Date.now();
        const before = sweep?.seen.size;
        decoder.push(chunk, (event) => {
          events++;
          this.#muteWatches = 0;
          initialEvents = this.#event(event, initialEvents);
        });
        if (initialEvents === undefined) {
          clearTimeout(initial);
          this.#watching = true;
          this.#currentAt = Date.now();
          this.#succeeded();
          this.#options.sink.flush();
        } else if (sweep?.seen.size !== before) {
          // Changes of what is known already are not initial events.
          initial?.refresh();
        }
        if (initialEvents !== undefined) await turn.end();
      }
      decoder.end();
      this.#checkEnd(performance.now() - opened, events, initialEvents);
    } catch (error) {
      const cause: unknown = limit.signal.aborted ? limit.signal.reason : error;
      if (events === 0 && cause instanceof KubeError && cause.code === 'KUBE_TIMEOUT') this.#muteWatches++;
      throw cause;
    } finally {
      unfollow();
      clearTimeout(deadline);
      clearTimeout(initial);
      clearTimeout(shortened);
      this.#shorten = undefined;
      this.#watching = false;
      this.#options.sink.flush();
      this.#livedMs = performance.now() - opened;
    }
  }

  /** A watch that ended in good order but brought nothing is no success. */
  #checkEnd(livedMs: number, events: number, initialEvents: Sweep | undefined): void {
    if (initialEvents !== undefined) {
      throw new KubeError('KUBE_CONNECTION_LOST', 'the watch ended before the initial events were complete');
    }
    if (events === 0 && livedMs < Math.min(1000, this.#timings.backoff.firstMs)) {
      throw new KubeError('KUBE_CONNECTION_LOST', 'the watch ended as soon as it was open');
    }
  }

  /** @returns the sweep while initial events go on */
  #event(event: WatchEvent<T>, sweep: Sweep | undefined): Sweep | undefined {
    switch (event.type) {
      case 'ADDED':
      case 'MODIFIED':
        if (sweep !== undefined) sweep.seen.add(event.item.key);
        else if (!this.#isNext(event.item, false)) return sweep;
        this.#put(event.item);
        return sweep;
      case 'DELETED':
        if (sweep !== undefined) sweep.seen.delete(event.item.key);
        else if (!this.#isNext(event.item, true)) return sweep;
        this.#remove(event.item.key);
        return sweep;
      case 'BOOKMARK':
        if (sweep !== undefined) {
          // Until the one that ends them there is none, where there are streaming lists.
          if (!event.initialEventsEnd)
            throw new NoStreamingList('a bookmark came before the initial events ended');
          this.#listDone(sweep, event.version);
          return undefined;
        }
        this.#advance(event.version);
        return undefined;
      case 'BROKEN':
        this.#skip(event.broken, sweep);
        if (sweep === undefined) this.#advance(event.broken.version ?? '');
        return sweep;
      case 'ERROR':
        throw this.#statusError(event.status.code, event.status, 'watch');
    }
  }

  /**
   * Whether an event of a running watch is news; then the watch would continue after it. Versions of one kind grow (Kubernetes API
   * concepts, resource versions), so an event that does not is a repetition, or from another history.
   */
  #isNext({ key, version }: Identified, gone: boolean): boolean {
    if (version !== this.#version && !isOlder(version, this.#version)) {
      this.#advance(version);
      return true;
    }
    const held = this.#known.get(key);
    if (gone ? held !== undefined : held !== version) this.#listBy(this.#soon());
    return false;
  }

  #advance(version: string): void {
    if (version !== '' && !isOlder(version, this.#version)) this.#version = version;
  }

  /** What is held may not be what the server has: list again at that time, performance.now(). */
  #listBy(time: number): void {
    if (time >= this.#listDueAt) return;
    this.#listDueAt = time;
    this.#shorten?.();
  }

  #soon(): number {
    return performance.now() + this.#backoff.next();
  }

  // ---------------------------------------------------------------- objects

  #put(item: Decoded<T>): void {
    this.#mended(item.key);
    if (item.version !== '' && this.#known.get(item.key) === item.version) return;
    this.#known.set(item.key, item.version);
    this.#deliver(item.key, item.object);
  }

  #remove(key: string): void {
    this.#mended(key);
    if (this.#known.delete(key)) this.#deliver(key, undefined);
  }

  #mended(key: string): void {
    if (this.#broken.delete(key)) this.#options.sink.unreadable(key, '', undefined);
  }

  #deliver(key: string, object: T | undefined): void {
    try {
      this.#options.sink.deliver(key, object);
    } catch (error) {
      this.#log.error('An object could not be taken over', error, {
        kind: this.#resource.kind,
        object: printable(key, 2 * longestName),
      });
    }
  }

  /**
   * The last good state of a broken object stays. It may have been broken on its way, so it is asked for once more; if it is
   * broken in itself, that does not go on.
   */
  #skip({ key, version, uid, error }: BrokenObject, sweep: Sweep | undefined): void {
    let again = Infinity;
    let news = true;
    if (key === undefined) {
      if (sweep !== undefined) sweep.nameless = true;
      again = this.#soon();
    } else {
      sweep?.seen.add(key);
      news = version === undefined || this.#broken.get(key) !== version;
      if (news) {
        again = Math.max(this.#soon(), this.#brokenListAt + this.#timings.brokenRetryMs);
        this.#brokenListAt = again;
      }
      this.#broken.set(key, version ?? '');
    }
    if (sweep === undefined) this.#listBy(again);
    else sweep.doubtAt = Math.min(sweep.doubtAt, again);
    if (!news) return;
    this.#log.error('An object from the API server can not be read and is skipped', error, {
      kind: this.#resource.kind,
      object: key === undefined ? '(name unreadable)' : printable(key, 2 * longestName),
    });
    if (key !== undefined) this.#options.sink.unreadable(key, uid ?? '', error.message);
  }

  // ---------------------------------------------------------------- requests

  /** @param continues a page of a list that counts as one request with the pages before it */
  async #get(
    target: string,
    { watch, stallMs, signal }: { watch: boolean; stallMs: number; signal: AbortSignal },
    continues = false,
  ): Promise<ApiResponse> {
    const { client, traits, gzip } = this.#options;
    for (;;) {
      const asked = traits.contentTypes;
      const response = await client.request({
        target,
        accept: acceptHeader(asked, watch),
        gzip: gzip && !watch,
        stallMs,
        signal,
        continues,
        watch,
      });
      this.#lastContact = Date.now();
      if (response.status >= 200 && response.status < 300) return response;
      const body = await readSome(response);
      const refusesType = response.status === 406 || response.status === 415;
      if (refusesType && asked.includes('protobuf') && asked.includes('json')) {
        traits.contentTypes = ['json'];
        this.#log.info('The API server has no protobuf, using JSON', { status: response.status });
        continue;
      }
      const status = decodeStatus(body, response.contentType);
      throw this.#statusError(
        response.status,
        { ...status, retryAfterSeconds: Math.max(status.retryAfterSeconds, response.retryAfterSeconds) },
        watch ? 'watch' : 'list',
      );
    }
  }

  /** By what the server says that it sent, not by what was asked for. */
  #codecOf(response: ApiResponse): Codec<T> {
    const { strings, client } = this.#options;
    if (response.contentType.includes('protobuf')) return this.#resource.codec('protobuf', strings);
    if (response.contentType.includes('json')) return this.#resource.codec('json', strings);
    throw new KubeError(
      'KUBE_API_STATUS',
      `${client.server} answered with ${response.contentType === '' ? 'no content type' : response.contentType}, ` +
        'which is not what an API server sends: check the URL',
    );
  }

  #statusError(httpStatus: number, body: ApiStatus, verb: 'list' | 'watch'): StatusError {
    const status = body.code === 0 ? { ...body, code: httpStatus } : body;
    const { client } = this.#options;
    const { rbacName } = this.#resource;
    const said = status.message === '' ? status.reason : status.message;
    switch (status.code) {
      case 401:
        return new StatusError(
          status,
          `API server ${client.server} does not accept our credentials from ${client.credentials.source} ` +
            `(${said}): renew the token or client certificate`,
        );
      case 403:
        return new StatusError(
          status,
          `API server ${client.server} does not let us ${verb} ${rbacName} (${said}): grant list and watch on it, ` +
            'as ClusterRole system:node-proxier does',
        );
      default:
        return new StatusError(
          status,
          `API server ${client.server} answered ${status.code} when asked to ${verb} ${rbacName}: ${said}`,
        );
    }
  }
}

/** The same for failures with the same cure, whatever their messages say about kind and try. */
function causeOf(failure: KubeError, kind: string): string {
  if (!(failure instanceof StatusError)) return failure.code;
  // Rights are granted one kind at a time.
  return `${failure.status.code} ${failure.code === 'KUBE_FORBIDDEN' ? kind : ''}`;
}

/** Enough of an error body for its Status; whatever breaks on the way is less important than the HTTP status. */
async function readSome(response: ApiResponse): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response.body) {
      parts.push(chunk);
      size += chunk.length;
      if (size > 64 * 1024) break;
    }
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
  }
  return Buffer.concat(parts);
}

/**
 * Servers without the feature say 400 or 422, or, where only their etcd is too old, 500 in an ERROR event. One that
 * ignores the parameter never sends the closing bookmark, which ends in our own time limit.
 */
function refusesStreaming(error: unknown): boolean {
  if (error instanceof StatusError) return [400, 405, 422, 500].includes(error.status.code);
  return error instanceof NoStreamingList;
}

/** Versions are decimal numbers of any length; of anything else nothing is known. */
function isOlder(version: string, than: string): boolean {
  if (!/^\d+$/.test(version) || !/^\d+$/.test(than)) return false;
  return version.length === than.length ? version < than : version.length < than.length;
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
