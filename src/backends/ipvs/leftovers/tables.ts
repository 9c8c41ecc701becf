/** What the tables of our mode ipvs tell about virtual servers: which are ours, and whose they are. */
import { type Family, formatAddress, NetlinkError, parseAddress } from '@kube-proxy-ts/netlink';
import type { VirtualServerKey } from '@kube-proxy-ts/netlink/ipvs';
import type { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { maps, sets, tableName } from '../table/names.js';

/** @param name of the service port, 'namespace/name:port' */
export type OnNamedServer = (key: VirtualServerKey, name: string | undefined) => void;

/**
 * Goes through every virtual server that the tables name, by address and by mark. Nothing where there are no tables.
 * @param onMark told of addresses that lead to a virtual server by mark, too
 */
export function readTableServers(
  connection: NftablesConnection,
  onServer: OnNamedServer,
  onMark?: (address: VirtualServerKey, mark: number) => void,
): void {
  for (const family of ['ip', 'ip6'] as const) {
    const names = new Map<string, string | undefined>();
    readElements(connection, family, sets.serviceIPs, (key, _value, comment) => {
      names.set(key.toString('latin1'), comment);
      onServer(addressKey(family, key), comment);
    });
    const marks = new Map<number, string | undefined>();
    readElements(connection, family, maps.shortCircuits, (key, value) => {
      if (value === undefined) return;
      // Several addresses of a service port lead to one mark.
      const mark = readHostUint32(value);
      marks.set(mark, names.get(key.toString('latin1')));
      onMark?.(addressKey(family, key), mark);
    });
    for (const [fwmark, name] of marks) onServer({ family, fwmark }, name);
  }
}

/** @param key `ip daddr . meta l4proto . th dport`, each padded to four bytes */
export function addressKey(family: Family, key: Buffer): VirtualServerKey {
  const end = key.length - 8;
  const address = formatAddress(key.subarray(0, end));
  return { family, address, protocol: key.readUInt8(end), port: key.readUInt16BE(end + 4) };
}

/** The same the other way round. */
export function serviceKey(server: {
  readonly address: string;
  readonly protocol: number;
  readonly port: number;
}): Buffer {
  const rest = Buffer.alloc(8);
  rest.writeUInt8(server.protocol, 0);
  rest.writeUInt16BE(server.port, 4);
  return Buffer.concat([parseAddress(server.address), rest]);
}

/** A number in the byte order of this machine. */
export function hostUint32(value: number): Buffer {
  return Buffer.from(Uint32Array.of(value).buffer);
}

function readHostUint32(value: Buffer): number {
  return new Uint32Array(Uint8Array.from(value).buffer)[0] ?? 0;
}

/** Goes through one set of our tables, of a family. Nothing where there is none. */
export function readElements(
  connection: NftablesConnection,
  family: Family,
  set: string,
  onElement: (key: Buffer, value: Buffer | undefined, comment: string | undefined) => void,
): void {
  try {
    connection.listElements(
      family,
      tableName,
      set,
      (key, value, { comment }) => {
        onElement(key, Buffer.isBuffer(value) ? value : undefined, comment);
      },
      // What comes twice does no harm.
      { onRestart: () => undefined },
    );
  } catch (error) {
    // No such table, or a kernel without nf_tables, which has none of it either.
    if (!(error instanceof NetlinkError)) throw error;
  }
}
