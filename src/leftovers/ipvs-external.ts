/** Which service addresses clients outside the cluster use, as mode ipvs, ours or upstream's, has left it in the kernel. */
import { IpsetConnection, type NftablesConnection } from '@kube-proxy-ts/netlink';
import { addressKey, readElements } from './ipvs-tables.js';
import { externalSets, ipvsExternalServices, setNameIPv6 } from './names.js';

/** External and load balancer addresses, canonical text; addresses of the node that serve node ports may be among them. */
export function externalAddresses(connection: NftablesConnection): Set<string> {
  const addresses = new Set<string>();
  for (const family of ['ip', 'ip6'] as const) {
    for (const set of ipvsExternalServices)
      readElements(connection, family, set, (key) => {
        const server = addressKey(family, key);
        if ('address' in server) addresses.add(server.address);
      });
  }
  const sets = IpsetConnection.openIfLoaded();
  if (sets === undefined) return addresses;
  try {
    const names = new Set(sets.listNames());
    for (const name of externalSets.flatMap((set) => [set, setNameIPv6(set)])) {
      if (!names.has(name)) continue;
      for (const { address } of sets.listEntries(name)) if (address !== undefined) addresses.add(address);
    }
  } finally {
    sets.close();
  }
  return addresses;
}
