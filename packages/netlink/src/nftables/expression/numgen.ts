/**
 * numgen (linux/netfilter/nf_tables.h, enum nft_ng_attributes): a number, random or counting, in host byte order.
 *
 *     DREG(1) be32 | MODULUS(2) be32 | TYPE(3) be32, enum nft_ng_types | OFFSET(4) be32
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { Enumeration } from '../enumeration.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

const MODES = new Enumeration<'inc' | 'random'>({ inc: 0, random: 1 });

export interface NumberGenerator {
  readonly kind: 'numgen';
  readonly mode: 'inc' | 'random';
  /** The result is offset + a number from 0 to modulus - 1. */
  readonly modulus: number;
  readonly offset: number;
  readonly dreg: Register;
}

function encode(writer: AttributeWriter, e: NumberGenerator): void {
  encodeRegister(writer, 1, e.dreg);
  writer.u32(2, e.modulus).u32(3, MODES.value(e.mode)).u32(4, e.offset);
}

function decode(d: AttributeDecoder): NumberGenerator | undefined {
  let dreg: Register | undefined;
  let mode: 'inc' | 'random' | undefined;
  let [modulus, offset] = [0, 0];
  while (d.next()) {
    if (d.type === 1) dreg = decodeRegister(d);
    else if (d.type === 2) modulus = d.u32();
    else if (d.type === 3) mode = MODES.name(d.u32());
    else if (d.type === 4) offset = d.u32();
  }
  return dreg === undefined || mode === undefined
    ? undefined
    : { kind: 'numgen', mode, modulus, offset, dreg };
}

function describe({ mode, modulus, offset, dreg }: NumberGenerator): string {
  const base = offset === 0 ? '' : ` offset ${offset}`;
  return `reg ${registerNumber(dreg)} = ${mode} mod ${modulus}${base}`;
}

export const numgen = {
  name: 'numgen',
  kinds: ['numgen'],
  encode,
  decode,
  describe,
  builders: {
    numgen: (mode: 'inc' | 'random', modulus: number, dreg: Register, offset = 0): NumberGenerator => ({
      kind: 'numgen',
      mode,
      modulus,
      offset,
      dreg,
    }),
  },
} satisfies ExpressionCodec<NumberGenerator>;
