/** Says in words what a message of a batch was to do, for errors. */
import {
  ATTRIBUTE_HEADER,
  AttributeDecoder,
  locateAttribute,
  type AttributeLocation,
  type AttributeNames,
} from '../attribute.js';
import { readHostU16 } from '../endian.js';
import { MESSAGE_HEADER } from '../message.js';
import { NFGENMSG } from '../nfnetlink.js';
import { CHAIN_NAMES, decodeChain } from './objects/chain.js';
import { NFT_MSG } from './constants.js';
import { decodeElements, ELEMENT_NAMES } from './objects/element.js';
import { describeExpression } from './expression/index.js';
import { decodeRule, RULE_NAMES } from './objects/rule.js';
import { decodeSet, SET_NAMES } from './objects/set.js';
import { decodeTable, TABLE_NAMES } from './objects/table.js';

const NAMES: Readonly<Record<number, AttributeNames>> = {
  [NFT_MSG.NEWTABLE]: TABLE_NAMES,
  [NFT_MSG.DELTABLE]: TABLE_NAMES,
  [NFT_MSG.NEWCHAIN]: CHAIN_NAMES,
  [NFT_MSG.DELCHAIN]: CHAIN_NAMES,
  [NFT_MSG.NEWRULE]: RULE_NAMES,
  [NFT_MSG.DELRULE]: RULE_NAMES,
  [NFT_MSG.NEWSET]: SET_NAMES,
  [NFT_MSG.DELSET]: SET_NAMES,
  [NFT_MSG.NEWSETELEM]: ELEMENT_NAMES,
  [NFT_MSG.DELSETELEM]: ELEMENT_NAMES,
};

export interface MessageDescription {
  /** 'add element to map "service-ips"'; with the expression at fault, if the kernel named one. */
  readonly operation: string;
  /** The attribute at the offset that was asked for. */
  readonly location: AttributeLocation | undefined;
  /** Of the element that the attribute belongs to; a copy. */
  readonly elementKey: Buffer | undefined;
}

function elementsOf(d: AttributeDecoder): { set: string; keys: number; values: number } {
  const count = { keys: 0, values: 0 };
  const { set } = decodeElements(d, (_key, value) => {
    count.keys++;
    if (value !== undefined) count.values++;
  });
  return { set, ...count };
}

function operation(kind: number, d: AttributeDecoder): string {
  switch (kind) {
    case NFT_MSG.NEWTABLE:
      return `add table "${decodeTable(d, undefined).name}"`;
    case NFT_MSG.DELTABLE:
      return `delete table "${decodeTable(d, undefined).name}"`;
    case NFT_MSG.NEWCHAIN:
      return `add chain "${decodeChain(d).name}"`;
    case NFT_MSG.DELCHAIN:
      return `delete chain "${decodeChain(d).name}"`;
    case NFT_MSG.NEWRULE:
      return `add rule to chain "${decodeRule(d).chain}"`;
    case NFT_MSG.DELRULE: {
      const { chain, handle } = decodeRule(d);
      return handle === 0n
        ? `flush chain "${chain}"`
        : `delete rule ${handle.toString()} of chain "${chain}"`;
    }
    case NFT_MSG.NEWSET: {
      const { map, name } = decodeSet(d);
      return `add ${map ? 'map' : 'set'} "${name}"`;
    }
    case NFT_MSG.DELSET:
      return `delete set "${decodeSet(d).name}"`;
    case NFT_MSG.NEWSETELEM: {
      const { set, values } = elementsOf(d);
      return `add element to ${values > 0 ? 'map' : 'set'} "${set}"`;
    }
    case NFT_MSG.DELSETELEM: {
      const { set, keys } = elementsOf(d);
      return `${keys > 0 ? 'delete element of' : 'flush'} set "${set}"`;
    }
    default:
      return `message ${kind}`;
  }
}

function elementKey(d: AttributeDecoder, index: number): Buffer | undefined {
  let at = 0;
  let found: Buffer | undefined;
  decodeElements(d, (key) => {
    if (at++ === index) found = Buffer.from(key);
  });
  return found;
}

/** @param offset byte offset of an attribute from the start of the message, if the kernel named one */
export function describeMessage(
  buffer: Buffer,
  start: number,
  end: number,
  offset: number | undefined,
): MessageDescription {
  const kind = readHostU16(buffer, start + 4) & 0xff;
  const attributes = Math.min(start + MESSAGE_HEADER + NFGENMSG, end);
  const names = NAMES[kind];
  const decoder = (): AttributeDecoder => new AttributeDecoder(buffer, attributes, end, 'describe message');
  const location =
    offset === undefined || names === undefined || offset < ATTRIBUTE_HEADER
      ? undefined
      : locateAttribute(buffer, attributes, end, start + offset, names);
  const expression =
    location?.listIndex === undefined || names !== RULE_NAMES
      ? undefined
      : decodeRule(decoder()).expressions[location.listIndex];
  const what = operation(kind, decoder());
  return {
    operation: expression === undefined ? what : `${what}, ${describeExpression(expression)}`,
    location,
    elementKey:
      location?.listIndex === undefined || names !== ELEMENT_NAMES
        ? undefined
        : elementKey(decoder(), location.listIndex),
  };
}
