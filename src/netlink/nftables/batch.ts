/**
 * A batch: changes to one table that the kernel makes all at once, or not at all. It collects messages in the form in
 * which they are sent:
 *
 *     NFNL_MSG_BATCH_BEGIN | message … message | NFNL_MSG_BATCH_END
 */
import { ATTRIBUTE_HEADER, ATTRIBUTE_MAX, AttributeWriter } from '../attribute.js';
import { closeMessage, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, openMessage } from '../message.js';
import { invalid } from '../errors.js';
import {
  addressFamily,
  AF_UNSPEC,
  type Family,
  NFNL_BATCH_GENID,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_SUBSYS_NFTABLES,
  writeNfgenmsg,
} from '../nfnetlink.js';
import { type BaseChain, encodeChain } from './chain.js';
import { NFT_MSG, nftType } from './constants.js';
import type { Verdict } from './data.js';
import { type ElementOptions, elementSize, encodeElementSet, openElements, writeElement } from './element.js';
import type { Expression } from './expression/index.js';
import { encodeRule } from './rule.js';
import { encodeSet, encodeSetName, type SetDefinition } from './set.js';
import { encodeTable } from './table.js';

/** Room for a batch of a few changes; it doubles as needed. */
const INITIAL_CAPACITY = 8 * 1024;
/** An element must fit its list, which has a header. */
const ELEMENT_MAX = ATTRIBUTE_MAX - ATTRIBUTE_HEADER;

export class Batch {
  /** For the connection, which frames and sends it. Begins with NFNL_MSG_BATCH_BEGIN. */
  readonly writer = new AttributeWriter(INITIAL_CAPACITY);
  /** Where in the writer's buffer the generation stands that the batch demands, be32; 0: whichever. */
  readonly generationOffset: number;
  private readonly nfFamily: number;
  private readonly beginLength: number;
  private messages = 0;
  private sets = 0;
  /** The element message that further elements of the same set join; 0: none. */
  private openType = 0;
  private openSet = '';
  private openStart = 0;
  private openList = 0;

  constructor(
    readonly family: Family,
    readonly table: string,
  ) {
    this.nfFamily = addressFamily(family);
    const begin = openMessage(this.writer, NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST);
    writeNfgenmsg(this.writer, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
    this.writer.u32(NFNL_BATCH_GENID, 0);
    this.generationOffset = this.writer.length - 4;
    closeMessage(this.writer, begin);
    this.beginLength = this.writer.length;
  }

  get isEmpty(): boolean {
    return this.messages === 0;
  }

  /** Bytes so far; the kernel takes at most NftablesConnection.maxBatchBytes in one commit. */
  get byteLength(): number {
    return this.isEmpty ? 0 : this.writer.length - this.beginLength;
  }

  /** Messages so far; elements of one set that were added one after the other share messages. */
  get messageCount(): number {
    return this.messages;
  }

  /** Creates the table unless it exists. */
  addTable(options: { readonly comment?: string } = {}): void {
    this.message(NFT_MSG.NEWTABLE, NLM_F_CREATE, (w) => {
      encodeTable(w, this.table, options.comment);
    });
  }

  /** Deletes the table with everything in it; fails with ENOENT when it does not exist. */
  deleteTable(): void {
    this.message(NFT_MSG.DELTABLE, 0, (w) => {
      encodeTable(w, this.table);
    });
  }

  /** Creates a chain unless it exists (then a base chain's policy is updated). */
  addChain(name: string, options: { readonly base?: BaseChain; readonly comment?: string } = {}): void {
    this.message(NFT_MSG.NEWCHAIN, NLM_F_CREATE, (w) => {
      encodeChain(w, this.table, name, options);
    });
  }

  /** Deletes a chain with its rules; fails with EBUSY while anything jumps to it. */
  deleteChain(name: string): void {
    this.message(NFT_MSG.DELCHAIN, 0, (w) => {
      encodeChain(w, this.table, name);
    });
  }

  /** Deletes all rules of a chain. */
  flushChain(name: string): void {
    this.message(NFT_MSG.DELRULE, 0, (w) => {
      encodeRule(w, this.table, { chain: name });
    });
  }

  /** Appends a rule to a chain. */
  addRule(
    chain: string,
    expressions: readonly Expression[],
    options: { readonly comment?: string } = {},
  ): void {
    this.message(NFT_MSG.NEWRULE, NLM_F_CREATE | NLM_F_APPEND, (w) => {
      encodeRule(w, this.table, { chain, expressions, ...options });
    });
  }

  /** @param handle as listRules() gives it */
  deleteRule(chain: string, handle: bigint): void {
    this.message(NFT_MSG.DELRULE, 0, (w) => {
      encodeRule(w, this.table, { chain, handle });
    });
  }

  /** Creates a set or map unless it exists; fails with EEXIST when it exists with other properties. */
  addSet(definition: SetDefinition): void {
    this.sets++;
    this.message(NFT_MSG.NEWSET, NLM_F_CREATE, (w) => {
      encodeSet(w, this.table, definition, this.sets);
    });
  }

  /** Deletes a set with its elements; fails with EBUSY while a rule uses it. */
  deleteSet(name: string): void {
    this.message(NFT_MSG.DELSET, 0, (w) => {
      encodeSetName(w, this.table, name);
    });
  }

  /** Deletes all elements of a set. */
  flushSet(name: string): void {
    this.message(NFT_MSG.DELSETELEM, 0, (w) => {
      encodeElementSet(w, this.table, name);
    });
  }

  /**
   * Adds an element. One that exists is left alone; a map's element that exists with another value fails with EEXIST
   * or EBUSY: delete it in the same batch before.
   * @param key register bytes: each field padded to a multiple of 4, a single field not padded
   * @param value a map's value in the same form, or a verdict
   * @throws RangeError when the comment is too long; the batch is as before
   */
  addElement(set: string, key: Uint8Array, value?: Uint8Array | Verdict, options?: ElementOptions): void {
    this.element(NFT_MSG.NEWSETELEM, NLM_F_CREATE, set, key, value, options);
  }

  /** Fails with ENOENT when the key is not in the set. */
  deleteElement(
    set: string,
    key: Uint8Array,
    options?: Pick<ElementOptions, 'intervalEnd' | 'keyEnd'>,
  ): void {
    this.element(NFT_MSG.DELSETELEM, 0, set, key, undefined, options);
  }

  private element(
    type: number,
    flags: number,
    set: string,
    key: Uint8Array,
    value: Uint8Array | Verdict | undefined,
    options: ElementOptions | undefined,
  ): void {
    const { writer } = this;
    const size = elementSize(key, value, options);
    if (size > ELEMENT_MAX)
      throw invalid(`write element of "${set}"`, `it has ${size} bytes, ${ELEMENT_MAX} fit`);
    const joins =
      this.openType === type && this.openSet === set && writer.length - this.openList + size <= ATTRIBUTE_MAX;
    if (!joins) {
      this.openStart = openMessage(writer, nftType(type), NLM_F_REQUEST | flags);
      writeNfgenmsg(writer, this.nfFamily);
      this.openList = openElements(writer, this.table, set);
      this.openType = type;
      this.openSet = set;
      this.messages++;
    }
    writeElement(writer, size, key, value, options);
    // Kept closed at all times: two stores per element, and there is no state in which it can't be sent.
    writer.closeNest(this.openList);
    closeMessage(writer, this.openStart);
  }

  private message(type: number, flags: number, encode: (writer: AttributeWriter) => void): void {
    const { writer } = this;
    this.openType = 0;
    const start = openMessage(writer, nftType(type), NLM_F_REQUEST | flags);
    try {
      writeNfgenmsg(writer, this.nfFamily);
      encode(writer);
    } catch (error) {
      writer.length = start;
      throw error;
    }
    closeMessage(writer, start);
    this.messages++;
  }
}
