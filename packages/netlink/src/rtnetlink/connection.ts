/** A connection to the routing side of this process's network namespace. */
import { NetlinkConnection, type Rejection } from '../connection.js';
import { NetlinkError } from '../errors.js';
import { NLM_F_CREATE, NLM_F_EXCL } from '../message.js';
import { AF_UNSPEC, addressFamily, type Family } from '../nfnetlink.js';
import { NETLINK_ROUTE, NetlinkSocket, type Transport } from '../socket.js';
import { Subscription } from '../subscription.js';
import {
  type AddressKey,
  decodeAddress,
  encodeAddress,
  IFADDRMSG,
  type InterfaceAddress,
  RTM_DELADDR,
  RTM_GETADDR,
  RTM_NEWADDR,
} from './address.js';
import {
  decodeLink,
  encodeLinkIndex,
  encodeLinkName,
  encodeNewLink,
  IFINFOMSG,
  type LinkInfo,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
} from './link.js';

// linux/rtnetlink.h, enum rtnetlink_groups
const RTNLGRP_IPV4_IFADDR = 5;
const RTNLGRP_IPV6_IFADDR = 9;

/** One change, for RouteConnection.changeAddresses(). */
export interface AddressChange extends AddressKey {
  readonly do: 'add' | 'delete';
}

/** A connection to the interfaces of this process's network namespace. */
export class RouteConnection {
  private readonly netlink: NetlinkConnection;

  constructor(private readonly transport: Transport) {
    this.netlink = new NetlinkConnection(transport);
  }

  static open(): RouteConnection {
    return new RouteConnection(NetlinkSocket.open(NETLINK_ROUTE));
  }

  close(): void {
    this.transport.close();
  }

  /** Every interface. */
  listLinks(): LinkInfo[] {
    let links: LinkInfo[] = [];
    this.netlink.dump(
      {
        type: RTM_GETLINK,
        operation: 'list interfaces',
        encode: (writer) => writer.raw(Buffer.alloc(IFINFOMSG)),
      },
      (message) => {
        if (message.type === RTM_NEWLINK) links.push(decodeLink(message));
      },
      () => {
        links = [];
      },
    );
    return links;
  }

  /** undefined: there is none of this name. */
  findLink(name: string): LinkInfo | undefined {
    let link: LinkInfo | undefined;
    try {
      this.netlink.execute(
        {
          type: RTM_GETLINK,
          operation: `find interface "${name}"`,
          encode: (writer) => {
            encodeLinkName(writer, name);
          },
        },
        (message) => {
          if (message.type === RTM_NEWLINK) link = decodeLink(message);
        },
      );
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ENODEV') return undefined;
      throw error;
    }
    return link;
  }

  /**
   * Makes a dummy interface, which holds addresses and carries no packets; it is down.
   * @throws NetlinkError EEXIST when there is an interface of this name; EOPNOTSUPP when the kernel has no dummies
   */
  addDummyLink(name: string): void {
    this.netlink.execute({
      type: RTM_NEWLINK,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      operation: `make dummy interface "${name}"`,
      encode: (writer) => {
        encodeNewLink(writer, name, 'dummy');
      },
    });
  }

  /** Ends a virtual interface, with its addresses. @returns false when it was gone already */
  deleteLink(link: Pick<LinkInfo, 'index' | 'name'>): boolean {
    try {
      this.netlink.execute({
        type: RTM_DELLINK,
        operation: `delete interface "${link.name}"`,
        encode: (writer) => {
          encodeLinkIndex(writer, link.index);
        },
      });
      return true;
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ENODEV') return false;
      throw error;
    }
  }

  /**
   * Gives interfaces addresses and takes them away, many with few system calls, in order.
   * @returns those that the kernel rejected; not counting addresses that were there, or gone, already
   */
  changeAddresses(changes: readonly AddressChange[]): Rejection[] {
    const rejections: Rejection[] = [];
    this.netlink.executeAll(
      changes.map((change) => ({
        type: change.do === 'add' ? RTM_NEWADDR : RTM_DELADDR,
        flags: change.do === 'add' ? NLM_F_CREATE | NLM_F_EXCL : 0,
        operation: () =>
          `${change.do} address ${change.address}/${change.prefixLength} ${change.do === 'add' ? 'to' : 'from'} interface #${change.interfaceIndex}`,
        encode: (writer) => {
          encodeAddress(writer, change);
        },
      })),
      (index, error) => {
        const asWanted = changes[index]?.do === 'add' ? 'EEXIST' : 'EADDRNOTAVAIL';
        if (error.code !== asWanted) rejections.push({ index, error });
      },
    );
    return rejections;
  }

  /** Every address of every interface, with the interface's name; of both families unless one is given. */
  listAddresses(family?: Family): (InterfaceAddress & { readonly interfaceName: string })[] {
    const names = new Map(this.listLinks().map((link) => [link.index, link.name]));
    const header = Buffer.alloc(IFADDRMSG);
    header[0] = family === undefined ? AF_UNSPEC : addressFamily(family);
    let addresses: InterfaceAddress[] = [];
    this.netlink.dump(
      { type: RTM_GETADDR, operation: 'list addresses', encode: (writer) => writer.raw(header) },
      (message) => {
        const address = message.type === RTM_NEWADDR ? decodeAddress(message) : undefined;
        if (address !== undefined) addresses.push(address);
      },
      () => {
        addresses = [];
      },
    );
    return addresses.map((address) => ({
      ...address,
      // An interface that came between the two dumps is known by number only.
      interfaceName: names.get(address.interfaceIndex) ?? `#${address.interfaceIndex}`,
    }));
  }
}

/** Who is called with notifications. */
export interface AddressHandlers {
  /** An address came, changed (for one, ceased to be tentative) or went. */
  readonly onAddress: (action: 'new' | 'delete', address: InterfaceAddress) => void;
  /** Notifications were lost: list the addresses again. */
  readonly onOverrun: () => void;
  /** The subscription has ended. */
  readonly onError: (error: Error) => void;
}

/** Watches the addresses of this network namespace, of both families. */
export function subscribeAddresses(handlers: AddressHandlers): Subscription {
  return Subscription.open(NETLINK_ROUTE, [RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR], 'watch addresses', {
    onMessage: (message) => {
      if (message.type !== RTM_NEWADDR && message.type !== RTM_DELADDR) return;
      const address = decodeAddress(message);
      if (address !== undefined) handlers.onAddress(message.type === RTM_NEWADDR ? 'new' : 'delete', address);
    },
    onOverrun: handlers.onOverrun,
    onError: handlers.onError,
  });
}
