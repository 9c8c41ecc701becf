/** How requests to nftables begin, and what their answers have in common. */
import type { AttributeNames, AttributeWriter } from '../attribute.js';
import type { Request } from '../connection.js';
import type { MessageReader } from '../message.js';
import { AF_INET, AF_INET6, type Family, NFGENMSG, writeNfgenmsg } from '../nfnetlink.js';
import { nftType } from './constants.js';

/** undefined: a table of both families, or of none. */
export function familyOf(addressFamilyNumber: number): Family | undefined {
  if (addressFamilyNumber === AF_INET) return 'ip';
  return addressFamilyNumber === AF_INET6 ? 'ip6' : undefined;
}

export interface Decoded<T> {
  readonly attributes: { finish(): void };
  readonly value: T | undefined;
}

/** Entries of one table: the kernel lists those of all tables of a family. */
export function inTable<T extends { readonly table: string }>(
  decode: (attributes: ReturnType<MessageReader['attributes']>) => T,
  table: string,
): (message: MessageReader) => Decoded<Omit<T, 'table'>> {
  return (message) => {
    const attributes = message.attributes(NFGENMSG);
    const { table: owner, ...value } = decode(attributes);
    return { attributes, value: owner === table ? value : undefined };
  };
}

/** A request to nftables, about objects of one family. */
export function request(
  message: number,
  family: number,
  operation: string,
  encode: (writer: AttributeWriter) => void,
  attributes?: AttributeNames,
): Request {
  return {
    type: nftType(message),
    operation,
    encode: (writer) => {
      writeNfgenmsg(writer, family);
      encode(writer);
    },
    missing: 'the kernel has no nftables: load the module nf_tables, or use a kernel with CONFIG_NF_TABLES',
    ...(attributes === undefined ? {} : { names: { headerLength: NFGENMSG, attributes } }),
  };
}
