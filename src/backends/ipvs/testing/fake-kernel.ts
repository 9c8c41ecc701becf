/** IPVS and the service interface without a kernel: what they would hold, and what they were told. */
import { constants } from 'node:os';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { NetlinkError, type Rejection } from '@kube-proxy-ts/netlink';
import {
  describeCommand,
  describeKey,
  IPVS_SVC_F,
  type IpvsCommand,
  type RealServer,
  type RealServerKey,
  type RealServerSettings,
  type VirtualServer,
  type VirtualServerKey,
} from '@kube-proxy-ts/netlink/ipvs';
import type { AddressChange, IpvsKernel, ServiceInterface } from '../kernel.js';

/** Virtual servers that the kernel puts into one datagram, about. */
const listedAtOnce = 100;

interface FakeServer {
  server: VirtualServer;
  readonly destinations: Map<string, { key: RealServerKey; settings: RealServerSettings }>;
}

export class FakeIpvs implements IpvsKernel {
  /** Everything it was told to do, in words, since takeLog(). */
  private log: string[] = [];
  /** Connections by 'server → destination', as text() names them: active and inactive. */
  readonly connections = new Map<string, readonly [active: number, inactive: number]>();
  /** Commands that it refuses though there is nothing wrong with them. */
  refuses: (words: string) => boolean = () => false;
  /** Schedulers whose modules are not there. */
  readonly missingSchedulers = new Set<string>();
  private readonly servers = new Map<string, FakeServer>();

  listServices(): VirtualServer[] {
    return [...this.servers.values()].map(({ server }) => inForce(server));
  }

  async listServicesAsync(onService: (service: VirtualServer) => void, signal?: AbortSignal): Promise<void> {
    let at = 0;
    for (const { server } of this.servers.values()) {
      if (at++ % listedAtOnce === 0) await nextTurn();
      signal?.throwIfAborted();
      onService(inForce(server));
    }
  }

  getService(key: VirtualServerKey): VirtualServer | undefined {
    const found = this.servers.get(describeKey(key));
    return found === undefined ? undefined : inForce(found.server);
  }

  listDestinations(service: VirtualServerKey): RealServer[] {
    const found = this.servers.get(describeKey(service));
    if (found === undefined)
      throw new NetlinkError({ operation: 'list real servers', errno: constants.errno.ESRCH });
    return [...found.destinations.values()].map(({ key, settings }) => {
      const [activeConnections, inactiveConnections] = this.connections.get(connectionKey(service, key)) ?? [
        0, 0,
      ];
      return { key, settings, activeConnections, inactiveConnections, persistentConnections: 0 };
    });
  }

  executeAll(commands: Iterable<IpvsCommand>): Rejection[] {
    const rejections: Rejection[] = [];
    let index = 0;
    for (const command of commands) {
      const words = describe(command);
      this.log.push(words);
      const code = this.refuses(words) ? 'EINVAL' : this.carryOut(command);
      if (code !== undefined)
        rejections.push({
          index,
          error: new NetlinkError({ operation: describeCommand(command), errno: constants.errno[code] }),
        });
      index++;
    }
    return rejections;
  }

  close(): void {
    this.servers.clear();
  }

  /** What it was told since the last call. */
  takeLog(): string[] {
    const { log } = this;
    this.log = [];
    return log;
  }

  /** 'tcp 10.96.0.1:80 rr → 10.61.1.5:9000, 10.61.1.6:9000 weight 0', sorted. */
  text(): string[] {
    return [...this.servers.values()]
      .map(({ server, destinations }) => {
        const { key, settings } = server;
        const traits = [
          settings.scheduler,
          ...(settings.flags === 0 ? [] : [`flags ${settings.flags}`]),
          ...(settings.timeoutSeconds === 0 ? [] : [`${settings.timeoutSeconds} s`]),
        ];
        const list = [...destinations.values()].map(
          ({ key: of, settings: { weight } }) =>
            `${of.address}:${of.port}${weight === 1 ? '' : ` weight ${weight}`}`,
        );
        return `${describeKey(key)} ${traits.join(' ')} → ${list.sort().join(', ')}`;
      })
      .sort();
  }

  private carryOut(command: IpvsCommand): 'EEXIST' | 'ENOENT' | 'ESRCH' | undefined {
    const key = 'server' in command ? command.server.key : command.service;
    const id = describeKey(key);
    const found = this.servers.get(id);
    if ('server' in command && this.missingSchedulers.has(command.server.settings.scheduler)) return 'ENOENT';
    if (command.do === 'add service') {
      if (found !== undefined) return 'EEXIST';
      this.servers.set(id, { server: command.server, destinations: new Map() });
      return undefined;
    }
    if (found === undefined) return 'ESRCH';
    switch (command.do) {
      case 'change service':
        found.server = command.server;
        return undefined;
      case 'delete service':
        this.servers.delete(id);
        return undefined;
      case 'add destination':
      case 'change destination': {
        const of = `${command.destination.address} ${command.destination.port}`;
        if (found.destinations.has(of) !== (command.do === 'change destination'))
          return command.do === 'add destination' ? 'EEXIST' : 'ENOENT';
        found.destinations.set(of, { key: command.destination, settings: command.settings });
        return undefined;
      }
      case 'delete destination':
        return found.destinations.delete(`${command.destination.address} ${command.destination.port}`)
          ? undefined
          : 'ENOENT';
    }
  }
}

export function connectionKey(service: VirtualServerKey, destination: RealServerKey): string {
  return `${describeKey(service)} → ${destination.address}:${destination.port}`;
}

function inForce({ key, settings }: VirtualServer): VirtualServer {
  return { key, settings: { ...settings, flags: settings.flags | IPVS_SVC_F.hashed } };
}

function describe(command: IpvsCommand): string {
  const words = describeCommand(command);
  return command.do === 'change destination' ? `${words} weight ${command.settings.weight}` : words;
}

/** The service interface. */
export class FakeInterface implements ServiceInterface {
  readonly addresses = new Set<string>();
  private log: string[] = [];

  open(): readonly string[] {
    return [...this.addresses];
  }

  change(changes: readonly AddressChange[]): Rejection[] {
    for (const { do: what, ip } of changes) {
      this.log.push(`${what} ${ip}`);
      if (what === 'add') this.addresses.add(ip);
      else this.addresses.delete(ip);
    }
    return [];
  }

  close(): void {
    this.addresses.clear();
  }

  takeLog(): string[] {
    const { log } = this;
    this.log = [];
    return log;
  }
}
