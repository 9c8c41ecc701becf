/** What the tables of our mode ipvs tell about virtual servers: which are ours, and whose they are. */
import {
  formatAddress,
  NetlinkError,
  type Family,
  type NftablesConnection,
  type VirtualServerKey,
} from '../netlink/index.js';
import { ipvsMarks, ipvsServices, ipvsTable } from './names.js';

/** @param name of the service port, 'namespace/name:port' */
export type OnNamedServer = (key: VirtualServerKey, name: string | undefined) => void;

/** Goes through every virtual server that the tables name, by address and by mark. Nothing where there are no tables. */
export function readTableServers(connection: NftablesConnection, onServer: OnNamedServer): void {
  for (const family of ['ip', 'ip6'] as const) {
    const names = new Map<string, string | undefined>();
    readElements(connection, family, ipvsServices, (key, _value, comment) => {
      names.set(key.toString('latin1'), comment);
      onServer(addressKey(family, key), comment);
    });
    const marks = new Map<number, string | undefined>();
    readElements(connection, family, ipvsMarks, (key, value) => {
      // Several addresses of a service port lead to one mark, a number in the order of this machine.
      if (value !== undefined) marks.set(hostUint32(value), names.get(key.toString('latin1')));
    });
    for (const [fwmark, name] of marks) onServer({ family, fwmark }, name);
  }
}

/** @param key `ip daddr . meta l4proto . th dport`, each padded to four bytes */
function addressKey(family: Family, key: Buffer): VirtualServerKey {
  const end = key.length - 8;
  const address = formatAddress(key.subarray(0, end));
  return { family, address, protocol: key.readUInt8(end), port: key.readUInt16BE(end + 4) };
}

function hostUint32(value: Buffer): number {
  return new Uint32Array(Uint8Array.from(value).buffer)[0] ?? 0;
}

function readElements(
  connection: NftablesConnection,
  family: Family,
  set: string,
  onElement: (key: Buffer, value: Buffer | undefined, comment: string | undefined) => void,
): void {
  try {
    connection.listElements(
      family,
      ipvsTable,
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
