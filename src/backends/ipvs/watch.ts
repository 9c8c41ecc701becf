/**
 * Notices what other programs do to virtual servers and to the addresses of kube-ipvs0. The kernel tells of addresses; of
 * IPVS it tells nothing, so that is looked at every few seconds. (Our tables have their own watch, engine/table-watch.ts.)
 */
import { guarded } from '../../callbacks/guarded.js';
import type { Logger } from '../../log/logger.js';
import type { IPFamily } from '../../model/types.js';
import { subscribeAddresses, type AddressHandlers } from '@kube-proxy-ts/netlink/rtnetlink';
import { TableDamagedError } from '../backend.js';

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

/** The kernel tells of addresses, so these are looked at without a reason only so often (in looks). */
const addressesEvery = 12;

export interface CheckOptions {
  /** Look at the service interface, too. */
  readonly addresses: boolean;
  readonly signal?: AbortSignal;
}

/** What is watched: IpvsFamily is one. */
export interface CheckedFamily {
  readonly family: IPFamily;
  /** Whether it put this address on kube-ipvs0. @param ip canonical text */
  hasBound(ip: string): boolean;
  /**
   * Takes its time: no turn of the event loop is long.
   * @returns milliseconds in which nothing else was done
   * @throws TableDamagedError when the kernel does not hold what it should
   */
  check(options: CheckOptions): Promise<number>;
}

interface Ending {
  close(): Promise<void>;
}

export interface IpvsWatchOptions {
  readonly families: readonly CheckedFamily[];
  /** Everything has to be compared. */
  readonly onForeignChange: (family: IPFamily) => void;
  /** Another program keeps doing this: so it will be put right after so many milliseconds only. */
  readonly onBackoff?: (by: string, delayMs: number) => void;
  readonly log: Logger;
  /** Tells of addresses; the kernel's when absent. */
  readonly subscribe?: (handlers: AddressHandlers) => Ending;
}

export class IpvsWatch {
  private readonly subscription: Ending;
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> | undefined;
  private readonly stop = new AbortController();
  private damagesInARow = 0;
  private looks = 0;
  /** An address has gone, or notifications were lost. */
  private isAddressesDue = false;
  /** It happened while everything was looked at. */
  private isAgainDue = false;
  /** The kernel does not tell of addresses any longer. */
  private addressesUnreported = false;

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
        this.addressesUnreported = true;
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
    this.stop.abort();
    await this.running;
    await this.subscription.close();
  }

  private checkSoon(): void {
    this.isAddressesDue = true;
    if (this.damagesInARow >= fightAt) return;
    // What is looked at now may have been looked at before it happened.
    if (this.running === undefined) this.schedule(addressDelayMs);
    else this.isAgainDue = true;
  }

  private schedule(ms: number): void {
    clearTimeout(this.timer);
    if (this.stop.signal.aborted) return;
    this.timer = setTimeout(
      guarded('look at virtual servers', () => {
        this.running = this.check().finally(() => {
          this.running = undefined;
        });
        return this.running;
      }),
      ms,
    ).unref();
  }

  private async check(): Promise<void> {
    let busyMs = 0;
    const addresses = this.isAddressesDue || this.addressesUnreported || ++this.looks % addressesEvery === 0;
    this.isAddressesDue = this.isAgainDue = false;
    const damaged: CheckedFamily[] = [];
    for (const family of this.options.families) {
      const ms = await this.look(family, addresses);
      if (ms === undefined) damaged.push(family);
      else busyMs += ms;
    }
    this.damagesInARow = damaged.length === 0 ? 0 : this.damagesInARow + 1;
    const pauseMs = Math.min(Math.max(periodMs, busyMs / shareOfTime), maxPauseMs);
    const fights = Math.max(0, this.damagesInARow - fightAt + 1);
    const dampedMs = Math.min(pauseMs * 2 ** fights, maxPauseMs);
    if (fights > 0) this.options.onBackoff?.(somebody, dampedMs);
    this.schedule(this.nextMs(dampedMs));
  }

  private nextMs(dampedMs: number): number {
    return this.isAgainDue && this.damagesInARow < fightAt ? addressDelayMs : dampedMs;
  }

  /** @returns milliseconds in which nothing else was done; undefined: there is damage */
  private async look(family: CheckedFamily, addresses: boolean): Promise<number | undefined> {
    const { log, onForeignChange } = this.options;
    const { signal } = this.stop;
    try {
      return await family.check({ addresses, signal });
    } catch (error) {
      if (signal.aborted) return 0;
      if (!(error instanceof TableDamagedError)) {
        log.error('Failed to read IPVS state', error, { family: family.family });
        return 0;
      }
      log.warn('IPVS state modified by another program, repairing', {
        family: family.family,
        what: error.message,
      });
      onForeignChange(family.family);
      return undefined;
    }
  }
}
