/** The tables of modes nftables and ipvs. */
import { Batch, NetlinkError, type NftablesConnection } from '../netlink/index.js';
import type { Report } from './report.js';

export async function removeNftablesTable(
  connection: NftablesConnection,
  table: string,
  report: Report,
  { tellAbsence = true }: { readonly tellAbsence?: boolean } = {},
): Promise<void> {
  for (const family of ['ip', 'ip6'] as const) {
    const what = `nftables table ${family} ${table}`;
    await report.attempt(what, () => {
      const batch = new Batch(family, table);
      batch.deleteTable();
      try {
        connection.commit(batch);
        report.removed(what);
      } catch (error) {
        if (!(error instanceof NetlinkError) || error.code !== 'ENOENT') throw error;
        if (tellAbsence) report.absent(what);
      }
    });
  }
}
