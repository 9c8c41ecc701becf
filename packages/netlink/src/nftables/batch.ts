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
import { type BaseChain, encodeChain } from './objects/chain.js';
import { NFT_MSG, nftType } from './constants.js';
import type { Verdict } from './data.js';
import {
  type ElementOptions,
  elementSize,
  encodeElementSet,
  openElements,
  writeElement,
} from './objects/element.js';
import type { Expression } from './expression/index.js';
import { encodeRule } from './objects/rule.js';
import { encodeSet, encodeSetName, type SetDefinition } from './objects/set.js';
import { encodeTable, type TableOptions } from './objects/table.js';

/** Room for a batch of a few changes; it doubles as needed. */
const INITIAL_CAPACITY = 8 * 1024;
/** The same for what comes last, by set. */
const LAST_CAPACITY = 1024;
/** An element must fit its list, which has a header. */
const ELEMENT_MAX = ATTRIBUTE_MAX - ATTRIBUTE_HEADER;

/**
 * Buffers that one batch after the other may use, so that a series of large ones leaves no trail of garbage. Making a
 * batch with it ends the one made with it before.
 */
export class BatchMemory {
  private readonly writers = new Map<string, AttributeWriter>();

  /** @internal @param name of a set, or '' for the rest */
  writer(name: string, capacity: number): AttributeWriter {
    let writer = this.writers.get(name);
    if (writer === undefined) this.writers.set(name, (writer = new AttributeWriter(capacity)));
    writer.length = 0;
    return writer;
  }
}

/** Element messages of one kind for one set, the last of which further elements join. */
class ElementMessages {
  count = 0;
  private start = 0;
  private list = 0;

  constructor(
    private readonly writer: AttributeWriter,
    private readonly type: number,
    private readonly flags: number,
    private readonly nfFamily: number,
    private readonly table: string,
    private readonly set: string,
  ) {}

  /** @returns bytes written */
  add(
    size: number,
    key: Uint8Array,
    value: Uint8Array | Verdict | undefined,
    options: ElementOptions | undefined,
  ): number {
    const { writer } = this;
    const before = writer.length;
    if (this.count === 0 || before - this.list + size > ATTRIBUTE_MAX) {
      this.start = openMessage(writer, nftType(this.type), NLM_F_REQUEST | this.flags);
      writeNfgenmsg(writer, this.nfFamily);
      this.list = openElements(writer, this.table, this.set);
      this.count++;
    }
    writeElement(writer, size, key, value, options);
    // Kept closed at all times: two stores per element, and there is no state in which it can't be sent.
    writer.closeNest(this.list);
    closeMessage(writer, this.start);
    return writer.length - before;
  }
}

/** Changes to one table, sent and made in this order. The family and the table are those of every object in it. */
export class Batch {
  private readonly main: AttributeWriter;
  /** Where in the writer's buffer the generation stands that the batch demands, be32; 0: whichever. */
  readonly generationOffset: number;
  private readonly nfFamily: number;
  private readonly beginLength: number;
  private messages = 0;
  private sets = 0;
  private wholesale = false;
  /** The last messages, if they are of elements: of this type, for this set. */
  private open:
    { readonly type: number; readonly set: string; readonly messages: ElementMessages } | undefined;
  /** By set: what addElementLast() has put off. */
  private readonly last = new Map<
    string,
    { readonly writer: AttributeWriter; readonly messages: ElementMessages }
  >();
  private lastBytes = 0;

  constructor(
    readonly family: Family,
    readonly table: string,
    private readonly memory?: BatchMemory,
  ) {
    this.nfFamily = addressFamily(family);
    const main = memory?.writer('', INITIAL_CAPACITY) ?? new AttributeWriter(INITIAL_CAPACITY);
    this.main = main;
    const begin = openMessage(main, NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST);
    writeNfgenmsg(main, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
    main.u32(NFNL_BATCH_GENID, 0);
    this.generationOffset = main.length - 4;
    closeMessage(main, begin);
    this.beginLength = main.length;
  }

  /** All of it, for the connection, which frames and sends it. Begins with NFNL_MSG_BATCH_BEGIN. */
  get writer(): AttributeWriter {
    for (const { writer, messages } of this.last.values()) {
      this.main.raw(writer.bytes());
      this.messages += messages.count;
      this.open = undefined;
    }
    this.last.clear();
    this.lastBytes = 0;
    return this.main;
  }

  get isEmpty(): boolean {
    return this.messages === 0 && this.last.size === 0;
  }

  /** It deletes tables or sets, or all elements of sets: nobody has counted what goes with them. */
  get isWholesale(): boolean {
    return this.wholesale;
  }

  /** Bytes so far; the kernel takes at most NftablesConnection.maxBatchBytes in one commit. */
  get byteLength(): number {
    return this.isEmpty ? 0 : this.main.length - this.beginLength + this.lastBytes;
  }

  /** Messages so far; elements of one set that were added one after the other share messages. */
  get messageCount(): number {
    let count = this.messages;
    for (const { messages } of this.last.values()) count += messages.count;
    return count;
  }

  /** Creates the table unless it exists. */
  addTable(options: TableOptions = {}): void {
    this.message(NFT_MSG.NEWTABLE, NLM_F_CREATE, (w) => {
      encodeTable(w, this.table, options);
    });
  }

  /** Deletes the table with everything in it; fails with ENOENT when it does not exist. */
  deleteTable(): void {
    this.wholesale = true;
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
    this.wholesale = true;
    this.message(NFT_MSG.DELSET, 0, (w) => {
      encodeSetName(w, this.table, name);
    });
  }

  /** Deletes all elements of a set. */
  flushSet(name: string): void {
    this.wholesale = true;
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

  /**
   * The same, put off to the end of the batch, where all that were put off for a set stand together: a few messages
   * instead of one for each change of the set. So the key may be deleted in this batch, but only to make room.
   */
  addElementLast(set: string, key: Uint8Array, value?: Uint8Array, options?: ElementOptions): void {
    const size = this.sizeOf(set, key, value, options);
    let last = this.last.get(set);
    if (last === undefined) {
      const writer = this.memory?.writer(set, LAST_CAPACITY) ?? new AttributeWriter(LAST_CAPACITY);
      last = { writer, messages: this.elements(writer, NFT_MSG.NEWSETELEM, NLM_F_CREATE, set) };
      this.last.set(set, last);
    }
    this.lastBytes += last.messages.add(size, key, value, options);
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
    const size = this.sizeOf(set, key, value, options);
    if (this.open?.type !== type || this.open.set !== set) {
      this.open = { type, set, messages: this.elements(this.main, type, flags, set) };
    }
    const { messages } = this.open;
    const before = messages.count;
    messages.add(size, key, value, options);
    this.messages += messages.count - before;
  }

  private elements(writer: AttributeWriter, type: number, flags: number, set: string): ElementMessages {
    return new ElementMessages(writer, type, flags, this.nfFamily, this.table, set);
  }

  private sizeOf(
    set: string,
    key: Uint8Array,
    value: Uint8Array | Verdict | undefined,
    options: ElementOptions | undefined,
  ): number {
    const size = elementSize(key, value, options);
    if (size <= ELEMENT_MAX) return size;
    throw invalid(`write element of "${set}"`, `it has ${size} bytes, ${ELEMENT_MAX} fit`);
  }

  private message(type: number, flags: number, encode: (writer: AttributeWriter) => void): void {
    const writer = this.main;
    this.open = undefined;
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
