/** Which service addresses clients outside the cluster use, as mode ipvs, ours or upstream's, has left it in the kernel. */
import { IpsetConnection } from '@kube-proxy-ts/netlink/ipset';
import type { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { addressKey, readElements } from './tables.js';
import { sets } from '../table/names.js';
import { externalSets, setNameIPv6 } from './sets.js';

/** External and load balancer addresses, canonical text; addresses of the node that serve node ports may be among them. */
export function externalAddresses(connection: NftablesConnection): Set<string> {
  const addresses = new Set<string>();
  for (const family of ['ip', 'ip6'] as const) {
    for (const set of [sets.externalIPs, sets.localIPs])
      readElements(connection, family, set, (key) => {
        const server = addressKey(family, key);
        if ('address' in server) addresses.add(server.address);
      });
  }
  const ipset = IpsetConnection.openIfLoaded();
  if (ipset === undefined) return addresses;
  try {
    const names = new Set(ipset.listNames());
    for (const name of externalSets.flatMap((set) => [set, setNameIPv6(set)])) {
      if (!names.has(name)) continue;
      for (const { address } of ipset.listEntries(name)) if (address !== undefined) addresses.add(address);
    }
  } finally {
    ipset.close();
  }
  return addresses;
}
