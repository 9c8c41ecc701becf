/** A table that its program changes over and over, as one that keeps a blocklist does. */
import { Batch, type NftablesConnection, selectors } from '@kube-proxy-ts/netlink/nftables';

export const busyTable = 'busy-neighbour';

/** Other elements, and a rule made anew, in one transaction. Makes the table when it is not there. */
export function changeBusyTable(connection: NftablesConnection, round: number, elements: number): void {
  const batch = new Batch('ip', busyTable);
  batch.addTable();
  batch.addSet({ name: 'blocked', key: [selectors.ipDaddr] });
  batch.addChain('rules');
  batch.flushSet('blocked');
  for (let i = 0; i < elements; i++)
    batch.addElement('blocked', Buffer.from([192, 0, (round + (i >> 8)) & 255, i & 255]));
  batch.flushChain('rules');
  batch.addRule('rules', []);
  connection.commit(batch);
}
