/** Connection tracking: list and delete entries. */
export { ConntrackConnection } from './connection.js';
export type { Flow, FlowIdentity, Tuple } from './flow.js';
