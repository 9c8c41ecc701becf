/** The tables of modes nftables and ipvs. */
import { type NftablesConnection, removeTable } from '@kube-proxy-ts/netlink';
import type { Report } from './report.js';

export async function removeNftablesTable(
  connection: NftablesConnection,
  table: string,
  report: Report,
  { tellAbsence = true }: { readonly tellAbsence?: boolean } = {},
): Promise<void> {
  for (const family of ['ip', 'ip6'] as const) {
    const what = `nftables table ${family} ${table}`;
    await report.attempt(what, async () => {
      if ((await removeTable(connection, family, table)) > 0) report.removed(what);
      else if (tellAbsence) report.absent(what);
    });
  }
}
