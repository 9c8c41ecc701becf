/**
 * lookup (linux/netfilter/nf_tables.h, enum nft_lookup_attributes): finds a key in a set. In a map, its value goes to a register, or becomes
 * the rule's verdict.
 *
 *     SET(1) string | SREG(2) be32 | DREG(3) be32, 0 is the verdict | SET_ID(4) be32 | FLAGS(5) be32, 1: inverted
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import {
  decodeRegister,
  encodeRegister,
  NFT_REG_VERDICT,
  type Register,
  registerNumber,
} from '../register.js';
import type { ExpressionCodec } from './codec.js';

const NFT_LOOKUP_F_INV = 1;

export interface Lookup {
  readonly kind: 'lookup';
  readonly set: string;
  readonly sreg: Register;
  /** Absent: goes on with the rule only if the key is in the set. 'verdict': the map's value is a verdict and is obeyed. */
  readonly dreg?: Register | 'verdict';
  /** Goes on when the key is not in the set. */
  readonly inverted?: true;
}

function encode(writer: AttributeWriter, e: Lookup): void {
  writer.string(1, e.set);
  encodeRegister(writer, 2, e.sreg);
  if (e.dreg === 'verdict') writer.u32(3, NFT_REG_VERDICT);
  else if (e.dreg !== undefined) encodeRegister(writer, 3, e.dreg);
  if (e.inverted === true) writer.u32(5, NFT_LOOKUP_F_INV);
}

function decode(d: AttributeDecoder): Lookup | undefined {
  let set: string | undefined;
  let sreg: Register | undefined;
  let dreg: Register | 'verdict' | undefined;
  let flags = 0;
  while (d.next()) {
    if (d.type === 1) set = d.string();
    else if (d.type === 2) sreg = decodeRegister(d);
    else if (d.type === 3) dreg = d.u32() === NFT_REG_VERDICT ? 'verdict' : decodeRegister(d);
    else if (d.type === 5) flags = d.u32();
  }
  if (set === undefined || sreg === undefined || (flags & ~NFT_LOOKUP_F_INV) !== 0) return undefined;
  return {
    kind: 'lookup',
    set,
    sreg,
    ...(dreg === undefined ? {} : { dreg }),
    ...(flags === 0 ? {} : { inverted: true }),
  };
}

function describe({ set, sreg, dreg, inverted }: Lookup): string {
  const to = dreg === 'verdict' ? NFT_REG_VERDICT : dreg === undefined ? undefined : registerNumber(dreg);
  const result = to === undefined ? '' : ` dreg ${to}`;
  return `reg ${registerNumber(sreg)} set ${set}${result} 0x${inverted === true ? NFT_LOOKUP_F_INV : 0}`;
}

export const lookup = {
  name: 'lookup',
  kinds: ['lookup'],
  encode,
  decode,
  describe,
  builders: {
    /** `dreg` makes it a map lookup, 'verdict' a verdict map's. */
    lookup: (
      set: string,
      sreg: Register,
      options: { readonly dreg?: Register | 'verdict'; readonly inverted?: true } = {},
    ): Lookup => ({ kind: 'lookup', set, sreg, ...options }),
  },
} satisfies ExpressionCodec<Lookup>;
