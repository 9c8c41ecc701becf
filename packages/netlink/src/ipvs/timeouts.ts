/**
 * How long IPVS remembers idle connections (linux/ip_vs.h, enum ip_vs_genl_cmd_attr), for all virtual servers of a network
 * namespace. Apart from the timeouts of connection tracking:
 *
 *     TIMEOUT_TCP(4) | TIMEOUT_TCP_FIN(5) | TIMEOUT_UDP(6): u32, host order, seconds
 */
import type { AttributeDecoder, AttributeWriter } from '../attribute.js';

const ATTR = { TIMEOUT_TCP: 4, TIMEOUT_TCP_FIN: 5, TIMEOUT_UDP: 6 } as const;

/** Idle time after which IPVS forgets a connection, seconds. */
export interface IpvsTimeouts {
  /** Established TCP connections; 900 unless somebody changed it. */
  readonly tcpSeconds: number;
  /** TCP connections that one side has ended; 120. */
  readonly tcpFinSeconds: number;
  /** 300 */
  readonly udpSeconds: number;
}

/** Writes those that are given; the kernel leaves the others, and any of 0, as they are. */
export function encodeTimeouts(
  writer: AttributeWriter,
  { tcpSeconds, tcpFinSeconds, udpSeconds }: Partial<IpvsTimeouts>,
): void {
  if (tcpSeconds !== undefined) writer.hostU32(ATTR.TIMEOUT_TCP, tcpSeconds);
  if (tcpFinSeconds !== undefined) writer.hostU32(ATTR.TIMEOUT_TCP_FIN, tcpFinSeconds);
  if (udpSeconds !== undefined) writer.hostU32(ATTR.TIMEOUT_UDP, udpSeconds);
}

export function decodeTimeouts(d: AttributeDecoder): IpvsTimeouts {
  let [tcpSeconds, tcpFinSeconds, udpSeconds] = [0, 0, 0];
  while (d.next()) {
    if (d.type === ATTR.TIMEOUT_TCP) tcpSeconds = d.hostU32();
    else if (d.type === ATTR.TIMEOUT_TCP_FIN) tcpFinSeconds = d.hostU32();
    else if (d.type === ATTR.TIMEOUT_UDP) udpSeconds = d.hostU32();
  }
  return { tcpSeconds, tcpFinSeconds, udpSeconds };
}
