/**
 * nfnetlink (linux/netfilter/nfnetlink.h): netfilter's subsystems over one netlink family. The message type is
 * (subsystem << 8 | message), and every payload begins with struct nfgenmsg:
 * address family u8 | version u8 (0) | resource id u16, network order.
 */
import type { AttributeWriter } from './attribute.js';
import { NLMSG_MIN_TYPE } from './message.js';

export const NFGENMSG = 4;

export const NFNL_SUBSYS_CTNETLINK = 1;
export const NFNL_SUBSYS_IPSET = 6;
export const NFNL_SUBSYS_ACCT = 7;
export const NFNL_SUBSYS_NFTABLES = 10;

export const NFNL_MSG_BATCH_BEGIN = NLMSG_MIN_TYPE;
export const NFNL_MSG_BATCH_END = NLMSG_MIN_TYPE + 1;
/** be32: reject the batch unless this is the current generation. */
export const NFNL_BATCH_GENID = 1;

export const NFNLGRP_NFTABLES = 7;

/** Address families, as nfgenmsg and route messages carry them (linux/socket.h). */
export const AF_UNSPEC = 0;
export const AF_INET = 2;
export const AF_INET6 = 10;

/** IPv4 or IPv6, in the words of nft. */
export type Family = 'ip' | 'ip6';

/** Netfilter's tables for both families at once (NFPROTO_INET in linux/netfilter.h). */
export const NFPROTO_INET = 1;

export function addressFamily(family: Family | 'inet'): number {
  if (family === 'inet') return NFPROTO_INET;
  return family === 'ip' ? AF_INET : AF_INET6;
}

export const NETLINK_SUBSYSTEM_SHIFT = 8;

export function nfnetlinkType(subsystem: number, message: number): number {
  return (subsystem << NETLINK_SUBSYSTEM_SHIFT) | message;
}

export function writeNfgenmsg(writer: AttributeWriter, family: number, resourceId = 0): void {
  writer.reserve(NFGENMSG);
  writer.buffer[writer.length] = family;
  writer.buffer[writer.length + 1] = 0;
  writer.buffer.writeUInt16BE(resourceId, writer.length + 2);
  writer.length += NFGENMSG;
}
