/**
 * reject (linux/netfilter/nf_tables.h, enum nft_reject_attributes): drops the packet and answers its sender.
 *
 *     TYPE(1) be32, enum nft_reject_types | ICMP_CODE(2) u8
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { Enumeration } from '../enumeration.js';
import type { ExpressionCodec } from './codec.js';

export type RejectType = 'icmp' | 'tcpReset' | 'icmpx';

const TYPES = new Enumeration<RejectType>({ icmp: 0, tcpReset: 1, icmpx: 2 });

/** Codes for 'port unreachable': ICMP (linux/icmp.h), ICMPv6 (linux/icmpv6.h) and nftables' own for either. */
export const PORT_UNREACHABLE = { ip: 3, ip6: 4, icmpx: 1 } as const;

export interface Reject {
  readonly kind: 'reject';
  /** 'icmp': ICMP or ICMPv6, by the table's family. 'icmpx': nftables translates the code to the family. */
  readonly type: RejectType;
  /** 0 for a TCP reset. */
  readonly code: number;
}

function encode(writer: AttributeWriter, e: Reject): void {
  writer.u32(1, TYPES.value(e.type));
  if (e.type !== 'tcpReset') writer.u8(2, e.code);
}

function decode(d: AttributeDecoder): Reject | undefined {
  let type: RejectType | undefined;
  let code = 0;
  while (d.next()) {
    if (d.type === 1) type = TYPES.name(d.u32());
    else if (d.type === 2) code = d.u8();
  }
  return type === undefined ? undefined : { kind: 'reject', type, code };
}

function describe({ type, code }: Reject): string {
  return `type ${TYPES.value(type)} code ${code}`;
}

export const reject = {
  name: 'reject',
  kinds: ['reject'],
  encode,
  decode,
  describe,
  builders: {
    /** @param code of the ICMP message; see PORT_UNREACHABLE */
    reject: (type: RejectType, code = 0): Reject => ({ kind: 'reject', type, code }),
  },
} satisfies ExpressionCodec<Reject>;
