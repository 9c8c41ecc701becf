/**
 * Transactions on their way to the kernel: of bounded size, and so that what it refuses costs only itself.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { Batch, BatchMemory, type NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import type { SyncStats } from './sync-stats.js';
import { Transaction } from './transaction.js';

/**
 * Bytes of one transaction, some 5,000 elements: 8 ms in which the kernel holds its lock, and we no turn of the event
 * loop.
 */
const transactionBytes = 384 << 10;
/** Steps between two turns of the event loop also when they have nothing to write. */
const stepsPerTurn = 4096;
/** So long one transaction is put together: the process has others to answer. */
const turnMs = 6;
/** The clock is read after so many steps. */
const stepsPerLook = 16;

/** A service port, or whatever else a step is about. */
interface Named {
  readonly key: string;
  readonly name: string;
  /** Not in the transaction of the step before. */
  readonly startsTransaction?: boolean;
}

export interface CommitterOptions {
  readonly connection: NftablesConnection;
  readonly family: 'ip' | 'ip6';
  readonly table: string;
  /** Called for a refusal that one step alone is left to blame for: throws when it is not its fault. */
  readonly judge: (failure: unknown) => void;
}

export class Committer {
  /** By set: elements that are in the kernel. */
  readonly elementCounts = new Map<string, number>();

  constructor(private readonly options: CommitterOptions) {}

  /** @param memory of the batch before, to use again */
  begin(memory?: BatchMemory): Transaction {
    const { family, table } = this.options;
    return new Transaction(new Batch(family, table, memory), new Batch(family, table));
  }

  /** For one that makes the table itself. */
  beginTable(): Transaction {
    return new Transaction(new Batch(this.options.family, this.options.table));
  }

  /** @param purpose 'repair': the kernel has what it had before others changed it */
  commit(tx: Transaction, stats: SyncStats, purpose?: 'repair'): void {
    const { batch, preparation } = tx;
    const isAhead = preparation?.isEmpty === false;
    if (batch.isEmpty && !isAhead) return;
    const start = performance.now();
    try {
      if (isAhead) {
        this.options.connection.commit(preparation);
        stats.transactions++;
        tx.prepared();
      }
      this.options.connection.commit(batch);
    } catch (error) {
      tx.rollBack();
      throw error;
    } finally {
      stats.kernelMs += performance.now() - start;
    }
    if (purpose === undefined) {
      for (const [set, by] of tx.growthBySet())
        this.elementCounts.set(set, (this.elementCounts.get(set) ?? 0) + by);
    }
    stats.transactions++;
    stats.elementsAdded += tx.added;
    stats.elementsDeleted += tx.deleted;
  }

  /** For the deletion of chains. Kernels before 6.2 release the reference of a deleted map element late: another time. */
  commitUnlessBusy(tx: Transaction, stats: SyncStats): void {
    try {
      this.commit(tx, stats);
    } catch (error) {
      if (!(error instanceof NetlinkError && error.code === 'EBUSY')) throw error;
    }
  }

  /**
   * Runs `steps` in as few transactions of bounded size as possible, a step never split. A transaction that the
   * kernel refuses is halved until the culprit stands alone; it is reported, and all others go in.
   * @param mayJoin whether a step may be part of a transaction that was begun
   */
  async inTransactions<T extends Named>(
    steps: readonly T[],
    stats: SyncStats,
    build: (tx: Transaction, step: T) => void,
    mayJoin: (tx: Transaction, step: T) => boolean = () => true,
  ): Promise<void> {
    const memory = steps.length > 1 ? new BatchMemory() : undefined;
    let from = 0;
    while (from < steps.length) {
      const tx = this.begin(memory);
      const until = performance.now() + turnMs;
      let to = from;
      let built = false;
      try {
        while (to < steps.length && to - from < stepsPerTurn && tx.batch.byteLength < transactionBytes) {
          if (to > from && (to - from) % stepsPerLook === 0 && performance.now() > until) break;
          const step = steps[to];
          if (step !== undefined) {
            if (to > from && (step.startsTransaction === true || !mayJoin(tx, step))) break;
            build(tx, step);
          }
          to++;
        }
        built = true;
        this.commit(tx, stats);
      } catch (error) {
        tx.rollBack();
        if (built) {
          await this.isolate(steps.slice(from, to), error, stats, build, mayJoin);
        } else {
          // The step at `to` can't be put into bytes; those before it can.
          await this.inTransactions(steps.slice(from, to), stats, build, mayJoin);
          this.refused(steps[to], error, stats);
          to++;
        }
      }
      from = to;
      if (from < steps.length) await nextTurn();
    }
  }

  /**
   * One step in a transaction of its own, whose parts are put together in turns of the event loop of their own. Nothing else is to
   * change what it is about meanwhile.
   * @returns false when it was refused
   */
  async inTurns(
    step: Named,
    stats: SyncStats,
    build: (tx: Transaction) => Iterator<undefined, void, undefined>,
  ): Promise<boolean> {
    const tx = this.begin();
    try {
      for (const parts = build(tx); parts.next().done !== true;) await nextTurn();
    } catch (error) {
      tx.rollBack();
      this.refused(step, error, stats);
      return false;
    }
    try {
      this.commit(tx, stats);
      return true;
    } catch (error) {
      this.options.judge(error);
      this.refused(step, error, stats);
      return false;
    }
  }

  private async isolate<T extends Named>(
    steps: readonly T[],
    failure: unknown,
    stats: SyncStats,
    build: (tx: Transaction, step: T) => void,
    mayJoin: (tx: Transaction, step: T) => boolean,
  ): Promise<void> {
    const only = steps[0];
    if (steps.length > 1) {
      const middle = Math.ceil(steps.length / 2);
      await this.inTransactions(steps.slice(0, middle), stats, build, mayJoin);
      await this.inTransactions(steps.slice(middle), stats, build, mayJoin);
      return;
    }
    this.options.judge(failure);
    this.refused(only, failure, stats);
  }

  private refused(step: Named | undefined, failure: unknown, stats: SyncStats): void {
    if (step === undefined) return;
    const error = failure instanceof Error ? failure : new Error(String(failure));
    stats.failures.push({ servicePort: step.name, key: step.key, error });
  }
}
