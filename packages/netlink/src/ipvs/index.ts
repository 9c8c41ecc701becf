/** IPVS: virtual servers and the real servers behind them. */
export { describeCommand, type IpvsCommand } from './command.js';
export { IpvsConnection, type IpvsInfo, type IpvsListOptions } from './connection.js';
export type { IpvsStats } from './counters.js';
export { FORWARDING, type RealServer, type RealServerKey, type RealServerSettings } from './destination.js';
export {
  describeKey,
  IPVS_SVC_F,
  type VirtualServer,
  type VirtualServerKey,
  type VirtualServerSettings,
} from './service.js';
export type { IpvsTimeouts } from './timeouts.js';
