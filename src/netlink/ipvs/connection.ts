/** A connection to IPVS (linux/ip_vs.h, enum ip_vs_genl_cmd) in this process's network namespace. */
import { existsSync } from 'node:fs';
import type { AttributeNames } from '../attribute.js';
import { constants } from 'node:os';
import { NetlinkError } from '../errors.js';
import { GenericConnection, type GenericFamily, type GenericRequest } from '../genl/index.js';
import {
  decodeDestination,
  DESTINATION_NAMES,
  encodeDestination,
  IPVS_CMD_ATTR_DEST,
  type RealServer,
  type RealServerKey,
  type RealServerSettings,
} from './destination.js';
import {
  decodeService,
  describeKey,
  encodeService,
  IPVS_CMD_ATTR_SERVICE,
  SERVICE_NAMES,
  type VirtualServer,
  type VirtualServerKey,
  type VirtualServerSettings,
} from './service.js';

const FAMILY_NAME = 'IPVS';
/** There in every network namespace once the module ip_vs is loaded, or built in. */
const PROC_FILE = '/proc/net/ip_vs';

const CMD = {
  NEW_SERVICE: 1,
  SET_SERVICE: 2,
  DEL_SERVICE: 3,
  GET_SERVICE: 4,
  NEW_DEST: 5,
  SET_DEST: 6,
  DEL_DEST: 7,
  GET_DEST: 8,
} as const;

const NAMES: AttributeNames = { 1: ['service', SERVICE_NAMES], 2: ['dest', DESTINATION_NAMES] };

export class IpvsConnection {
  private constructor(
    private readonly generic: GenericConnection,
    private readonly family: GenericFamily,
  ) {}

  /**
   * The kernel loads the module ip_vs for it if it can.
   * @throws NetlinkError EPROTONOSUPPORT when the kernel has no IPVS
   */
  static open(): IpvsConnection {
    return IpvsConnection.over(GenericConnection.open());
  }

  /** Like open(), but only where IPVS is in use already; nothing is loaded. */
  static openIfLoaded(): IpvsConnection | undefined {
    return existsSync(PROC_FILE) ? IpvsConnection.open() : undefined;
  }

  /** Takes over the connection, and closes it when there is no IPVS behind it. */
  static over(generic: GenericConnection): IpvsConnection {
    try {
      const family = generic.resolveFamily(FAMILY_NAME);
      if (family !== undefined) return new IpvsConnection(generic, family);
      throw new NetlinkError({
        operation: 'open IPVS',
        errno: constants.errno.EPROTONOSUPPORT,
        hint: "load the module with 'modprobe ip_vs', or use a kernel with CONFIG_IP_VS",
      });
    } catch (error) {
      generic.close();
      throw error;
    }
  }

  close(): void {
    this.generic.close();
  }

  /** All of this network namespace, whoever made them. */
  listServices(): VirtualServer[] {
    let services: VirtualServer[] = [];
    this.generic.dump(
      this.request(CMD.GET_SERVICE, 'list virtual servers'),
      (_command, attributes) => {
        while (attributes.next()) {
          if (attributes.type !== IPVS_CMD_ATTR_SERVICE) continue;
          const service = decodeService(attributes.nested());
          if (service !== undefined) services.push(service);
        }
      },
      () => {
        services = [];
      },
    );
    return services;
  }

  /** @throws NetlinkError EEXIST; ENOENT when the scheduler is unknown */
  addService({ key, settings }: VirtualServer): void {
    this.execute(CMD.NEW_SERVICE, `add virtual server ${describeKey(key)}`, key, settings);
  }

  /** Connections stay. @throws NetlinkError ESRCH when there is no such virtual server */
  changeService({ key, settings }: VirtualServer): void {
    this.execute(CMD.SET_SERVICE, `change virtual server ${describeKey(key)}`, key, settings);
  }

  /** With its real servers. @returns false when it was gone already */
  deleteService(key: VirtualServerKey): boolean {
    return unlessGone(['ESRCH', 'ENOENT'], () => {
      this.execute(CMD.DEL_SERVICE, `delete virtual server ${describeKey(key)}`, key);
    });
  }

  /** @throws NetlinkError ESRCH when there is no such virtual server */
  listDestinations(service: VirtualServerKey): RealServer[] {
    let servers: RealServer[] = [];
    this.generic.dump(
      this.request(CMD.GET_DEST, `list real servers of ${describeKey(service)}`, service),
      (_command, attributes) => {
        while (attributes.next()) {
          if (attributes.type !== IPVS_CMD_ATTR_DEST) continue;
          const server = decodeDestination(attributes.nested(), service.family);
          if (server !== undefined) servers.push(server);
        }
      },
      () => {
        servers = [];
      },
    );
    return servers;
  }

  /** @throws NetlinkError EEXIST; ESRCH when there is no such virtual server */
  addDestination(service: VirtualServerKey, key: RealServerKey, settings: RealServerSettings): void {
    this.executeDestination(CMD.NEW_DEST, 'add', service, key, settings);
  }

  /** @throws NetlinkError ENOENT */
  changeDestination(service: VirtualServerKey, key: RealServerKey, settings: RealServerSettings): void {
    this.executeDestination(CMD.SET_DEST, 'change', service, key, settings);
  }

  /** @returns false when it was gone already */
  deleteDestination(service: VirtualServerKey, key: RealServerKey): boolean {
    return unlessGone(['ESRCH', 'ENOENT'], () => {
      this.executeDestination(CMD.DEL_DEST, 'delete', service, key);
    });
  }

  private execute(
    command: number,
    operation: string,
    key: VirtualServerKey,
    settings?: VirtualServerSettings,
  ): void {
    this.generic.execute(this.request(command, operation, key, settings));
  }

  private executeDestination(
    command: number,
    verb: string,
    service: VirtualServerKey,
    key: RealServerKey,
    settings?: RealServerSettings,
  ): void {
    this.generic.execute({
      family: this.family,
      command,
      operation: `${verb} real server ${key.address} port ${key.port} of ${describeKey(service)}`,
      encode: (writer) => {
        encodeService(writer, service);
        encodeDestination(writer, key, settings);
      },
      names: NAMES,
    });
  }

  private request(
    command: number,
    operation: string,
    key?: VirtualServerKey,
    settings?: VirtualServerSettings,
  ): GenericRequest {
    return {
      family: this.family,
      command,
      operation,
      names: NAMES,
      ...(key === undefined
        ? {}
        : {
            encode: (writer) => {
              encodeService(writer, key, settings);
            },
          }),
    };
  }
}

function unlessGone(codes: readonly string[], remove: () => void): boolean {
  try {
    remove();
    return true;
  } catch (error) {
    if (error instanceof NetlinkError && codes.includes(error.code)) return false;
    throw error;
  }
}
