/**
 * Extended accounting (linux/netfilter/nfnetlink_acct.h): counters of packets and bytes that live by a name of their own
 * in the network namespace, and that rules of iptables (match nfacct) add to.
 *
 *     NAME(1) string, at most 31 bytes | PKTS(2) be64 | BYTES(3) be64
 */
import { NetlinkConnection, type Request } from '../connection.js';
import type { AttributeNames, AttributeWriter } from '../attribute.js';
import { NetlinkError } from '../errors.js';
import { NLM_F_CREATE } from '../message.js';
import { AF_UNSPEC, nfnetlinkType, NFGENMSG, NFNL_SUBSYS_ACCT, writeNfgenmsg } from '../nfnetlink.js';
import { NETLINK_NETFILTER, NetlinkSocket, type Transport } from '../socket.js';

// enum nfnl_acct_msg_types
const NFNL_MSG_ACCT_NEW = nfnetlinkType(NFNL_SUBSYS_ACCT, 0);
const NFNL_MSG_ACCT_GET = nfnetlinkType(NFNL_SUBSYS_ACCT, 1);

const NFACCT = { NAME: 1, PKTS: 2, BYTES: 3 } as const;
const NAMES: AttributeNames = { 1: 'name', 2: 'pkts', 3: 'bytes' };

/** What a counter has counted since it was made. */
export interface PacketCounter {
  readonly packets: bigint;
  readonly bytes: bigint;
}

/** A connection to nfacct's counters in this process's network namespace. */
export class AccountingConnection {
  private readonly netlink: NetlinkConnection;

  constructor(private readonly transport: Transport) {
    this.netlink = new NetlinkConnection(transport);
  }

  static open(): AccountingConnection {
    return new AccountingConnection(NetlinkSocket.open(NETLINK_NETFILTER));
  }

  close(): void {
    this.transport.close();
  }

  /**
   * Makes a counter that starts at zero; one that is there stays as it is.
   * @throws NetlinkError EINVAL when the kernel has no accounting
   */
  ensure(name: string): void {
    try {
      this.netlink.execute(request(NFNL_MSG_ACCT_NEW, `create counter "${name}"`, name, NLM_F_CREATE));
    } catch (error) {
      if (!(error instanceof NetlinkError && error.code === 'EBUSY')) throw error;
    }
  }

  /** undefined: there is no such counter. */
  get(name: string): PacketCounter | undefined {
    let counter: PacketCounter | undefined;
    try {
      this.netlink.execute(request(NFNL_MSG_ACCT_GET, `read counter "${name}"`, name), (message) => {
        const attributes = message.attributes(NFGENMSG);
        let [packets, bytes] = [0n, 0n];
        while (attributes.next()) {
          if (attributes.type === NFACCT.PKTS) packets = attributes.u64();
          if (attributes.type === NFACCT.BYTES) bytes = attributes.u64();
        }
        attributes.finish();
        counter = { packets, bytes };
      });
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ENOENT') return undefined;
      throw error;
    }
    return counter;
  }
}

function request(type: number, operation: string, name: string, flags = 0): Request {
  return {
    type,
    flags,
    operation,
    encode: (writer: AttributeWriter) => {
      writeNfgenmsg(writer, AF_UNSPEC);
      writer.string(NFACCT.NAME, name);
    },
    missing: 'the kernel has no accounting: load the module nfnetlink_acct',
    names: { headerLength: NFGENMSG, attributes: NAMES },
  };
}
