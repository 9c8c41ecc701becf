/**
 * Removes a table in transactions of bounded size. The kernel holds its lock for the whole of a transaction, and for a
 * table with a chain per Service, as upstream's mode nftables lays it out, deleting it at once takes seconds. Its base
 * chains go first: from then on no packet meets what is left of it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { NetlinkError } from '../errors.js';
import { Batch } from './batch.js';
import type { NftablesConnection } from './connection.js';

/** Chains whose rules, each perhaps with a set of its own, go in one transaction. */
const chainsAtOnce = 200;
/** Elements, or empty chains, that go in one transaction. */
const itemsAtOnce = 8_000;
/** NFT_SET_INTERVAL (linux/netfilter/nf_tables.h): its elements are not to be had one by one. */
const intervalFlag = 4;
/** Kernels before 6.2 release what a deleted element refers to a moment later. */
const busyPauseMs = 50;
const busyAttempts = 20;

/** @returns transactions; 0: there was no such table. @throws NetlinkError */
export async function removeTable(
  connection: NftablesConnection,
  family: 'ip' | 'ip6',
  table: string,
): Promise<number> {
  if (!connection.listTables(family).some(({ name }) => name === table)) return 0;
  const removal = new Removal(connection, family, table);
  try {
    await removal.inPieces();
  } catch (error) {
    // Somebody else has a hand in it; then it goes as it is.
    if (!(error instanceof NetlinkError) || !['ENOENT', 'EBUSY'].includes(error.code)) throw error;
  }
  try {
    await removal.commit((batch) => {
      batch.deleteTable();
    });
  } catch (error) {
    // Somebody was faster.
    if (!(error instanceof NetlinkError) || error.code !== 'ENOENT') throw error;
  }
  return removal.transactions;
}

class Removal {
  transactions = 0;

  constructor(
    private readonly connection: NftablesConnection,
    private readonly family: 'ip' | 'ip6',
    private readonly table: string,
  ) {}

  async inPieces(): Promise<void> {
    const { connection, family, table } = this;
    const chains = connection.listChains(family, table);
    const hooked = chains.filter(({ base }) => base !== undefined);
    await this.commit((batch) => {
      for (const { name } of hooked) batch.flushChain(name);
      for (const { name } of hooked) batch.deleteChain(name);
    });
    const others = chains.filter(({ base }) => base === undefined).map(({ name }) => name);
    await this.each(others, chainsAtOnce, (batch, name) => {
      batch.flushChain(name);
    });
    await this.emptySets();
    await this.each(others, itemsAtOnce, (batch, name) => {
      batch.deleteChain(name);
    });
  }

  private async emptySets(): Promise<void> {
    const { connection, family, table } = this;
    let whole: string[] = [];
    let elements = 0;
    const flush = async (): Promise<void> => {
      const names = whole;
      whole = [];
      elements = 0;
      await this.commit((batch) => {
        for (const name of names) batch.flushSet(name);
      });
    };
    for (const { name, anonymous, flags, count } of connection.listSets(family, table)) {
      if (anonymous) continue;
      if ((flags & intervalFlag) !== 0 || (count !== undefined && count <= itemsAtOnce)) {
        whole.push(name);
        elements += count ?? 0;
        if (elements >= itemsAtOnce) await flush();
        continue;
      }
      const keys: Buffer[] = [];
      connection.listElements(family, table, name, (key) => keys.push(Buffer.from(key)));
      await this.each(keys, itemsAtOnce, (batch, key) => {
        batch.deleteElement(name, key);
      });
    }
    await flush();
  }

  private async each<T>(
    items: readonly T[],
    atOnce: number,
    put: (batch: Batch, item: T) => void,
  ): Promise<void> {
    for (let from = 0; from < items.length; from += atOnce) {
      await this.commit((batch) => {
        for (const item of items.slice(from, from + atOnce)) put(batch, item);
      });
    }
  }

  async commit(fill: (batch: Batch) => void): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const batch = new Batch(this.family, this.table);
      fill(batch);
      if (batch.isEmpty) return;
      try {
        this.connection.commit(batch);
        this.transactions++;
        await sleep(0);
        return;
      } catch (error) {
        if (!(error instanceof NetlinkError && error.code === 'EBUSY') || attempt === busyAttempts)
          throw error;
      }
      await sleep(busyPauseMs);
    }
  }
}
