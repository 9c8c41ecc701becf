import { NetlinkError } from '@kube-proxy-ts/netlink';
import { Batch, expr, NftablesConnection, r0 } from '@kube-proxy-ts/netlink/nftables';

const connection = NftablesConnection.open();
const batch = new Batch('ip', 'example');
batch.addTable();
batch.addChain('input');
batch.addRule('input', [expr.meta('mark', r0), expr.lookup('no-such-set', r0)]);
try {
  connection.commit(batch);
} catch (error) {
  if (!(error instanceof NetlinkError)) throw error;
  console.log(`code       ${error.code}`);
  console.log(`operation  ${error.operation}`);
  console.log(`message    #${String(error.messageIndex)} of the batch, at ${String(error.attribute)}`);
}
connection.close();
