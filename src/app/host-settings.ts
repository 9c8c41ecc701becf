/**
 * What the proxy sets on the machine beside the rules, and what about the machine its operator should know. All that
 * needs more privileges than NET_ADMIN is here, so that `--init-only` can do it for an unprivileged run to come.
 */
import type { Config } from '../config/config.js';
import type { Logger } from '../log/logger.js';
import { resolveNodePortAddresses } from '../model/addresses/nodeport-addresses.js';
import type { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { setOOMScore, tuneConntrack, type Tuning } from '../node/system/index.js';
import { modeNamed } from '../backends/modes.js';
import { allowRouteLocalnet } from '../node/route-localnet.js';

export class HostSettings {
  private tuning: Tuning | undefined;

  constructor(private readonly log: Logger) {}

  /** Guards this process; nothing else of the machine changes. */
  protect(config: Config): void {
    // Tries twice with a pause, which nothing waits for.
    void setOOMScore(config.oomScoreAdj, this.log);
  }

  /** Makes the settings, again after a change of the configuration. What can't be made is a warning. */
  prepare(config: Config): void {
    this.stop();
    this.tuning = tuneConntrack(config.conntrack, this.log.named('conntrack'));
    modeNamed(config.mode)?.prepare?.(config, this.log.named(config.mode));
  }

  /** For `--init-only`: also what is otherwise made once the node's addresses are known. */
  prepareAll(config: Config): void {
    this.protect(config);
    this.prepare(config);
    const { IPv4 } = resolveNodePortAddresses(config.nodePortAddresses, { IPv4: '127.0.0.1', IPv6: '::1' });
    const isWanted = config.localhostNodePorts ?? (config.localhostNodePortsByGate && IPv4.namesLoopback);
    if (isWanted && IPv4.containsLoopback) {
      const problem = allowRouteLocalnet();
      if (problem !== undefined) this.log.warn(`Node ports will not answer on 127.0.0.1: ${problem}`);
    }
  }

  stop(): void {
    this.tuning?.stop();
    this.tuning = undefined;
  }
}

/**
 * Base chains of other programs that drop what nobody accepts. Mode iptables accepts translated packets there on their
 * behalf, nftables can't: a packet has to pass every base chain.
 *
 * @returns their names, as nft prints them
 */
export function droppingChains(connection: NftablesConnection, hook: 'forward' | 'input'): readonly string[] {
  return (['ip', 'ip6', 'inet'] as const).flatMap((family) =>
    connection.listTables(family).flatMap(({ name: table }) =>
      connection
        .listChains(family, table)
        .filter(({ base }) => base?.hook === hook && base.policy === 'drop')
        .map(({ name }) => `${family} ${table} ${name}`),
    ),
  );
}
