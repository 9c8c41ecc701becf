/** A program that changes its own table over and over, as one that keeps a blocklist does. Arguments: changes a second, elements. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Batch, NftablesConnection, selectors } from '../../src/netlink/nftables/index.js';

const [perSecond = 10, elements = 20] = process.argv.slice(2).map(Number);
const table = 'busy-neighbour';
const connection = NftablesConnection.open();
const first = new Batch('ip', table);
first.addTable();
first.addSet({ name: 'blocked', key: [selectors.ipDaddr] });
first.addChain('rules');
connection.commit(first);
process.stdout.write('ready\n');

for (let round = 0; ; round++) {
  const change = new Batch('ip', table);
  change.flushSet('blocked');
  for (let i = 0; i < elements; i++)
    change.addElement('blocked', Buffer.from([192, 0, (round + (i >> 8)) & 255, i & 255]));
  change.flushChain('rules');
  change.addRule('rules', []);
  connection.commit(change);
  await sleep(1000 / perSecond);
}
