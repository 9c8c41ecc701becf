/**
 * Connection tracking entries made out of nothing (IPCTNL_MSG_CT_NEW), for tests: of protocols that this kernel has no
 * sockets for, in states that are hard to reach, or very many.
 */
import type { AttributeWriter } from '../attribute.js';
import { parseAddress } from '../address.js';
import { NetlinkConnection, type Request } from '../connection.js';
import { CTA, CTA_IP, CTA_PROTO, CTA_TUPLE } from './flow.js';
import { NLM_F_CREATE } from '../message.js';
import { AF_INET, AF_INET6, NFNL_SUBSYS_CTNETLINK, nfnetlinkType, writeNfgenmsg } from '../nfnetlink.js';
import { NETLINK_NETFILTER, NetlinkSocket } from '../socket.js';

const CTA_TIMEOUT = 7;
/** enum ctattr_protoinfo */
const CTA_PROTOINFO_TCP = 1;
const CTA_PROTOINFO_SCTP = 3;
/** enum ctattr_protoinfo_sctp; TCP's STATE has the same number. */
const CTA_PROTOINFO_STATE = 1;
const CTA_PROTOINFO_SCTP_VTAG_ORIGINAL = 2;
const CTA_PROTOINFO_SCTP_VTAG_REPLY = 3;
/** enum ip_conntrack_status */
const SEEN_REPLY = 1 << 1;
const ASSURED = 1 << 2;
/** In the table; to be said in any case. */
const CONFIRMED = 1 << 3;

/** An entry to be made; all that is not given is as for an ordinary, confirmed connection. */
export interface ConntrackEntry {
  /** IANA number. */
  readonly protocol: number;
  /** Canonical text. */
  readonly client: string;
  readonly clientPort: number;
  readonly destination: string;
  readonly destinationPort: number;
  /** Who answers. Absent: the destination itself, the entry is not translated. */
  readonly endpoint?: string;
  readonly endpointPort?: number;
  /** Of TCP (enum tcp_conntrack) or SCTP (enum sctp_conntrack). */
  readonly state?: number;
  readonly unanswered?: boolean;
  readonly zone?: number;
}

function encodeTuple(
  writer: AttributeWriter,
  type: number,
  protocol: number,
  [source, sourcePort]: readonly [string, number],
  [destination, destinationPort]: readonly [string, number],
): void {
  const [from, to] = [parseAddress(source), parseAddress(destination)];
  const v4 = from.length === 4;
  writer.nest(type, (tuple) => {
    tuple.nest(CTA_TUPLE.IP, (ip) => {
      ip.data(v4 ? CTA_IP.V4_SRC : CTA_IP.V6_SRC, from).data(v4 ? CTA_IP.V4_DST : CTA_IP.V6_DST, to);
    });
    tuple.nest(CTA_TUPLE.PROTO, (proto) => {
      proto
        .u8(CTA_PROTO.NUM, protocol)
        .u16(CTA_PROTO.SRC_PORT, sourcePort)
        .u16(CTA_PROTO.DST_PORT, destinationPort);
    });
  });
}

function request(entry: ConntrackEntry): Request {
  const { protocol, destination, destinationPort, endpoint, endpointPort, state, zone } = entry;
  const client = [entry.client, entry.clientPort] as const;
  const sctp = protocol === 132;
  return {
    type: nfnetlinkType(NFNL_SUBSYS_CTNETLINK, 0),
    flags: NLM_F_CREATE,
    operation: 'make a connection',
    encode: (writer) => {
      writeNfgenmsg(writer, destination.includes(':') ? AF_INET6 : AF_INET);
      encodeTuple(writer, CTA.TUPLE_ORIG, protocol, client, [destination, destinationPort]);
      const from = [endpoint ?? destination, endpointPort ?? destinationPort] as const;
      encodeTuple(writer, CTA.TUPLE_REPLY, protocol, from, client);
      const status = CONFIRMED | (entry.unanswered === true ? 0 : SEEN_REPLY | ASSURED);
      writer.u32(CTA.STATUS, status).u32(CTA_TIMEOUT, 600);
      if (zone !== undefined) writer.u16(CTA.ZONE, zone);
      if (state === undefined) return;
      writer.nest(CTA.PROTOINFO, (info) => {
        info.nest(sctp ? CTA_PROTOINFO_SCTP : CTA_PROTOINFO_TCP, (own) => {
          own.u8(CTA_PROTOINFO_STATE, state);
          if (sctp) own.u32(CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, 1).u32(CTA_PROTOINFO_SCTP_VTAG_REPLY, 2);
        });
      });
    },
  };
}

/** @throws NetlinkError when the kernel rejects one */
export function createConntrackEntries(entries: Iterable<ConntrackEntry>): void {
  const socket = NetlinkSocket.open(NETLINK_NETFILTER);
  const connection = new NetlinkConnection(socket);
  const send = (requests: readonly Request[]): void => {
    connection.executeAll(requests, (_, error) => {
      throw error;
    });
  };
  try {
    let requests: Request[] = [];
    for (const entry of entries) {
      if (requests.push(request(entry)) < 500) continue;
      send(requests);
      requests = [];
    }
    send(requests);
  } finally {
    socket.close();
  }
}
