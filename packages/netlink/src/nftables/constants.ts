/** Message numbers (linux/netfilter/nf_tables.h, enum nf_tables_msg_types) and the names of enumerations. */
import { NFNL_SUBSYS_NFTABLES, nfnetlinkType } from '../nfnetlink.js';

export const NFT_MSG = {
  NEWTABLE: 0,
  GETTABLE: 1,
  DELTABLE: 2,
  NEWCHAIN: 3,
  GETCHAIN: 4,
  DELCHAIN: 5,
  NEWRULE: 6,
  GETRULE: 7,
  DELRULE: 8,
  NEWSET: 9,
  GETSET: 10,
  DELSET: 11,
  NEWSETELEM: 12,
  GETSETELEM: 13,
  DELSETELEM: 14,
  NEWGEN: 15,
  GETGEN: 16,
} as const;

export function nftType(message: number): number {
  return nfnetlinkType(NFNL_SUBSYS_NFTABLES, message);
}

/** Lists number nothing: every entry has this type (NFTA_LIST_ELEM). */
export const NFTA_LIST_ELEM = 1;
