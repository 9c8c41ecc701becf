/**
 * nftables mode for one family: keeps the table `kube-proxy` as the model wants it.
 * The layout is in layout.ts, what a service port puts into it in footprint.ts.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import { goTo, NftablesConnection, removeTable } from '@kube-proxy-ts/netlink/nftables';
import type { Cidr, FamilyChanges, IPFamily, ServicePort } from '../../model/types.js';
import {
  TableDamagedError,
  type ApplyReport,
  type CheckReport,
  type Dataplane,
  type DataplaneOptions,
} from '../backend.js';
import { classMap, parseClassName } from './layout/classes.js';
import { AffinitySweep, retireRemembered, type AffinitySweepOptions } from './affinity/affinity-sweep.js';
import { desiredElements, hairpinsOf, type ServicePortState } from './state/desired-elements.js';
import type { NumberedEndpoints } from './state/elements.js';
import {
  dump,
  elementsOf,
  Expected,
  isByService,
  numberedElements,
  unexpected,
} from './kernel/consistency-check.js';
import { Committer } from './transaction/committer.js';
import { keyBytes, slotElement, valueBytes } from './state/element-bytes.js';
import { ElementTable } from '../nft/element-table.js';
import { addressBytes, hostUint32, targetBytes } from '../nft/keys.js';
import { intervalElements } from '../nft/intervals.js';
import { nftFamily } from '../nft/rules.js';
import { KernelTable, slotMaps } from './kernel/kernel-table.js';
import { isLed } from './transaction/in-flight-lookups.js';
import { sourceRangePrefix } from '../nft/source-range-rules.js';
import { baseObjects, classRules } from './layout/layout.js';
import { interimTableName, maps, sets, tableName } from './layout/names.js';
import { defaultDumpLimit, readLayout, readTable, type ObservedSet } from './kernel/read-table.js';
import { releasedAddresses } from './released.js';
import { extentOf, firstStage, guardsOf, isLarge, stepsOf } from './transaction/change-steps.js';
import { SyncStats } from './transaction/sync-stats.js';
import type { TouchedElements } from '../engine/table-watch.js';
import { elementId, desiredAmong } from './kernel/touched-elements.js';
import { addressKey } from './state/elements.js';
import type { Transaction } from './transaction/transaction.js';
import { maxRedirected, AppliedState } from './state/applied-state.js';

/** A foreign table with no more chains than this, and as many elements of ours in its place, is replaced at once. */
const smallChains = 300;
const smallElements = 10_000;

/** The check rests so long after each of its turns: it is in no hurry. */
const checkPauseMs = 5;

/** When more are missing, comparing everything is faster than a check. */
const manyElements = 4096;

/** Deferred deletions of one transaction: 3 ms. */
const deferredAtOnce = 2000;

/** Elements of one service port that are compared in one turn of the event loop. */
const restAfter = 2048;

const noValue = Buffer.alloc(0);

/** By key: service ports whose source ranges are in the kernel before anything else of them. */
type Guarded = ReadonlyMap<string, true>;

/** Sets of what is looked at before an address is translated. */
function isGuard(set: string): boolean {
  return set === sets.firewallIPs || sourceRangePrefix(set) !== undefined;
}

export class NftablesFamily implements Dataplane {
  readonly family: IPFamily;
  private readonly nft: 'ip' | 'ip6';
  private readonly written: AppliedState;
  private readonly committer: Committer;
  private readonly sweepOptions: AffinitySweepOptions;
  private readonly sweep: AffinitySweep;
  /** Class chains that nothing led to at the last housekeeping. */
  private idleClasses = new Set<string>();
  private serviceCIDRs: readonly Cidr[] = [];
  private nodePortAddresses: readonly string[];
  /** Base chains and sets are in the kernel; until then settings are only remembered. */
  private baseWritten = false;
  /** The service CIDRs are, too. */
  private serviceCIDRsWritten = false;
  /** The table is as wanted. */
  private resynced = false;
  /** The table is being compared, and was read by key. */
  private partial = false;

  constructor(
    private readonly connection: NftablesConnection,
    private readonly options: DataplaneOptions,
    /** See ReadOptions. */
    private readonly dumpLimit = defaultDumpLimit,
    private readonly table: typeof tableName | typeof interimTableName = tableName,
  ) {
    this.family = options.family;
    this.nft = nftFamily(options.family);
    this.nodePortAddresses = options.nodePortAddresses === 'all' ? [] : options.nodePortAddresses;
    this.written = new AppliedState(options);
    this.committer = new Committer({
      connection,
      family: this.nft,
      table,
      judge: (failure) => {
        this.assertTable(failure);
      },
    });
    this.sweepOptions = {
      connection,
      open: () => NftablesConnection.open(),
      family: this.nft,
      table,
      committer: this.committer,
      written: this.written,
    };
    this.sweep = new AffinitySweep(this.sweepOptions);
  }

  async resync(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    const ports = [...wanted];
    const stats = new SyncStats();
    try {
      await this.compare(ports, stats, this.dumpLimit);
      return stats;
    } catch (error) {
      if (!(error instanceof TableDamagedError && this.partial)) throw error;
    }
    // Something is there that nothing leads to, or the other way round: only all elements tell.
    const again = new SyncStats();
    await this.compare(ports, again, Infinity);
    again.add(stats);
    return again;
  }

  async apply(changes: FamilyChanges): Promise<ApplyReport> {
    const stats = new SyncStats();
    const steps = stepsOf(changes, this.written.states);
    // To divide a large change has taken its time already.
    if (steps.length > changes.upserted.length + changes.removed.length) await nextTurn();
    await this.committer.inTransactions(
      steps,
      stats,
      (tx, step) => {
        this.written.run(tx, step);
      },
      (tx, step) => !this.written.collides(tx, step),
    );
    return stats;
  }

  get deferredDueAt(): number | undefined {
    if (!this.resynced) return undefined;
    const due = Math.min(this.written.deferred.dueAt ?? Infinity, this.sweep.dueAt ?? Infinity);
    return due === Infinity ? undefined : due;
  }

  deleteDeferred(now: number): Promise<ApplyReport> {
    const stats = new SyncStats();
    if (!this.resynced) return Promise.resolve(stats);
    const tx = this.committer.begin();
    this.written.deferred.deleteDue(tx, now, deferredAtOnce);
    try {
      this.committer.commit(tx, stats);
    } catch (error) {
      this.assertTable(error);
      throw error;
    }
    this.sweep.turn(now, stats);
    return Promise.resolve(stats);
  }

  /** How many elements wait for deleteDeferred(). @param enough nobody asks how far beyond that it is */
  deferredExtent(now: number, enough: number): number {
    return this.written.deferred.countDue(now, enough);
  }

  /** See WatchableDataplane. */
  extentOf({ upserted, removed }: FamilyChanges, enough: number): number {
    let extent = 0;
    for (const port of upserted) {
      if (extent > enough) return extent;
      extent += extentOf(port) + extentOf(this.written.states.get(port.key)?.port);
    }
    for (const key of removed) {
      if (extent > enough) return extent;
      extent += extentOf(this.written.states.get(key)?.port);
    }
    return extent;
  }

  /**
   * Puts right what others did to some elements, in one transaction.
   * @returns undefined when that takes a comparison of the whole table (adopt)
   */
  repair(touched: TouchedElements): ApplyReport | undefined {
    if (!this.resynced) return undefined;
    const wanted = desiredAmong(touched, {
      family: this.family,
      states: this.written.states,
      numbers: this.written.numbers,
      sharedCounts: this.written.sharedCounts,
      nodePortIPs: new Set(this.nodePortAddresses.map(addressBytes)),
    });
    if (wanted === undefined) return undefined;
    const tx = this.committer.begin();
    for (const [set, keys] of touched) {
      const found = new ElementTable();
      const bytes = Array.from(keys, (key) => Buffer.from(key, 'latin1'));
      this.connection.getElements(this.nft, this.table, set, bytes, (key, value, { comment }) => {
        found.set(key, Buffer.isBuffer(value) ? value : noValue, comment);
      });
      for (const key of keys) {
        const element = wanted.get(elementId(set, key));
        const record = found.find(keyBytes(key));
        if (element === undefined && this.written.deferred.has(set, key)) {
          // No damage, there or not; but what is not there can't be deleted.
          if (record < 0) this.written.deferred.forget(set, key);
        } else if (record < 0) {
          if (element !== undefined) tx.add(element);
        } else if (element === undefined) {
          tx.delete(set, key);
        } else {
          const value = element.value === undefined ? noValue : valueBytes(element.value);
          if (!found.hasValue(record, value) || !found.hasComment(record, element.comment))
            tx.replace(set, key, element.value, element.comment);
        }
      }
    }
    const stats = new SyncStats();
    this.committer.commit(tx, stats, 'repair');
    return stats;
  }

  async verify(): Promise<CheckReport | undefined> {
    const stats = new SyncStats();
    try {
      if (this.resynced && !(await this.verifyAll(stats))) return undefined;
      const { transactions, elementsAdded, elementsDeleted, kernelMs, failures } = stats;
      return { transactions, elementsAdded, elementsDeleted, kernelMs, failures, reported: false };
    } catch (error) {
      // Not even the sets are there, or a key is that was not a moment ago.
      if (error instanceof NetlinkError && ['ENOENT', 'EEXIST'].includes(error.code)) return undefined;
      throw error;
    }
  }

  setServiceCIDRs(cidrs: readonly Cidr[]): ApplyReport {
    const stats = new SyncStats();
    const text = (list: readonly Cidr[]): string =>
      list.map((cidr) => `${cidr.ip}/${cidr.prefixLength}`).join();
    if (text(this.serviceCIDRs) === text(cidrs)) return stats;
    this.serviceCIDRs = cidrs;
    if (!this.serviceCIDRsWritten) return stats;
    const tx = this.committer.begin();
    tx.batch.flushSet(sets.serviceCIDRs);
    this.addServiceCIDRs(tx);
    this.committer.commit(tx, stats);
    return stats;
  }

  setNodePortAddresses(addresses: readonly string[]): ApplyReport {
    const stats = new SyncStats();
    if (this.options.nodePortAddresses === 'all') return stats;
    const before = this.nodePortAddresses;
    this.nodePortAddresses = addresses;
    if (!this.baseWritten) return stats;
    const tx = this.committer.begin();
    for (const ip of before) {
      if (!addresses.includes(ip)) tx.delete(sets.nodePortIPs, addressBytes(ip));
    }
    for (const ip of addresses) {
      if (!before.includes(ip)) tx.addRaw(sets.nodePortIPs, addressBytes(ip), undefined);
    }
    this.committer.commit(tx, stats);
    return stats;
  }

  maintain(): ApplyReport {
    const stats = new SyncStats();
    // Else chains would vanish that the comparison has seen.
    if (!this.resynced) return stats;
    const unused = [...this.written.classUse].filter(([, uses]) => uses === 0).map(([name]) => name);
    const remove = unused.filter((name) => this.idleClasses.has(name));
    this.idleClasses = new Set(unused);
    if (remove.length === 0) return stats;
    const tx = this.committer.begin();
    for (const name of remove) this.written.deleteClass(tx, name);
    this.committer.commitUnlessBusy(tx, stats);
    return stats;
  }

  close(): void {
    this.resynced = false;
    this.sweep.reset();
    this.connection.close();
  }

  // ---- full check (consistency-check.ts)

  /** @returns false when everything has to be compared */
  private async verifyAll(stats: SyncStats): Promise<boolean> {
    const layout = readLayout(this.connection, this.options, this.table);
    if (typeof layout === 'string' || !this.isLayout(layout.table)) return false;
    if (!this.countsHold(layout.sets, manyElements)) return false;
    const dumped = await this.dumpUncounted(layout.sets);
    if (dumped === undefined) return true;
    const expected = new Expected(this.connection, this.nft, this.table, dumped);
    /** @returns whether the check is still about what the kernel should hold */
    const turn = async (): Promise<boolean> => {
      this.putRight(expected, stats);
      await sleep(checkPauseMs);
      return this.resynced;
    };
    for (const [key, state] of this.written.states) {
      for (const element of elementsOf(desiredElements(state, this.written.numbers))) {
        expected.add(element);
        if (!expected.isFull) continue;
        if (!(await turn())) return true;
        // It was written anew meanwhile, so nothing old is left of it.
        if (this.written.states.get(key) !== state) break;
      }
    }
    for (const [set, counts] of Object.entries(this.written.sharedCounts)) {
      for (const key of counts.keys()) {
        expected.add({ set, key, value: undefined, comment: undefined });
        if (expected.isFull && !(await turn())) return true;
      }
    }
    this.putRight(expected, stats);
    this.written.deferred.takeOff(dumped);
    for (const touched of unexpected(dumped)) {
      const report = this.repair(touched);
      if (report === undefined) return !this.resynced;
      stats.add(report);
      await sleep(checkPauseMs);
    }
    return !this.resynced || this.countsHold(this.connection.listSets(this.nft, this.table), 0);
  }

  private putRight(expected: Expected, stats: SyncStats): void {
    const tx = this.committer.begin();
    expected.settle(tx);
    this.committer.commit(tx, stats, 'repair');
  }

  /** Chains, rules and sets are as they should be, and what is handled as a whole. */
  private isLayout(found: KernelTable): boolean {
    const tx = this.committer.begin();
    for (const [name] of this.written.classUse) {
      const of = parseClassName(name);
      if (of === undefined || !found.hasRules(name, classRules(this.options, of))) return false;
      if (found.takeClass(classMap(of.kind), this.written.numbers.idOf(of), name) !== 'same') return false;
    }
    const known = new Set([
      ...baseObjects(this.options, []).chains.map(({ name }) => name),
      ...this.written.classUse.keys(),
    ]);
    if (found.unknownChains(known).length > 0) return false;
    this.writeBase(tx, found);
    this.writeServiceCIDRs(tx, found);
    return tx.batch.isEmpty && found.classes().length === 0;
  }

  /**
   * Sets of which the kernel does not tell how many elements they have (before 6.18), as far as they can be dumped.
   * @returns undefined when everything is being compared by now
   */
  private async dumpUncounted(
    found: readonly ObservedSet[],
  ): Promise<ReadonlyMap<string, ElementTable> | undefined> {
    const dumped = new Map<string, ElementTable>();
    const uncounted = found.filter(({ name, count }) => count === undefined && isByService(name));
    if (uncounted.length === 0) return dumped;
    let slots = 0;
    for (const { port } of this.written.states.values()) slots += extentOf(port);
    // Changes are programmed meanwhile, over the other one.
    const connection = this.sweepOptions.open();
    try {
      for (const { name } of uncounted) {
        if (slotMaps.includes(name) && slots > this.dumpLimit) continue;
        dumped.set(name, await dump(connection, this.nft, this.table, name));
        await sleep(checkPauseMs);
        if (!this.resynced) return undefined;
      }
    } finally {
      connection.close();
    }
    return dumped;
  }

  /** No set has more or fewer elements than are wanted, as far as the kernel tells. @param tolerance so many are none */
  private countsHold(found: readonly ObservedSet[], tolerance: number): boolean {
    for (const { name, count } of found) {
      if (count === undefined || !isByService(name)) continue;
      if (Math.abs(count - (this.committer.elementCounts.get(name) ?? 0)) > tolerance) return false;
    }
    return true;
  }

  /**
   * Tells a refused service port from a table that is not as this process left it. Then a key is there that we did
   * not write, or one is missing, and other changes would be refused, too.
   */
  private assertTable(failure: unknown): void {
    if (!(failure instanceof NetlinkError)) return;
    if (failure.code === 'EPERM') throw failure;
    // Which of the last two it is for a key with another value depends on the kernel's age.
    if ((this.resynced || this.partial) && ['ENOENT', 'EEXIST', 'EBUSY'].includes(failure.code)) {
      throw new TableDamagedError(
        `table ${this.nft} ${this.table} was changed by another program; comparing all of it: ${failure.message}`,
        { cause: failure },
      );
    }
  }

  // ---- adoption

  /** @param dumpLimit see ReadOptions */
  private async compare(ports: readonly ServicePort[], stats: SyncStats, dumpLimit: number): Promise<void> {
    this.resynced = this.baseWritten = this.serviceCIDRsWritten = this.partial = false;
    this.sweep.reset();
    const found = await readTable(this.connection, this.options, this.table, { dumpLimit });
    if (found === 'foreign' && this.isSmall(ports) && this.replaceTable(ports, stats)) {
      // One that an earlier process, killed while it took a large table down, has left beside what remains of that.
      await this.removeInterim(stats);
      this.resynced = this.baseWritten = this.serviceCIDRsWritten = true;
      this.countElements();
      return;
    }
    if (found === 'foreign') await this.makeRoom(ports, stats);

    this.written.forget();
    this.idleClasses.clear();
    const kernel = found === 'absent' || found === 'foreign' ? new KernelTable() : found;
    this.partial = kernel.isPartial;
    this.written.withholdsClusterIPs = true;
    const tx = this.committer.begin();
    this.writeBase(tx, kernel);
    const unknownChains = this.resyncClasses(tx, kernel);
    this.written.affinityNumbers.reserve(kernel.affinityServiceNumbers());
    this.committer.commit(tx, stats);
    this.baseWritten = true;
    if (kernel.exists) await retireRemembered(this.sweepOptions, performance.now());

    const guarded = await this.writeGuards(ports, kernel, stats);
    for (const part of kernel.parts(ports)) {
      await kernel.readSlots(part);
      if (kernel.isPartial) await nextTurn();
      for (const run of runsBySize(part)) {
        const [only] = run;
        if (only !== undefined && isLarge(only)) await this.resyncLarge(only, kernel, guarded, stats);
        else await this.resyncSmall(run, kernel, guarded, stats);
      }
      await nextTurn();
    }
    this.written.affinityNumbers.reserve([]);
    await this.writeRefusals(kernel, stats);
    stats.released.push(...releasedAddresses(kernel, this.nft === 'ip' ? 4 : 16));
    await this.removeLeftovers(kernel, stats);
    this.removeChains(
      unknownChains.filter((name) => !this.written.classUse.has(name)),
      stats,
    );
    await this.removeInterim(stats);
    this.resynced = true;
    this.partial = false;
    if (kernel.exists) this.sweep.request();
    this.countElements();
  }

  private async removeInterim(stats: SyncStats): Promise<void> {
    if (this.table !== interimTableName)
      stats.transactions += await removeTable(this.connection, this.nft, interimTableName);
  }

  /** Whether a foreign table and what comes in its place fit into one transaction. */
  private isSmall(ports: readonly ServicePort[]): boolean {
    if (this.connection.listChains(this.nft, this.table).length > smallChains) return false;
    let elements = 0;
    for (const port of ports) {
      elements += extentOf(port);
      if (elements > smallElements) return false;
    }
    return true;
  }

  /**
   * A large table that is not laid out as ours is taken down in pieces, as ours is put up in pieces; and the kernel knows no new
   * names for tables. So a table of another name stands in meanwhile. Two tables that say the same do not disturb each
   * other: the first that translates a connection has done so for the second (nf_nat_inet_fn), and what is only
   * in one of them is served by that one.
   */
  private async makeRoom(ports: readonly ServicePort[], stats: SyncStats): Promise<void> {
    if (this.table !== interimTableName) {
      const interim = new NftablesFamily(this.connection, this.options, this.dumpLimit, interimTableName);
      interim.setServiceCIDRs(this.serviceCIDRs);
      interim.setNodePortAddresses(this.nodePortAddresses);
      stats.add(await interim.resync(ports));
    }
    stats.transactions += await removeTable(this.connection, this.nft, this.table);
  }

  private countElements(): void {
    this.committer.elementCounts.clear();
    for (const { name, count = 0 } of this.connection.listSets(this.nft, this.table))
      this.committer.elementCounts.set(name, count);
  }

  /**
   * A small table that is not laid out as ours (upstream's, or damaged) is replaced in one transaction with everything in
   * it, so that no packet meets a table that is half built.
   * @returns false when the kernel refused: a service port is to blame, and has to be found one by one
   */
  private replaceTable(ports: readonly ServicePort[], stats: SyncStats): boolean {
    this.written.forget();
    this.idleClasses.clear();
    const kernel = new KernelTable();
    const tx = this.committer.beginTable();
    try {
      tx.batch.deleteTable();
      this.writeBase(tx, kernel);
      this.writeServiceCIDRs(tx, kernel);
      for (const port of ports) this.written.change(tx, port.key, port);
      this.committer.commit(tx, stats);
      return true;
    } catch (error) {
      if (ports.length === 0) throw error;
      return false;
    }
  }

  /** Table, base chains, fixed chains and sets: only what is missing or different. */
  private writeBase(tx: Transaction, kernel: KernelTable): void {
    for (const length of kernel.sourceRangeLengths()) this.written.sourceRangeLengths.add(length);
    const base = baseObjects(this.options, this.written.sourceRangeLengths);
    if (!kernel.exists) tx.batch.addTable({ comment: base.comment });
    else if (kernel.dormant) tx.batch.addTable({ dormant: false });
    for (const definition of base.sets) {
      if (!kernel.hasSet(definition.name)) tx.batch.addSet(definition);
    }
    const stale = base.chains.filter((chain) => !kernel.hasRules(chain.name, chain.rules));
    for (const chain of base.chains) {
      if (!kernel.hasChain(chain.name))
        tx.batch.addChain(chain.name, chain.base === undefined ? {} : { base: chain.base });
    }
    for (const chain of stale) {
      if (kernel.hasChain(chain.name)) tx.batch.flushChain(chain.name);
      for (const rule of chain.rules) tx.batch.addRule(chain.name, rule.expressions);
    }
    for (const fixed of base.classes) {
      const found = kernel.takeClass(maps.classes, fixed.id, fixed.chain);
      if (found === 'different') tx.delete(maps.classes, hostUint32(fixed.id));
      if (found !== 'same') {
        tx.batch.addElement(maps.classes, Buffer.from(hostUint32(fixed.id), 'latin1'), goTo(fixed.chain));
      }
    }
    for (const ip of this.nodePortAddresses)
      this.ensure(tx, kernel, { set: sets.nodePortIPs, key: addressBytes(ip) });
    for (const key of kernel.leftoversOf(sets.nodePortIPs)) tx.delete(sets.nodePortIPs, key);
  }

  /**
   * Rules that refuse whatever is not served come after all that is served: while a table is made anew, a Service that is
   * not in it yet is treated as it was before, also should the process end on the way.
   */
  private async writeRefusals(kernel: KernelTable, stats: SyncStats): Promise<void> {
    const counts = this.written.sharedCounts[sets.clusterIPs] ?? new Map<string, number>();
    const clusterIPs = Array.from(counts.keys(), (key) => ({ key, name: key }));
    const own = new SyncStats();
    await this.committer.inTransactions(clusterIPs, own, (tx, { key }) => {
      this.ensure(tx, kernel, { set: sets.clusterIPs, key });
    });
    this.written.withholdsClusterIPs = false;
    const tx = this.committer.begin();
    this.writeServiceCIDRs(tx, kernel);
    this.committer.commit(tx, own);
    this.serviceCIDRsWritten = true;
    stats.add(own);
    const [failure] = own.failures;
    if (failure !== undefined) throw failure.error;
  }

  private writeServiceCIDRs(tx: Transaction, kernel: KernelTable): void {
    if (kernel.takeIntervals(sets.serviceCIDRs, intervalElements(this.serviceCIDRs))) return;
    if (kernel.hasSet(sets.serviceCIDRs)) tx.batch.flushSet(sets.serviceCIDRs);
    this.addServiceCIDRs(tx);
  }

  private addServiceCIDRs(tx: Transaction): void {
    for (const { key, end } of intervalElements(this.serviceCIDRs)) {
      tx.batch.addElement(sets.serviceCIDRs, Buffer.from(key, 'latin1'), undefined, { intervalEnd: end });
    }
  }

  /**
   * Class chains of an earlier process: kept when they say what we would say, else written anew.
   * @returns chains that are nobody's, now empty
   */
  private resyncClasses(tx: Transaction, kernel: KernelTable): string[] {
    for (const { map, id, chain } of kernel.classes()) {
      const of = parseClassName(chain);
      if (
        of === undefined ||
        classMap(of.kind) !== map ||
        !kernel.hasChain(chain) ||
        !this.written.numbers.learn(id, of)
      ) {
        tx.delete(map, hostUint32(id));
        continue;
      }
      const rules = classRules(this.options, of);
      if (!kernel.hasRules(chain, rules)) {
        tx.batch.flushChain(chain);
        for (const rule of rules) tx.batch.addRule(chain, rule.expressions);
      }
      this.written.classUse.set(chain, 0);
      this.written.numbers.chainAdded(of);
    }
    const base = baseObjects(this.options, []).chains.map(({ name }) => name);
    const unknown = kernel.unknownChains(new Set([...base, ...this.written.classUse.keys()]));
    for (const chain of unknown) tx.batch.flushChain(chain);
    return unknown;
  }

  /**
   * The source ranges of addresses that have none in the kernel: they are in force before an address serves (change-steps.ts).
   * @returns keys of service ports whose source ranges are in the kernel
   */
  private async writeGuards(
    ports: readonly ServicePort[],
    kernel: KernelTable,
    stats: SyncStats,
  ): Promise<Guarded> {
    const guarded = new Map<string, true>();
    const guards = guardsOf(ports, this.written.states).filter(
      ({ next }) =>
        next?.addresses.some((address) => !kernel.holds(sets.firewallIPs, addressKey(next, address))) ??
        false,
    );
    await this.committer.inTransactions(guards, stats, (tx, { key, next }) => {
      if (next === undefined) return;
      if (!kernel.exists) {
        this.written.change(tx, key, next);
        return;
      }
      const state = { port: next, clusterSlots: [], localSlots: [], affinity: undefined, hairpins: [] };
      for (const element of desiredElements(state, this.written.numbers).elements) {
        this.written.ensureSourceRangeSet(tx, element.set);
        this.ensure(tx, kernel, element);
      }
      tx.note(guarded, key, true);
    });
    return guarded;
  }

  private async resyncSmall(
    ports: readonly ServicePort[],
    kernel: KernelTable,
    guarded: Guarded,
    stats: SyncStats,
  ): Promise<void> {
    let current: Transaction | undefined;
    await this.committer.inTransactions(ports, stats, (each, port) => {
      if (!kernel.exists) {
        this.written.change(each, port.key, port);
        return;
      }
      if (each !== current) {
        current = each;
        kernel.checkpoint();
        each.onFailure(() => {
          kernel.rollBack();
        });
      }
      const found = finish(this.stateInKernel(each, port, kernel));
      finish(this.resyncServicePort(each, port, kernel, guarded, found));
    });
  }

  /** First what the kernel has of it, and some of what is new; the rest comes in bounded steps, as changes do. */
  private async resyncLarge(
    port: ServicePort,
    kernel: KernelTable,
    guarded: Guarded,
    stats: SyncStats,
  ): Promise<void> {
    if (kernel.exists) {
      const isAccepted = await this.committer.inTurns(port, stats, (tx) =>
        this.takeOver(tx, port, kernel, guarded),
      );
      if (!isAccepted || this.written.states.get(port.key)?.port === port) return;
    }
    stats.add(await this.apply({ family: this.family, upserted: [port], removed: [] }));
  }

  private *takeOver(
    tx: Transaction,
    port: ServicePort,
    kernel: KernelTable,
    guarded: Guarded,
  ): Generator<undefined, void, undefined> {
    kernel.checkpoint();
    tx.onFailure(() => {
      kernel.rollBack();
    });
    const found = yield* this.stateInKernel(tx, port, kernel);
    yield;
    const { clusterSlots = [], localSlots = [] } = found ?? {};
    const first = firstStage({ ...port, clusterEndpoints: clusterSlots, localEndpoints: localSlots }, port);
    yield;
    yield* this.resyncServicePort(tx, first, kernel, guarded, found);
  }

  /** Takes a service port over. Rests now and then, for those that are so large that this takes several turns of the event loop. */
  private *resyncServicePort(
    tx: Transaction,
    port: ServicePort,
    kernel: KernelTable,
    guarded: Guarded,
    found: ServicePortState | undefined,
  ): Generator<undefined, void, undefined> {
    const state = this.written.nextState(tx, found, port);
    const now = desiredElements(state, this.written.numbers);
    for (const of of now.classes) this.written.acquireClass(tx, of);
    for (const element of now.elements) {
      if (guarded.has(port.key) && isGuard(element.set)) continue;
      this.written.ensureSourceRangeSet(tx, element.set);
      this.ensure(tx, kernel, element);
    }
    let count = 0;
    for (const block of now.blocks) {
      const { set, slots } = block;
      for (let slot = 0; slot < slots.length; slot++) {
        if (++count % restAfter === 0) yield;
        const element = slotElement(block, slot);
        const found = kernel.take(set, element.key, element.value);
        if (found === 'absent') tx.addBytes(set, element);
        if (found === 'different') tx.replaceBytes(set, element);
      }
    }
    for (const list of now.numbered) {
      for (const element of numberedElements(list)) {
        if (++count % restAfter === 0) yield;
        this.ensure(tx, kernel, element);
      }
      yield* this.leadOn(tx, kernel, list);
    }
    for (const element of now.shared) {
      if (this.written.countShared(tx, element, 1) === 1 && element.set !== sets.clusterIPs)
        this.ensure(tx, kernel, element);
    }
    tx.note(this.written.states, port.key, state);
  }

  /** Clients that are remembered with an endpoint that is gone come to living ones until its number goes, too. */
  private *leadOn(
    tx: Transaction,
    kernel: KernelTable,
    { set, service, endpoints }: NumberedEndpoints,
  ): Generator<undefined, void, undefined> {
    const left: { readonly key: string; readonly target: string }[] = [];
    let count = 0;
    for (const one of kernel.leftNumbers(set, service)) {
      if (++count % restAfter === 0) yield;
      if (one !== undefined) left.push(one);
      if (left.length > maxRedirected) return;
    }
    if (left.length === 0) return;
    const alive = new Set(endpoints.map(targetBytes));
    for (const [i, { key, target }] of left.entries()) {
      const other = endpoints[i % endpoints.length];
      if (other !== undefined && !alive.has(target)) tx.replace(set, key, targetBytes(other));
    }
  }

  /** Slots and affinity numbers as the kernel has them, so that what is right is not written again. */
  private *stateInKernel(
    tx: Transaction,
    port: ServicePort,
    kernel: KernelTable,
  ): Generator<undefined, ServicePortState | undefined, undefined> {
    const found = port.affinitySeconds === 0 ? undefined : yield* kernel.affinityOf(port);
    if (found !== undefined) {
      const { numbers, service } = found.affinity;
      if (!this.written.affinityIsKnown) numbers.startAnywhere();
      if (!this.written.affinityNumbers.claim(service)) return undefined;
      tx.onFailure(() => {
        this.written.affinityNumbers.release(service, performance.now());
      });
    }
    const clusterSlots = found?.clusterSlots ?? (yield* kernel.slotsOf(port, 'cluster'));
    const localSlots = found?.localSlots ?? (yield* kernel.slotsOf(port, 'local'));
    const hairpins = hairpinsOf(port.protocol, clusterSlots, localSlots);
    return { port, clusterSlots, localSlots, affinity: found?.affinity, hairpins };
  }

  private ensure(
    tx: Transaction,
    kernel: KernelTable,
    element: { set: string; key: string; value?: string | undefined; comment?: string | undefined },
  ): void {
    const value = element.value === undefined ? undefined : valueBytes(element.value);
    const state = kernel.take(element.set, keyBytes(element.key), value, element.comment);
    if (state === 'absent') tx.addRaw(element.set, element.key, element.value, element.comment);
    if (state === 'different') tx.replace(element.set, element.key, element.value, element.comment);
  }

  private async removeLeftovers(kernel: KernelTable, stats: SyncStats): Promise<void> {
    const leftovers = Array.from(kernel.leftovers(), (leftover) => ({ ...leftover, name: leftover.key }));
    const own = new SyncStats();
    await this.committer.inTransactions(leftovers, own, (tx, { set, element }) => {
      // What leads goes now; what a packet may have been led to before waits until none can be left.
      if (isLed(set)) this.written.deferred.add(tx, set, element, 'unknown');
      else tx.delete(set, element);
    });
    stats.add(own);
    const [failure] = own.failures;
    if (failure === undefined) return;
    throw new TableDamagedError(
      `table ${this.nft} ${this.table} was changed by another program while it was read; comparing it again: ${failure.error.message}`,
      { cause: failure.error },
    );
  }

  private removeChains(names: readonly string[], stats: SyncStats): void {
    const tx = this.committer.begin();
    for (const name of names) tx.batch.deleteChain(name);
    this.committer.commitUnlessBusy(tx, stats);
  }
}

/** Large service ports each alone, and those in between together; in order. */
function* runsBySize(ports: readonly ServicePort[]): Generator<readonly ServicePort[], void, undefined> {
  let run: ServicePort[] = [];
  for (const port of ports) {
    if (!isLarge(port)) {
      run.push(port);
      continue;
    }
    if (run.length > 0) yield run;
    run = [];
    yield [port];
  }
  if (run.length > 0) yield run;
}

/** In one turn of the event loop. */
function finish<T>(work: Iterator<undefined, T, undefined>): T {
  for (;;) {
    const result = work.next();
    if (result.done === true) return result.value;
  }
}
