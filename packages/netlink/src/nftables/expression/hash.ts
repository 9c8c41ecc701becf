/**
 * hash (linux/netfilter/nf_tables.h, enum nft_hash_attributes): a number computed from a register, in host byte order.
 *
 *     SREG(1) be32 | DREG(2) be32 | LEN(3) be32: bytes | MODULUS(4) be32 | SEED(5) be32 | OFFSET(6) be32
 *     TYPE(7) be32, enum nft_hash_types: 0 is Jenkins; the symmetric one is not decoded
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

const NFT_HASH_JENKINS = 0;

export interface JenkinsHash {
  readonly kind: 'jhash';
  readonly sreg: Register;
  readonly dreg: Register;
  readonly length: number;
  /** The result is offset + a number from 0 to modulus - 1. */
  readonly modulus: number;
  readonly offset: number;
  /** Absent: the kernel draws one, and does not tell. */
  readonly seed?: number;
}

function encode(writer: AttributeWriter, e: JenkinsHash): void {
  encodeRegister(writer, 1, e.sreg);
  encodeRegister(writer, 2, e.dreg);
  writer.u32(3, e.length).u32(4, e.modulus).u32(6, e.offset).u32(7, NFT_HASH_JENKINS);
  if (e.seed !== undefined) writer.u32(5, e.seed);
}

function decode(d: AttributeDecoder): JenkinsHash | undefined {
  let [sreg, dreg]: (Register | undefined)[] = [];
  let [length, modulus, offset, type] = [0, 0, 0, NFT_HASH_JENKINS];
  let seed: number | undefined;
  while (d.next()) {
    if (d.type === 1) sreg = decodeRegister(d);
    else if (d.type === 2) dreg = decodeRegister(d);
    else if (d.type === 3) length = d.u32();
    else if (d.type === 4) modulus = d.u32();
    else if (d.type === 5) seed = d.u32();
    else if (d.type === 6) offset = d.u32();
    else if (d.type === 7) type = d.u32();
  }
  if (type !== NFT_HASH_JENKINS || sreg === undefined || dreg === undefined) return undefined;
  return { kind: 'jhash', sreg, dreg, length, modulus, offset, ...(seed === undefined ? {} : { seed }) };
}

function describe({ sreg, dreg, length, modulus, offset, seed }: JenkinsHash): string {
  const base = offset === 0 ? '' : ` offset ${offset}`;
  return (
    `reg ${registerNumber(dreg)} = jhash(reg ${registerNumber(sreg)}, ${length}, 0x${(seed ?? 0).toString(16)}) ` +
    `% mod ${modulus}${base}`
  );
}

export const hash = {
  name: 'hash',
  kinds: ['jhash'],
  encode,
  decode,
  describe,
  builders: {
    /** @param length bytes of the value @param modulus results are offset … offset + modulus - 1 */
    jhash: (
      sreg: Register,
      length: number,
      modulus: number,
      dreg: Register,
      options: { readonly seed?: number; readonly offset?: number } = {},
    ): JenkinsHash => ({
      kind: 'jhash',
      sreg,
      dreg,
      length,
      modulus,
      offset: options.offset ?? 0,
      ...(options.seed === undefined ? {} : { seed: options.seed }),
    }),
  },
} satisfies ExpressionCodec<JenkinsHash>;
