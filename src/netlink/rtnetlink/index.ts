/** rtnetlink: the addresses of this network namespace. */
export type { AddressScope, InterfaceAddress } from './address.js';
export { type AddressHandlers, RouteConnection, subscribeAddresses } from './connection.js';
export type { LinkInfo } from './link.js';
