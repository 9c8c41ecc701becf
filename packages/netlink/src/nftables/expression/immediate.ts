/**
 * immediate (linux/netfilter/nf_tables.h, enum nft_immediate_attributes): a constant into a register, or a verdict.
 *
 *     DREG(1) be32, 0 is the verdict | DATA(2) nested data
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { decodeData, describeValue, encodeData, isVerdict, type Verdict } from '../data.js';
import {
  decodeRegister,
  encodeRegister,
  NFT_REG_VERDICT,
  type Register,
  registerNumber,
} from '../register.js';
import type { ExpressionCodec } from './codec.js';

export interface Immediate {
  readonly kind: 'immediate';
  readonly dreg: Register;
  readonly data: Uint8Array;
}

export interface VerdictExpression {
  readonly kind: 'verdict';
  readonly verdict: Verdict;
}

function encode(writer: AttributeWriter, e: Immediate | VerdictExpression): void {
  if (e.kind === 'verdict') writer.u32(1, NFT_REG_VERDICT);
  else encodeRegister(writer, 1, e.dreg);
  encodeData(writer, 2, e.kind === 'verdict' ? e.verdict : e.data);
}

function decode(d: AttributeDecoder): Immediate | VerdictExpression | undefined {
  let dreg: Register | undefined;
  let data: Buffer | Verdict | undefined;
  while (d.next()) {
    if (d.type === 1) dreg = d.u32() === NFT_REG_VERDICT ? undefined : decodeRegister(d);
    else if (d.type === 2) data = decodeData(d);
  }
  if (data === undefined) return undefined;
  if (isVerdict(data)) return { kind: 'verdict', verdict: data };
  return dreg === undefined ? undefined : { kind: 'immediate', dreg, data: Buffer.from(data) };
}

function describe(e: Immediate | VerdictExpression): string {
  if (e.kind === 'immediate') return `reg ${registerNumber(e.dreg)} ${describeValue(e.data)}`;
  const chain = 'chain' in e.verdict ? ` -> ${e.verdict.chain}` : '';
  return `reg ${NFT_REG_VERDICT} ${e.verdict.verdict}${chain}`;
}

export const immediate = {
  name: 'immediate',
  kinds: ['immediate', 'verdict'],
  encode,
  decode,
  describe,
  builders: {
    immediate: (dreg: Register, data: Uint8Array): Immediate => ({ kind: 'immediate', dreg, data }),
    verdict: (verdict: Verdict): VerdictExpression => ({ kind: 'verdict', verdict }),
  },
} satisfies ExpressionCodec<Immediate | VerdictExpression>;
