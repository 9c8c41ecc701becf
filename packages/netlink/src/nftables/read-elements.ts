/** Elements of a set, by the whole set or by their keys. */
import { AttributeWriter } from '../attribute.js';
import type { NetlinkConnection, Request } from '../connection.js';
import { NetlinkError } from '../errors.js';
import type { MessageReader } from '../message.js';
import { addressFamily, type Family, NFGENMSG } from '../nfnetlink.js';
import { NFT_MSG } from './constants.js';
import {
  decodeElements,
  ELEMENT_NAMES,
  elementSize,
  encodeElementSet,
  type OnElement,
  openElements,
  writeElement,
} from './objects/element.js';
import { request } from './request.js';

/**
 * Keys in one request for single elements. The kernel answers all of it before the first answer can be read, each in a
 * datagram of its own that counts with up to 1 KiB: this many fit also where the receive buffer could not be enlarged.
 */
const KEYS_PER_REQUEST = 200;

export function listRequest(family: Family, table: string, set: string): Request {
  return request(
    NFT_MSG.GETSETELEM,
    addressFamily(family),
    `list elements of set "${set}"`,
    (w) => {
      encodeElementSet(w, table, set);
    },
    ELEMENT_NAMES,
  );
}

export function elementsTo(onElement: OnElement): (message: MessageReader) => void {
  return (message) => {
    const attributes = message.attributes(NFGENMSG);
    decodeElements(attributes, onElement);
    attributes.finish();
  };
}

/** See NftablesConnection.getElements(). */
export function readElements(
  netlink: NetlinkConnection,
  family: Family,
  table: string,
  set: string,
  keys: Iterable<Uint8Array>,
  onElement: OnElement,
): void {
  const writer = new AttributeWriter();
  let offsets: number[] = [];
  const flush = (): void => {
    let from = 0;
    while (from < offsets.length) {
      const bytes = writer.buffer.subarray(offsets[from], writer.length);
      from += readSome(netlink, family, table, set, bytes, offsets.length - from, onElement);
    }
    writer.length = 0;
    offsets = [];
  };
  for (const key of keys) {
    offsets.push(writer.length);
    writeElement(writer, elementSize(key, undefined, undefined), key, undefined, undefined);
    if (offsets.length === KEYS_PER_REQUEST) flush();
  }
  flush();
}

/**
 * @param list `count` entries of an element list
 * @returns how many of them are done with
 */
function readSome(
  netlink: NetlinkConnection,
  family: Family,
  table: string,
  set: string,
  list: Buffer,
  count: number,
  onElement: OnElement,
): number {
  let found = 0;
  try {
    netlink.execute(
      request(
        NFT_MSG.GETSETELEM,
        addressFamily(family),
        `read elements of set "${set}"`,
        (w) => {
          const nest = openElements(w, table, set);
          w.raw(list).closeNest(nest);
        },
        ELEMENT_NAMES,
      ),
      (message) => {
        const attributes = message.attributes(NFGENMSG);
        decodeElements(attributes, onElement);
        attributes.finish();
        found++;
      },
    );
    return count;
  } catch (error) {
    if (!(error instanceof NetlinkError && error.code === 'ENOENT')) throw error;
    // The kernel answers in order, an element a message, and stops at the first key that is missing.
    return found + 1;
  }
}
