/** IPVS: virtual servers and the real servers behind them. */
export { IpvsConnection } from './connection.js';
export { FORWARDING, type RealServer, type RealServerKey, type RealServerSettings } from './destination.js';
export {
  describeKey,
  IPVS_SVC_F,
  type VirtualServer,
  type VirtualServerKey,
  type VirtualServerSettings,
} from './service.js';
