/** Named packet counters that rules can point to (nfacct). */
export { AccountingConnection, type PacketCounter } from './connection.js';
