/**
 * masq (linux/netfilter/nf_tables.h, enum nft_masq_attributes): source NAT to the address of the interface the packet leaves by.
 *
 *     FLAGS(1) be32, NF_NAT_RANGE_* | REG_PROTO_MIN(2) be32 | REG_PROTO_MAX(3) be32
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import { NAT_FLAGS, NAT_FLAGS_OF_REGISTERS, type NatFlag } from './nat.js';
import type { ExpressionCodec } from './codec.js';

export interface Masquerade {
  readonly kind: 'masquerade';
  readonly flags?: readonly NatFlag[];
  /** First source port to use. */
  readonly port?: Register;
  /** Last source port; absent: there is one. */
  readonly portMax?: Register;
}

function encode(writer: AttributeWriter, e: Masquerade): void {
  if (e.flags !== undefined && e.flags.length > 0) writer.u32(1, NAT_FLAGS.value(e.flags));
  if (e.port !== undefined) encodeRegister(writer, 2, e.port);
  if (e.portMax !== undefined) encodeRegister(writer, 3, e.portMax);
}

function decode(d: AttributeDecoder): Masquerade | undefined {
  let flags: NatFlag[] | undefined = [];
  let [port, portMax]: (Register | undefined)[] = [];
  while (d.next()) {
    if (d.type === 1) flags = NAT_FLAGS.names(d.u32() & ~NAT_FLAGS_OF_REGISTERS);
    else if (d.type === 2) port = decodeRegister(d);
    else if (d.type === 3) portMax = decodeRegister(d);
  }
  if (flags === undefined) return undefined;
  return {
    kind: 'masquerade',
    ...(flags.length === 0 ? {} : { flags }),
    ...(port === undefined ? {} : { port }),
    ...(portMax === undefined || portMax === port ? {} : { portMax }),
  };
}

function describe({ flags, port, portMax }: Masquerade): string {
  const words: string[] = [];
  if (port !== undefined) words.push(`proto_min reg ${registerNumber(port)}`);
  if (port !== undefined) words.push(`proto_max reg ${registerNumber(portMax ?? port)}`);
  if (flags !== undefined && flags.length > 0) words.push(`flags 0x${NAT_FLAGS.value(flags).toString(16)}`);
  return words.join(' ');
}

export const masq = {
  name: 'masq',
  kinds: ['masquerade'],
  encode,
  decode,
  describe,
  builders: {
    masquerade: (
      options: {
        readonly flags?: readonly NatFlag[];
        readonly port?: Register;
        readonly portMax?: Register;
      } = {},
    ): Masquerade => ({ kind: 'masquerade', ...options }),
  },
} satisfies ExpressionCodec<Masquerade>;
