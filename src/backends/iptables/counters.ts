/** The named counters of the kernel (nfacct) that rules of this mode add to. */
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { AccountingConnection } from '@kube-proxy-ts/netlink/accounting';

/** Makes the counters that are not there. @returns those that are there now: none without nfnetlink_acct */
export function ensureCounters(names: readonly string[]): ReadonlySet<string> {
  const there = new Set<string>();
  withConnection((connection) => {
    for (const name of names) {
      connection.ensure(name);
      there.add(name);
    }
  });
  return there;
}

/** Packets counted so far; undefined: there is no such counter. */
export function readCounter(name: string): number | undefined {
  let packets: bigint | undefined;
  withConnection((connection) => {
    packets = connection.get(name)?.packets;
  });
  return packets === undefined ? undefined : Number(packets);
}

/** What the kernel can't do is not done: the rules work without counters. */
function withConnection(work: (connection: AccountingConnection) => void): void {
  let connection: AccountingConnection | undefined;
  try {
    connection = AccountingConnection.open();
    work(connection);
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error;
  } finally {
    connection?.close();
  }
}
