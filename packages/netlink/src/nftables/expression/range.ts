/**
 * range (enum nft_range_attributes): is the register within [from, to]?
 *
 *     SREG(1) be32 | OP(2) be32, enum nft_range_ops | FROM_DATA(3) nested data | TO_DATA(4) nested data
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { decodeValue, encodeData } from '../data.js';
import { Enumeration } from '../enumeration.js';
import { decodeRegister, encodeRegister, type Register } from '../register.js';

const OPERATORS = new Enumeration<'eq' | 'neq'>({ eq: 0, neq: 1 });

export interface Range {
  readonly kind: 'range';
  readonly op: 'eq' | 'neq';
  readonly sreg: Register;
  /** Both inclusive, compared byte by byte (so: network byte order). */
  readonly from: Uint8Array;
  readonly to: Uint8Array;
}

export function encodeRange(writer: AttributeWriter, e: Range): void {
  encodeRegister(writer, 1, e.sreg);
  writer.u32(2, OPERATORS.value(e.op));
  encodeData(writer, 3, e.from);
  encodeData(writer, 4, e.to);
}

export function decodeRange(d: AttributeDecoder): Range | undefined {
  let sreg: Register | undefined;
  let op: 'eq' | 'neq' | undefined;
  let [from, to]: (Buffer | undefined)[] = [];
  while (d.next()) {
    if (d.type === 1) sreg = decodeRegister(d);
    else if (d.type === 2) op = OPERATORS.name(d.u32());
    else if (d.type === 3) from = decodeValue(d);
    else if (d.type === 4) to = decodeValue(d);
  }
  if (sreg === undefined || op === undefined || from === undefined || to === undefined) return undefined;
  return { kind: 'range', op, sreg, from, to };
}
