/** A connection to connection tracking (ctnetlink) in this process's network namespace. */
import { NetlinkConnection, type Request } from '../connection.js';
import type { AttributeWriter } from '../attribute.js';
import { invalid, NetlinkError } from '../errors.js';
import {
  addressFamily,
  type Family,
  nfnetlinkType,
  NFGENMSG,
  NFNL_SUBSYS_CTNETLINK,
  writeNfgenmsg,
} from '../nfnetlink.js';
import { NETLINK_NETFILTER, NetlinkSocket, type Transport } from '../socket.js';
import {
  decodeFlow,
  encodeIdentity,
  encodeProtocolFilter,
  type Flow,
  type FlowIdentity,
  FLOW_NAMES,
} from './flow.js';

// enum cntl_msg_types
const IPCTNL_MSG_CT_NEW = nfnetlinkType(NFNL_SUBSYS_CTNETLINK, 0);
const IPCTNL_MSG_CT_GET = nfnetlinkType(NFNL_SUBSYS_CTNETLINK, 1);
const IPCTNL_MSG_CT_DELETE = nfnetlinkType(NFNL_SUBSYS_CTNETLINK, 2);

export class ConntrackConnection {
  private readonly netlink: NetlinkConnection;

  constructor(private readonly transport: Transport) {
    this.netlink = new NetlinkConnection(transport);
  }

  static open(): ConntrackConnection {
    return new ConntrackConnection(NetlinkSocket.open(NETLINK_NETFILTER));
  }

  close(): void {
    this.transport.close();
  }

  /**
   * Streams the entries of one family and one protocol; nothing is kept. `onFlow` gets views that are good until it
   * returns, and must not use this connection. Entries that come or go meanwhile may be missing.
   * @param protocol IANA number: 17 is UDP
   * @param options.onRestart called when the kernel declares what was delivered so far inconsistent; delivery starts
   *   over. Without it such a dump throws EINTR.
   * @throws NetlinkError EINVAL when the kernel has no ctnetlink
   */
  listFlows(
    family: Family,
    protocol: number,
    onFlow: (flow: Flow) => void,
    options: { readonly onRestart?: () => void } = {},
  ): void {
    const number = addressFamily(family);
    this.netlink.dump(
      request(IPCTNL_MSG_CT_GET, number, `list ${family} connections of protocol ${protocol}`, (writer) => {
        encodeProtocolFilter(writer, protocol);
      }),
      (message) => {
        if (message.type !== IPCTNL_MSG_CT_NEW) return;
        const attributes = message.attributes(NFGENMSG);
        const flow = decodeFlow(attributes, number);
        attributes.finish();
        if (flow?.protocol === protocol) onFlow(flow);
      },
      options.onRestart,
    );
  }

  /** @returns false when the entry was gone already */
  deleteFlow(flow: FlowIdentity): boolean {
    if (flow.originalTuple.length === 0) {
      throw invalid('delete connection', 'the original tuple is missing: that would delete all connections');
    }
    try {
      this.netlink.execute(
        request(IPCTNL_MSG_CT_DELETE, flow.addressFamily, 'delete connection', (writer) => {
          encodeIdentity(writer, flow);
        }),
      );
      return true;
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ENOENT') return false;
      throw error;
    }
  }
}

function request(
  type: number,
  family: number,
  operation: string,
  encode: (writer: AttributeWriter) => void,
): Request {
  return {
    type,
    operation,
    encode: (writer) => {
      writeNfgenmsg(writer, family);
      encode(writer);
    },
    missing:
      'the kernel has no ctnetlink: load the module nf_conntrack_netlink, or use a kernel with CONFIG_NF_CT_NETLINK',
    names: { headerLength: NFGENMSG, attributes: FLOW_NAMES },
  };
}
