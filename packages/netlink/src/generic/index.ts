/** Generic netlink: families by name, requests and dumps. */
export {
  type BatchedGenericRequest,
  GenericConnection,
  type GenericRequest,
  type OnReply,
} from './connection.js';
export type { GenericFamily } from './family.js';
