/**
 * Virtual servers of IPVS, which it calls services (linux/ip_vs.h, enum ip_vs_genl_service_attr). Numbers are in host byte
 * order except ports and masks:
 *
 *     CMD_ATTR_SERVICE(1) nested
 *         AF(1) u16 | PROTOCOL(2) u16 | ADDR(3) bytes, 16 from the kernel | PORT(4) be16 | FWMARK(5) u32
 *         SCHED_NAME(6) string | FLAGS(7) u32 flags, u32 mask | TIMEOUT(8) u32 seconds
 *         NETMASK(9) IPv4: be32 mask; IPv6: u32 prefix length | PE_NAME(11) string
 *         STATS64(12) nested, see counters.ts: answers only
 *
 * FWMARK, or PROTOCOL with ADDR and PORT, is the key. Creating and changing need SCHED_NAME, FLAGS, TIMEOUT and NETMASK.
 */
import { formatAddress, IPV4_LENGTH, IPV6_LENGTH, parseAddress } from '../address.js';
import type { AttributeDecoder, AttributeNames, AttributeWriter } from '../attribute.js';
import { readHostU32, writeHostU32 } from '../endian.js';
import { AF_INET, AF_INET6, addressFamily, type Family } from '../nfnetlink.js';
import { decodeStats, type IpvsStats } from './counters.js';

export const IPVS_CMD_ATTR_SERVICE = 1;

const SVC = {
  AF: 1,
  PROTOCOL: 2,
  ADDR: 3,
  PORT: 4,
  FWMARK: 5,
  SCHED_NAME: 6,
  FLAGS: 7,
  TIMEOUT: 8,
  NETMASK: 9,
  PE_NAME: 11,
  STATS64: 12,
} as const;

export const SERVICE_NAMES: AttributeNames = {
  1: 'af',
  2: 'protocol',
  3: 'addr',
  4: 'port',
  5: 'fwmark',
  6: 'sched_name',
  7: 'flags',
  8: 'timeout',
  9: 'netmask',
  11: 'pe_name',
};

/** Bits of VirtualServer.flags (linux/ip_vs.h). */
export const IPVS_SVC_F = {
  /** Clients stay with their server for `timeoutSeconds`. */
  persistent: 0x1,
  /** The kernel's own mark of a virtual server that is in force. */
  hashed: 0x2,
  /** UDP: each packet is balanced on its own. */
  onePacket: 0x4,
  schedulerFlag1: 0x8,
  schedulerFlag2: 0x10,
  schedulerFlag3: 0x20,
} as const;
const ALL_FLAGS = 0xffffffff;

/** What names a virtual server: an address with its port, or the mark that a firewall gave to packets. */
export type VirtualServerKey =
  | {
      readonly family: Family;
      /** IANA number. */
      readonly protocol: number;
      /** Canonical text. */
      readonly address: string;
      readonly port: number;
    }
  | { readonly family: Family; readonly fwmark: number };

/** How a virtual server chooses among its real servers. */
export interface VirtualServerSettings {
  /** 'rr', 'lc', … */
  readonly scheduler: string;
  /** Bits of IPVS_SVC_F. */
  readonly flags: number;
  /** How long a client stays with its server when `persistent`. */
  readonly timeoutSeconds: number;
  /** Clients whose addresses agree in so many bits count as one. */
  readonly clientPrefixLength: number;
  /** 'sip' or none. */
  readonly persistenceEngine?: string;
}

/** A virtual server, without its real servers. */
export interface VirtualServer {
  readonly key: VirtualServerKey;
  readonly settings: VirtualServerSettings;
  /** Only in lists, when asked for. */
  readonly counters?: IpvsStats;
}

/** Writes SERVICE; without settings only the key, for requests that name a virtual server. */
export function encodeService(
  writer: AttributeWriter,
  key: VirtualServerKey,
  settings?: VirtualServerSettings,
): void {
  const start = writer.openNest(IPVS_CMD_ATTR_SERVICE);
  writer.hostU16(SVC.AF, addressFamily(key.family));
  if ('fwmark' in key) writer.hostU32(SVC.FWMARK, key.fwmark);
  else {
    writer
      .hostU16(SVC.PROTOCOL, key.protocol)
      .data(SVC.ADDR, parseAddress(key.address))
      .u16(SVC.PORT, key.port);
  }
  if (settings !== undefined) {
    const flags = Buffer.alloc(8);
    writeHostU32(flags, 0, settings.flags);
    writeHostU32(flags, 4, ALL_FLAGS);
    writer
      .string(SVC.SCHED_NAME, settings.scheduler)
      .data(SVC.FLAGS, flags)
      .hostU32(SVC.TIMEOUT, settings.timeoutSeconds);
    if (key.family === 'ip') writer.u32(SVC.NETMASK, ipv4Mask(settings.clientPrefixLength));
    else writer.hostU32(SVC.NETMASK, settings.clientPrefixLength);
    if (settings.persistenceEngine !== undefined) writer.string(SVC.PE_NAME, settings.persistenceEngine);
  }
  writer.closeNest(start);
}

function ipv4Mask(prefixLength: number): number {
  return prefixLength === 0 ? 0 : (0xffffffff << (32 - prefixLength)) >>> 0;
}

/** The kernel sends 16 bytes whatever the family. undefined: none, too few (which is an error), or no known family. */
export function addressText(
  d: AttributeDecoder,
  bytes: Buffer | undefined,
  family: Family | undefined,
): string | undefined {
  if (bytes === undefined || family === undefined) return undefined;
  const length = family === 'ip' ? IPV4_LENGTH : IPV6_LENGTH;
  if (bytes.length >= length) return formatAddress(bytes.subarray(0, length));
  d.fail(`address has ${bytes.length} bytes, ${length} wanted`);
  return undefined;
}

/**
 * Reads the contents of SERVICE.
 * @returns undefined: of no family that we know, or the empty one with which the kernel begins a list of servers
 */
export function decodeService(d: AttributeDecoder, withCounters = false): VirtualServer | undefined {
  let family: Family | undefined;
  let [address, netmask]: (Buffer | undefined)[] = [];
  let [protocol, port, fwmark, flags, timeoutSeconds] = [0, 0, 0, 0, 0];
  let scheduler = '';
  let persistenceEngine: string | undefined;
  let counters: IpvsStats | undefined;
  while (d.next()) {
    switch (d.type) {
      case SVC.AF:
        family = familyOf(d.hostU16());
        break;
      case SVC.PROTOCOL:
        protocol = d.hostU16();
        break;
      case SVC.ADDR:
        address = d.view();
        break;
      case SVC.PORT:
        port = d.u16();
        break;
      case SVC.FWMARK:
        fwmark = d.hostU32();
        break;
      case SVC.SCHED_NAME:
        scheduler = d.string();
        break;
      case SVC.FLAGS:
        flags = d.hostU32();
        break;
      case SVC.TIMEOUT:
        timeoutSeconds = d.hostU32();
        break;
      case SVC.NETMASK:
        netmask = d.view();
        break;
      case SVC.PE_NAME:
        persistenceEngine = d.string();
        break;
      case SVC.STATS64:
        if (withCounters) counters = decodeStats(d.nested());
        break;
    }
  }
  if (family === undefined) return undefined;
  const text = addressText(d, address, family);
  return {
    key: text === undefined ? { family, fwmark } : { family, protocol, address: text, port },
    settings: {
      scheduler,
      flags,
      timeoutSeconds,
      clientPrefixLength: netmask?.length === 4 ? prefixLength(netmask, family) : 0,
      ...(persistenceEngine === undefined ? {} : { persistenceEngine }),
    },
    ...(counters === undefined ? {} : { counters }),
  };
}

/** NETMASK is a mask for IPv4 and a number for IPv6. */
function prefixLength(netmask: Buffer, family: Family): number {
  if (family === 'ip6') return readHostU32(netmask, 0);
  let bits = 0;
  for (let rest = netmask.readUInt32BE(0); rest !== 0; rest = (rest << 1) >>> 0) bits++;
  return bits;
}

export function familyOf(number: number): Family | undefined {
  if (number === AF_INET) return 'ip';
  return number === AF_INET6 ? 'ip6' : undefined;
}

/** For messages: 'tcp 10.0.0.1:80', 'ip6 fwmark 7'. */
export function describeKey(key: VirtualServerKey): string {
  if ('fwmark' in key) return `${key.family} fwmark ${key.fwmark}`;
  const protocol = PROTOCOLS.get(key.protocol) ?? `protocol ${key.protocol}`;
  const host = key.family === 'ip' ? key.address : `[${key.address}]`;
  return `${protocol} ${host}:${key.port}`;
}

const PROTOCOLS: ReadonlyMap<number, string> = new Map([
  [6, 'tcp'],
  [17, 'udp'],
  [132, 'sctp'],
]);
