/** A program that changes its own table all the time. Arguments: changes a second, elements. */
import { setTimeout as sleep } from 'node:timers/promises';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { changeBusyTable } from './busy-table.js';

const [perSecond = 10, elements = 20] = process.argv.slice(2).map(Number);

const connection = NftablesConnection.open();
for (let round = 0; ; round++) {
  changeBusyTable(connection, round, elements);
  if (round === 0) process.stdout.write('ready\n');
  await sleep(1000 / perSecond);
}
