/** The tables of mode nftables, of upstream's too: they have the same name. */
import type { Owned } from '../owned.js';
import { interimTableName, tableName } from './layout/names.js';

export const owned: Owned = {
  // A process that was killed while it replaced upstream's table may leave the interim one.
  tables: [{ name: tableName }, { name: interimTableName, transient: true }],
  ownsChain: () => false,
  ipsets: new Set(),
};
