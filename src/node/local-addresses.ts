/** The node's own addresses, followed as they come and go: they decide where node ports answer. */
import { guarded } from '../callbacks/guarded.js';
import { errorText, type Logger } from '../log/logger.js';
import { familyOf } from '../model/addresses/addresses.js';
import type { IPFamily } from '../model/types.js';
import { RouteConnection, subscribeAddresses } from '@kube-proxy-ts/netlink/rtnetlink';

const refreshDelayMs = 20;
/** A look that failed is repeated after this, then after twice as long, … */
const firstRetryMs = 100;
const maxRetryMs = 30_000;

export class LocalAddresses {
  private addresses: readonly string[];
  private timer: NodeJS.Timeout | undefined;
  private again: NodeJS.Timeout | undefined;
  private failures = 0;
  private stopped = false;
  private subscription: ReturnType<typeof subscribeAddresses> | undefined;

  /** @param serviceInterface what holds addresses of Services, not of the node */
  constructor(
    private readonly serviceInterface: string,
    private readonly log: Logger,
    private readonly changed: () => void,
  ) {
    this.addresses = this.read();
  }

  /** Addresses of all interfaces, both families, canonical text; without those of Services, which mode ipvs gives to one. */
  current(): readonly string[] {
    return this.addresses;
  }

  /** Those of one family. */
  of(family: IPFamily): readonly string[] {
    return this.addresses.filter((ip) => familyOf(ip) === family);
  }

  start(): void {
    this.subscribe();
    // One may have come between the first look and the subscription.
    this.refresh();
  }

  /** Resolves when the descriptors are closed. Nothing is told any more. */
  async stop(): Promise<void> {
    this.stopped = true;
    clearTimeout(this.timer);
    clearTimeout(this.again);
    await this.subscription?.close();
  }

  private subscribe(): void {
    const failed = (error: unknown): void => {
      this.subscription = undefined;
      this.retry('Address watch failed, retrying', error, () => {
        this.start();
      });
    };
    try {
      this.subscription = subscribeAddresses({
        onAddress: () => {
          this.refreshSoon();
        },
        onOverrun: () => {
          this.refreshSoon();
        },
        onError: failed,
      });
    } catch (error) {
      failed(error);
    }
  }

  /** Addresses often come many at a time, thousands in mode ipvs: they are looked at together. */
  private refreshSoon(): void {
    if (this.stopped) return;
    this.timer ??= setTimeout(
      guarded('refresh node addresses', () => {
        this.timer = undefined;
        this.refresh();
      }),
      refreshDelayMs,
    );
  }

  private refresh(): void {
    let now: string[];
    try {
      now = this.read();
    } catch (error) {
      // Without descriptors, or while addresses come and go faster than they can be listed.
      this.retry('Failed to list node addresses, retrying', error, () => {
        this.refresh();
      });
      return;
    }
    if (this.failures > 0) this.log.info('Address watch restored');
    this.failures = 0;
    if (now.join() === this.addresses.join()) return;
    this.addresses = now;
    this.changed();
  }

  private retry(message: string, error: unknown, work: () => void): void {
    if (this.stopped) return;
    const ms = Math.min(firstRetryMs * 2 ** this.failures, maxRetryMs);
    const fields = { retryMs: ms };
    if (this.failures++ === 0) this.log.error(message, error, fields);
    else this.log.debug(2, message, { ...fields, why: errorText(error) });
    clearTimeout(this.again);
    this.again = setTimeout(guarded('refresh node addresses', work), ms);
  }

  private read(): string[] {
    const connection = RouteConnection.open();
    try {
      return connection
        .listAddresses()
        .filter(({ interfaceName }) => interfaceName !== this.serviceInterface)
        .map(({ address }) => address);
    } finally {
      connection.close();
    }
  }
}
