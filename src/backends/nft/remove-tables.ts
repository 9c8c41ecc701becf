/** Removes a table of ours, of any size. */
import { type NftablesConnection, removeTable } from '@kube-proxy-ts/netlink/nftables';
import type { Report } from '../removal-report.js';

export async function removeNftablesTable(
  connection: NftablesConnection,
  table: string,
  report: Report,
  { reportAbsence = true }: { readonly reportAbsence?: boolean } = {},
): Promise<void> {
  for (const family of ['ip', 'ip6'] as const) {
    const what = `nftables table ${family} ${table}`;
    await report.attempt(what, async () => {
      if ((await removeTable(connection, family, table)) > 0) report.removed(what);
      else if (reportAbsence) report.absent(what);
    });
  }
}
