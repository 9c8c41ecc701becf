/** Connection tracking: list and delete entries, how full the table is. */
export { ConntrackConnection, type ListOptions } from './connection.js';
export { comparesAddresses, type FlowFilter } from './filter.js';
export { flowStatus, tcpState, type Flow, type FlowIdentity, type Tuple } from './flow.js';
export type { TableCounters, TableFill } from './stats.js';
