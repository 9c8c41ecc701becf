/**
 * Network interfaces (linux/rtnetlink.h, struct ifinfomsg; linux/if_link.h), in host byte order:
 * family u8 | padding u8 | type u16 | index i32 | flags u32 | change u32, then attributes, of which
 * IFLA_IFNAME(3) string | IFLA_LINKINFO(18) nested: INFO_KIND(1) string, virtual interfaces only.
 */
import type { AttributeWriter } from '../attribute.js';
import { readHostU32, writeHostU32 } from '../endian.js';
import { malformed } from '../errors.js';
import type { MessageReader } from '../message.js';

export const IFINFOMSG = 16;
export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
const IFLA_IFNAME = 3;
const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;

const IFF_UP = 0x1;

/** An interface. */
export interface LinkInfo {
  readonly index: number;
  readonly name: string;
  /** 'dummy', 'veth', …; undefined: a device, or one that the kernel made by itself. */
  readonly kind: string | undefined;
  /** Somebody set it up; that says nothing about a cable. */
  readonly up: boolean;
}

/** Names an interface by number. */
export function encodeLinkIndex(writer: AttributeWriter, index: number): void {
  const header = Buffer.alloc(IFINFOMSG);
  writeHostU32(header, 4, index);
  writer.raw(header);
}

/** Names an interface by name. */
export function encodeLinkName(writer: AttributeWriter, name: string): void {
  writer.raw(Buffer.alloc(IFINFOMSG)).string(IFLA_IFNAME, name);
}

/** A virtual interface of a kind that needs no more than its name: 'dummy'. */
export function encodeNewLink(writer: AttributeWriter, name: string, kind: string): void {
  encodeLinkName(writer, name);
  writer.nest(IFLA_LINKINFO, (w) => w.string(IFLA_INFO_KIND, kind));
}

/** @throws NetlinkError EBADMSG */
export function decodeLink(message: MessageReader): LinkInfo {
  if (message.end - message.payload < IFINFOMSG) {
    throw malformed('decode link', message.start, 'message is shorter than its header');
  }
  const attributes = message.attributes(IFINFOMSG);
  let name = '';
  let kind: string | undefined;
  while (attributes.next()) {
    if (attributes.type === IFLA_IFNAME) name = attributes.string();
    else if (attributes.type === IFLA_LINKINFO) {
      const info = attributes.nested();
      while (info.next()) if (info.type === IFLA_INFO_KIND) kind = info.string();
    }
  }
  attributes.finish();
  return {
    index: readHostU32(message.buffer, message.payload + 4),
    name,
    kind,
    up: (readHostU32(message.buffer, message.payload + 8) & IFF_UP) !== 0,
  };
}
