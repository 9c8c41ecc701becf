/**
 * Set elements (enum nft_set_elem_list_attributes, enum nft_set_elem_attributes):
 *
 *     TABLE(1) string | SET(2) string
 *     ELEMENTS(3) nested list; absent in a deletion: all of them
 *         LIST_ELEM(1) nested
 *             KEY(1) nested data | DATA(2) nested data or verdict | FLAGS(3) be32, 1: end of an interval
 *             TIMEOUT(4) be64: milliseconds | EXPIRATION(5) be64: milliseconds left | USERDATA(6)
 *             KEY_END(10) nested data, last key of a range in a concatenation
 */
import {
  align4,
  AttributeDecoder,
  ATTRIBUTE_HEADER,
  NLA_F_NESTED,
  type AttributeNames,
  type AttributeWriter,
} from '../../attribute.js';
import { writeHostU16 } from '../../endian.js';
import { NFTA_LIST_ELEM } from '../constants.js';
import {
  decodeData,
  isVerdict,
  NFTA_DATA_VALUE,
  NFTA_DATA_VERDICT,
  NFTA_VERDICT_CHAIN,
  NFTA_VERDICT_CODE,
  type Verdict,
  verdictCode,
} from '../data.js';
import { COMMENT_MAX, findComment, UDATA_COMMENT } from './userdata.js';

const NFTA_SET_ELEM_LIST = { TABLE: 1, SET: 2, ELEMENTS: 3 } as const;
const NFTA_SET_ELEM = {
  KEY: 1,
  DATA: 2,
  FLAGS: 3,
  TIMEOUT: 4,
  EXPIRATION: 5,
  USERDATA: 6,
  KEY_END: 10,
} as const;
const NFT_SET_ELEM_INTERVAL_END = 1;

export const ELEMENT_NAMES: AttributeNames = {
  1: 'table',
  2: 'set',
  3: [
    'elements',
    {
      list: { 1: 'key', 2: 'data', 3: 'flags', 4: 'timeout', 5: 'expiration', 6: 'userdata', 10: 'key_end' },
    },
  ],
};

/** What an element can have beside key and value. */
export interface ElementOptions {
  /** Printed by nft beside the element; at most 128 bytes. */
  readonly comment?: string;
  /** Lifetime; the set must have `timeout`. */
  readonly timeoutMs?: number;
  /** What is left of it, when that is less. Only beside `timeoutMs`. */
  readonly expiresMs?: number;
  /** In an interval set with a single field: this key is the first that is no longer in the range. */
  readonly intervalEnd?: boolean;
  /** In an interval set with several fields: last key of the range, field by field. */
  readonly keyEnd?: Uint8Array;
}

/** What a dump has of an element beside key and value. */
export interface ElementInfo {
  readonly comment: string | undefined;
  /** Its own lifetime, if it has one. */
  readonly timeoutMs: number | undefined;
  /** What is left of it. */
  readonly expiresMs: number | undefined;
  readonly intervalEnd: boolean;
  /** A view, like the key. */
  readonly keyEnd: Buffer | undefined;
}

/** Most plain elements have nothing beside key and value; they share this. */
const PLAIN: ElementInfo = {
  comment: undefined,
  timeoutMs: undefined,
  expiresMs: undefined,
  intervalEnd: false,
  keyEnd: undefined,
};

/** Starts the payload; elements follow. Returns what closeNest() wants. */
export function openElements(writer: AttributeWriter, table: string, set: string): number {
  encodeElementSet(writer, table, set);
  return writer.openNest(NFTA_SET_ELEM_LIST.ELEMENTS);
}

/** For requests that concern all elements of a set. */
export function encodeElementSet(writer: AttributeWriter, table: string, set: string): void {
  writer.string(NFTA_SET_ELEM_LIST.TABLE, table).string(NFTA_SET_ELEM_LIST.SET, set);
}

function dataSize(data: Uint8Array | Verdict): number {
  if (!isVerdict(data)) return 2 * ATTRIBUTE_HEADER + align4(data.length);
  const chain = 'chain' in data ? ATTRIBUTE_HEADER + align4(Buffer.byteLength(data.chain) + 1) : 0;
  return 3 * ATTRIBUTE_HEADER + 4 + chain;
}

/**
 * Bytes that writeElement() will write at most.
 * @throws RangeError when the comment is too long
 */
export function elementSize(
  key: Uint8Array,
  value: Uint8Array | Verdict | undefined,
  options: ElementOptions | undefined,
): number {
  let size = 3 * ATTRIBUTE_HEADER + align4(key.length);
  if (value !== undefined) size += dataSize(value);
  if (options === undefined) return size;
  if (options.keyEnd !== undefined) size += dataSize(options.keyEnd);
  if (options.intervalEnd === true) size += ATTRIBUTE_HEADER + 4;
  if (options.timeoutMs !== undefined) size += ATTRIBUTE_HEADER + 8;
  if (options.expiresMs !== undefined) size += ATTRIBUTE_HEADER + 8;
  if (options.comment !== undefined) {
    const length = Buffer.byteLength(options.comment);
    if (length > COMMENT_MAX) {
      throw new RangeError(`comment has ${length} bytes, ${COMMENT_MAX} fit: ${options.comment}`);
    }
    size += ATTRIBUTE_HEADER + align4(3 + length);
  }
  return size;
}

/*
 * The writers below are the hot path of a cold start: half a million elements at once. They write into a buffer
 * that is already large enough, at an offset, and return the offset after what they wrote.
 */

function attributeAt(buffer: Buffer, offset: number, size: number, type: number): number {
  writeHostU16(buffer, offset, size);
  writeHostU16(buffer, offset + 2, type);
  return offset + ATTRIBUTE_HEADER;
}

function bytesAt(buffer: Buffer, offset: number, data: Uint8Array): number {
  const { length } = data;
  // Element by element: keys are short, and a call of set() costs more than the copy.
  for (let i = 0; i < length; i++) buffer[offset + i] = data[i] as number;
  return padAt(buffer, offset + length);
}

function padAt(buffer: Buffer, offset: number): number {
  let end = offset;
  while ((end & 3) !== 0) buffer[end++] = 0;
  return end;
}

function valueAt(buffer: Buffer, offset: number, type: number, value: Uint8Array): number {
  const { length } = value;
  let at = attributeAt(buffer, offset, 2 * ATTRIBUTE_HEADER + align4(length), type | NLA_F_NESTED);
  at = attributeAt(buffer, at, ATTRIBUTE_HEADER + length, NFTA_DATA_VALUE);
  return bytesAt(buffer, at, value);
}

function verdictAt(buffer: Buffer, offset: number, verdict: Verdict): number {
  let at = offset + 2 * ATTRIBUTE_HEADER;
  at = attributeAt(buffer, at, ATTRIBUTE_HEADER + 4, NFTA_VERDICT_CODE);
  at = buffer.writeInt32BE(verdictCode(verdict), at);
  if ('chain' in verdict) {
    const length = buffer.write(verdict.chain, at + ATTRIBUTE_HEADER, 'utf8') + 1;
    at = attributeAt(buffer, at, ATTRIBUTE_HEADER + length, NFTA_VERDICT_CHAIN) + length;
    buffer[at - 1] = 0;
    at = padAt(buffer, at);
  }
  attributeAt(buffer, offset, at - offset, NFTA_SET_ELEM.DATA | NLA_F_NESTED);
  attributeAt(
    buffer,
    offset + ATTRIBUTE_HEADER,
    at - offset - ATTRIBUTE_HEADER,
    NFTA_DATA_VERDICT | NLA_F_NESTED,
  );
  return at;
}

function optionsAt(buffer: Buffer, offset: number, options: ElementOptions): number {
  let at = offset;
  if (options.keyEnd !== undefined) at = valueAt(buffer, at, NFTA_SET_ELEM.KEY_END, options.keyEnd);
  if (options.intervalEnd === true) {
    at = attributeAt(buffer, at, ATTRIBUTE_HEADER + 4, NFTA_SET_ELEM.FLAGS);
    at = buffer.writeUInt32BE(NFT_SET_ELEM_INTERVAL_END, at);
  }
  if (options.timeoutMs !== undefined) {
    at = attributeAt(buffer, at, ATTRIBUTE_HEADER + 8, NFTA_SET_ELEM.TIMEOUT);
    at = buffer.writeBigUInt64BE(BigInt(options.timeoutMs), at);
  }
  if (options.expiresMs !== undefined) {
    at = attributeAt(buffer, at, ATTRIBUTE_HEADER + 8, NFTA_SET_ELEM.EXPIRATION);
    at = buffer.writeBigUInt64BE(BigInt(options.expiresMs), at);
  }
  if (options.comment !== undefined) {
    // One user data entry: type, length, text, zero.
    const text = at + ATTRIBUTE_HEADER + 2;
    const length = buffer.write(options.comment, text, 'utf8') + 1;
    attributeAt(buffer, at, ATTRIBUTE_HEADER + 2 + length, NFTA_SET_ELEM.USERDATA);
    buffer[text - 2] = UDATA_COMMENT;
    buffer[text - 1] = length;
    buffer[text + length - 1] = 0;
    at = padAt(buffer, text + length);
  }
  return at;
}

/** Appends one entry of the list; `size` is what elementSize() returned for it. */
export function writeElement(
  writer: AttributeWriter,
  size: number,
  key: Uint8Array,
  value: Uint8Array | Verdict | undefined,
  options: ElementOptions | undefined,
): void {
  writer.reserve(size);
  const { buffer, length: start } = writer;
  let at = valueAt(buffer, start + ATTRIBUTE_HEADER, NFTA_SET_ELEM.KEY, key);
  if (value !== undefined) {
    at = isVerdict(value) ? verdictAt(buffer, at, value) : valueAt(buffer, at, NFTA_SET_ELEM.DATA, value);
  }
  if (options !== undefined) at = optionsAt(buffer, at, options);
  attributeAt(buffer, start, at - start, NFTA_LIST_ELEM | NLA_F_NESTED);
  writer.length = at;
}

/** Only which set the elements belong to. */
export function decodeElementSet(d: AttributeDecoder): { table: string; set: string } {
  let [table, set] = ['', ''];
  while (d.next()) {
    if (d.type === NFTA_SET_ELEM_LIST.TABLE) table = d.string();
    else if (d.type === NFTA_SET_ELEM_LIST.SET) set = d.string();
  }
  return { table, set };
}

/** Gets one element; key and value are views, good until it returns. The value is undefined in sets without values. */
export type OnElement = (key: Buffer, value: Buffer | Verdict | undefined, info: ElementInfo) => void;

/**
 * Hands on the elements of one message. Keys and values are views into the datagram, good until the callback
 * returns.
 */
export function decodeElements(d: AttributeDecoder, onElement: OnElement): { table: string; set: string } {
  let [table, set] = ['', ''];
  const element = new AttributeDecoder(d.buffer, 0, 0, d);
  while (d.next()) {
    if (d.type === NFTA_SET_ELEM_LIST.TABLE) {
      table = d.string();
    } else if (d.type === NFTA_SET_ELEM_LIST.SET) {
      set = d.string();
    } else if (d.type === NFTA_SET_ELEM_LIST.ELEMENTS) {
      const list = d.nested();
      while (list.next()) {
        if (list.type === NFTA_LIST_ELEM) decodeElement(list.enter(element), onElement);
      }
    }
  }
  return { table, set };
}

function decodeElement(d: AttributeDecoder, onElement: OnElement): void {
  let [key, keyEnd]: (Buffer | undefined)[] = [];
  let value: Buffer | Verdict | undefined;
  let [timeoutMs, expiresMs]: (number | undefined)[] = [];
  let comment: string | undefined;
  let flags = 0;
  let plain = true;
  while (d.next()) {
    if (d.type === NFTA_SET_ELEM.DATA) {
      value = decodeData(d);
      continue;
    }
    if (d.type === NFTA_SET_ELEM.KEY) {
      const data = decodeData(d);
      if (data !== undefined && !isVerdict(data)) key = data;
      continue;
    }
    plain = false;
    if (d.type === NFTA_SET_ELEM.FLAGS) flags = d.u32();
    else if (d.type === NFTA_SET_ELEM.TIMEOUT) timeoutMs = Number(d.u64());
    else if (d.type === NFTA_SET_ELEM.EXPIRATION) expiresMs = Number(d.u64());
    else if (d.type === NFTA_SET_ELEM.USERDATA) comment = findComment(d.view(), UDATA_COMMENT);
    else if (d.type === NFTA_SET_ELEM.KEY_END) {
      const data = decodeData(d);
      if (data !== undefined && !isVerdict(data)) keyEnd = data;
    }
  }
  // A catch-all element ("*") has no key.
  if (d.failed || key === undefined) return;
  onElement(
    key,
    value,
    plain
      ? PLAIN
      : { comment, timeoutMs, expiresMs, intervalEnd: (flags & NFT_SET_ELEM_INTERVAL_END) !== 0, keyEnd },
  );
}
