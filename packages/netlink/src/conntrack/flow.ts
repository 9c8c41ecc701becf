/**
 * Entries of connection tracking (linux/netfilter/nfnetlink_conntrack.h, enum ctattr_type):
 *
 *     TUPLE_ORIG(1) nested, as the first packet had it; TUPLE_REPLY(2) nested, as answers have it
 *         IP(1) nested: V4_SRC(1) | V4_DST(2) | V6_SRC(3) | V6_DST(4) bytes
 *         PROTO(2) nested: NUM(1) u8 | SRC_PORT(2) be16 | DST_PORT(3) be16
 *         ZONE(3) be16: zone of this direction only
 *     STATUS(3) be32, enum ip_conntrack_status | PROTOINFO(4) nested: TCP(1) nested: STATE(1) u8
 *     ID(12) be32 | ZONE(18) be16
 */
import {
  type AttributeDecoder,
  type AttributeNames,
  type AttributeWriter,
  NLA_F_NESTED,
} from '../attribute.js';

export const CTA = {
  TUPLE_ORIG: 1,
  TUPLE_REPLY: 2,
  STATUS: 3,
  PROTOINFO: 4,
  ID: 12,
  ZONE: 18,
  FILTER: 25,
  STATUS_MASK: 26,
} as const;
export const CTA_TUPLE = { IP: 1, PROTO: 2 } as const;
export const CTA_IP = { V4_SRC: 1, V4_DST: 2, V6_SRC: 3, V6_DST: 4 } as const;
export const CTA_PROTO = { NUM: 1, SRC_PORT: 2, DST_PORT: 3 } as const;
const CTA_PROTOINFO_TCP = 1;
const CTA_PROTOINFO_TCP_STATE = 1;

/** Bits of `Flow.status` (linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_status). */
export const flowStatus = { seenReply: 1 << 1 } as const;

/** Values of `Flow.tcpState` (linux/netfilter/nf_conntrack_tcp.h, enum tcp_conntrack). */
export const tcpState = { synSent: 1, close: 8 } as const;

const TUPLE_NAMES: AttributeNames = { 1: 'ip', 2: 'proto', 3: 'zone' };
export const FLOW_NAMES: AttributeNames = {
  1: ['tuple_orig', TUPLE_NAMES],
  2: ['tuple_reply', TUPLE_NAMES],
  3: 'status',
  4: 'protoinfo',
  12: 'id',
  18: 'zone',
  25: 'filter',
  26: 'status_mask',
};

/** One direction. Addresses are 4 or 16 bytes, views into the datagram; ports are 0 where the protocol has none. */
export interface Tuple {
  readonly source: Buffer;
  readonly destination: Buffer;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

/** What names one entry for deletion; its own memory, so it can be kept. */
export interface FlowIdentity {
  /** nfgenmsg family. */
  readonly addressFamily: number;
  /** Contents of TUPLE_ORIG. */
  readonly originalTuple: Buffer;
  /** The kernel's number for the entry, so that a successor with the same addresses is spared. */
  readonly id: number | undefined;
  readonly zone: number;
}

/** One entry of connection tracking. Its buffers are views, good until the callback returns. */
export interface Flow {
  /** IANA number: 17 is UDP. */
  readonly protocol: number;
  readonly original: Tuple;
  readonly reply: Tuple;
  /** Bits: see flowStatus. */
  readonly status: number;
  /** TCP only: see tcpState. */
  readonly tcpState: number | undefined;
  readonly zone: number;
  /** Copies what deleteFlow() needs. */
  identity(): FlowIdentity;
}

const NOTHING: Buffer = Buffer.alloc(0);

function decodeTuple(d: AttributeDecoder): Tuple & { readonly protocol: number } {
  let [source, destination]: [Buffer, Buffer] = [NOTHING, NOTHING];
  let [protocol, sourcePort, destinationPort] = [0, 0, 0];
  while (d.next()) {
    if (d.type === CTA_TUPLE.IP) {
      const ip = d.nested();
      while (ip.next()) {
        if (ip.type === CTA_IP.V4_SRC || ip.type === CTA_IP.V6_SRC) source = ip.view();
        else if (ip.type === CTA_IP.V4_DST || ip.type === CTA_IP.V6_DST) destination = ip.view();
      }
    } else if (d.type === CTA_TUPLE.PROTO) {
      const proto = d.nested();
      while (proto.next()) {
        if (proto.type === CTA_PROTO.NUM) protocol = proto.u8();
        else if (proto.type === CTA_PROTO.SRC_PORT) sourcePort = proto.u16();
        else if (proto.type === CTA_PROTO.DST_PORT) destinationPort = proto.u16();
      }
    }
  }
  return { protocol, source, destination, sourcePort, destinationPort };
}

function decodeTcpState(d: AttributeDecoder): number | undefined {
  while (d.next()) {
    if (d.type !== CTA_PROTOINFO_TCP) continue;
    const tcp = d.nested();
    while (tcp.next()) if (tcp.type === CTA_PROTOINFO_TCP_STATE) return tcp.u8();
  }
  return undefined;
}

/** undefined: not a complete entry. */
export function decodeFlow(d: AttributeDecoder, addressFamily: number): Flow | undefined {
  let [original, reply]: (ReturnType<typeof decodeTuple> | undefined)[] = [];
  let originalTuple: Buffer = NOTHING;
  let [status, zone] = [0, 0];
  let id: number | undefined;
  let state: number | undefined;
  while (d.next()) {
    if (d.type === CTA.TUPLE_ORIG) {
      originalTuple = d.view();
      original = decodeTuple(d.nested());
    } else if (d.type === CTA.TUPLE_REPLY) reply = decodeTuple(d.nested());
    else if (d.type === CTA.STATUS) status = d.u32();
    else if (d.type === CTA.PROTOINFO) state = decodeTcpState(d.nested());
    else if (d.type === CTA.ID) id = d.u32();
    else if (d.type === CTA.ZONE) zone = d.u16();
  }
  if (d.failed || original === undefined || reply === undefined) return undefined;
  return {
    protocol: original.protocol,
    original,
    reply,
    status,
    tcpState: state,
    zone,
    identity: () => ({ addressFamily, originalTuple: Buffer.from(originalTuple), id, zone }),
  };
}

/** Names one entry. The tuple must be there: without it the kernel deletes them all. */
export function encodeIdentity(writer: AttributeWriter, flow: FlowIdentity): void {
  writer.data(CTA.TUPLE_ORIG | NLA_F_NESTED, flow.originalTuple);
  if (flow.zone !== 0) writer.u16(CTA.ZONE, flow.zone);
  if (flow.id !== undefined) writer.u32(CTA.ID, flow.id);
}
