/**
 * What is known of the API server, apart from what is known of a request (outcome.ts): one state that the reflectors of
 * all kinds share. Pure: time and chance are given to it, and it holds no timers.
 *
 * While nothing at all is served, one kind asks for all, in turns, and the pauses grow; they begin anew when a server that was not
 * there answers, if only with errors, for then it is starting. As soon as one kind is served, all others try again within a second.
 */
import { OutageBackoff, type BackoffOptions } from './backoff.js';
import type { ContentType } from '../resources.js';

export type ServerPhase = 'unknown' | 'serving' | 'failing' | 'unreachable';

/** What a request has shown of the server. */
export type Observation =
  /** An answer that proves that it works: 2xx, and 410, which says that it has looked. */
  | 'served'
  /** 401, 403, 429 or 5xx, while other kinds have no such trouble. */
  | 'error'
  /** The same for a second kind, and nothing was served in between. */
  | 'errors of several kinds'
  /** No HTTP answer: refused, cut, timed out, no TLS. */
  | 'no answer'
  /** An answer that had begun broke off. That may be the request, the connection, or the server. */
  | 'cut';

/** The transitions, by the phase before. A test holds docs/resilience.md to this. */
export const serverTransitions: Readonly<Record<ServerPhase, Readonly<Record<Observation, ServerPhase>>>> = {
  unknown: {
    served: 'serving',
    error: 'unknown',
    'errors of several kinds': 'failing',
    'no answer': 'unreachable',
    cut: 'unknown',
  },
  serving: {
    served: 'serving',
    error: 'serving',
    'errors of several kinds': 'failing',
    'no answer': 'unreachable',
    cut: 'serving',
  },
  failing: {
    served: 'serving',
    error: 'failing',
    'errors of several kinds': 'failing',
    'no answer': 'unreachable',
    cut: 'failing',
  },
  unreachable: {
    served: 'serving',
    error: 'failing',
    'errors of several kinds': 'failing',
    'no answer': 'unreachable',
    cut: 'unreachable',
  },
};

/** In these phases kinds ask one after the other. */
const takesTurns: ReadonlySet<ServerPhase> = new Set<ServerPhase>(['failing', 'unreachable']);

export interface ServerTimings {
  readonly backoff: BackoffOptions;
  /** Once the server serves again, kinds that wait try within this time … */
  readonly wakeWithinMs: number;
  /** … and those that endpoints are known by within this one. */
  readonly wakeUrgentMs: number;
  /** The next kind asks so much later, should the one before it not have an answer by then. */
  readonly turnMs: number;
  /** An answer should have come by then, should the server answer at all. */
  readonly patienceMs: number;
  /** Lists that take most away are held back for one to two times this, after the server's history changed. */
  readonly holdBackMs: number;
}

export const defaultServerTimings: Omit<ServerTimings, 'backoff'> = {
  wakeWithinMs: 1000,
  wakeUrgentMs: 400,
  turnMs: 1000,
  patienceMs: 10_000,
  holdBackMs: 60_000,
};

/** A failure that lasts is an error in the log again after this time, without its advice. */
const remindMs = 60_000;

export interface ServerStateOptions {
  readonly timings: ServerTimings;
  /** What to ask for, best first; never empty. */
  readonly contentTypes: readonly ContentType[];
  /** Milliseconds that never go back. */
  readonly now?: () => number;
  /** 0 to 1. */
  readonly random?: () => number;
}

/** One kind's place in the state. */
export interface Member {
  observed(what: Exclude<Observation, 'errors of several kinds'>): void;
  /**
   * When this kind may ask next, by now().
   * @param due when it wants to
   * @param notBefore what the server asked for (Retry-After); holds against everything
   */
  askAt(due: number, notBefore: number): number;
  /** Bytes of an answer have come. */
  heard(): void;
  /**
   * Whether to give up a request that has had no answer since then, by now(), though there was time for one: when the server has
   * talked to another kind in between, or, once while it is silent, to see whether it would answer another request.
   */
  isHung(sentAt: number): boolean;
  /** This kind has found out that the server's history is another one: all others have to list again. */
  historyChanged(): void;
  /** Which cluster this is: the UID of an object that every cluster makes for itself once; '' says nothing. */
  identified(uid: string): void;
}

interface Waiting {
  readonly wakeWithinMs: number;
  /** The last observation was an error. */
  error: boolean;
  /** The server served another kind since: when to try. */
  wakeAt: number;
}

export class ServerState {
  readonly now: () => number;
  private readonly random: () => number;
  private readonly timings: ServerTimings;
  private readonly knownContentTypes: readonly ContentType[];
  private readonly backoff: OutageBackoff;
  private readonly listeners = new Map<
    Member,
    { readonly changed: () => void; readonly newHistory: () => void }
  >();
  /** Kinds that are not served, the one that waits longest first. */
  private readonly line = new Map<Member, Waiting>();
  private currentPhase: ServerPhase = 'unknown';
  /** It was away, and has answered with errors since. */
  private starting = false;
  private nextTurnAt = -Infinity;
  /** When each kind heard of the server last. */
  private readonly heard = new Map<Member, number>();
  /** A request was given up to see whether another would be answered, and nothing was heard since. */
  private probing = false;
  private identity = '';
  private historyChangedAt = -Infinity;
  private holdBackMs = 0;
  private streamingRefusedUntil = -Infinity;
  private jsonOnly = false;
  /** Failures whose message was logged, and when the last error was: all kinds usually fail for the same reason. */
  private readonly reported = new Map<string, number>();

  constructor({ timings, contentTypes, now, random }: ServerStateOptions) {
    this.now = now ?? (() => performance.now());
    this.random = random ?? Math.random;
    this.timings = timings;
    this.knownContentTypes = contentTypes;
    this.backoff = new OutageBackoff(timings.backoff, this.random, this.now);
  }

  get phase(): ServerPhase {
    return this.currentPhase;
  }

  /**
   * @param changed called when askAt() may tell another time
   * @param newHistory called when another kind has found another history
   * @param urgent traffic goes wrong without this kind
   */
  join(changed: () => void, newHistory: () => void, urgent: boolean): Member {
    const wakeWithinMs = urgent ? this.timings.wakeUrgentMs : this.timings.wakeWithinMs;
    const member: Member = {
      observed: (what) => {
        this.observed(member, what, wakeWithinMs);
      },
      askAt: (due, notBefore) => Math.max(notBefore, this.askAt(member, due)),
      heard: () => {
        this.heard.set(member, this.now());
        this.probing = false;
      },
      isHung: (sentAt) => this.isHung(member, sentAt),
      historyChanged: () => {
        this.newHistory(member);
      },
      identified: (uid) => {
        this.identified(member, uid);
      },
    };
    this.listeners.set(member, { changed, newHistory });
    return member;
  }

  private observed(
    member: Member,
    what: Exclude<Observation, 'errors of several kinds'>,
    wakeWithinMs: number,
  ): void {
    this.line.delete(member);
    const others = [...this.line.values()];
    if (what !== 'served') {
      this.line.set(member, { wakeWithinMs, error: what === 'error', wakeAt: Infinity });
    }
    const observation =
      what === 'error' && others.some(({ error }) => error) ? 'errors of several kinds' : what;
    // What comes next may be another server.
    if (what === 'cut' || what === 'no answer') this.jsonOnly = false;
    const before = this.currentPhase;
    this.currentPhase = serverTransitions[before][observation];
    if (what === 'served') {
      this.backoff.succeeded();
      this.starting = false;
      this.nextTurnAt = -Infinity;
      for (const waiting of others) {
        waiting.error = false;
        waiting.wakeAt = Math.min(waiting.wakeAt, this.now() + waiting.wakeWithinMs * this.random());
      }
      if (others.length > 0) this.tell(member);
      return;
    }
    if (!takesTurns.has(this.currentPhase)) return;
    // Once in an outage: it may be there only now and then.
    if (before === 'unreachable' && this.currentPhase === 'failing' && !this.starting) {
      this.starting = true;
      this.backoff.succeeded();
    }
    // Those that failed with the same attempt do not move the next one.
    if (this.now() >= this.nextTurnAt) this.nextTurnAt = this.now() + this.backoff.next();
    this.tell(member);
  }

  private isHung(member: Member, sentAt: number): boolean {
    if (this.now() - sentAt < this.timings.patienceMs) return false;
    for (const [other, at] of this.heard) if (other !== member && at > sentAt) return true;
    if (this.probing) return false;
    this.probing = true;
    return true;
  }

  private askAt(member: Member, due: number): number {
    const waiting = this.line.get(member);
    if (waiting === undefined) return due;
    if (!takesTurns.has(this.currentPhase)) return Math.min(due, waiting.wakeAt);
    const place = [...this.line.keys()].indexOf(member);
    return this.nextTurnAt + place * this.timings.turnMs;
  }

  private tell(by: Member): void {
    for (const [member, { changed }] of this.listeners) if (member !== by) changed();
  }

  // ---------------------------------------------------------------- history

  private identified(member: Member, uid: string): void {
    if (uid === '' || uid === this.identity) return;
    const first = this.identity === '';
    this.identity = uid;
    if (!first) this.newHistory(member);
  }

  private newHistory(by: Member): void {
    const now = this.now();
    if (now >= this.heldBackUntil) {
      this.historyChangedAt = now;
      this.holdBackMs = this.timings.holdBackMs * (1 + this.random());
    }
    for (const [member, { newHistory }] of this.listeners) if (member !== by) newHistory();
  }

  /** Until then, by now(), a list that takes most away is not believed. */
  get heldBackUntil(): number {
    return this.historyChangedAt + this.holdBackMs;
  }

  // ---------------------------------------------------------------- abilities

  get hasStreamingLists(): boolean {
    return this.now() >= this.streamingRefusedUntil;
  }

  /** @returns whether that is news */
  streamingRefused(forMs: number): boolean {
    const news = this.hasStreamingLists;
    this.streamingRefusedUntil = Math.max(this.streamingRefusedUntil, this.now() + forMs);
    return news;
  }

  /** What to ask for, best first. */
  get contentTypes(): readonly ContentType[] {
    return this.jsonOnly ? ['json'] : this.knownContentTypes;
  }

  /** Known until the next connection, which may lead to another server. */
  protobufRefused(): void {
    this.jsonOnly = true;
  }

  connected(): void {
    this.jsonOnly = false;
  }

  // ---------------------------------------------------------------- reports

  /**
   * How to log a failure: with its message the first time, as a reminder now and then, otherwise as a detail.
   * @param cause the same for failures with the same cure
   */
  report(cause: string): 'first' | 'reminder' | 'detail' {
    const now = this.now();
    const at = this.reported.get(cause);
    if (at !== undefined && now - at < remindMs) return 'detail';
    if (this.reported.size > 100) this.reported.clear();
    this.reported.set(cause, now);
    return at === undefined ? 'first' : 'reminder';
  }

  /** Something works again: the next failure is news. */
  forgetReports(): void {
    this.reported.clear();
  }
}
