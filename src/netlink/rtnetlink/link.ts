/**
 * Network interfaces (linux/rtnetlink.h, struct ifinfomsg; linux/if_link.h), in host byte order:
 * family u8 | padding u8 | type u16 | index i32 | flags u32 | change u32, then attributes, of which
 * IFLA_IFNAME(3) string.
 */
import { readHostU32 } from '../endian.js';
import { malformed } from '../errors.js';
import type { MessageReader } from '../message.js';

export const IFINFOMSG = 16;
export const RTM_NEWLINK = 16;
export const RTM_GETLINK = 18;
const IFLA_IFNAME = 3;

export interface LinkInfo {
  readonly index: number;
  readonly name: string;
}

/** @throws NetlinkError EBADMSG */
export function decodeLink(message: MessageReader): LinkInfo {
  if (message.end - message.payload < IFINFOMSG) {
    throw malformed('decode link', message.start, 'message is shorter than its header');
  }
  const attributes = message.attributes(IFINFOMSG);
  let name = '';
  while (attributes.next()) if (attributes.type === IFLA_IFNAME) name = attributes.string();
  attributes.finish();
  return { index: readHostU32(message.buffer, message.payload + 4), name };
}
