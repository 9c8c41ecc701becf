import { RouteConnection, subscribeAddresses } from '@kube-proxy-ts/netlink/rtnetlink';

const connection = RouteConnection.open();
const link = connection.findLink('lo');
if (link === undefined) throw new Error('there is no loopback interface');

const subscription = subscribeAddresses({
  onAddress: (action, { address, prefixLength }) => {
    console.log(`${action} ${address}/${prefixLength}`);
    void subscription.close();
  },
  onOverrun: () => {
    console.log('notifications were lost: list the addresses again');
  },
  onError: (error) => {
    console.error(error.message);
  },
});

const address = { family: 'ip', address: '192.0.2.1', prefixLength: 32, interfaceIndex: link.index } as const;
for (const { error } of connection.changeAddresses([{ do: 'add', ...address }])) throw error;
for (const { interfaceName, scope } of connection
  .listAddresses('ip')
  .filter((a) => a.address === '192.0.2.1')) {
  console.log(`192.0.2.1 is on ${interfaceName}, scope ${scope}`);
}
connection.close();
