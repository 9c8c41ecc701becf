/**
 * nat (linux/netfilter/nf_tables.h, enum nft_nat_attributes): rewrites an address, a port, or both, of the whole connection.
 *
 *     TYPE(1) be32, enum nft_nat_types | FAMILY(2) be32 | REG_ADDR_MIN(3) be32 | REG_ADDR_MAX(4) be32
 *     REG_PROTO_MIN(5) be32 | REG_PROTO_MAX(6) be32 | FLAGS(7) be32, NF_NAT_RANGE_* (linux/netfilter/nf_nat.h)
 */
import type { AttributeDecoder, AttributeWriter } from '../../attribute.js';
import { addressFamily, AF_INET, AF_INET6, type Family } from '../../nfnetlink.js';
import { Enumeration, Flags } from '../enumeration.js';
import { decodeRegister, encodeRegister, type Register, registerNumber } from '../register.js';
import type { ExpressionCodec } from './codec.js';

export type NatFlag = 'random' | 'fully-random' | 'persistent' | 'netmap';

const TYPES = new Enumeration<'snat' | 'dnat'>({ snat: 0, dnat: 1 });
export const NAT_FLAGS = new Flags<NatFlag>({ random: 4, persistent: 8, 'fully-random': 16, netmap: 64 });

const NF_NAT_RANGE_MAP_IPS = 1;
const NF_NAT_RANGE_PROTO_SPECIFIED = 2;
/** The kernel adds them for the registers that are given. */
export const NAT_FLAGS_OF_REGISTERS = NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED;

export interface Nat {
  readonly kind: 'nat';
  readonly type: 'snat' | 'dnat';
  readonly family: Family;
  readonly address?: Register;
  /** Last address of a range; absent: there is one address. */
  readonly addressMax?: Register;
  readonly port?: Register;
  readonly portMax?: Register;
  readonly flags?: readonly NatFlag[];
}

export type NatOptions = Pick<Nat, 'address' | 'addressMax' | 'port' | 'portMax' | 'flags'>;

function encode(writer: AttributeWriter, e: Nat): void {
  writer.u32(1, TYPES.value(e.type)).u32(2, addressFamily(e.family));
  if (e.address !== undefined) encodeRegister(writer, 3, e.address);
  if (e.addressMax !== undefined) encodeRegister(writer, 4, e.addressMax);
  if (e.port !== undefined) encodeRegister(writer, 5, e.port);
  if (e.portMax !== undefined) encodeRegister(writer, 6, e.portMax);
  if (e.flags !== undefined && e.flags.length > 0) writer.u32(7, NAT_FLAGS.value(e.flags));
}

function decode(d: AttributeDecoder): Nat | undefined {
  let type: 'snat' | 'dnat' | undefined;
  let family = 0;
  let [address, addressMax, port, portMax]: (Register | undefined)[] = [];
  let flags: NatFlag[] | undefined = [];
  while (d.next()) {
    if (d.type === 1) type = TYPES.name(d.u32());
    else if (d.type === 2) family = d.u32();
    else if (d.type === 3) address = decodeRegister(d);
    else if (d.type === 4) addressMax = decodeRegister(d);
    else if (d.type === 5) port = decodeRegister(d);
    else if (d.type === 6) portMax = decodeRegister(d);
    else if (d.type === 7) flags = NAT_FLAGS.names(d.u32() & ~NAT_FLAGS_OF_REGISTERS);
  }
  if (type === undefined || flags === undefined || (family !== AF_INET && family !== AF_INET6))
    return undefined;
  return {
    kind: 'nat',
    type,
    family: family === AF_INET ? 'ip' : 'ip6',
    ...(address === undefined ? {} : { address }),
    ...(addressMax === undefined || addressMax === address ? {} : { addressMax }),
    ...(port === undefined ? {} : { port }),
    ...(portMax === undefined || portMax === port ? {} : { portMax }),
    ...(flags.length === 0 ? {} : { flags }),
  };
}

/** In the form of a dump, where the kernel has filled in what follows from the registers. */
function describe({ type, family, address, addressMax, port, portMax, flags = [] }: Nat): string {
  const words: string[] = [type, family];
  let bits = NAT_FLAGS.value(flags);
  if (address !== undefined) {
    words.push(
      `addr_min reg ${registerNumber(address)} addr_max reg ${registerNumber(addressMax ?? address)}`,
    );
    bits |= NF_NAT_RANGE_MAP_IPS;
  }
  if (port !== undefined) {
    words.push(`proto_min reg ${registerNumber(port)} proto_max reg ${registerNumber(portMax ?? port)}`);
    bits |= NF_NAT_RANGE_PROTO_SPECIFIED;
  }
  if (bits !== 0) words.push(`flags 0x${bits.toString(16)}`);
  return words.join(' ');
}

export const nat = {
  name: 'nat',
  kinds: ['nat'],
  encode,
  decode,
  describe,
  builders: {
    dnat: (family: Family, options: NatOptions): Nat => ({ kind: 'nat', type: 'dnat', family, ...options }),
    snat: (family: Family, options: NatOptions): Nat => ({ kind: 'nat', type: 'snat', family, ...options }),
  },
} satisfies ExpressionCodec<Nat>;
