import { parseAddress } from '@kube-proxy-ts/netlink';
import {
  accept,
  Batch,
  expr,
  loadFields,
  NftablesConnection,
  r0,
  selectors,
} from '@kube-proxy-ts/netlink/nftables';

const connection = NftablesConnection.open();
const key = [selectors.ipSaddr, selectors.thDport];

const batch = new Batch('ip', 'example');
batch.addTable({ comment: 'who may talk to whom' });
batch.addSet({ name: 'allowed', key });
// Register contents: each field padded to 4 bytes, here the address and the port 443 in network byte order.
const element = Buffer.concat([parseAddress('10.0.0.1'), Buffer.from([443 >> 8, 443 & 0xff, 0, 0])]);
batch.addElement('allowed', element, undefined, { comment: 'the proxy' });
batch.addChain('input', { base: { type: 'filter', hook: 'input', priority: 0, policy: 'drop' } });
batch.addRule('input', [
  ...loadFields(key, r0),
  expr.lookup('allowed', r0),
  expr.counter(),
  expr.verdict(accept),
]);
connection.commit(batch); // all of it, or a NetlinkError and nothing

for (const { name } of connection.listSets('ip', 'example')) {
  connection.listElements('ip', 'example', name, (elementKey, _value, { comment }) => {
    console.log(`${name}: ${elementKey.toString('hex')} (${comment ?? 'no comment'})`);
  });
}
connection.close();
