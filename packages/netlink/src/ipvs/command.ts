/** Changes as plain data, to be sent many at a time (IpvsConnection.executeAll). */
import type { RealServerKey, RealServerSettings } from './destination.js';
import { describeKey, type VirtualServer, type VirtualServerKey } from './service.js';

/** One change, for IpvsConnection.executeAll(). */
export type IpvsCommand =
  /** 'add service' fails with EEXIST, ENOENT when the scheduler is unknown; 'change service' with ESRCH. */
  | { readonly do: 'add service' | 'change service'; readonly server: VirtualServer }
  /** With its real servers. Fails with ESRCH. */
  | { readonly do: 'delete service'; readonly service: VirtualServerKey }
  /** 'add destination' fails with EEXIST, 'change destination' with ENOENT; both with ESRCH without the service. */
  | {
      readonly do: 'add destination' | 'change destination';
      readonly service: VirtualServerKey;
      readonly destination: RealServerKey;
      readonly settings: RealServerSettings;
    }
  /** Fails with ENOENT, ESRCH. */
  | {
      readonly do: 'delete destination';
      readonly service: VirtualServerKey;
      readonly destination: RealServerKey;
    };

/** For messages: 'add real server 10.61.1.5 port 9000 of tcp 10.96.0.1:443'. */
export function describeCommand(command: IpvsCommand): string {
  switch (command.do) {
    case 'add service':
    case 'change service':
      return `${command.do.split(' ')[0] ?? ''} virtual server ${describeKey(command.server.key)}`;
    case 'delete service':
      return `delete virtual server ${describeKey(command.service)}`;
    default:
      return `${command.do.split(' ')[0] ?? ''} real server ${command.destination.address} port ${command.destination.port} of ${describeKey(command.service)}`;
  }
}
