/**
 * Addresses that sockets of this host's processes have as their own (/proc/net/tcp and tcp6; Documentation/networking/
 * proc_net_tcp.rst of the kernel).
 */
import { readFileSync } from 'node:fs';
import { formatAddress } from '@kube-proxy-ts/netlink';
import { hostUint32 } from './tables.js';

/** include/net/tcp_states.h: a socket in these has no connection, or none that somebody waits for. */
const idleStates = new Set(['06' /* TIME_WAIT */, '07' /* CLOSE */, '0A' /* LISTEN */]);

/** Canonical text, of both families. Nothing where the kernel has no such files. */
export function addressesOfSockets(): Set<string> {
  return new Set(
    ['tcp', 'tcp6'].flatMap((name) => {
      try {
        return [...socketAddresses(readFileSync(`/proc/thread-self/net/${name}`, 'utf8'))];
      } catch {
        return [];
      }
    }),
  );
}

/**
 * @param text lines such as
 * `   0: 0B00600A:D431 0B00600A:0050 01 00000000:00000000 …`: local and remote address and port in hexadecimal, state
 */
export function* socketAddresses(text: string): Generator<string> {
  for (const [, address = '', state = ''] of text.matchAll(
    /^ *\d+: ([0-9A-F]{8}|[0-9A-F]{32}):[0-9A-F]{4} [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) /gm,
  ))
    if (!idleStates.has(state)) yield addressOf(address);
}

/** Words of 32 bits, each a number in the byte order of this machine. */
function addressOf(hex: string): string {
  const words = hex.match(/.{8}/g) ?? [];
  const bytes = Buffer.concat(words.map((word) => hostUint32(Number.parseInt(word, 16))));
  const mapped = bytes.length === 16 && bytes.subarray(0, 12).equals(ipv4Mapped);
  return formatAddress(mapped ? bytes.subarray(12) : bytes);
}

/** ::ffff:0:0/96: an IPv4 connection of a socket of IPv6. */
const ipv4Mapped = Buffer.from('00000000000000000000ffff', 'hex');
