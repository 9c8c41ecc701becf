/** A connection to nftables in this process's network namespace: commits and dumps. */
import { constants } from 'node:os';
import {
  closeMessage,
  MESSAGE_HEADER,
  MessageReader,
  addFlags,
  clearFlags,
  NLM_F_ACK,
  NLM_F_REQUEST,
  NLMSG_ERROR,
  openMessage,
  setSequence,
  type Acknowledgement,
} from '../message.js';
import { type DumpOptions, NetlinkConnection, rejectionHint, type Request } from '../connection.js';
import { type AttributeNames, AttributeWriter } from '../attribute.js';
import { readHostU32 } from '../endian.js';
import { NetlinkError } from '../errors.js';
import {
  addressFamily,
  AF_INET,
  AF_INET6,
  AF_UNSPEC,
  type Family,
  NFGENMSG,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  writeNfgenmsg,
} from '../nfnetlink.js';
import { NETLINK_NETFILTER, NetlinkSocket, type SocketOptions, type Transport } from '../socket.js';
import type { Batch } from './batch.js';
import { CHAIN_NAMES, type ChainInfo, decodeChain } from './objects/chain.js';
import { NFT_MSG, nftType } from './constants.js';
import { describeMessage } from './describe.js';
import {
  decodeElements,
  ELEMENT_NAMES,
  elementSize,
  encodeElementSet,
  type OnElement,
  openElements,
  writeElement,
} from './objects/element.js';
import { decodeGeneration, type Generation } from './generation.js';
import { decodeRule, encodeRule, RULE_NAMES, type RuleInfo } from './objects/rule.js';
import { decodeSet, encodeSetName, encodeSetTable, SET_NAMES, type SetInfo } from './objects/set.js';
import { decodeTable, TABLE_NAMES, type TableInfo } from './objects/table.js';

/** asm-generic/errno.h; Node has no constant for it. */
const ERESTART = 85;
/** nf_tables_valid_genid() takes it for 'whichever'. */
const ANY_GENERATION = 0;
/** Bytes of a batch's beginning (with the generation) and end. */
const BATCH_FRAME = 2 * (MESSAGE_HEADER + NFGENMSG) + 8;

/**
 * Keys in one request for single elements. The kernel answers all of it before the first answer can be read, each in a
 * datagram of its own that counts with up to 1 KiB: this many fit also where the receive buffer could not be enlarged.
 */
const KEYS_PER_REQUEST = 200;

export interface CommitOptions {
  /** Reject (ERESTART) unless this is the current generation: nobody changed any rules since it was read. */
  readonly generation?: number;
}

export function familyOf(addressFamilyNumber: number): Family | undefined {
  if (addressFamilyNumber === AF_INET) return 'ip';
  return addressFamilyNumber === AF_INET6 ? 'ip6' : undefined;
}

export class NftablesConnection {
  private readonly netlink: NetlinkConnection;
  private committed = 0;
  private around: ((batch: Batch, commit: () => void) => void) | undefined;

  constructor(private readonly transport: Transport) {
    this.netlink = new NetlinkConnection(transport);
  }

  /** @throws NetlinkError EPROTONOSUPPORT when the kernel has no netfilter netlink */
  static open(options: SocketOptions = {}): NftablesConnection {
    return new NftablesConnection(NetlinkSocket.open(NETLINK_NETFILTER, options));
  }

  /**
   * Batch.byteLength may be at most this in one commit. 128 MiB (3 million elements) with privilege over the
   * machine; in a user namespace the system's limit (net.core.wmem_max) counts on older kernels.
   */
  get maxBatchBytes(): number {
    return this.transport.maxDatagram - BATCH_FRAME;
  }

  /** Names this connection in notifications (Notification.portId). */
  get portId(): number {
    return this.transport.portId;
  }

  /** Transactions that the kernel took from this connection: each makes its generation one larger. */
  get transactions(): number {
    return this.committed;
  }

  close(): void {
    this.transport.close();
  }

  /**
   * Makes all changes of a batch, in order, in one step as seen by packets and other readers. Blocks until the kernel is done.
   * An empty batch does nothing. The batch stays as it is and can be committed again.
   * @throws NetlinkError which names the first message that failed; then nothing was changed
   */
  commit(batch: Batch, options: CommitOptions = {}): void {
    if (batch.isEmpty) return;
    if (this.around === undefined) {
      this.commitNow(batch, options);
      return;
    }
    this.around(batch, () => {
      this.commitNow(batch, options);
    });
  }

  /**
   * Has every commit done by `around`, which calls `commit` once: whoever follows notifications pauses for those of a
   * large one (subscribeNftables). undefined: no longer.
   */
  wrapCommits(around: ((batch: Batch, commit: () => void) => void) | undefined): void {
    this.around = around;
  }

  private commitNow(batch: Batch, options: CommitOptions): void {
    const { writer } = batch;
    const { length } = writer;
    const count = batch.messageCount;
    const first = this.netlink.nextSequence(count + 2);
    try {
      const last = frame(batch, first, options.generation ?? ANY_GENERATION);
      try {
        this.transport.send(writer.buffer, writer.length);
      } finally {
        clearFlags(writer.buffer, last, NLM_F_ACK);
      }
    } finally {
      writer.length = length;
    }
    this.awaitCommit(batch, first, count);
    this.committed++;
  }

  /**
   * Only the last message asks for an acknowledgement, so that a batch of any size costs one; messages that fail
   * are reported in any case, in order, before it. Failure of the whole (no privilege, no subsystem, wrong generation)
   * is reported for the batch's beginning, and may be all that comes.
   */
  private awaitCommit(batch: Batch, begin: number, count: number): void {
    const last = begin + count;
    let failure: { readonly index: number; readonly answer: Acknowledgement } | undefined;
    for (;;) {
      let messages: MessageReader;
      try {
        messages = new MessageReader(this.transport.receive(), 'commit batch');
      } catch (error) {
        if (failure !== undefined) throw commitError(batch, failure.index, failure.answer);
        throw error;
      }
      while (messages.next()) {
        const index = messages.sequence - begin - 1;
        if (messages.type !== NLMSG_ERROR || index < -1 || index >= count) continue;
        const answer = messages.acknowledgement();
        if (answer.errno !== 0) failure ??= { index, answer };
        if (messages.sequence !== last && index !== -1) continue;
        if (failure !== undefined) throw commitError(batch, failure.index, failure.answer);
        if (messages.sequence === last) return;
      }
      messages.finish();
    }
  }

  getGeneration(): Generation {
    let generation: Generation | undefined;
    this.netlink.execute(
      request(NFT_MSG.GETGEN, AF_UNSPEC, 'read nftables generation', () => undefined),
      (message) => {
        const attributes = message.attributes(NFGENMSG);
        generation = decodeGeneration(attributes);
        attributes.finish();
      },
    );
    if (generation === undefined) {
      throw new NetlinkError({ operation: 'read nftables generation', errno: constants.errno.ENODATA });
    }
    return generation;
  }

  /** Tables of all families, or of one. */
  listTables(family?: Family | 'inet'): TableInfo[] {
    return this.list(
      request(
        NFT_MSG.GETTABLE,
        family === undefined ? AF_UNSPEC : addressFamily(family),
        'list tables',
        () => undefined,
        TABLE_NAMES,
      ),
      (message) => {
        const attributes = message.attributes(NFGENMSG);
        return { attributes, value: decodeTable(attributes, familyOf(message.buffer[message.payload] ?? 0)) };
      },
    );
  }

  /** Empty when the table does not exist. */
  listChains(family: Family | 'inet', table: string): ChainInfo[] {
    return this.list(
      request(
        NFT_MSG.GETCHAIN,
        addressFamily(family),
        `list chains of table "${table}"`,
        // The kernel lists the chains of all tables of the family, whatever is asked.
        () => undefined,
        CHAIN_NAMES,
      ),
      inTable(decodeChain, table),
    );
  }

  /** In the order in which packets meet them. Empty when the table or chain does not exist. */
  listRules(family: Family, table: string, chain?: string): RuleInfo[] {
    return this.list(
      request(
        NFT_MSG.GETRULE,
        addressFamily(family),
        chain === undefined ? `list rules of table "${table}"` : `list rules of chain "${chain}"`,
        (w) => {
          encodeRule(w, table, chain === undefined ? {} : { chain });
        },
        RULE_NAMES,
      ),
      inTable(decodeRule, table),
    );
  }

  /** @throws NetlinkError ENOENT when the table does not exist */
  listSets(family: Family, table: string): SetInfo[] {
    return this.list(
      request(
        NFT_MSG.GETSET,
        addressFamily(family),
        `list sets of table "${table}"`,
        (w) => {
          encodeSetTable(w, table);
        },
        SET_NAMES,
      ),
      inTable(decodeSet, table),
    );
  }

  /** One set, or undefined when it does not exist. */
  getSet(family: Family, table: string, name: string): SetInfo | undefined {
    let set: SetInfo | undefined;
    try {
      this.netlink.execute(
        request(
          NFT_MSG.GETSET,
          addressFamily(family),
          `read set "${name}"`,
          (w) => {
            encodeSetName(w, table, name);
          },
          SET_NAMES,
        ),
        (message) => {
          const attributes = message.attributes(NFGENMSG);
          set = decodeSet(attributes);
          attributes.finish();
        },
      );
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ENOENT') return undefined;
      throw error;
    }
    return set;
  }

  /**
   * Streams the elements of a set; nothing is kept. `onElement` gets views that are good until it returns, and must not
   * use this connection.
   *
   * While the kernel resizes a hash set without a fixed size (for a moment after many additions), its dump may bring
   * some elements twice and leave out others. A key that comes twice is the sign of it (and, where the kernel tells,
   * fewer keys than SetInfo.count): list again a little later. The kernel needs time in proportion to the square of
   * a set's size: 0.15 s for 110,000 elements, 6 s for 500,000.
   * @param options.onRestart called when a change made what was delivered so far worthless; delivery starts over.
   *   Without it such a dump throws EINTR.
   * @throws NetlinkError ENOENT when the set does not exist
   */
  listElements(
    family: Family,
    table: string,
    set: string,
    onElement: OnElement,
    options: { readonly onRestart?: () => void } = {},
  ): void {
    this.netlink.dump(listRequest(family, table, set), elementsTo(onElement), options.onRestart);
  }

  /**
   * The same, but each datagram is a turn of the event loop. A change by anybody makes it start over, and it takes longer, so it
   * fails with EINTR where listElements() may not. The connection is not to be used until the promise is settled.
   */
  async listElementsAsync(
    family: Family,
    table: string,
    set: string,
    onElement: OnElement,
    options: DumpOptions = {},
  ): Promise<void> {
    await this.netlink.dumpAsync(listRequest(family, table, set), elementsTo(onElement), options);
  }

  /**
   * Reads single elements by their keys, in constant time each: 1.6 µs, where a dump of a set of 500,000 needs 12.
   * Keys that the set does not have are passed over, for the price of a request each. `onElement` gets views that are
   * good until it returns, in the order of the keys, and must not use this connection.
   *
   * Each element is read as of its own moment: others may commit in between.
   * @param keys each is used up before the next one is asked for
   * @throws NetlinkError other than ENOENT; a set or table that does not exist has no elements
   */
  getElements(
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
        from += this.readElements(family, table, set, bytes, offsets.length - from, onElement);
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
  private readElements(
    family: Family,
    table: string,
    set: string,
    list: Buffer,
    count: number,
    onElement: OnElement,
  ): number {
    let found = 0;
    try {
      this.netlink.execute(
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

  private list<T>(what: Request, decode: (message: MessageReader) => Decoded<T> | undefined): T[] {
    let values: T[] = [];
    this.netlink.dump(
      what,
      (message) => {
        const decoded = decode(message);
        decoded?.attributes.finish();
        if (decoded?.value !== undefined) values.push(decoded.value);
      },
      () => {
        values = [];
      },
    );
    return values;
  }
}

function listRequest(family: Family, table: string, set: string): Request {
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

function elementsTo(onElement: OnElement): (message: MessageReader) => void {
  return (message) => {
    const attributes = message.attributes(NFGENMSG);
    decodeElements(attributes, onElement);
    attributes.finish();
  };
}

interface Decoded<T> {
  readonly attributes: { finish(): void };
  readonly value: T | undefined;
}

function inTable<T extends { readonly table: string }>(
  decode: (attributes: ReturnType<MessageReader['attributes']>) => T,
  table: string,
): (message: MessageReader) => Decoded<Omit<T, 'table'>> {
  return (message) => {
    const attributes = message.attributes(NFGENMSG);
    const { table: owner, ...value } = decode(attributes);
    return { attributes, value: owner === table ? value : undefined };
  };
}

function request(
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

/**
 * Numbers the messages from `first` (the batch's beginning), has the last one acknowledged and appends the end.
 * Returns where the last message starts.
 */
function frame(batch: Batch, first: number, generation: number): number {
  const { writer } = batch;
  const { length } = writer;
  writer.buffer.writeUInt32BE(generation, batch.generationOffset);
  let sequence = first;
  let last = 0;
  for (let at = 0; at < length; at += readHostU32(writer.buffer, at)) {
    setSequence(writer.buffer, at, sequence++);
    last = at;
  }
  addFlags(writer.buffer, last, NLM_F_ACK);
  const end = openMessage(writer, NFNL_MSG_BATCH_END, NLM_F_REQUEST);
  writeNfgenmsg(writer, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
  closeMessage(writer, end);
  setSequence(writer.buffer, end, sequence);
  return last;
}

function commitError(batch: Batch, index: number, answer: Acknowledgement): NetlinkError {
  const bytes = batch.writer.bytes();
  if (index < 0) {
    return new NetlinkError({
      operation: `commit ${batch.messageCount} changes to table "${batch.table}"`,
      errno: answer.errno,
      extendedAck: answer.text,
      hint:
        answer.errno === ERESTART
          ? 'somebody else changed the rules since that generation: read them again'
          : rejectionHint(answer.errno),
    });
  }
  let at = readHostU32(bytes, 0);
  for (let i = 0; i < index; i++) at += readHostU32(bytes, at);
  const description = describeMessage(bytes, at, at + readHostU32(bytes, at), answer.attributeOffset);
  return new NetlinkError({
    operation: description.operation,
    errno: answer.errno,
    extendedAck: answer.text,
    attribute: description.location?.path,
    messageIndex: index,
    elementIndex: description.elementKey === undefined ? undefined : description.location?.listIndex,
    elementKey: description.elementKey,
    hint: rejectionHint(answer.errno),
  });
}
