/**
 * Real servers behind a virtual server, which IPVS calls destinations (linux/ip_vs.h, enum ip_vs_genl_dest_attr):
 *
 *     CMD_ATTR_DEST(2) nested
 *         ADDR(1) bytes, 16 from the kernel | PORT(2) be16 | FWD_METHOD(3) u32, low 3 bits | WEIGHT(4) u32
 *         U_THRESH(5) u32 | L_THRESH(6) u32
 *         ACTIVE_CONNS(7) u32 | INACT_CONNS(8) u32 | PERSIST_CONNS(9) u32: answers only
 *         ADDR_FAMILY(11) u16: that of the virtual server when missing
 *         STATS64(12) nested, see counters.ts: answers only
 *
 * Numbers are in host byte order except the port. Creating and changing need all of the first two lines.
 */
import { parseAddress } from '../address.js';
import type { AttributeDecoder, AttributeNames, AttributeWriter } from '../attribute.js';
import { addressFamily, type Family } from '../nfnetlink.js';
import { decodeStats, type IpvsStats } from './counters.js';
import { addressText, familyOf } from './service.js';

export const IPVS_CMD_ATTR_DEST = 2;

const DEST = {
  ADDR: 1,
  PORT: 2,
  FWD_METHOD: 3,
  WEIGHT: 4,
  U_THRESH: 5,
  L_THRESH: 6,
  ACTIVE_CONNS: 7,
  INACT_CONNS: 8,
  PERSIST_CONNS: 9,
  ADDR_FAMILY: 11,
  STATS64: 12,
} as const;

export const DESTINATION_NAMES: AttributeNames = {
  1: 'addr',
  2: 'port',
  3: 'fwd_method',
  4: 'weight',
  5: 'u_thresh',
  6: 'l_thresh',
  11: 'addr_family',
};

/** IP_VS_CONN_F_*: how packets get to a real server. */
export const FORWARDING = { masquerade: 0, local: 1, tunnel: 2, directRouting: 3, bypass: 4 } as const;
const FORWARDING_MASK = 0x7;

/** What names a real server of a virtual server. */
export interface RealServerKey {
  readonly family: Family;
  /** Canonical text. */
  readonly address: string;
  readonly port: number;
}

/** How packets get to a real server, and how many. */
export interface RealServerSettings {
  /** One of FORWARDING. */
  readonly forwarding: number;
  /** 0: no new connections. */
  readonly weight: number;
  /** Connections above which it takes no new ones, and below which it takes them again; 0: no limit. */
  readonly upperThreshold: number;
  readonly lowerThreshold: number;
}

/** A real server with its connections now. */
export interface RealServer {
  readonly key: RealServerKey;
  readonly settings: RealServerSettings;
  readonly activeConnections: number;
  /** Closing ones, and all of UDP. */
  readonly inactiveConnections: number;
  readonly persistentConnections: number;
  /** Only when asked for. */
  readonly counters?: IpvsStats;
}

/** Writes DEST; without settings only the key, for requests that name a real server. */
export function encodeDestination(
  writer: AttributeWriter,
  key: RealServerKey,
  settings?: RealServerSettings,
): void {
  const start = writer.openNest(IPVS_CMD_ATTR_DEST);
  writer
    .hostU16(DEST.ADDR_FAMILY, addressFamily(key.family))
    .data(DEST.ADDR, parseAddress(key.address))
    .u16(DEST.PORT, key.port);
  if (settings !== undefined) {
    writer
      .hostU32(DEST.FWD_METHOD, settings.forwarding)
      .hostU32(DEST.WEIGHT, settings.weight)
      .hostU32(DEST.U_THRESH, settings.upperThreshold)
      .hostU32(DEST.L_THRESH, settings.lowerThreshold);
  }
  writer.closeNest(start);
}

/**
 * Reads the contents of DEST.
 * @param serviceFamily of the virtual server; kernels before 3.18 take it for granted
 */
export function decodeDestination(
  d: AttributeDecoder,
  serviceFamily: Family,
  withCounters = false,
): RealServer | undefined {
  let family: Family | undefined = serviceFamily;
  let address: Buffer | undefined;
  let [port, forwarding, weight, upperThreshold, lowerThreshold] = [0, 0, 0, 0, 0];
  let [activeConnections, inactiveConnections, persistentConnections] = [0, 0, 0];
  let counters: IpvsStats | undefined;
  while (d.next()) {
    switch (d.type) {
      case DEST.ADDR:
        address = d.view();
        break;
      case DEST.PORT:
        port = d.u16();
        break;
      case DEST.FWD_METHOD:
        forwarding = d.hostU32() & FORWARDING_MASK;
        break;
      case DEST.WEIGHT:
        weight = d.hostU32();
        break;
      case DEST.U_THRESH:
        upperThreshold = d.hostU32();
        break;
      case DEST.L_THRESH:
        lowerThreshold = d.hostU32();
        break;
      case DEST.ACTIVE_CONNS:
        activeConnections = d.hostU32();
        break;
      case DEST.INACT_CONNS:
        inactiveConnections = d.hostU32();
        break;
      case DEST.PERSIST_CONNS:
        persistentConnections = d.hostU32();
        break;
      case DEST.ADDR_FAMILY:
        family = familyOf(d.hostU16());
        break;
      case DEST.STATS64:
        if (withCounters) counters = decodeStats(d.nested());
        break;
    }
  }
  const text = addressText(d, address, family);
  if (family === undefined || text === undefined) return undefined;
  return {
    key: { family, address: text, port },
    settings: { forwarding, weight, upperThreshold, lowerThreshold },
    activeConnections,
    inactiveConnections,
    persistentConnections,
    ...(counters === undefined ? {} : { counters }),
  };
}
