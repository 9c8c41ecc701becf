/** The tables of mode nftables. */
import { Batch, NetlinkError, type NftablesConnection } from '../netlink/index.js';
import { nftablesTable } from './names.js';
import type { Report } from './report.js';

export async function removeNftablesTables(connection: NftablesConnection, report: Report): Promise<void> {
  for (const family of ['ip', 'ip6'] as const) {
    const what = `nftables table ${family} ${nftablesTable}`;
    await report.attempt(what, () => {
      const batch = new Batch(family, nftablesTable);
      batch.deleteTable();
      try {
        connection.commit(batch);
        report.removed(what);
      } catch (error) {
        if (!(error instanceof NetlinkError) || error.code !== 'ENOENT') throw error;
        report.absent(what);
      }
    });
  }
}
