/** A connection to IPVS (linux/ip_vs.h, enum ip_vs_genl_cmd) in this process's network namespace. */
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import type { AttributeNames, AttributeWriter } from '../attribute.js';
import type { Rejection } from '../connection.js';
import { EBADMSG, NetlinkError } from '../errors.js';
import { GenericConnection, type GenericFamily, type GenericRequest } from '../generic/index.js';
import { describeCommand, type IpvsCommand } from './command.js';
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
} from './service.js';
import { decodeTimeouts, encodeTimeouts, type IpvsTimeouts } from './timeouts.js';

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
  SET_CONFIG: 12,
  GET_CONFIG: 13,
  SET_INFO: 14,
  GET_INFO: 15,
  ZERO: 16,
} as const;

const COMMAND_NUMBERS: Readonly<Record<IpvsCommand['do'], number>> = {
  'add service': CMD.NEW_SERVICE,
  'change service': CMD.SET_SERVICE,
  'delete service': CMD.DEL_SERVICE,
  'add destination': CMD.NEW_DEST,
  'change destination': CMD.SET_DEST,
  'delete destination': CMD.DEL_DEST,
};

const INFO = { VERSION: 1, CONN_TAB_SIZE: 2 } as const;

/** What the kernel says about its IPVS. */
export interface IpvsInfo {
  /** '1.2.1' */
  readonly version: string;
  /** Buckets of the connection table; fixed when the module is loaded (conn_tab_bits). */
  readonly connectionTableSize: number;
}

/** What to read beside keys and settings. */
export interface IpvsListOptions {
  /** Traffic counters. */
  readonly counters?: boolean;
}

const NAMES: AttributeNames = { 1: ['service', SERVICE_NAMES], 2: ['dest', DESTINATION_NAMES] };

/** A connection to IPVS in this process's network namespace. */
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
  listServices(options: IpvsListOptions = {}): VirtualServer[] {
    let services: VirtualServer[] = [];
    this.generic.dump(
      this.request(CMD.GET_SERVICE, 'list virtual servers'),
      (_command, attributes) => {
        while (attributes.next()) {
          if (attributes.type !== IPVS_CMD_ATTR_SERVICE) continue;
          const service = decodeService(attributes.nested(), options.counters);
          if (service !== undefined) services.push(service);
        }
      },
      () => {
        services = [];
      },
    );
    return services;
  }

  /**
   * The same in many turns of the event loop. When the table changes meanwhile, entries may be passed over, or come twice.
   * The connection is not to be used until the promise is settled.
   * @param signal ends it; then the connection can only be closed
   */
  async listServicesAsync(onService: (service: VirtualServer) => void, signal?: AbortSignal): Promise<void> {
    await this.generic.dumpAsync(
      this.request(CMD.GET_SERVICE, 'list virtual servers'),
      (_command, attributes) => {
        while (attributes.next()) {
          if (attributes.type !== IPVS_CMD_ATTR_SERVICE) continue;
          const service = decodeService(attributes.nested());
          if (service !== undefined) onService(service);
        }
      },
      { onRestart: () => undefined, ...(signal === undefined ? {} : { signal }) },
    );
  }

  /** undefined: there is no such virtual server. */
  getService(key: VirtualServerKey, options: IpvsListOptions = {}): VirtualServer | undefined {
    let service: VirtualServer | undefined;
    try {
      this.generic.execute(
        this.request(CMD.GET_SERVICE, `read virtual server ${describeKey(key)}`, (writer) => {
          encodeService(writer, key);
        }),
        (_command, attributes) => {
          while (attributes.next()) {
            if (attributes.type === IPVS_CMD_ATTR_SERVICE)
              service = decodeService(attributes.nested(), options.counters);
          }
        },
      );
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ESRCH') return undefined;
      throw error;
    }
    return service;
  }

  /** @throws NetlinkError ESRCH when there is no such virtual server */
  listDestinations(service: VirtualServerKey, options: IpvsListOptions = {}): RealServer[] {
    let servers: RealServer[] = [];
    this.generic.dump(
      this.request(CMD.GET_DEST, `list real servers of ${describeKey(service)}`, (writer) => {
        encodeService(writer, service);
      }),
      (_command, attributes) => {
        while (attributes.next()) {
          if (attributes.type !== IPVS_CMD_ATTR_DEST) continue;
          const server = decodeDestination(attributes.nested(), service.family, options.counters);
          if (server !== undefined) servers.push(server);
        }
      },
      () => {
        servers = [];
      },
    );
    return servers;
  }

  /**
   * Makes many changes with few system calls, in order. No transaction: what one of them does stays when another fails.
   * @returns those that the kernel rejected
   */
  executeAll(commands: Iterable<IpvsCommand>): Rejection[] {
    const { family } = this;
    const serviceKeys = new RepeatedKey();
    const requests = function* () {
      for (const command of commands) {
        yield {
          family,
          command: COMMAND_NUMBERS[command.do],
          operation: () => describeCommand(command),
          encode: (writer: AttributeWriter) => {
            encodeCommand(writer, command, serviceKeys);
          },
          names: NAMES,
        };
      }
    };
    const rejections: Rejection[] = [];
    this.generic.executeAll(requests(), (index, error) => {
      rejections.push({ index, error });
    });
    return rejections;
  }

  /** Makes one change. @throws NetlinkError */
  execute(command: IpvsCommand): void {
    this.generic.execute(
      this.request(COMMAND_NUMBERS[command.do], describeCommand(command), (writer) => {
        encodeCommand(writer, command);
      }),
    );
  }

  /** @throws NetlinkError EEXIST; ENOENT when the scheduler is unknown */
  addService({ key, settings }: VirtualServer): void {
    this.execute({ do: 'add service', server: { key, settings } });
  }

  /** Connections stay. @throws NetlinkError ESRCH when there is no such virtual server */
  changeService({ key, settings }: VirtualServer): void {
    this.execute({ do: 'change service', server: { key, settings } });
  }

  /** With its real servers. @returns false when it was gone already */
  deleteService(service: VirtualServerKey): boolean {
    return unlessGone(['ESRCH', 'ENOENT'], () => {
      this.execute({ do: 'delete service', service });
    });
  }

  /** @throws NetlinkError EEXIST; ESRCH when there is no such virtual server */
  addDestination(service: VirtualServerKey, destination: RealServerKey, settings: RealServerSettings): void {
    this.execute({ do: 'add destination', service, destination, settings });
  }

  /** @throws NetlinkError ENOENT */
  changeDestination(
    service: VirtualServerKey,
    destination: RealServerKey,
    settings: RealServerSettings,
  ): void {
    this.execute({ do: 'change destination', service, destination, settings });
  }

  /** @returns false when it was gone already */
  deleteDestination(service: VirtualServerKey, destination: RealServerKey): boolean {
    return unlessGone(['ESRCH', 'ENOENT'], () => {
      this.execute({ do: 'delete destination', service, destination });
    });
  }

  /** Begins all counters anew; of one virtual server and its real servers when it is given. */
  zeroCounters(service?: VirtualServerKey): void {
    this.generic.execute(
      this.request(CMD.ZERO, 'zero the counters', (writer) => {
        if (service !== undefined) encodeService(writer, service);
      }),
    );
  }

  /** Timeouts of connections in this network namespace, seconds. */
  getTimeouts(): IpvsTimeouts {
    let timeouts: IpvsTimeouts | undefined;
    this.generic.execute(this.request(CMD.GET_CONFIG, 'read timeouts'), (command, attributes) => {
      if (command === CMD.SET_CONFIG) timeouts = decodeTimeouts(attributes);
    });
    return timeouts ?? noAnswer('read timeouts');
  }

  /** Those that are not given, or 0, stay. @throws NetlinkError EINVAL for more than some 24 days */
  setTimeouts(timeouts: Partial<IpvsTimeouts>): void {
    this.generic.execute(
      this.request(CMD.SET_CONFIG, 'set timeouts', (writer) => {
        encodeTimeouts(writer, timeouts);
      }),
    );
  }

  /** Version and size of the connection table. */
  getInfo(): IpvsInfo {
    let info: IpvsInfo | undefined;
    this.generic.execute(this.request(CMD.GET_INFO, 'read the version'), (command, attributes) => {
      if (command !== CMD.SET_INFO) return;
      let [version, connectionTableSize] = [0, 0];
      while (attributes.next()) {
        if (attributes.type === INFO.VERSION) version = attributes.hostU32();
        else if (attributes.type === INFO.CONN_TAB_SIZE) connectionTableSize = attributes.hostU32();
      }
      info = {
        version: [version >> 16, (version >> 8) & 0xff, version & 0xff].join('.'),
        connectionTableSize,
      };
    });
    return info ?? noAnswer('read the version');
  }

  private request(
    command: number,
    operation: string,
    encode?: (writer: AttributeWriter) => void,
  ): GenericRequest {
    return {
      family: this.family,
      command,
      operation,
      names: NAMES,
      ...(encode === undefined ? {} : { encode }),
    };
  }
}

/** Writes the keys of virtual servers. The same one comes again with each of its real servers, so its bytes are kept. */
class RepeatedKey {
  private key: VirtualServerKey | undefined;
  private bytes = Buffer.alloc(0);

  write(writer: AttributeWriter, key: VirtualServerKey): void {
    if (key === this.key) {
      writer.raw(this.bytes);
      return;
    }
    const start = writer.length;
    encodeService(writer, key);
    this.key = key;
    this.bytes = Buffer.from(writer.buffer.subarray(start, writer.length));
  }
}

function encodeCommand(writer: AttributeWriter, command: IpvsCommand, keys = new RepeatedKey()): void {
  switch (command.do) {
    case 'add service':
    case 'change service':
      encodeService(writer, command.server.key, command.server.settings);
      return;
    case 'delete service':
      encodeService(writer, command.service);
      return;
    case 'add destination':
    case 'change destination':
      keys.write(writer, command.service);
      encodeDestination(writer, command.destination, command.settings);
      return;
    case 'delete destination':
      keys.write(writer, command.service);
      encodeDestination(writer, command.destination);
  }
}

function noAnswer(operation: string): never {
  throw new NetlinkError({
    operation,
    errno: EBADMSG,
    extendedAck: 'the kernel acknowledged and said nothing',
  });
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
