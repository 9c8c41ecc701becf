/** A connection to nftables in this process's network namespace: commits and dumps. */
import { constants } from 'node:os';
import { type DumpOptions, NetlinkConnection, type Request } from '../connection.js';
import { NetlinkError } from '../errors.js';
import type { MessageReader } from '../message.js';
import { addressFamily, AF_UNSPEC, type Family, NFGENMSG } from '../nfnetlink.js';
import { NETLINK_NETFILTER, NetlinkSocket, type SocketOptions, type Transport } from '../socket.js';
import type { Batch } from './batch.js';
import { BATCH_FRAME, commitBatch } from './commit.js';
import { NFT_MSG } from './constants.js';
import { decodeGeneration, type Generation } from './generation.js';
import { CHAIN_NAMES, type ChainInfo, decodeChain } from './objects/chain.js';
import type { OnElement } from './objects/element.js';
import { decodeRule, encodeRule, RULE_NAMES, type RuleInfo } from './objects/rule.js';
import { decodeSet, encodeSetName, encodeSetTable, SET_NAMES, type SetInfo } from './objects/set.js';
import { decodeTable, TABLE_NAMES, type TableInfo } from './objects/table.js';
import { elementsTo, listRequest, readElements } from './read-elements.js';
import { type Decoded, familyOf, inTable, request } from './request.js';

/** Conditions of a commit. */
export interface CommitOptions {
  /** Reject (ERESTART) unless this is the current generation: nobody changed any rules since it was read. */
  readonly generation?: number;
}

/** Commits and dumps in this process's network namespace. */
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
    commitBatch(this.netlink, batch, options.generation);
    this.committed++;
  }

  /** The generation of the rules: each transaction, by anybody, makes it one larger (u32, wraps around). */
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
    readElements(this.netlink, family, table, set, keys, onElement);
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
