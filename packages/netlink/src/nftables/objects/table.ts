/**
 * Tables (enum nft_table_attributes):
 *
 *     NAME(1) string | FLAGS(2) be32 | USE(3) be32: chains, sets and objects inside | HANDLE(4) be64 | USERDATA(6)
 */
import type { AttributeDecoder, AttributeNames, AttributeWriter } from '../../attribute.js';
import type { Family } from '../../nfnetlink.js';
import { commentEntry, findComment, UDATA_COMMENT } from './userdata.js';

/** enum nft_table_flags */
const NFT_TABLE_F_DORMANT = 1;

const NFTA_TABLE = { NAME: 1, FLAGS: 2, USE: 3, HANDLE: 4, USERDATA: 6 } as const;

export const TABLE_NAMES: AttributeNames = { 1: 'name', 2: 'flags', 4: 'handle', 6: 'userdata' };

/** A table as a dump returns it. */
export interface TableInfo {
  /** undefined: a family other than ip and ip6 (inet, bridge, arp, netdev). */
  readonly family: Family | undefined;
  readonly name: string;
  readonly handle: bigint;
  /** Its base chains see no packets. */
  readonly dormant: boolean;
  readonly comment: string | undefined;
}

export interface TableOptions {
  readonly comment?: string;
  /** Of a table that exists: set or clear the flag. Left out: a new table is awake, another stays as it is. */
  readonly dormant?: boolean;
}

export function encodeTable(
  writer: AttributeWriter,
  name: string,
  { comment, dormant }: TableOptions = {},
): void {
  writer.string(NFTA_TABLE.NAME, name);
  if (dormant !== undefined) writer.u32(NFTA_TABLE.FLAGS, dormant ? NFT_TABLE_F_DORMANT : 0);
  if (comment !== undefined) writer.data(NFTA_TABLE.USERDATA, commentEntry(UDATA_COMMENT, comment));
}

export function decodeTable(d: AttributeDecoder, family: Family | undefined): TableInfo {
  let name = '';
  let handle = 0n;
  let dormant = false;
  let comment: string | undefined;
  while (d.next()) {
    if (d.type === NFTA_TABLE.NAME) name = d.string();
    else if (d.type === NFTA_TABLE.FLAGS) dormant = (d.u32() & NFT_TABLE_F_DORMANT) !== 0;
    else if (d.type === NFTA_TABLE.HANDLE) handle = d.u64();
    else if (d.type === NFTA_TABLE.USERDATA) comment = findComment(d.view(), UDATA_COMMENT);
  }
  return { family, name, handle, dormant, comment };
}
