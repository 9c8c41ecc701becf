/** ipset: names and entries of sets, and their end. */
export { IpsetConnection } from './connection.js';
export type { SetEntry } from './set.js';
