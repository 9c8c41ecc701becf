/**
 * meta (linux/netfilter/nf_tables.h, enum nft_meta_attributes): what the kernel knows about a packet beside its bytes.
 *
 *     DREG(1) be32 | KEY(2) be32, enum nft_meta_keys | SREG(3) be32
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { Enumeration } from '../enumeration.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

const KEYS = {
  len: 0,
  protocol: 1,
  priority: 2,
  mark: 3,
  iif: 4,
  oif: 5,
  iifname: 6,
  oifname: 7,
  iiftype: 8,
  oiftype: 9,
  skuid: 10,
  skgid: 11,
  nftrace: 12,
  rtclassid: 13,
  secmark: 14,
  nfproto: 15,
  l4proto: 16,
  pkttype: 19,
  cpu: 20,
  iifgroup: 21,
  oifgroup: 22,
  cgroup: 23,
  random: 24,
} as const;

export type MetaKey = keyof typeof KEYS;

const META = new Enumeration<MetaKey>(KEYS);

export function metaKeyNumber(key: MetaKey): number {
  return META.value(key);
}

/** Numbers (mark, priority, iif, …) are in host byte order in the register; names fill 16 bytes. */
export interface MetaLoad {
  readonly kind: 'meta';
  readonly key: MetaKey;
  readonly dreg: Register;
}

export interface MetaStore {
  readonly kind: 'metaSet';
  readonly key: MetaKey;
  readonly sreg: Register;
}

function encode(writer: AttributeWriter, e: MetaLoad | MetaStore): void {
  writer.u32(2, META.value(e.key));
  if (e.kind === 'meta') encodeRegister(writer, 1, e.dreg);
  else encodeRegister(writer, 3, e.sreg);
}

function decode(d: AttributeDecoder): MetaLoad | MetaStore | undefined {
  let [dreg, sreg]: (Register | undefined)[] = [];
  let key: MetaKey | undefined;
  while (d.next()) {
    if (d.type === 1) dreg = decodeRegister(d);
    else if (d.type === 2) key = META.name(d.u32());
    else if (d.type === 3) sreg = decodeRegister(d);
  }
  if (key === undefined) return undefined;
  if (dreg !== undefined) return { kind: 'meta', key, dreg };
  return sreg === undefined ? undefined : { kind: 'metaSet', key, sreg };
}

function describe(e: MetaLoad | MetaStore): string {
  return e.kind === 'meta'
    ? `load ${e.key} => reg ${registerNumber(e.dreg)}`
    : `set ${e.key} with reg ${registerNumber(e.sreg)}`;
}

export const meta = {
  name: 'meta',
  kinds: ['meta', 'metaSet'],
  encode,
  decode,
  describe,
  builders: {
    meta: (key: MetaKey, dreg: Register): MetaLoad => ({ kind: 'meta', key, dreg }),
    metaSet: (key: MetaKey, sreg: Register): MetaStore => ({ kind: 'metaSet', key, sreg }),
  },
} satisfies ExpressionCodec<MetaLoad | MetaStore>;
