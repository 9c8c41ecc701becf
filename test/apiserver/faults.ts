/**
 * What can go wrong with an answer of the double: armed beforehand, and used up by the next requests that fit. What goes
 * wrong with what is open already is in strikes.ts.
 */

/** Instead of the answer. */
export type AnswerFault =
  | {
      readonly kind: 'status';
      readonly status: number;
      readonly retryAfterSeconds?: number;
      readonly message?: string;
    }
  /** A page for people, from something in between that thinks it knows better. */
  | { readonly kind: 'web-page'; readonly contentType: string }
  /** The request is taken, and that was it. */
  | { readonly kind: 'no-answer' }
  | { readonly kind: 'hang-up' };

/** The bytes of the answer, list or watch; `after`: so many are right. */
export type BodyFault =
  /** The connection, or in HTTP/2 the stream, breaks. */
  | { readonly kind: 'reset'; readonly after: number }
  /** Nothing comes any more. */
  | { readonly kind: 'pause'; readonly after: number }
  /** The body ends in good order, though not complete. */
  | { readonly kind: 'short'; readonly after: number }
  /** Bytes that mean nothing, in place of the right ones. */
  | { readonly kind: 'garbage'; readonly after: number; readonly count: number }
  /** All of it comes, but slowly. */
  | { readonly kind: 'drip'; readonly bytes: number; readonly everyMs: number };

/** What a list says. */
export type ListFault =
  /** Status 200, and nothing in it. */
  | { readonly kind: 'empty-list' }
  /** It does not say of which version it is. */
  | { readonly kind: 'list-without-version' }
  /** Of other objects than those that were asked for. */
  | { readonly kind: 'other-kind' }
  /** An item has lost its name, and everything else. */
  | { readonly kind: 'nameless-item' }
  /** Status 410 for the next page. */
  | { readonly kind: 'expired-token' };

/** How a watch begins. */
export type WatchFault =
  /** An ERROR event with status 410. */
  | { readonly kind: 'expired-start' }
  /** It ends as soon as it is open. */
  | { readonly kind: 'ends-at-once' }
  /** The initial events never end: the bookmark does not come … */
  | { readonly kind: 'no-end-of-list' }
  /** … or comes without the annotation that makes it the end. */
  | { readonly kind: 'unmarked-end' }
  /** Everything is sent twice. */
  | { readonly kind: 'echo' };

export type Fault = AnswerFault | BodyFault | ListFault | WatchFault;

export interface Aim {
  /** How many requests; 1 when absent. */
  readonly count?: number;
  /** Only targets (path and query) that contain this. */
  readonly match?: string;
}

export interface AskedFor {
  /** Path and query. */
  readonly target: string;
  readonly what: 'list' | 'watch' | 'other';
}

const bodyKinds = ['reset', 'pause', 'short', 'garbage', 'drip'] as const;
const listKinds = [
  'empty-list',
  'list-without-version',
  'other-kind',
  'nameless-item',
  'expired-token',
] as const;
const watchKinds = ['expired-start', 'ends-at-once', 'no-end-of-list', 'unmarked-end', 'echo'] as const;

function isOneOf<K extends string>(kinds: readonly K[], fault: Fault): fault is Extract<Fault, { kind: K }> {
  return (kinds as readonly string[]).includes(fault.kind);
}

/** Whether only a plain list can have it. */
export function isListFault(fault: Fault | undefined): fault is ListFault {
  return fault !== undefined && isOneOf(listKinds, fault);
}

/** Whether only a streaming list can have it. */
export function isStreamFault(fault: Fault | undefined): boolean {
  return fault?.kind === 'no-end-of-list' || fault?.kind === 'unmarked-end';
}

export function isBodyFault(fault: Fault | undefined): fault is BodyFault {
  return fault !== undefined && isOneOf(bodyKinds, fault);
}

/** Whether a fault can happen to such a request. */
function fits(fault: Fault, { target, what }: AskedFor): boolean {
  if (fault.kind === 'expired-token') return what === 'list' && target.includes('continue=');
  if (isListFault(fault)) return what === 'list';
  if (isStreamFault(fault)) return what === 'watch' && target.includes('sendInitialEvents');
  if (isOneOf(watchKinds, fault)) return what === 'watch';
  if (isBodyFault(fault)) return what !== 'other';
  return true;
}

export class Faults {
  private armedFaults: { readonly fault: Fault; readonly match: string; left: number }[] = [];

  arm(fault: Fault, { count = 1, match = '' }: Aim = {}): void {
    this.armedFaults.push({ fault, match, left: count });
  }

  /** The fault for this request, if there is one; it counts. */
  take(request: AskedFor): Fault | undefined {
    const found = this.armedFaults.find(
      ({ fault, match }) => request.target.includes(match) && fits(fault, request),
    );
    if (found === undefined) return undefined;
    if (--found.left <= 0) this.armedFaults = this.armedFaults.filter((other) => other !== found);
    return found.fault;
  }

  /** Faults that still wait for a request. */
  get armed(): number {
    return this.armedFaults.length;
  }

  clear(): void {
    this.armedFaults = [];
  }
}
