/**
 * bitwise (linux/netfilter/nf_tables.h, enum nft_bitwise_attributes): dreg = (sreg & mask) ^ xor. Every and/or/xor with a constant is of this
 * form: `| c` is mask ~c, xor c.
 *
 *     SREG(1) be32 | DREG(2) be32 | LEN(3) be32: bytes | MASK(4) nested data | XOR(5) nested data
 *     OP(6) be32, enum nft_bitwise_ops: 0 is this one, others (shifts) are not decoded
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { decodeValue, describeValue, encodeData } from '../data.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

const NFT_BITWISE_MASK_XOR = 0;

export interface Bitwise {
  readonly kind: 'bitwise';
  readonly sreg: Register;
  readonly dreg: Register;
  /** Both of the same length. */
  readonly mask: Uint8Array;
  readonly xor: Uint8Array;
}

function encode(writer: AttributeWriter, e: Bitwise): void {
  encodeRegister(writer, 1, e.sreg);
  encodeRegister(writer, 2, e.dreg);
  writer.u32(3, e.mask.length).u32(6, NFT_BITWISE_MASK_XOR);
  encodeData(writer, 4, e.mask);
  encodeData(writer, 5, e.xor);
}

function decode(d: AttributeDecoder): Bitwise | undefined {
  let [sreg, dreg]: (Register | undefined)[] = [];
  let [mask, xor]: (Buffer | undefined)[] = [];
  let op = NFT_BITWISE_MASK_XOR;
  while (d.next()) {
    if (d.type === 1) sreg = decodeRegister(d);
    else if (d.type === 2) dreg = decodeRegister(d);
    else if (d.type === 4) mask = decodeValue(d);
    else if (d.type === 5) xor = decodeValue(d);
    else if (d.type === 6) op = d.u32();
  }
  if (op !== NFT_BITWISE_MASK_XOR) return undefined;
  if (sreg === undefined || dreg === undefined || mask === undefined || xor === undefined) return undefined;
  return { kind: 'bitwise', sreg, dreg, mask, xor };
}

function describe({ sreg, dreg, mask, xor }: Bitwise): string {
  return `reg ${registerNumber(dreg)} = ( reg ${registerNumber(sreg)} & ${describeValue(mask)} ) ^ ${describeValue(xor)}`;
}

export const bitwise = {
  name: 'bitwise',
  kinds: ['bitwise'],
  encode,
  decode,
  describe,
  builders: {
    /** dreg = (sreg & mask) ^ xor; both constants as long as the value, bytes. */
    bitwise: (sreg: Register, dreg: Register, mask: Uint8Array, xor: Uint8Array): Bitwise => ({
      kind: 'bitwise',
      sreg,
      dreg,
      mask,
      xor,
    }),
  },
} satisfies ExpressionCodec<Bitwise>;
