/** `--cleanup`: removes exactly what is ours from the kernel and says what it removed. */
import { NetlinkError } from '../netlink/index.js';
import { Batch } from '../netlink/nftables/index.js';
import { tableName } from '../dataplane/nftables/names.js';
import { explainNetlink, openNftables } from './preflight.js';

export function cleanup(): void {
  const connection = openNftables();
  try {
    for (const family of ['ip', 'ip6'] as const) {
      const table = `nftables table ${family} ${tableName}`;
      const batch = new Batch(family, tableName);
      batch.deleteTable();
      try {
        connection.commit(batch);
        process.stdout.write(`removed ${table}\n`);
      } catch (error) {
        if (!(error instanceof NetlinkError) || error.code !== 'ENOENT') throw explainNetlink(error);
        process.stdout.write(`nothing to remove: no ${table}\n`);
      }
    }
  } finally {
    connection.close();
  }
}
