/**
 * Notices what other programs do to virtual servers and to the addresses of kube-ipvs0. The kernel tells of addresses; of
 * IPVS it tells nothing, so that is looked at every few seconds. (Our tables have their own watch, nft/watch.ts.)
 */
import { performance } from 'node:perf_hooks';
import type { Logger } from '../../log/logger.js';
import type { IPFamily } from '../../model/types.js';
import { subscribeAddresses, type AddressHandlers } from '../../netlink/rtnetlink/index.js';
import { TableDamagedError } from '../dataplane.js';

/** How often IPVS is looked at, … */
const periodMs = 5_000;
/** … unless that takes more than this share of the time; then less often, but once a minute at least. */
const shareOfTime = 1 / 100;
/** Several addresses mostly go together. */
const addressDelayMs = 20;
/** Damage that is found so many times in a row is a fight, and damped: from then on the pause doubles, up to this. */
const fightAt = 3;
const maxPauseMs = 60_000;
/** With whom, IPVS does not say. */
const somebody = 'another program that uses IPVS';

/** What is watched: IpvsFamily is one. */
export interface CheckedFamily {
  readonly family: IPFamily;
  /** Whether it put this address on kube-ipvs0. @param ip canonical text */
  hasBound(ip: string): boolean;
  /** @throws TableDamagedError when the kernel does not hold what it should */
  check(): void;
}

interface Ending {
  close(): Promise<void>;
}

export interface IpvsWatchOptions {
  readonly families: readonly CheckedFamily[];
  /** Everything has to be compared. */
  readonly onForeignChange: (family: IPFamily) => void;
  /** Another program keeps doing this: so it will be put right after so many milliseconds only. */
  readonly onPutOff?: (by: string, delayMs: number) => void;
  readonly log: Logger;
  /** Tells of addresses; the kernel's when absent. */
  readonly subscribe?: (handlers: AddressHandlers) => Ending;
}

export class IpvsWatch {
  private readonly subscription: Ending;
  private timer: NodeJS.Timeout | undefined;
  private damagesInARow = 0;

  constructor(private readonly options: IpvsWatchOptions) {
    const { families, log, subscribe = subscribeAddresses } = options;
    this.subscription = subscribe({
      onAddress: (action, { address }) => {
        // Our own deletions are remembered before they are told.
        if (action === 'delete' && families.some((family) => family.hasBound(address))) this.checkSoon();
      },
      onOverrun: () => {
        this.checkSoon();
      },
      onError: (error) => {
        log.error(
          `Watching the addresses failed; changes by others are seen every ${periodMs / 1000} s`,
          error,
        );
      },
    });
    this.schedule(periodMs);
  }

  async close(): Promise<void> {
    clearTimeout(this.timer);
    await this.subscription.close();
  }

  private checkSoon(): void {
    if (this.damagesInARow < fightAt) this.schedule(addressDelayMs);
  }

  private schedule(ms: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.check();
    }, ms).unref();
  }

  private check(): void {
    const start = performance.now();
    const damaged = this.options.families.filter((family) => this.isDamaged(family));
    const tookMs = performance.now() - start;
    this.damagesInARow = damaged.length === 0 ? 0 : this.damagesInARow + 1;
    const pauseMs = Math.min(Math.max(periodMs, tookMs / shareOfTime), maxPauseMs);
    const fights = Math.max(0, this.damagesInARow - fightAt + 1);
    const dampedMs = Math.min(pauseMs * 2 ** fights, maxPauseMs);
    if (fights > 0) this.options.onPutOff?.(somebody, dampedMs);
    this.schedule(dampedMs);
  }

  private isDamaged(family: CheckedFamily): boolean {
    const { log, onForeignChange } = this.options;
    try {
      family.check();
      return false;
    } catch (error) {
      if (!(error instanceof TableDamagedError)) {
        log.error('Looking at IPVS failed', error, { family: family.family });
        return false;
      }
      log.warn('Another program changed what is ours in IPVS; it is compared and completed', {
        family: family.family,
        what: error.message,
      });
      onForeignChange(family.family);
      return true;
    }
  }
}
