/** A connection to connection tracking (ctnetlink) in this process's network namespace. */
import { constants } from 'node:os';
import { NetlinkConnection, type Request } from '../connection.js';
import type { AttributeWriter } from '../attribute.js';
import { invalid, NetlinkError } from '../errors.js';
import type { MessageReader } from '../message.js';
import {
  addressFamily,
  AF_UNSPEC,
  type Family,
  nfnetlinkType,
  NFGENMSG,
  NFNL_SUBSYS_CTNETLINK,
  writeNfgenmsg,
} from '../nfnetlink.js';
import { NETLINK_NETFILTER, NetlinkSocket, type Transport } from '../socket.js';
import { encodeFilter, type FlowFilter, matchesFilter } from './filter.js';
import { decodeFlow, encodeIdentity, type Flow, type FlowIdentity, FLOW_NAMES } from './flow.js';
import { decodeStats, decodeUsage, NO_STATS, type ConntrackStats, type ConntrackUsage } from './stats.js';

// enum cntl_msg_types
const IPCTNL_MSG_CT_NEW = nfnetlinkType(NFNL_SUBSYS_CTNETLINK, 0);
const IPCTNL_MSG_CT_GET = nfnetlinkType(NFNL_SUBSYS_CTNETLINK, 1);
const IPCTNL_MSG_CT_DELETE = nfnetlinkType(NFNL_SUBSYS_CTNETLINK, 2);
const IPCTNL_MSG_CT_GET_STATS_CPU = nfnetlinkType(NFNL_SUBSYS_CTNETLINK, 4);
const IPCTNL_MSG_CT_GET_STATS = nfnetlinkType(NFNL_SUBSYS_CTNETLINK, 5);

/** Of a dump of entries. */
export interface FlowListOptions {
  /**
   * Called when the kernel declares what was delivered so far inconsistent; delivery starts over. Without it such a
   * dump throws EINTR.
   */
  readonly onRestart?: () => void;
}

/** A connection to ctnetlink in this process's network namespace. */
export class ConntrackConnection {
  private readonly netlink: NetlinkConnection;
  /** The kernel refused a filter: it is sent none from then on, and everything is compared here. */
  private unfiltered = false;

  constructor(private readonly transport: Transport) {
    this.netlink = new NetlinkConnection(transport);
  }

  static open(): ConntrackConnection {
    return new ConntrackConnection(NetlinkSocket.open(NETLINK_NETFILTER));
  }

  /** Not while listFlowsAsync() is under way. */
  close(): void {
    this.transport.close();
  }

  /**
   * Streams the entries of one family that match; nothing is kept. `onFlow` gets views that are good until it
   * returns, and must not use this connection. Entries that come or go meanwhile may be missing.
   * @throws NetlinkError EINVAL when the kernel has no ctnetlink
   */
  listFlows(
    family: Family,
    filter: FlowFilter,
    onFlow: (flow: Flow) => void,
    options: FlowListOptions = {},
  ): void {
    const onMessage = flowReader(family, filter, onFlow);
    try {
      this.netlink.dump(this.listRequest(family, filter), onMessage, options.onRestart);
    } catch (error) {
      this.withoutFilter(error);
      this.netlink.dump(this.listRequest(family, filter), onMessage, options.onRestart);
    }
  }

  /**
   * Like listFlows(), for tables of a million entries: the kernel's part runs on libuv's thread pool, and the entries
   * come in turns of the event loop of up to 32 KiB, some 150 entries.
   * @param options.signal ends it early; then the connection can only be closed
   */
  async listFlowsAsync(
    family: Family,
    filter: FlowFilter,
    onFlow: (flow: Flow) => void,
    options: FlowListOptions & { readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    const onMessage = flowReader(family, filter, onFlow);
    try {
      await this.netlink.dumpAsync(this.listRequest(family, filter), onMessage, options);
    } catch (error) {
      this.withoutFilter(error);
      await this.netlink.dumpAsync(this.listRequest(family, filter), onMessage, options);
    }
  }

  /** @returns false when the entry was gone already */
  deleteFlow(flow: FlowIdentity): boolean {
    return this.deleteFlows([flow]) === 1;
  }

  /**
   * Deletes entries with one datagram, so keep the list short: some hundred.
   * @returns how many there still were
   * @throws NetlinkError for the first one that the kernel did not delete; the others are gone nevertheless
   */
  deleteFlows(flows: readonly FlowIdentity[]): number {
    let deleted = flows.length;
    let failure: NetlinkError | undefined;
    this.netlink.executeAll(
      flows.map((flow) => {
        if (flow.originalTuple.length === 0) {
          throw invalid(
            'delete connection',
            'the original tuple is missing: that would delete all connections',
          );
        }
        return request(IPCTNL_MSG_CT_DELETE, flow.addressFamily, 'delete connection', (writer) => {
          encodeIdentity(writer, flow);
        });
      }),
      (_, error) => {
        deleted--;
        if (error.code !== 'ENOENT') failure ??= error;
      },
    );
    if (failure !== undefined) throw failure;
    return deleted;
  }

  /** Costs microseconds. */
  usage(): ConntrackUsage {
    let fill: ConntrackUsage = { entries: 0, max: undefined };
    this.netlink.execute(
      request(IPCTNL_MSG_CT_GET_STATS, AF_UNSPEC, 'get connection tracking statistics', () => undefined),
      (message) => {
        if (message.type !== IPCTNL_MSG_CT_GET_STATS) return;
        const attributes = message.attributes(NFGENMSG);
        fill = decodeUsage(attributes);
        attributes.finish();
      },
    );
    return fill;
  }

  /** Sums over all processors. Costs microseconds. */
  stats(): ConntrackStats {
    let sum = NO_STATS;
    this.netlink.dump(
      request(IPCTNL_MSG_CT_GET_STATS_CPU, AF_UNSPEC, 'list connection tracking statistics', () => undefined),
      (message) => {
        if (message.type !== IPCTNL_MSG_CT_GET_STATS_CPU) return;
        const attributes = message.attributes(NFGENMSG);
        sum = decodeStats(attributes, sum);
        attributes.finish();
      },
      () => {
        sum = NO_STATS;
      },
    );
    return sum;
  }

  private listRequest(family: Family, filter: FlowFilter): Request {
    const operation = `list ${family} connections of protocol ${filter.protocol}`;
    return request(IPCTNL_MSG_CT_GET, addressFamily(family), operation, (writer) => {
      if (!this.unfiltered) encodeFilter(writer, filter);
    });
  }

  /** @throws the error itself when doing without the filter can't help */
  private withoutFilter(error: unknown): void {
    const refused =
      error instanceof NetlinkError &&
      (error.errno === constants.errno.EINVAL || error.errno === constants.errno.EOPNOTSUPP);
    if (!refused || this.unfiltered) throw error;
    this.unfiltered = true;
  }
}

function flowReader(
  family: Family,
  filter: FlowFilter,
  onFlow: (flow: Flow) => void,
): (message: MessageReader) => void {
  const number = addressFamily(family);
  return (message) => {
    if (message.type !== IPCTNL_MSG_CT_NEW) return;
    const attributes = message.attributes(NFGENMSG);
    const flow = decodeFlow(attributes, number);
    attributes.finish();
    if (flow !== undefined && matchesFilter(flow, filter)) onFlow(flow);
  };
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
