import { Batch, NftablesConnection, subscribeNftables } from '@kube-proxy-ts/netlink/nftables';

const connection = NftablesConnection.open();
const subscription = subscribeNftables(
  {
    onNotification: (notification) => {
      if (notification.kind === 'generation') {
        // Each commit ends with one of these: what came before it belongs together.
        console.log('commit complete');
        void subscription.close();
        return;
      }
      const { action, kind, name, portId } = notification;
      console.log(
        `${action} ${kind} ${name}, ${portId === connection.portId ? 'by ourselves' : 'by another program'}`,
      );
    },
    onOverrun: () => {
      console.log('notifications were lost: list everything again');
    },
    onError: (error) => {
      console.error(error.message);
    },
  },
  { tables: ['watched'] },
);

const batch = new Batch('ip', 'watched');
batch.addTable();
batch.addChain('empty');
connection.commit(batch);
connection.close();
