/** What became of each thing that was looked for. */
import { errorText } from '../log/logger.js';
import type { IpvsDrain } from './ipvs-drain.js';

export type Outcome =
  | { readonly kind: 'removed'; readonly what: string }
  | { readonly kind: 'absent'; readonly what: string }
  /** It is ours, but somebody else uses it. */
  | { readonly kind: 'kept'; readonly what: string; readonly why: string }
  /** It goes when connections that need it are over. */
  | { readonly kind: 'draining'; readonly what: string }
  | { readonly kind: 'failed'; readonly what: string; readonly why: string; readonly error: unknown };

export class Report {
  readonly outcomes: Outcome[] = [];
  /** What mode ipvs left has connections: its step() is to be called now and then, until nothing is left. */
  drain: IpvsDrain | undefined;

  removed(what: string): void {
    this.outcomes.push({ kind: 'removed', what });
  }

  absent(what: string): void {
    this.outcomes.push({ kind: 'absent', what });
  }

  kept(what: string, why: string): void {
    this.outcomes.push({ kind: 'kept', what, why });
  }

  draining(what: string): void {
    this.outcomes.push({ kind: 'draining', what });
  }

  failed(what: string, error: unknown): void {
    this.outcomes.push({ kind: 'failed', what, why: errorText(error), error });
  }

  /** Does one part of the work; its failure does not stop the others. */
  async attempt(what: string, work: () => void | Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.failed(what, error);
    }
  }

  /** Nothing of ours is left. */
  get complete(): boolean {
    return this.outcomes.every(({ kind }) => kind === 'removed' || kind === 'absent');
  }
}

/** '1 chain', '3 chains', '2 addresses' */
export function count(number: number, noun: string): string {
  const ending = noun.endsWith('s') ? 'es' : 's';
  return `${number} ${noun}${number === 1 ? '' : ending}`;
}
