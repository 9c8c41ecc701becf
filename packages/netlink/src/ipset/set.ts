/**
 * Sets of addresses and ports that iptables rules match against (linux/netfilter/ipset/ip_set.h). Numbers in network
 * order carry the flag NLA_F_NET_BYTEORDER, which the kernel looks for:
 *
 *     PROTOCOL(1) u8, first in every request | SETNAME(2) string | TYPENAME(3) string | FAMILY(5) u8 | FLAGS(6) be32
 *     ADT(8) nested list of
 *         DATA(7) nested: IP(1) nested: IPV4(1) | IPV6(2) bytes; PORT(4) be16; PROTO(7) u8; others by type of set
 */
import { formatAddress } from '../address.js';
import type { AttributeDecoder, AttributeNames, AttributeWriter } from '../attribute.js';

export const IPSET_CMD = { CREATE: 2, DESTROY: 3, LIST: 7 } as const;
/** Spoken by kernels since 2.6.39; 7 brings nothing that we use. */
const IPSET_PROTOCOL = 6;
const NLA_F_NET_BYTEORDER = 0x4000;

const ATTR = { PROTOCOL: 1, SETNAME: 2, TYPENAME: 3, FAMILY: 5, FLAGS: 6, DATA: 7, ADT: 8 } as const;
const DATA = { IP: 1, PORT: 4, PROTO: 7 } as const;

/** IPSET_FLAG_LIST_SETNAME: a list of names only. */
const LIST_NAMES_ONLY = 1 << 1;

export const SET_NAMES: AttributeNames = { 1: 'protocol', 2: 'setname', 3: 'typename', 6: 'flags' };

/** One entry, as far as sets of addresses and ports go. */
export interface SetEntry {
  /** Canonical text. */
  readonly address: string | undefined;
  /** IANA number. */
  readonly protocol: number | undefined;
  readonly port: number | undefined;
}

export function encodeSetRequest(writer: AttributeWriter, name?: string): void {
  writer.u8(ATTR.PROTOCOL, IPSET_PROTOCOL);
  if (name !== undefined) writer.string(ATTR.SETNAME, name);
}

export function encodeNamesOnly(writer: AttributeWriter): void {
  writer.u32(ATTR.FLAGS | NLA_F_NET_BYTEORDER, LIST_NAMES_ONLY);
}

/** The name, and entries as they come; a large set comes in several messages. */
export function decodeSetMessage(d: AttributeDecoder, onEntry?: (entry: SetEntry) => void): string {
  let name = '';
  while (d.next()) {
    if (d.type === ATTR.SETNAME) name = d.string();
    else if (d.type === ATTR.ADT && onEntry !== undefined) {
      const list = d.nested();
      while (list.next()) if (list.type === ATTR.DATA) onEntry(decodeEntry(list.nested()));
    }
  }
  return name;
}

function decodeEntry(d: AttributeDecoder): SetEntry {
  let address: string | undefined;
  let [protocol, port]: (number | undefined)[] = [];
  while (d.next()) {
    if (d.type === DATA.IP) {
      const ip = d.nested();
      while (ip.next()) if (ip.length === 4 || ip.length === 16) address = formatAddress(ip.view());
    } else if (d.type === DATA.PROTO) protocol = d.u8();
    else if (d.type === DATA.PORT) port = d.u16();
  }
  return { address, protocol, port };
}
