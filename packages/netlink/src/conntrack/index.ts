/** Connection tracking: list and delete entries, how full the table is. */
export { ConntrackConnection, type FlowListOptions } from './connection.js';
export { kernelFiltersAddresses, type FlowFilter } from './filter.js';
export { flowStatus, tcpState, type Flow, type FlowIdentity, type Tuple } from './flow.js';
export type { ConntrackStats, ConntrackUsage } from './stats.js';
