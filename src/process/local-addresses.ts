/** The node's own addresses, followed as they come and go: they decide where node ports answer. */
import { serviceInterface } from '../dataplane/ipvs/names.js';
import type { Logger } from '../log/logger.js';
import { familyOf } from '../model/addresses.js';
import type { IPFamily } from '../model/types.js';
import { RouteConnection, subscribeAddresses } from '../netlink/rtnetlink/index.js';

const refreshDelayMs = 20;

export class LocalAddresses {
  private addresses: readonly string[];
  private timer: NodeJS.Timeout | undefined;
  private subscription: ReturnType<typeof subscribeAddresses> | undefined;

  constructor(
    private readonly log: Logger,
    private readonly changed: () => void,
  ) {
    this.addresses = read();
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
    try {
      this.subscription = subscribeAddresses({
        onAddress: () => {
          this.refreshSoon();
        },
        onOverrun: () => {
          this.refreshSoon();
        },
        onError: (error) => {
          this.log.error(
            'Following the addresses of this node failed; changes are seen at the next restart',
            error,
          );
        },
      });
      // One may have come between the first look and the subscription.
      this.refresh();
    } catch (error) {
      this.log.error('Cannot follow the addresses of this node; changes are seen at the next restart', error);
    }
  }

  stop(): void {
    clearTimeout(this.timer);
    void this.subscription?.close();
  }

  /** Addresses often come many at a time, thousands in mode ipvs: they are looked at together. */
  private refreshSoon(): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      this.refresh();
    }, refreshDelayMs);
  }

  private refresh(): void {
    const now = read();
    if (now.join() === this.addresses.join()) return;
    this.addresses = now;
    this.changed();
  }
}

function read(): string[] {
  const connection = RouteConnection.open();
  try {
    return connection
      .listAddresses()
      .filter(({ interfaceName }) => interfaceName !== serviceInterface)
      .map(({ address }) => address);
  } finally {
    connection.close();
  }
}
