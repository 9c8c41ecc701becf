/**
 * The core of netlink: a socket, the codec of messages and attributes, requests and dumps with their errors, and
 * multicast notifications. The protocols stand on it, each an entry of its own: /nftables, /conntrack, /rtnetlink,
 * /ipvs, /ipset, /generic, /accounting; /xtables is the older interface of the same rules. A protocol that has no
 * entry here can be built from what this file exports, as those are.
 */
export {
  decodeIPv4,
  decodeIPv6,
  encodeIPv4,
  encodeIPv6,
  formatAddress,
  IPV4_LENGTH,
  IPV6_LENGTH,
  parseAddress,
} from './address.js';
export { type AttributeNames, AttributeDecoder, AttributeWriter } from './attribute.js';
export {
  type BatchedRequest,
  type DumpOptions,
  NetlinkConnection,
  type Rejection,
  type Request,
} from './connection.js';
export { NetlinkError, type NetlinkErrorDetails } from './errors.js';
export { type Acknowledgement, MessageReader, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL } from './message.js';
export type { Family } from './nfnetlink.js';
export {
  NETLINK_GENERIC,
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  NetlinkSocket,
  type SocketOptions,
  type Transport,
} from './socket.js';
export { Subscription, type SubscriptionHandlers, type SubscriptionOptions } from './subscription.js';
