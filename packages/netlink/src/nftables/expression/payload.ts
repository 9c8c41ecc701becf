/**
 * payload (linux/netfilter/nf_tables.h, enum nft_payload_attributes): bytes of the packet into a register, or a register into the packet.
 *
 *     DREG(1) be32 | BASE(2) be32 | OFFSET(3) be32 | LEN(4) be32: bytes
 *     SREG(5) be32 | CSUM_TYPE(6) be32 | CSUM_OFFSET(7) be32 | CSUM_FLAGS(8) be32
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { Enumeration } from '../enumeration.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

export type PayloadBase = 'link' | 'network' | 'transport';

const BASES = new Enumeration<PayloadBase>({ link: 0, network: 1, transport: 2 });
const CHECKSUMS = new Enumeration<'none' | 'inet' | 'sctp'>({ none: 0, inet: 1, sctp: 2 });
/** CSUM_FLAGS: the transport checksum covers these bytes too (NFT_PAYLOAD_L4CSUM_PSEUDOHDR). */
const PSEUDO_HEADER = 1;

export interface PayloadLoad {
  readonly kind: 'payload';
  readonly base: PayloadBase;
  /** Bytes from the start of the header. */
  readonly offset: number;
  readonly length: number;
  readonly dreg: Register;
}

export interface PayloadStore {
  readonly kind: 'payloadSet';
  readonly base: PayloadBase;
  readonly offset: number;
  readonly length: number;
  readonly sreg: Register;
  /** The header's own checksum, to be kept right: its kind and offset from the start of the header. */
  readonly checksum?: { readonly type: 'inet' | 'sctp'; readonly offset: number };
  /** The bytes are part of the transport's pseudo header (addresses). */
  readonly pseudoHeader?: true;
}

function encode(writer: AttributeWriter, e: PayloadLoad | PayloadStore): void {
  if (e.kind === 'payload') encodeRegister(writer, 1, e.dreg);
  else encodeRegister(writer, 5, e.sreg);
  writer.u32(2, BASES.value(e.base)).u32(3, e.offset).u32(4, e.length);
  if (e.kind === 'payload') return;
  writer.u32(6, CHECKSUMS.value(e.checksum?.type ?? 'none')).u32(7, e.checksum?.offset ?? 0);
  if (e.pseudoHeader === true) writer.u32(8, PSEUDO_HEADER);
}

function decode(d: AttributeDecoder): PayloadLoad | PayloadStore | undefined {
  let [dreg, sreg]: (Register | undefined)[] = [];
  let [offset, length, checksumOffset, flags] = [0, 0, 0, 0];
  let base: PayloadBase | undefined;
  let checksum: 'none' | 'inet' | 'sctp' | undefined = 'none';
  while (d.next()) {
    if (d.type === 1) dreg = decodeRegister(d);
    else if (d.type === 2) base = BASES.name(d.u32());
    else if (d.type === 3) offset = d.u32();
    else if (d.type === 4) length = d.u32();
    else if (d.type === 5) sreg = decodeRegister(d);
    else if (d.type === 6) checksum = CHECKSUMS.name(d.u32());
    else if (d.type === 7) checksumOffset = d.u32();
    else if (d.type === 8) flags = d.u32();
  }
  if (base === undefined || checksum === undefined || (flags & ~PSEUDO_HEADER) !== 0) return undefined;
  if (dreg !== undefined) return { kind: 'payload', base, offset, length, dreg };
  if (sreg === undefined) return undefined;
  return {
    kind: 'payloadSet',
    base,
    offset,
    length,
    sreg,
    ...(checksum === 'none' ? {} : { checksum: { type: checksum, offset: checksumOffset } }),
    ...(flags === 0 ? {} : { pseudoHeader: true }),
  };
}

function describe(e: PayloadLoad | PayloadStore): string {
  const bytes = `${e.length}b @ ${e.base} header + ${e.offset}`;
  if (e.kind === 'payload') return `load ${bytes} => reg ${registerNumber(e.dreg)}`;
  const checksum = `csum_type ${CHECKSUMS.value(e.checksum?.type ?? 'none')} csum_off ${e.checksum?.offset ?? 0}`;
  const flags = `csum_flags 0x${(e.pseudoHeader === true ? PSEUDO_HEADER : 0).toString(16)}`;
  return `write reg ${registerNumber(e.sreg)} => ${bytes} ${checksum} ${flags}`;
}

export const payload = {
  name: 'payload',
  kinds: ['payload', 'payloadSet'],
  encode,
  decode,
  describe,
  builders: {
    /** @param offset from the start of the header, bytes @param length bytes */
    payload: (base: PayloadBase, offset: number, length: number, dreg: Register): PayloadLoad => ({
      kind: 'payload',
      base,
      offset,
      length,
      dreg,
    }),
    payloadSet: (
      base: PayloadBase,
      offset: number,
      length: number,
      sreg: Register,
      options: Pick<PayloadStore, 'checksum' | 'pseudoHeader'> = {},
    ): PayloadStore => ({ kind: 'payloadSet', base, offset, length, sreg, ...options }),
  },
} satisfies ExpressionCodec<PayloadLoad | PayloadStore>;
