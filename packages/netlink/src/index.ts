/**
 * Netlink for Node: sockets, messages and attributes, and on them nftables, route addresses, counters, connection
 * tracking, IPVS and ipset. Depends on nothing else of this repository.
 */
export {
  parseAddress,
  formatAddress,
  decodeIPv4,
  decodeIPv6,
  encodeIPv4,
  encodeIPv6,
  IPV4_LENGTH,
  IPV6_LENGTH,
} from './address.js';
export { AttributeDecoder, AttributeWriter } from './attribute.js';
export type { Refusal } from './connection.js';
export { NetlinkError } from './errors.js';
export type { Family } from './nfnetlink.js';
export {
  NETLINK_GENERIC,
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  NetlinkSocket,
  type SocketOptions,
  type Transport,
} from './socket.js';
export type { Subscription, SubscriptionOptions } from './subscription.js';
export * from './nftables/index.js';
export * from './accounting/index.js';
export * from './conntrack/index.js';
export * from './rtnetlink/index.js';
export * from './generic/index.js';
export * from './ipvs/index.js';
export * from './ipset/index.js';
