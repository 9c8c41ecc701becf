/**
 * Removes what other modes of kube-proxy, upstream's or ours, have left in the kernel: exactly that, and nothing of other
 * programs. Needs no other program. What a mode owns it says itself (backends/owned.ts).
 */
import { type Family, NetlinkError } from '@kube-proxy-ts/netlink';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import type { KeptRules, Mode } from '../backends/mode.js';
import { allModes } from '../backends/modes.js';
import type { XtableName } from '../backends/owned.js';
import { removeNftablesTable } from '../backends/nft/remove-tables.js';
import { Report } from '../backends/removal-report.js';
import { removeLegacyRules } from './legacy-rules.js';
import { removeNftRules } from './nft-rules.js';
import { removeSets } from './sets.js';

/** What there is to know of a mode here. */
export type OwningMode = Pick<Mode, 'name' | 'owned'>;

/**
 * Removes leftovers, once the running mode's own rules are in the kernel: there is no moment without rules then. Established
 * connections live on, because connection tracking remembers where they go. Those of mode ipvs are known to IPVS, which
 * keeps as much as they need until they are over; where no mode runs they end. Large tables are
 * removed in pieces, between which the event loop turns. Never rejects: what fails is in the report and stops nothing else.
 *
 * @param kept what runs and therefore stays; undefined: nothing does
 * @param modes all of them
 * @returns its `drains` are to be called now and then, until nothing is left
 */
export async function removeLeftovers(
  kept: KeptRules | undefined,
  modes: readonly OwningMode[] = allModes(),
): Promise<Report> {
  const report = new Report();
  const running = modes.find(({ name }) => name === kept?.mode);
  const others = modes.filter((mode) => mode !== running);
  const draining = new Set<OwningMode>();
  // Sets and tables tell which virtual servers are kube-proxy's, and rules hold the sets.
  for (const mode of others) {
    const drain = await mode.owned.end?.(report, kept !== undefined);
    if (drain === undefined) continue;
    draining.add(mode);
    report.drains.push(drain);
  }
  const isLeftover = (kind: 'nft' | 'legacy') => (family: Family, table: XtableName, chain: string) =>
    modes.some(({ owned }) => owned.ownsChain(table, chain)) &&
    !(
      kept?.iptablesKinds?.[family === 'ip' ? 'IPv4' : 'IPv6'] === kind &&
      running?.owned.ownsChain(table, chain) === true
    );
  await report.attempt('rules of nf_tables', async () => {
    const connection = openNftables();
    if (connection === undefined) {
      report.absent('nf_tables in this kernel');
      return;
    }
    try {
      for (const mode of others) {
        // It is the drain's, which removes it in the end.
        if (draining.has(mode)) continue;
        for (const { name, transient } of mode.owned.tables)
          await removeNftablesTable(connection, name, report, { reportAbsence: transient !== true });
      }
      await removeNftRules(connection, isLeftover('nft'), report);
    } finally {
      connection.close();
    }
  });
  await removeLegacyRules(isLeftover('legacy'), report);
  await removeSets(new Set(modes.flatMap(({ owned }) => [...owned.ipsets])), report);
  return report;
}

/** What a kernel without nf_tables answers. */
const noNftables = ['EPROTONOSUPPORT', 'EAFNOSUPPORT', 'EOPNOTSUPP', 'EINVAL'];

/** undefined: the kernel has none, so nothing can be in it. */
function openNftables(): NftablesConnection | undefined {
  let connection: NftablesConnection | undefined;
  try {
    connection = NftablesConnection.open();
    connection.listTables();
    return connection;
  } catch (error) {
    connection?.close();
    if (error instanceof NetlinkError && noNftables.includes(error.code)) return undefined;
    throw error;
  }
}
