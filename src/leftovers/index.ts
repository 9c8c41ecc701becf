/**
 * Removes what other modes of kube-proxy, upstream's or ours, have left in the kernel: exactly that, and nothing of other
 * programs. Needs no other program.
 */
import { NetlinkError, NftablesConnection } from '@kube-proxy-ts/netlink';
import { removeIpvs } from './ipvs.js';
import { IpvsDrain } from './ipvs-drain.js';
import { removeLegacyRules } from './legacy-rules.js';
import { removeNftRules } from './nft-rules.js';
import { ipvsTable, nftablesInterimTable, nftablesTable } from './names.js';
import { removeNftablesTable } from './nftables-tables.js';
import { Report } from './report.js';
import { removeSets } from './sets.js';

export { kubeProxyServers } from './ipvs.js';
export { readTableServers } from './ipvs-tables.js';
export { externalAddresses } from './ipvs-external.js';
export { ipvsInterface } from './names.js';
export type { IpvsDrain } from './ipvs-drain.js';
export { Report, type Outcome } from './report.js';

/** What runs and therefore stays; 'none' leaves nothing. */
export type Running =
  /** Mode ipvs is ours, which needs neither iptables nor ipset; what upstream's has there is left over. */
  | { readonly mode: 'none' | 'nftables' | 'ipvs' }
  /** `variant`: the kind of iptables whose tables it writes. */
  | { readonly mode: 'iptables'; readonly variant: 'nft' | 'legacy' };

/**
 * Removes leftovers, once the running mode's own rules are in the kernel: there is no moment without rules then. Established
 * connections live on, because connection tracking remembers where they go. Those of mode ipvs are known to IPVS, which
 * keeps as much as they need until they are over (ipvs-drain.ts); where no mode runs they end. Large tables are
 * removed in pieces, between which the event loop turns. Never rejects: what fails is in the report and stops nothing else.
 */
export async function removeLeftovers(running: Running): Promise<Report> {
  const report = new Report();
  const keeps = 'variant' in running ? running : undefined;
  // The sets tell about virtual servers, and rules hold the sets.
  if (running.mode !== 'ipvs') await endIpvs(running, report);
  await report.attempt('rules of nf_tables', async () => {
    const connection = openNftables();
    if (connection === undefined) {
      report.absent('nf_tables in this kernel');
      return;
    }
    try {
      if (running.mode !== 'nftables') {
        await removeNftablesTable(connection, nftablesTable, report);
        await removeNftablesTable(connection, nftablesInterimTable, report, { tellAbsence: false });
      }
      if (running.mode === 'none') await removeNftablesTable(connection, ipvsTable, report);
      await removeNftRules(connection, keeps?.variant === 'nft' ? keeps.mode : undefined, report);
    } finally {
      connection.close();
    }
  });
  await removeLegacyRules(keeps?.variant === 'legacy' ? keeps.mode : undefined, report);
  await removeSets(report);
  return report;
}

async function endIpvs(running: Running, report: Report): Promise<void> {
  if (running.mode === 'none' || !hasNftables()) {
    await removeIpvs(report);
    return;
  }
  const drain = new IpvsDrain(() => NftablesConnection.open());
  if ((await drain.step(report)) !== undefined) report.drain = drain;
}

function hasNftables(): boolean {
  const connection = openNftables();
  connection?.close();
  return connection !== undefined;
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
