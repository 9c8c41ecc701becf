/**
 * ct (linux/netfilter/nf_tables.h, enum nft_ct_attributes): the packet's connection tracking entry.
 *
 *     DREG(1) be32 | KEY(2) be32, enum nft_ct_keys | DIRECTION(3) u8 | SREG(4) be32
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { Enumeration } from '../enumeration.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

export type CtKey =
  | 'state'
  | 'direction'
  | 'status'
  | 'mark'
  | 'expiration'
  | 'l3proto'
  | 'protocol'
  | 'protoSrc'
  | 'protoDst'
  | 'packets'
  | 'bytes'
  | 'zone'
  | 'ipSaddr'
  | 'ipDaddr'
  | 'ip6Saddr'
  | 'ip6Daddr'
  | 'id';

const KEYS = new Enumeration<CtKey>({
  state: 0,
  direction: 1,
  status: 2,
  mark: 3,
  expiration: 5,
  l3proto: 7,
  protocol: 10,
  protoSrc: 11,
  protoDst: 12,
  packets: 14,
  bytes: 15,
  zone: 17,
  ipSaddr: 19,
  ipDaddr: 20,
  ip6Saddr: 21,
  ip6Daddr: 22,
  id: 23,
});

/** What libnftnl calls a key, where it differs. */
const NFT_KEY_NAMES: Readonly<Partial<Record<CtKey, string>>> = {
  l3proto: 'l3protocol',
  protoSrc: 'proto_src',
  protoDst: 'proto_dst',
  ipSaddr: 'src_ip',
  ipDaddr: 'dst_ip',
  ip6Saddr: 'src_ip6',
  ip6Daddr: 'dst_ip6',
};

export type CtDirection = 'original' | 'reply';

const DIRECTIONS = new Enumeration<CtDirection>({ original: 0, reply: 1 });

/** Bits of `ct state` in the register, host byte order (NF_CT_STATE_BIT of enum ip_conntrack_info). */
export const CT_STATE = { invalid: 1, established: 2, related: 4, new: 8, untracked: 64 } as const;

/** Bits of `ct status`, host byte order (linux/netfilter/nf_conntrack_common.h, enum ip_conntrack_status). */
export const CT_STATUS = {
  expected: 0x1,
  seenReply: 0x2,
  assured: 0x4,
  confirmed: 0x8,
  snat: 0x10,
  dnat: 0x20,
  dying: 0x200,
} as const;

export interface CtLoad {
  readonly kind: 'ct';
  readonly key: CtKey;
  /** Addresses and ports need one; counters may have one. */
  readonly direction?: CtDirection;
  readonly dreg: Register;
}

export interface CtStore {
  readonly kind: 'ctSet';
  readonly key: CtKey;
  readonly sreg: Register;
}

function encode(writer: AttributeWriter, e: CtLoad | CtStore): void {
  writer.u32(2, KEYS.value(e.key));
  if (e.kind === 'ctSet') {
    encodeRegister(writer, 4, e.sreg);
    return;
  }
  encodeRegister(writer, 1, e.dreg);
  if (e.direction !== undefined) writer.u8(3, DIRECTIONS.value(e.direction));
}

function decode(d: AttributeDecoder): CtLoad | CtStore | undefined {
  let [dreg, sreg]: (Register | undefined)[] = [];
  let key: CtKey | undefined;
  let direction: CtDirection | undefined;
  while (d.next()) {
    if (d.type === 1) dreg = decodeRegister(d);
    else if (d.type === 2) key = KEYS.name(d.u32());
    else if (d.type === 3) direction = DIRECTIONS.name(d.u8());
    else if (d.type === 4) sreg = decodeRegister(d);
  }
  if (key === undefined) return undefined;
  if (sreg !== undefined) return { kind: 'ctSet', key, sreg };
  if (dreg === undefined) return undefined;
  return { kind: 'ct', key, dreg, ...(direction === undefined ? {} : { direction }) };
}

function describe(e: CtLoad | CtStore): string {
  const key = NFT_KEY_NAMES[e.key] ?? e.key;
  if (e.kind === 'ctSet') return `set ${key} with reg ${registerNumber(e.sreg)}`;
  const direction = e.direction === undefined ? '' : ` , dir ${e.direction}`;
  return `load ${key} => reg ${registerNumber(e.dreg)}${direction}`;
}

export const ct = {
  name: 'ct',
  kinds: ['ct', 'ctSet'],
  encode,
  decode,
  describe,
  builders: {
    ct: (key: CtKey, dreg: Register, direction?: CtDirection): CtLoad => ({
      kind: 'ct',
      key,
      dreg,
      ...(direction === undefined ? {} : { direction }),
    }),
    ctSet: (key: CtKey, sreg: Register): CtStore => ({ kind: 'ctSet', key, sreg }),
  },
} satisfies ExpressionCodec<CtLoad | CtStore>;
