import { IpsetConnection } from '@kube-proxy-ts/netlink/ipset';

const sets = IpsetConnection.open();
for (const name of sets.listNames()) {
  for (const { address, port } of sets.listEntries(name))
    console.log(`${name}: ${String(address)} port ${String(port)}`);
  console.log(`${name}: ${sets.destroy(name)}`);
}
sets.close();
