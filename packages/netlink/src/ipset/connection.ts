/** A connection to ipset in this process's network namespace. */
import { existsSync } from 'node:fs';
import type { AttributeWriter } from '../attribute.js';
import { NetlinkConnection, type Request } from '../connection.js';
import { NetlinkError } from '../errors.js';
import { NLM_F_EXCL } from '../message.js';
import { AF_UNSPEC, nfnetlinkType, NFGENMSG, NFNL_SUBSYS_IPSET, writeNfgenmsg } from '../nfnetlink.js';
import { NETLINK_NETFILTER, NetlinkSocket, type Transport } from '../socket.js';
import {
  decodeSetMessage,
  encodeNamesOnly,
  encodeSetRequest,
  IPSET_CMD,
  SET_NAMES,
  type SetEntry,
} from './set.js';

/** IPSET_ERR_BUSY: ipset's own errors begin at 4096. */
const ERR_BUSY = 4100;
/** There once the module ip_set is loaded, or built in. */
const MODULE_FOLDER = '/sys/module/ip_set';

/** A connection to ipset in this process's network namespace. */
export class IpsetConnection {
  private readonly netlink: NetlinkConnection;

  constructor(private readonly transport: Transport) {
    this.netlink = new NetlinkConnection(transport);
  }

  /** The kernel loads the module ip_set with the first request. */
  static open(): IpsetConnection {
    return new IpsetConnection(NetlinkSocket.open(NETLINK_NETFILTER));
  }

  /** Like open(), but only where ipset is in use already; nothing is loaded. */
  static openIfLoaded(): IpsetConnection | undefined {
    return existsSync(MODULE_FOLDER) ? IpsetConnection.open() : undefined;
  }

  close(): void {
    this.transport.close();
  }

  /** Names of all sets, in no order. */
  listNames(): string[] {
    let names: string[] = [];
    this.netlink.dump(
      request(IPSET_CMD.LIST, 'list sets of addresses', (writer) => {
        encodeSetRequest(writer);
        encodeNamesOnly(writer);
      }),
      (message) => {
        const attributes = message.attributes(NFGENMSG);
        const name = decodeSetMessage(attributes);
        attributes.finish();
        if (name !== '') names.push(name);
      },
      () => {
        names = [];
      },
    );
    return names;
  }

  /** @throws NetlinkError ENOENT when there is no such set */
  listEntries(name: string): SetEntry[] {
    let entries: SetEntry[] = [];
    this.netlink.dump(
      request(IPSET_CMD.LIST, `list entries of ipset "${name}"`, (writer) => {
        encodeSetRequest(writer, name);
      }),
      (message) => {
        const attributes = message.attributes(NFGENMSG);
        decodeSetMessage(attributes, (entry) => entries.push(entry));
        attributes.finish();
      },
      () => {
        entries = [];
      },
    );
    return entries;
  }

  /** @returns 'busy' while a rule or another set uses it, 'gone' when there was none */
  destroy(name: string): 'destroyed' | 'busy' | 'gone' {
    try {
      this.netlink.execute({
        ...request(IPSET_CMD.DESTROY, `destroy ipset "${name}"`, (writer) => {
          encodeSetRequest(writer, name);
        }),
        flags: NLM_F_EXCL,
      });
      return 'destroyed';
    } catch (error) {
      if (error instanceof NetlinkError && error.errno === ERR_BUSY) return 'busy';
      if (error instanceof NetlinkError && error.code === 'ENOENT') return 'gone';
      throw error;
    }
  }
}

function request(command: number, operation: string, encode: (writer: AttributeWriter) => void): Request {
  return {
    type: nfnetlinkType(NFNL_SUBSYS_IPSET, command),
    operation,
    encode: (writer) => {
      writeNfgenmsg(writer, AF_UNSPEC);
      encode(writer);
    },
    missing: 'the kernel has no ipset: load the module ip_set, or use a kernel with CONFIG_IP_SET',
    names: { headerLength: NFGENMSG, attributes: SET_NAMES },
  };
}
