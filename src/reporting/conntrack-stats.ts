/** How full the node's connection tracking table is, asked when metrics are. */
import { errorText, type Logger } from '../log/logger.js';
import type { ConntrackStats } from '../metrics/conntrack.js';
import { ConntrackConnection } from '@kube-proxy-ts/netlink/conntrack';

export class ConntrackStatsReader {
  private connection: ConntrackConnection | undefined;
  private complained = false;

  constructor(private readonly log: Logger) {}

  /** undefined: the kernel did not say; told once, until it does. */
  read(): ConntrackStats | undefined {
    try {
      this.connection ??= ConntrackConnection.open();
      const stats = { ...this.connection.stats(), ...this.connection.usage() };
      this.complained = false;
      return stats;
    } catch (error) {
      // Answers to what failed may still come.
      this.close();
      if (!this.complained)
        this.log.warn('Failed to read conntrack statistics, metrics missing', {
          why: errorText(error),
        });
      this.complained = true;
      return undefined;
    }
  }

  close(): void {
    this.connection?.close();
    this.connection = undefined;
  }
}
