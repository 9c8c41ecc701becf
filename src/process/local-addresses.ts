/** The node's own addresses, followed as they come and go: they decide where node ports answer. */
import type { Logger } from '../log/logger.js';
import { RouteConnection, subscribeAddresses } from '../netlink/rtnetlink/index.js';

export class LocalAddresses {
  private addresses: readonly string[];
  private subscription: ReturnType<typeof subscribeAddresses> | undefined;

  constructor(
    private readonly log: Logger,
    private readonly changed: () => void,
  ) {
    this.addresses = read();
  }

  /** Addresses of all interfaces, both families, canonical text. */
  current(): readonly string[] {
    return this.addresses;
  }

  start(): void {
    try {
      this.subscription = subscribeAddresses({
        onAddress: () => {
          this.refresh();
        },
        onOverrun: () => {
          this.refresh();
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
    void this.subscription?.close();
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
    return connection.listAddresses().map(({ address }) => address);
  } finally {
    connection.close();
  }
}
