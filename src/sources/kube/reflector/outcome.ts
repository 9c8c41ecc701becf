/**
 * What a reflector does after a request that did not end well: a table, one row per way to fail. What the same failure
 * says about the server is told to server.ts.
 */
import { GarbageError, type KubeError } from '../errors.js';
import { AnswerBroke, NewHistory, StatusError, Unanswered, Unconfirmed } from './request-errors.js';
import type { Observation } from './server.js';

export type Failure =
  | 'no answer'
  | 'unanswered'
  | 'answer broke off'
  | 'overloaded'
  | 'server error'
  | 'not authorized'
  | 'refused'
  | 'expired watch'
  | 'expired list'
  | 'version of the future'
  | 'unconfirmed'
  | 'new history';

export interface Reaction {
  /** resume: watch on from the version that is held. resume once: unless the try before failed, too. */
  readonly next: 'resume' | 'resume once' | 'list';
  /** What the list has to show: no less than the version that is held, or what is newest in the database. */
  readonly version: 'held' | 'newest';
  /** soon: within a quarter of the first pause, the first time in a row. */
  readonly wait: 'soon' | 'backoff';
  readonly shows: Exclude<Observation, 'errors of several kinds'>;
}

/** A test prints these rows, and holds docs/resilience.md to them. */
export const reactions: Readonly<Record<Failure, Reaction>> = {
  'no answer': { next: 'resume once', version: 'held', wait: 'backoff', shows: 'no answer' },
  // This request only, as far as is known.
  unanswered: { next: 'resume once', version: 'held', wait: 'soon', shows: 'cut' },
  'answer broke off': { next: 'resume once', version: 'held', wait: 'soon', shows: 'cut' },
  // A list would cost the server more than the watch that it refuses.
  overloaded: { next: 'resume', version: 'held', wait: 'backoff', shows: 'error' },
  'server error': { next: 'resume once', version: 'held', wait: 'backoff', shows: 'error' },
  // Perhaps another server than the one that the version is from.
  'not authorized': { next: 'list', version: 'held', wait: 'backoff', shows: 'error' },
  refused: { next: 'list', version: 'held', wait: 'backoff', shows: 'cut' },
  // The watch cache holds newer states; the database need not be asked.
  'expired watch': { next: 'list', version: 'held', wait: 'soon', shows: 'served' },
  'expired list': { next: 'list', version: 'newest', wait: 'soon', shows: 'served' },
  'version of the future': { next: 'list', version: 'newest', wait: 'soon', shows: 'served' },
  unconfirmed: { next: 'list', version: 'newest', wait: 'soon', shows: 'served' },
  'new history': { next: 'list', version: 'newest', wait: 'soon', shows: 'cut' },
};

export function failureOf(error: KubeError): Failure {
  if (error instanceof Unconfirmed) return 'unconfirmed';
  if (error instanceof NewHistory) return 'new history';
  if (error instanceof Unanswered) return 'unanswered';
  if (error instanceof AnswerBroke || error instanceof GarbageError) return 'answer broke off';
  // What answers is no API server, or not in its right mind.
  if (!(error instanceof StatusError)) return error.code === 'KUBE_API_STATUS' ? 'server error' : 'no answer';
  if (error.versionTooLarge) return 'version of the future';
  if (error.expired) return error.verb === 'list' ? 'expired list' : 'expired watch';
  const { code } = error.status;
  if (code === 429) return 'overloaded';
  if (code === 401 || code === 403) return 'not authorized';
  return code >= 500 ? 'server error' : 'refused';
}
