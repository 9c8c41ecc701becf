/**
 * Which entries a dump is to contain. The kernel still walks its whole table, but copies out only what matches: an
 * entry that is passed over costs it a tenth of a microsecond, one that is delivered and decoded some thirty times as much.
 *
 *     TUPLE_ORIG(1), TUPLE_REPLY(2): tuples as in flow.ts, with the fields to compare
 *     FILTER(25) nested, Linux 5.8: ORIG_FLAGS(1) u32 | REPLY_FLAGS(2) u32, host order: which fields those are
 *     STATUS(3) be32, STATUS_MASK(26) be32, Linux 5.15: bits of enum ip_conntrack_status
 *
 * The field bits are CTA_FILTER_F_… of net/netfilter/nf_internals.h. Kernels that don't know an attribute pass over it
 * and deliver too much: compare again what comes (matchesFilter). Two mistakes of theirs make them deliver too little, so
 * they are not sent those: before 5.16 they read the wrong fields of TUPLE_REPLY; and IPv6 addresses they compare the wrong
 * way round, 6.18 still does: whatever is NOT equal passes.
 */
import { release } from 'node:os';
import { IPV4_LENGTH } from '../address.js';
import type { AttributeWriter } from '../attribute.js';
import type { Family } from '../nfnetlink.js';
import { CTA, CTA_IP, CTA_PROTO, CTA_TUPLE, type Flow, flowStatus } from './flow.js';

const CTA_FILTER = { ORIG_FLAGS: 1, REPLY_FLAGS: 2 } as const;
const FIELD = {
  IP_SRC: 1 << 0,
  IP_DST: 1 << 1,
  PROTO_NUM: 1 << 3,
  SRC_PORT: 1 << 4,
  DST_PORT: 1 << 5,
} as const;

/** @param kernel as uname prints it: '6.1.0-28-amd64' */
export function kernelComparesReplies(kernel: string): boolean {
  const [major = 0, minor = 0] = kernel.split('.').map(Number);
  return major > 5 || (major === 5 && minor >= 16);
}

const comparesReplies = kernelComparesReplies(release());

/** Families whose addresses the kernel itself compares; for the others it delivers what fits otherwise. */
export const kernelFiltersAddresses: Readonly<Record<Family, boolean>> = { ip: true, ip6: false };

/** Which entries a dump is to bring: all conditions that are given must hold. */
export interface FlowFilter {
  /** IANA number: 17 is UDP. */
  readonly protocol: number;
  /** Where the first packet went; without an address: to that port anywhere. */
  readonly originalDestination?: { readonly address?: Buffer; readonly port: number };
  /** Who answers; without an address: from that port of anybody. */
  readonly replySource?: { readonly address?: Buffer; readonly port: number };
  /** Only entries that no answer was seen of. */
  readonly unanswered?: boolean;
}

/** One end of a tuple, as far as it is compared. */
interface End {
  readonly address?: Buffer | undefined;
  readonly port: number;
}

/** The attributes of one end, and the bits that make the kernel compare them. */
interface EndFields {
  readonly ip: number;
  readonly port: number;
  readonly ipBit: number;
  readonly portBit: number;
}
const SOURCE: EndFields = {
  ip: CTA_IP.V4_SRC,
  port: CTA_PROTO.SRC_PORT,
  ipBit: FIELD.IP_SRC,
  portBit: FIELD.SRC_PORT,
};
const DESTINATION: EndFields = {
  ip: CTA_IP.V4_DST,
  port: CTA_PROTO.DST_PORT,
  ipBit: FIELD.IP_DST,
  portBit: FIELD.DST_PORT,
};

/** @returns the fields to compare */
function encodeTuple(
  writer: AttributeWriter,
  type: number,
  protocol: number,
  end: End | undefined,
  fields: EndFields,
): number {
  let bits = FIELD.PROTO_NUM | (end === undefined ? 0 : fields.portBit);
  writer.nest(type, (tuple) => {
    const address = end?.address;
    if (address?.length === IPV4_LENGTH) {
      bits |= fields.ipBit;
      tuple.nest(CTA_TUPLE.IP, (ip) => {
        ip.data(fields.ip, address);
      });
    }
    tuple.nest(CTA_TUPLE.PROTO, (proto) => {
      proto.u8(CTA_PROTO.NUM, protocol);
      if (end !== undefined) proto.u16(fields.port, end.port);
    });
  });
  return bits;
}

export function encodeFilter(writer: AttributeWriter, filter: FlowFilter): void {
  const { protocol, originalDestination: to, replySource: from } = filter;
  const original = encodeTuple(writer, CTA.TUPLE_ORIG, protocol, to, DESTINATION);
  let reply = 0;
  if (from !== undefined && comparesReplies)
    reply = encodeTuple(writer, CTA.TUPLE_REPLY, protocol, from, SOURCE);
  writer.nest(CTA.FILTER, (flags) => {
    flags.hostU32(CTA_FILTER.ORIG_FLAGS, original).hostU32(CTA_FILTER.REPLY_FLAGS, reply);
  });
  if (filter.unanswered === true) {
    writer.u32(CTA.STATUS, 0).u32(CTA.STATUS_MASK, flowStatus.seenReply);
  }
}

/** Whether a filter that the kernel understood would have let the entry pass. */
export function matchesFilter(flow: Flow, filter: FlowFilter): boolean {
  const { originalDestination: to, replySource: from } = filter;
  return (
    flow.protocol === filter.protocol &&
    (to === undefined || flow.original.destinationPort === to.port) &&
    (to?.address === undefined || to.address.equals(flow.original.destination)) &&
    (from === undefined || flow.reply.sourcePort === from.port) &&
    (from?.address === undefined || from.address.equals(flow.reply.source)) &&
    (filter.unanswered !== true || (flow.status & flowStatus.seenReply) === 0)
  );
}
