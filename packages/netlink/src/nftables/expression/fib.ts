/**
 * fib (linux/netfilter/nf_tables.h, enum nft_fib_attributes): looks the packet up in the routing table.
 *
 *     DREG(1) be32 | RESULT(2) be32, enum nft_fib_result | FLAGS(3) be32, enum nft_fib_flags
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { Enumeration, Flags } from '../enumeration.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

export type FibResult = 'oif' | 'oifname' | 'type';
export type FibFlag = 'saddr' | 'daddr' | 'mark' | 'iif' | 'oif' | 'present';

const RESULTS = new Enumeration<FibResult>({ oif: 1, oifname: 2, type: 3 });
const FLAGS = new Flags<FibFlag>({ saddr: 1, daddr: 2, mark: 4, iif: 8, oif: 16, present: 32 });

/** Address types that `result: 'type'` yields, host byte order (linux/rtnetlink.h, RTN_*). */
export const FIB_TYPE = {
  unicast: 1,
  local: 2,
  broadcast: 3,
  multicast: 5,
  blackhole: 6,
  unreachable: 7,
} as const;

export interface Fib {
  readonly kind: 'fib';
  readonly result: FibResult;
  /** What the lookup goes by. */
  readonly flags: readonly FibFlag[];
  readonly dreg: Register;
}

function encode(writer: AttributeWriter, e: Fib): void {
  encodeRegister(writer, 1, e.dreg);
  writer.u32(2, RESULTS.value(e.result)).u32(3, FLAGS.value(e.flags));
}

function decode(d: AttributeDecoder): Fib | undefined {
  let dreg: Register | undefined;
  let result: FibResult | undefined;
  let flags: FibFlag[] | undefined;
  while (d.next()) {
    if (d.type === 1) dreg = decodeRegister(d);
    else if (d.type === 2) result = RESULTS.name(d.u32());
    else if (d.type === 3) flags = FLAGS.names(d.u32());
  }
  if (dreg === undefined || result === undefined || flags === undefined) return undefined;
  return { kind: 'fib', result, flags, dreg };
}

function describe({ result, flags, dreg }: Fib): string {
  return `${flags.join(' . ')} ${result} => reg ${registerNumber(dreg)}`;
}

export const fib = {
  name: 'fib',
  kinds: ['fib'],
  encode,
  decode,
  describe,
  builders: {
    fib: (result: FibResult, flags: readonly FibFlag[], dreg: Register): Fib => ({
      kind: 'fib',
      result,
      flags,
      dreg,
    }),
  },
} satisfies ExpressionCodec<Fib>;
