/**
 * Sets and maps (enum nft_set_attributes):
 *
 *     TABLE(1) string | NAME(2) string | FLAGS(3) be32, enum nft_set_flags
 *     KEY_TYPE(4) be32: for user space | KEY_LEN(5) be32: bytes
 *     DATA_TYPE(6) be32, NFT_DATA_VERDICT for verdict maps | DATA_LEN(7) be32: bytes
 *     DESC(9) nested
 *         SIZE(1) be32: most elements
 *         CONCAT(2) nested list, interval sets with several fields only
 *             LIST_ELEM(1) nested: LEN(1) be32, bytes of the field
 *     ID(10) be32: unique in the batch | TIMEOUT(11) be64: milliseconds | USERDATA(13) | HANDLE(16) be64
 *     COUNT(20) be32: elements, only from newer kernels (6.18 does, 6.1 does not)
 */
import type { AttributeDecoder, AttributeNames, AttributeWriter } from '../../attribute.js';
import { writeHostU32 } from '../../endian.js';
import { NFTA_LIST_ELEM } from '../constants.js';
import {
  byteOrderNumber,
  type Field,
  fieldsLength,
  fieldsType,
  selectorOfFields,
  verdictSelector,
} from '../field.js';
import { commentEntry, findComment, userdataEntry } from './userdata.js';

const NFTA_SET = {
  TABLE: 1,
  NAME: 2,
  FLAGS: 3,
  KEY_TYPE: 4,
  KEY_LEN: 5,
  DATA_TYPE: 6,
  DATA_LEN: 7,
  DESC: 9,
  ID: 10,
  TIMEOUT: 11,
  USERDATA: 13,
  HANDLE: 16,
  COUNT: 20,
} as const;
const NFTA_SET_DESC = { SIZE: 1, CONCAT: 2 } as const;
const NFTA_SET_FIELD_LEN = 1;
const NFT_DATA_VERDICT = 0xffffff00;

const FLAG = { CONSTANT: 2, INTERVAL: 4, MAP: 8, TIMEOUT: 16, DYNAMIC: 32, CONCAT: 128 } as const;

export const SET_NAMES: AttributeNames = {
  1: 'table',
  2: 'name',
  3: 'flags',
  4: 'key_type',
  5: 'key_len',
  6: 'data_type',
  7: 'data_len',
  9: ['desc', { 1: 'size', 2: ['concat', { list: { 1: 'len' } }] }],
  10: 'id',
  11: 'timeout',
  13: 'userdata',
  16: 'handle',
};

/** Entries of a set's user data (nft's enum nftnl_udata_set_types). */
const UDATA_SET = {
  KEY_BYTE_ORDER: 0,
  DATA_BYTE_ORDER: 1,
  KEY_TYPEOF: 3,
  DATA_TYPEOF: 4,
  DATA_INTERVAL: 6,
  COMMENT: 7,
} as const;

/** A set or map to be made. Keys and values are lists of fields: one register after the other. */
export interface SetDefinition {
  readonly name: string;
  readonly key: readonly Field[];
  /** Present: a map. */
  readonly value?: readonly Field[] | 'verdict';
  /** The packet path may change it (dynset). */
  readonly dynamic?: boolean;
  /** Elements may expire. */
  readonly timeout?: boolean;
  /** Elements are ranges. */
  readonly interval?: boolean;
  /** Elements can't change once rules use it. */
  readonly constant?: boolean;
  /**
   * Most elements (ENFILE beyond); can't be changed later. Dynamic sets want one (the kernel's default is 65535).
   *
   * For a set that is neither dynamic nor has timeouts it also selects a hash table of fixed size. Filling that is
   * two to four times as fast as filling one that grows (500,000 elements: 0.28 s instead of 1.04 s), and its dumps
   * are exact at any time (see NftablesConnection.listElements()).
   */
  readonly size?: number;
  /** Lifetime of elements that don't bring their own; needs `timeout`. */
  readonly timeoutMs?: number;
  readonly comment?: string;
}

/** A set as the kernel has it. */
export interface SetInfo {
  readonly name: string;
  readonly handle: bigint;
  readonly flags: number;
  /** The set belongs to a rule and has no name of its own. */
  readonly anonymous: boolean;
  readonly map: boolean;
  readonly keyType: number;
  /** Bytes. */
  readonly keyLength: number;
  /** undefined unless a map; 'verdict' or nft's type number. */
  readonly valueType: number | 'verdict' | undefined;
  /** Bytes; 0 for verdicts. */
  readonly valueLength: number;
  readonly size: number | undefined;
  readonly timeoutMs: number | undefined;
  /**
   * Elements at the moment, where the kernel tells: a dump of a hash set that brought fewer different ones was
   * disturbed. (A range in an interval set may count as one or two.)
   */
  readonly count: number | undefined;
  readonly comment: string | undefined;
  readonly userdata: Buffer;
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  writeHostU32(bytes, 0, value);
  return bytes;
}

function byteOrderOf(fields: readonly Field[] | 'verdict'): number {
  if (fields === 'verdict' || fields.length !== 1) return byteOrderNumber(undefined);
  return byteOrderNumber(fields[0]?.byteOrder);
}

/** The same entries in the same order as nft writes them. */
function setUserdata(set: SetDefinition): Buffer {
  const entries = [userdataEntry(UDATA_SET.KEY_BYTE_ORDER, word(byteOrderOf(set.key)))];
  if (set.value !== undefined) {
    entries.push(userdataEntry(UDATA_SET.DATA_BYTE_ORDER, word(byteOrderOf(set.value))));
  }
  // nft prints `typeof` only when both sides have it, `type` otherwise.
  const key = selectorOfFields(set.key);
  const value =
    set.value === undefined || set.value === 'verdict' ? verdictSelector : selectorOfFields(set.value);
  if (key !== undefined && value !== undefined) {
    entries.push(userdataEntry(UDATA_SET.KEY_TYPEOF, key));
    if (set.value !== undefined) entries.push(userdataEntry(UDATA_SET.DATA_TYPEOF, value));
  }
  if (set.value !== undefined) entries.push(userdataEntry(UDATA_SET.DATA_INTERVAL, word(0)));
  if (set.comment !== undefined) entries.push(commentEntry(UDATA_SET.COMMENT, set.comment));
  return Buffer.concat(entries);
}

function isRangeConcatenation(set: SetDefinition): boolean {
  return set.interval === true && set.key.length > 1;
}

function setFlags(set: SetDefinition): number {
  return (
    (set.constant === true ? FLAG.CONSTANT : 0) |
    (set.interval === true ? FLAG.INTERVAL : 0) |
    (set.value === undefined ? 0 : FLAG.MAP) |
    (set.timeout === true ? FLAG.TIMEOUT : 0) |
    (set.dynamic === true ? FLAG.DYNAMIC : 0) |
    (isRangeConcatenation(set) ? FLAG.CONCAT : 0)
  );
}

export function encodeSet(writer: AttributeWriter, table: string, set: SetDefinition, id: number): void {
  encodeSetName(writer, table, set.name);
  writer
    .u32(NFTA_SET.FLAGS, setFlags(set))
    .u32(NFTA_SET.KEY_TYPE, fieldsType(set.key))
    .u32(NFTA_SET.KEY_LEN, fieldsLength(set.key));
  if (set.value === 'verdict') {
    writer.u32(NFTA_SET.DATA_TYPE, NFT_DATA_VERDICT).u32(NFTA_SET.DATA_LEN, 0);
  } else if (set.value !== undefined) {
    writer.u32(NFTA_SET.DATA_TYPE, fieldsType(set.value)).u32(NFTA_SET.DATA_LEN, fieldsLength(set.value));
  }
  writer.u32(NFTA_SET.ID, id);
  if (set.timeoutMs !== undefined) writer.u64(NFTA_SET.TIMEOUT, BigInt(set.timeoutMs));
  if (set.size !== undefined || isRangeConcatenation(set)) {
    const desc = writer.openNest(NFTA_SET.DESC);
    if (set.size !== undefined) writer.u32(NFTA_SET_DESC.SIZE, set.size);
    if (isRangeConcatenation(set)) {
      const list = writer.openNest(NFTA_SET_DESC.CONCAT);
      for (const field of set.key) {
        const element = writer.openNest(NFTA_LIST_ELEM);
        writer.u32(NFTA_SET_FIELD_LEN, field.length);
        writer.closeNest(element);
      }
      writer.closeNest(list);
    }
    writer.closeNest(desc);
  }
  writer.data(NFTA_SET.USERDATA, setUserdata(set));
}

/** For requests that only name a set. */
export function encodeSetName(writer: AttributeWriter, table: string, name: string): void {
  writer.string(NFTA_SET.TABLE, table).string(NFTA_SET.NAME, name);
}

/** For requests that concern all sets of a table. */
export function encodeSetTable(writer: AttributeWriter, table: string): void {
  writer.string(NFTA_SET.TABLE, table);
}

export function decodeSet(d: AttributeDecoder): SetInfo & { readonly table: string } {
  let [table, name] = ['', ''];
  let [flags, keyType, keyLength, dataType, valueLength] = [0, 0, 0, 0, 0];
  let handle = 0n;
  let [size, timeoutMs, count]: (number | undefined)[] = [];
  let userdata: Buffer = Buffer.alloc(0);
  while (d.next()) {
    if (d.type === NFTA_SET.TABLE) table = d.string();
    else if (d.type === NFTA_SET.NAME) name = d.string();
    else if (d.type === NFTA_SET.FLAGS) flags = d.u32();
    else if (d.type === NFTA_SET.KEY_TYPE) keyType = d.u32();
    else if (d.type === NFTA_SET.KEY_LEN) keyLength = d.u32();
    else if (d.type === NFTA_SET.DATA_TYPE) dataType = d.u32();
    else if (d.type === NFTA_SET.DATA_LEN) valueLength = d.u32();
    else if (d.type === NFTA_SET.TIMEOUT) timeoutMs = Number(d.u64());
    else if (d.type === NFTA_SET.HANDLE) handle = d.u64();
    else if (d.type === NFTA_SET.COUNT) count = d.u32();
    else if (d.type === NFTA_SET.USERDATA) userdata = d.copy();
    else if (d.type === NFTA_SET.DESC) {
      const desc = d.nested();
      while (desc.next()) if (desc.type === NFTA_SET_DESC.SIZE) size = desc.u32();
    }
  }
  const map = (flags & FLAG.MAP) !== 0;
  return {
    table,
    name,
    handle,
    flags,
    anonymous: (flags & 1) !== 0,
    map,
    keyType,
    keyLength,
    valueType: !map ? undefined : dataType === NFT_DATA_VERDICT ? 'verdict' : dataType,
    valueLength: dataType === NFT_DATA_VERDICT ? 0 : valueLength,
    size,
    timeoutMs,
    count,
    comment: findComment(userdata, UDATA_SET.COMMENT),
    userdata,
  };
}

/** Whether the kernel's set is exactly what addSet(definition) would have made. */
export function sameSetDefinition(definition: SetDefinition, actual: SetInfo): boolean {
  const { value } = definition;
  return (
    definition.name === actual.name &&
    setFlags(definition) === actual.flags &&
    fieldsType(definition.key) === actual.keyType &&
    fieldsLength(definition.key) === actual.keyLength &&
    (value === undefined || value === 'verdict' ? value : fieldsType(value)) === actual.valueType &&
    (value === undefined || value === 'verdict' ? 0 : fieldsLength(value)) === actual.valueLength &&
    (definition.size === undefined || definition.size === actual.size) &&
    definition.timeoutMs === actual.timeoutMs &&
    setUserdata(definition).equals(actual.userdata)
  );
}
