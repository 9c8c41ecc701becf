/**
 * Addresses of interfaces (linux/if_addr.h, struct ifaddrmsg), in host byte order:
 * family u8 | prefix length u8 | flags u8 | scope u8 | interface index u32, then
 *
 *     IFA_ADDRESS(1)  bytes: the address; on a point-to-point link the other end's
 *     IFA_LOCAL(2)    bytes: the address itself; IPv6 has it only on point-to-point links
 *     IFA_LABEL(3)    string, IPv4 only
 *     IFA_FLAGS(8)    u32: all flags
 */
import { formatAddress, parseAddress } from '../address.js';
import type { AttributeWriter } from '../attribute.js';
import { readHostU32, writeHostU32 } from '../endian.js';
import { malformed } from '../errors.js';
import type { MessageReader } from '../message.js';
import { AF_INET, AF_INET6, addressFamily, type Family } from '../nfnetlink.js';

export const IFADDRMSG = 8;
export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
export const RTM_GETADDR = 22;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
/** IPv6: no duplicate address detection before it is used. */
const IFA_F_NODAD = 0x02;
const IFA_F_TENTATIVE = 0x40;
const IFA_F_DADFAILED = 0x08;
const IFA_F_DEPRECATED = 0x20;

/** Where an address is valid (linux/rtnetlink.h, enum rt_scope_t). */
export type AddressScope = 'global' | 'site' | 'link' | 'host' | 'other';

/** enum rt_scope_t */
const SCOPES: ReadonlyMap<number, AddressScope> = new Map([
  [0, 'global'],
  [200, 'site'],
  [253, 'link'],
  [254, 'host'],
]);

/** An address of an interface, as a dump or a notification brings it. */
export interface InterfaceAddress {
  readonly family: Family;
  /** Canonical text. */
  readonly address: string;
  readonly prefixLength: number;
  readonly interfaceIndex: number;
  readonly scope: AddressScope;
  /** IPv6: not yet, or not, confirmed to be unique, so not in use. */
  readonly tentative: boolean;
  readonly deprecated: boolean;
}

/** What names an address on an interface. */
export interface AddressKey {
  readonly family: Family;
  /** Canonical text. */
  readonly address: string;
  readonly prefixLength: number;
  readonly interfaceIndex: number;
}

/** An address without a peer, a label or a lifetime, as `ip addr add ADDRESS/LENGTH dev NAME nodad` makes it. */
export function encodeAddress(writer: AttributeWriter, key: AddressKey): void {
  const header = Buffer.alloc(IFADDRMSG);
  header[0] = addressFamily(key.family);
  header[1] = key.prefixLength;
  header[2] = key.family === 'ip6' ? IFA_F_NODAD : 0;
  writeHostU32(header, 4, key.interfaceIndex);
  const bytes = parseAddress(key.address);
  writer.raw(header).data(IFA_LOCAL, bytes).data(IFA_ADDRESS, bytes);
}

/**
 * undefined: an address of another family, or none.
 * @throws NetlinkError EBADMSG
 */
export function decodeAddress(message: MessageReader): InterfaceAddress | undefined {
  const { buffer, payload } = message;
  if (message.end - payload < IFADDRMSG) {
    throw malformed('decode address', message.start, 'message is shorter than its header');
  }
  const family = buffer.readUInt8(payload);
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  const attributes = message.attributes(IFADDRMSG);
  let [address, local]: (Buffer | undefined)[] = [];
  let flags = buffer.readUInt8(payload + 2);
  while (attributes.next()) {
    if (attributes.type === IFA_ADDRESS) address = attributes.view();
    else if (attributes.type === IFA_LOCAL) local = attributes.view();
    else if (attributes.type === IFA_FLAGS) flags = attributes.hostU32();
  }
  attributes.finish();
  const bytes = local ?? address;
  if (bytes?.length !== (family === AF_INET ? 4 : 16)) return undefined;
  return {
    family: family === AF_INET ? 'ip' : 'ip6',
    address: formatAddress(bytes),
    prefixLength: buffer.readUInt8(payload + 1),
    interfaceIndex: readHostU32(buffer, payload + 4),
    scope: SCOPES.get(buffer.readUInt8(payload + 3)) ?? 'other',
    tentative: (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) !== 0,
    deprecated: (flags & IFA_F_DEPRECATED) !== 0,
  };
}
