/** What became of each thing that was looked for. */
import { errorText } from '../log/logger.js';
import { NetlinkError } from '@kube-proxy-ts/netlink';

export type Outcome =
  | { readonly kind: 'removed'; readonly what: string }
  | { readonly kind: 'absent'; readonly what: string }
  /** It is ours, but somebody else uses it. */
  | { readonly kind: 'kept'; readonly what: string; readonly why: string }
  /** It goes when connections that need it are over. */
  | { readonly kind: 'draining'; readonly what: string }
  /** This process may not even look: trying again changes nothing. */
  | { readonly kind: 'denied'; readonly what: string; readonly why: string; readonly capability: string }
  | { readonly kind: 'failed'; readonly what: string; readonly why: string; readonly error: unknown };

/** Connections through what is being removed, which are waited for. */
export interface Drain {
  /** Removes what has no connections any more. @returns what is left; undefined: nothing */
  step(report: Report): Promise<unknown>;
}

export class Report {
  readonly outcomes: Outcome[] = [];
  /** Connections that are waited for. */
  readonly drains: Drain[] = [];

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
    const capability = missingCapability(error);
    if (capability === undefined) this.outcomes.push({ kind: 'failed', what, why: errorText(error), error });
    else this.outcomes.push({ kind: 'denied', what, why: errorText(error), capability });
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

/** What a process that is not root lacks; undefined: that is not the trouble. */
function missingCapability(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code !== 'EACCES' && code !== 'EPERM') return undefined;
  if (error instanceof NetlinkError) return 'NET_ADMIN';
  // /proc/net/ip_tables_names is root's, for reading; the lock of iptables for writing.
  return syscall === 'open' ? 'DAC_OVERRIDE' : undefined;
}

/** '1 chain', '3 chains', '2 addresses' */
export function count(number: number, noun: string): string {
  const ending = noun.endsWith('s') ? 'es' : 's';
  return `${number} ${noun}${number === 1 ? '' : ending}`;
}
