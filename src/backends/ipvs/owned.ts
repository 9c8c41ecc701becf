/** What mode ipvs keeps in the kernel: ours beside IPVS a table of nf_tables, upstream's rules of iptables and ipsets. */
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import type { Owned, XtableName } from '../owned.js';
import type { Drain } from '../removal-report.js';
import type { Report } from '../removal-report.js';
import { IpvsDrain } from './leftovers/drain.js';
import { ipsets } from './leftovers/sets.js';
import { removeIpvs } from './leftovers/virtual-servers.js';
import { tableName } from './table/names.js';

/** Of upstream's mode; some have the same names in mode iptables. */
const chains: Readonly<Record<XtableName, ReadonlySet<string>>> = {
  nat: new Set([
    'KUBE-SERVICES',
    'KUBE-POSTROUTING',
    'KUBE-MARK-MASQ',
    'KUBE-NODE-PORT',
    'KUBE-LOAD-BALANCER',
  ]),
  filter: new Set([
    'KUBE-FORWARD',
    'KUBE-PROXY-FIREWALL',
    'KUBE-NODE-PORT',
    'KUBE-SOURCE-RANGES-FIREWALL',
    'KUBE-IPVS-FILTER',
    'KUBE-IPVS-OUT-FILTER',
  ]),
  mangle: new Set(),
};

export const owned: Owned = {
  tables: [{ name: tableName }],
  ownsChain: (table, name) => chains[table].has(name),
  ipsets,
  end,
};

async function end(report: Report, replaced: boolean): Promise<Drain | undefined> {
  if (!replaced || !hasNftables()) {
    await removeIpvs(report);
    return undefined;
  }
  const drain = new IpvsDrain(() => NftablesConnection.open());
  return (await drain.step(report)) === undefined ? undefined : drain;
}

function hasNftables(): boolean {
  let connection: NftablesConnection | undefined;
  try {
    connection = NftablesConnection.open();
    connection.listTables();
    return true;
  } catch (error) {
    if (error instanceof NetlinkError) return false;
    throw error;
  } finally {
    connection?.close();
  }
}
