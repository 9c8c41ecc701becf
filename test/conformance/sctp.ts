/**
 * SCTP sockets. Node makes none, but takes over any stream socket: so they are made and connected through the C library
 * here, and are a net.Socket or a net.Server from then on. One association per socket (RFC 6458, section 4).
 */
import net from 'node:net';
import { closeDescriptor, libc, numbers, setOption, socketAddress, SystemCallError } from './libc.js';
import type { Endpoint } from './libc.js';

const { AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_SCTP, SOCK_STREAM, SOCK_NONBLOCK } = numbers;

/** <netinet/in.h>, <linux/sctp.h>, <asm-generic/errno.h> */
const IP_RECVERR = 11;
const IPV6_RECVERR = 25;
const SCTP_RTOINFO = 0;
const SCTP_NODELAY = 3;
const EINPROGRESS = 115;

/** As TCP: an INIT that is lost is sent again after a second. The kernel would wait for three. Milliseconds. */
const firstRetransmission = 1000;

/** Whether this kernel has SCTP at all; loads its module. */
export function hasSctp(): boolean {
  try {
    closeDescriptor(open(true));
    return true;
  } catch {
    return false;
  }
}

function open(v4: boolean): number {
  return libc.socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_SCTP);
}

/** Accepts associations at an address; `onAssociation` gets each. */
export function listenSctp(
  { address, port }: Endpoint,
  onAssociation: (socket: net.Socket) => void,
): Promise<net.Server> {
  const fd = open(!address.includes(':'));
  const server = net.createServer(onAssociation);
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    try {
      libc.bind(fd, socketAddress({ address, port }));
      server.listen({ fd, backlog: 1024 }, () => {
        resolve(server);
      });
    } catch (error) {
      closeDescriptor(fd);
      reject(error instanceof Error ? error : new Error(String(error)));
    }
  });
}

/** Begins an association. Whether it is refused shows as an error of the socket, once somebody reads from it. */
export function connectSctp(source: Endpoint | undefined, target: Endpoint): net.Socket {
  const v4 = !target.address.includes(':');
  const fd = open(v4);
  try {
    // Without, an ICMP error would count only when the association is given up after minutes.
    setOption(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVERR : IPV6_RECVERR, 1);
    setOption(fd, IPPROTO_SCTP, SCTP_NODELAY, 1);
    // struct sctp_rtoinfo: association, first, longest and shortest time.
    setOption(fd, IPPROTO_SCTP, SCTP_RTOINFO, 0, firstRetransmission, 60_000, firstRetransmission);
    if (source !== undefined) libc.bind(fd, socketAddress(source));
    try {
      libc.connect(fd, socketAddress(target));
    } catch (error) {
      if (!(error instanceof SystemCallError && error.errno === EINPROGRESS)) throw error;
    }
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
  return new net.Socket({ fd, readable: true, writable: true });
}
