/** rtnetlink: the interfaces and addresses of this network namespace. */
export type { AddressKey, AddressScope, InterfaceAddress } from './address.js';
export {
  type AddressChange,
  type AddressHandlers,
  RouteConnection,
  subscribeAddresses,
} from './connection.js';
export type { LinkInfo } from './link.js';
