/**
 * nftables mode for one family: keeps the table `kube-proxy` as the model wants it.
 * The layout is in layout.ts, what a service port puts into it in footprint.ts.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { NetlinkError } from '../../netlink/index.js';
import { Batch, BatchMemory, goTo, type NftablesConnection } from '../../netlink/nftables/index.js';
import type { Cidr, FamilyChanges, IPFamily, ServicePort } from '../../model/types.js';
import {
  TableDamagedError,
  type ApplyReport,
  type CheckReport,
  type Dataplane,
  type DataplaneOptions,
  type ProgrammingFailure,
} from '../dataplane.js';
import { AffinityServiceNumbers, numberEndpoints } from './affinity.js';
import { classMap, className, ClassNumbers, parseClassName, type ServiceClass } from './classes.js';
import {
  emptyFootprint,
  footprintOf,
  slotKey,
  slotValue,
  type Element,
  type Footprint,
  type ServicePortState,
  type SlotBlock,
} from './footprint.js';
import { dump, elementsOf, Expected, isByService, unexpected } from './check.js';
import { keyBytes, slotElement, valueBytes } from './element-bytes.js';
import { ElementTable } from '../nft/element-table.js';
import { addressBytes, hostUint32 } from '../nft/keys.js';
import { intervalElements } from '../nft/intervals.js';
import { removeTable } from '../nft/remove-table.js';
import { nftFamily } from '../nft/rules.js';
import { sourceRangePrefix, sourceRangeRules, sourceRangeSetDefinition } from '../nft/source-range-rules.js';
import { KernelTable, slotMaps } from './kernel-table.js';
import { baseObjects, classRules } from './layout.js';
import { chains, interimTableName, maps, sets, tableName } from './names.js';
import { defaultDumpLimit, readLayout, readTable, type FoundSet } from './read-table.js';
import { assignSlots } from './slots.js';
import type { TouchedElements } from '../nft/watch.js';
import { elementId, wantedAmong } from './touched.js';
import { Transaction } from './transaction.js';

/**
 * Bytes of one transaction. The kernel holds its lock for the whole of one; 1 MiB is about 15,000 elements
 * (measured: 20 ms).
 */
const transactionBytes = 1 << 20;
/** A foreign table with no more chains than this, and as many elements of ours in its place, is replaced at once. */
const smallChains = 300;
const smallElements = 10_000;
/** Steps between two turns of the event loop also when they have nothing to write. */
const stepsPerTurn = 4096;
/** So long one transaction is put together: the process has others to answer. */
const turnMs = 30;
/** The clock is read after so many steps. */
const stepsPerLook = 64;

/** The check rests so long after each of its turns: it is in no hurry. */
const checkPauseMs = 5;

const noValue = Buffer.alloc(0);

interface Step {
  readonly key: string;
  readonly name: string;
  readonly next: ServicePort | undefined;
}

class Tally {
  transactions = 0;
  elementsAdded = 0;
  elementsDeleted = 0;
  kernelMs = 0;
  readonly failures: ProgrammingFailure[] = [];

  /** Failures excepted. */
  add(other: ApplyReport): void {
    this.transactions += other.transactions;
    this.elementsAdded += other.elementsAdded;
    this.elementsDeleted += other.elementsDeleted;
    this.kernelMs += other.kernelMs;
  }
}

function isSame(a: Element | undefined, b: Element | undefined): boolean {
  return a?.set === b?.set && a?.key === b?.key;
}

/** A service port that gets more elements than this grows in several steps. */
const growthElements = 16_384;

/**
 * What a service port is on its way to far more endpoints than it had: everything of it already works, with the first of its
 * endpoints. So neither the kernel's lock nor our event loop is held for long; where there were none, it works
 * sooner, too.
 */
function* growing(
  before: ServicePort | undefined,
  next: ServicePort,
): Generator<ServicePort, void, undefined> {
  const sizeOf = ({ clusterEndpoints, localEndpoints }: ServicePort): number =>
    Math.max(clusterEndpoints.length, localEndpoints.length);
  const step = Math.max(1, Math.floor(growthElements / Math.max(1, next.addresses.length)));
  const first = (before === undefined ? 0 : sizeOf(before)) + step;
  for (let size = first; size < sizeOf(next); size += step) {
    yield {
      ...next,
      clusterEndpoints: next.clusterEndpoints.slice(0, size),
      localEndpoints: next.localEndpoints.slice(0, size),
    };
  }
}

/** About how many elements a service port has. */
function extentOf(port: ServicePort | undefined): number {
  if (port === undefined) return 0;
  const { addresses, clusterEndpoints, localEndpoints } = port;
  let ranges = 0;
  for (const { sourceRanges } of addresses) ranges += sourceRanges?.length ?? 0;
  return 1 + ranges + addresses.length * (1 + clusterEndpoints.length + localEndpoints.length);
}

export class NftablesFamily implements Dataplane {
  readonly family: IPFamily;
  private readonly nft: 'ip' | 'ip6';
  private readonly states = new Map<string, ServicePortState>();
  /** By set and key: how many service ports want the element. */
  private readonly sharedCounts: Readonly<Record<string, Map<string, number>>> = {
    [sets.clusterIPs]: new Map(),
    [sets.hairpin]: new Map(),
  };
  /** Class chains in the kernel, with the number of map elements that lead to each. */
  private readonly classUse = new Map<string, number>();
  /** Class chains that nothing led to at the last housekeeping. */
  private idleClasses = new Set<string>();
  private numbers = new ClassNumbers();
  private affinityNumbers = new AffinityServiceNumbers();
  private readonly sourceRangeLengths = new Set<number>();
  private serviceCIDRs: readonly Cidr[] = [];
  private nodePortAddresses: readonly string[];
  /** Base chains and sets are in the kernel; until then settings are only remembered. */
  private baseWritten = false;
  /** The table is as wanted. */
  private adopted = false;
  /** The table is being compared, and was read by key. */
  private partial = false;
  /** By set: elements that are in the kernel. */
  private readonly elementCounts = new Map<string, number>();

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
  }

  async adopt(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    const ports = [...wanted];
    const tally = new Tally();
    try {
      await this.compare(ports, tally, this.dumpLimit);
      return tally;
    } catch (error) {
      if (!(error instanceof TableDamagedError && this.partial)) throw error;
    }
    // Something is there that nothing leads to, or the other way round: only all elements tell.
    const again = new Tally();
    await this.compare(ports, again, Infinity);
    again.add(tally);
    return again;
  }

  async apply(changes: FamilyChanges): Promise<ApplyReport> {
    const tally = new Tally();
    await this.inTransactions(this.stepsOf(changes), tally, (tx, step) => {
      this.change(tx, step.key, step.next);
    });
    return tally;
  }

  /** See WatchableDataplane. */
  extentOf({ upserted, removed }: FamilyChanges, enough: number): number {
    let extent = 0;
    for (const port of upserted) {
      if (extent > enough) return extent;
      extent += extentOf(port) + extentOf(this.states.get(port.key)?.port);
    }
    for (const key of removed) {
      if (extent > enough) return extent;
      extent += extentOf(this.states.get(key)?.port);
    }
    return extent;
  }

  /**
   * Puts right what others did to some elements, in one transaction.
   * @returns undefined when that takes a comparison of the whole table (adopt)
   */
  repair(touched: TouchedElements): ApplyReport | undefined {
    if (!this.adopted) return undefined;
    const wanted = wantedAmong(touched, {
      family: this.family,
      states: this.states.values(),
      numbers: this.numbers,
      sharedCounts: this.sharedCounts,
      nodePortIPs: new Set(this.nodePortAddresses.map(addressBytes)),
    });
    if (wanted === undefined) return undefined;
    const tx = this.begin();
    for (const [set, keys] of touched) {
      const found = new ElementTable();
      const bytes = Array.from(keys, (key) => Buffer.from(key, 'latin1'));
      this.connection.getElements(this.nft, this.table, set, bytes, (key, value, { comment }) => {
        found.set(key, Buffer.isBuffer(value) ? value : noValue, comment);
      });
      for (const key of keys) {
        const element = wanted.get(elementId(set, key));
        const record = found.find(keyBytes(key));
        if (record < 0) {
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
    const tally = new Tally();
    this.commit(tx, tally, 'repair');
    return tally;
  }

  async verify(): Promise<CheckReport | undefined> {
    const tally = new Tally();
    try {
      if (this.adopted && !(await this.verifyAll(tally))) return undefined;
      const { transactions, elementsAdded, elementsDeleted, kernelMs, failures } = tally;
      return { transactions, elementsAdded, elementsDeleted, kernelMs, failures, told: false };
    } catch (error) {
      // Not even the sets are there, or a key is that was not a moment ago.
      if (error instanceof NetlinkError && ['ENOENT', 'EEXIST'].includes(error.code)) return undefined;
      throw error;
    }
  }

  setServiceCIDRs(cidrs: readonly Cidr[]): ApplyReport {
    const tally = new Tally();
    const text = (list: readonly Cidr[]): string =>
      list.map((cidr) => `${cidr.ip}/${cidr.prefixLength}`).join();
    if (text(this.serviceCIDRs) === text(cidrs)) return tally;
    this.serviceCIDRs = cidrs;
    if (!this.baseWritten) return tally;
    const tx = this.begin();
    tx.batch.flushSet(sets.serviceCIDRs);
    this.writeServiceCIDRs(tx, cidrs);
    this.commit(tx, tally);
    return tally;
  }

  setNodePortAddresses(addresses: readonly string[]): ApplyReport {
    const tally = new Tally();
    if (this.options.nodePortAddresses === 'all') return tally;
    const before = this.nodePortAddresses;
    this.nodePortAddresses = addresses;
    if (!this.baseWritten) return tally;
    const tx = this.begin();
    for (const ip of before) {
      if (!addresses.includes(ip)) tx.delete(sets.nodePortIPs, addressBytes(ip));
    }
    for (const ip of addresses) {
      if (!before.includes(ip)) tx.addRaw(sets.nodePortIPs, addressBytes(ip), undefined);
    }
    this.commit(tx, tally);
    return tally;
  }

  maintain(): ApplyReport {
    const tally = new Tally();
    // Else chains would vanish that the comparison has seen.
    if (!this.adopted) return tally;
    const unused = [...this.classUse].filter(([, uses]) => uses === 0).map(([name]) => name);
    const remove = unused.filter((name) => this.idleClasses.has(name));
    this.idleClasses = new Set(unused);
    if (remove.length === 0) return tally;
    const tx = this.begin();
    for (const name of remove) this.deleteClass(tx, name);
    this.commitUnlessBusy(tx, tally);
    return tally;
  }

  close(): void {
    this.connection.close();
  }

  // ---- full check (check.ts)

  /** @returns false when everything has to be compared */
  private async verifyAll(tally: Tally): Promise<boolean> {
    const layout = readLayout(this.connection, this.options, this.table);
    if (typeof layout === 'string' || !this.isLayout(layout.table)) return false;
    const dumped = await this.dumpUncounted(layout.sets);
    const expected = new Expected(this.connection, this.nft, this.table, dumped);
    /** @returns whether the check is still about what the kernel should hold */
    const turn = async (): Promise<boolean> => {
      this.putRight(expected, tally);
      await sleep(checkPauseMs);
      return this.adopted;
    };
    for (const [key, state] of this.states) {
      for (const element of elementsOf(footprintOf(state, this.numbers))) {
        expected.add(element);
        if (!expected.isFull) continue;
        if (!(await turn())) return true;
        // It was written anew meanwhile, so nothing old is left of it.
        if (this.states.get(key) !== state) break;
      }
    }
    for (const [set, counts] of Object.entries(this.sharedCounts)) {
      for (const key of counts.keys()) {
        expected.add({ set, key, value: undefined, comment: undefined });
        if (expected.isFull && !(await turn())) return true;
      }
    }
    this.putRight(expected, tally);
    for (const touched of unexpected(dumped)) {
      const report = this.repair(touched);
      if (report === undefined) return !this.adopted;
      tally.add(report);
      await sleep(checkPauseMs);
    }
    return !this.adopted || this.countsHold();
  }

  private putRight(expected: Expected, tally: Tally): void {
    const tx = this.begin();
    expected.settle(tx);
    this.commit(tx, tally, 'repair');
  }

  /** Chains, rules and sets are as they should be, and what is handled as a whole. */
  private isLayout(found: KernelTable): boolean {
    const tx = this.begin();
    for (const [name] of this.classUse) {
      const of = parseClassName(name);
      if (of === undefined || !found.hasRules(name, classRules(this.options, of))) return false;
      if (found.takeClass(classMap(of.kind), this.numbers.idOf(of), name) !== 'same') return false;
    }
    const known = new Set([
      ...baseObjects(this.options, []).chains.map(({ name }) => name),
      ...this.classUse.keys(),
    ]);
    if (found.unknownChains(known).length > 0) return false;
    this.writeBase(tx, found);
    return tx.batch.isEmpty && found.classes().length === 0;
  }

  /** Sets of which the kernel does not tell how many elements they have (before 6.18), as far as they can be dumped. */
  private async dumpUncounted(found: readonly FoundSet[]): Promise<ReadonlyMap<string, ElementTable>> {
    const dumped = new Map<string, ElementTable>();
    let slots = 0;
    for (const { port } of this.states.values()) slots += extentOf(port);
    for (const { name, count } of found) {
      if (count !== undefined || !isByService(name)) continue;
      if (slotMaps.includes(name) && slots > this.dumpLimit) continue;
      dumped.set(name, dump(this.connection, this.nft, this.table, name));
      await sleep(checkPauseMs);
    }
    return dumped;
  }

  /** No set has more elements than are wanted, as far as the kernel tells. */
  private countsHold(): boolean {
    for (const { name, count } of this.connection.listSets(this.nft, this.table)) {
      if (count === undefined || !isByService(name)) continue;
      if (count !== (this.elementCounts.get(name) ?? 0)) return false;
    }
    return true;
  }

  // ---- transactions

  private begin(memory?: BatchMemory): Transaction {
    return new Transaction(new Batch(this.nft, this.table, memory));
  }

  /** @param purpose 'repair': the kernel has what it had before others changed it */
  private commit(tx: Transaction, tally: Tally, purpose?: 'repair'): void {
    if (tx.batch.isEmpty) return;
    const start = performance.now();
    try {
      this.connection.commit(tx.batch);
    } catch (error) {
      tx.rollBack();
      throw error;
    } finally {
      tally.kernelMs += performance.now() - start;
    }
    if (purpose === undefined) {
      for (const [set, by] of tx.growthBySet())
        this.elementCounts.set(set, (this.elementCounts.get(set) ?? 0) + by);
    }
    tally.transactions++;
    tally.elementsAdded += tx.added;
    tally.elementsDeleted += tx.deleted;
  }

  /** For the deletion of chains. Kernels before 6.2 release the reference of a deleted map element late: another time. */
  private commitUnlessBusy(tx: Transaction, tally: Tally): void {
    try {
      this.commit(tx, tally);
    } catch (error) {
      if (!(error instanceof NetlinkError && error.code === 'EBUSY')) throw error;
    }
  }

  /**
   * Runs `steps` in as few transactions of bounded size as possible, a step never split. A transaction that the
   * kernel refuses is halved until the culprit stands alone; it is reported, and all others go in.
   */
  private async inTransactions<T extends { readonly key: string; readonly name: string }>(
    steps: readonly T[],
    tally: Tally,
    build: (tx: Transaction, step: T) => void,
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
          if (step !== undefined) build(tx, step);
          to++;
        }
        built = true;
        this.commit(tx, tally);
      } catch (error) {
        tx.rollBack();
        if (built) {
          await this.isolate(steps.slice(from, to), error, tally, build);
        } else {
          // The step at `to` can't be put into bytes; those before it can.
          await this.inTransactions(steps.slice(from, to), tally, build);
          this.refused(steps[to], error, tally);
          to++;
        }
      }
      from = to;
      if (from < steps.length) await nextTurn();
    }
  }

  private async isolate<T extends { readonly key: string; readonly name: string }>(
    steps: readonly T[],
    failure: unknown,
    tally: Tally,
    build: (tx: Transaction, step: T) => void,
  ): Promise<void> {
    const only = steps[0];
    if (steps.length > 1) {
      const middle = Math.ceil(steps.length / 2);
      await this.inTransactions(steps.slice(0, middle), tally, build);
      await this.inTransactions(steps.slice(middle), tally, build);
      return;
    }
    this.assertTable(failure);
    this.refused(only, failure, tally);
  }

  private refused(
    step: { readonly key: string; readonly name: string } | undefined,
    failure: unknown,
    tally: Tally,
  ): void {
    if (step === undefined) return;
    const error = failure instanceof Error ? failure : new Error(String(failure));
    tally.failures.push({ servicePort: step.name, key: step.key, error });
  }

  /**
   * Tells a refused service port from a table that is not as this process left it. Then a key is there that we did
   * not write, or one is missing, and other changes would be refused, too.
   */
  private assertTable(failure: unknown): void {
    if (!(failure instanceof NetlinkError)) return;
    if (failure.code === 'EPERM') throw failure;
    // Which of the last two it is for a key with another value depends on the kernel's age.
    if ((this.adopted || this.partial) && ['ENOENT', 'EEXIST', 'EBUSY'].includes(failure.code)) {
      throw new TableDamagedError(
        `table ${this.nft} ${this.table} was changed by another program; comparing all of it: ${failure.message}`,
        { cause: failure },
      );
    }
  }

  // ---- service ports

  /**
   * Order: what is gone, then addresses that move from one service port to another leave the old one, then the rest.
   * So an address is never deleted after its new owner has added it, also when they land in different transactions.
   */
  private stepsOf(changes: FamilyChanges): Step[] {
    const steps: Step[] = changes.removed.map((key) => ({
      key,
      name: this.states.get(key)?.port.name ?? key,
      next: undefined,
    }));
    for (const port of changes.upserted) {
      const before = this.states.get(port.key);
      if (before === undefined) continue;
      const id = (a: { kind: string; ip: string; port: number }): string =>
        a.kind === 'NodePort' ? `:${a.port}` : `${a.ip} ${a.port}`;
      const after = new Set(port.addresses.map(id));
      const kept = before.port.addresses.filter((address) => after.has(id(address)));
      if (kept.length < before.port.addresses.length) {
        steps.push({ key: port.key, name: port.name, next: { ...before.port, addresses: kept } });
      }
    }
    for (const port of changes.upserted) {
      const { key, name } = port;
      for (const next of growing(this.states.get(key)?.port, port)) steps.push({ key, name, next });
      steps.push({ key, name, next: port });
    }
    return steps;
  }

  private change(tx: Transaction, key: string, next: ServicePort | undefined): void {
    const before = this.states.get(key);
    const old = before === undefined ? emptyFootprint : footprintOf(before, this.numbers);
    const state = next === undefined ? undefined : this.nextState(tx, before, next);
    const now = state === undefined ? emptyFootprint : footprintOf(state, this.numbers);
    if (before?.affinity !== undefined && state?.affinity?.service !== before.affinity.service) {
      const number = before.affinity.service;
      this.affinityNumbers.release(number);
      tx.onFailure(() => this.affinityNumbers.claim(number));
    }
    this.writeDifference(tx, old, now);
    tx.note(this.states, key, state);
  }

  private nextState(
    tx: Transaction,
    before: ServicePortState | undefined,
    port: ServicePort,
  ): ServicePortState {
    const clusterSlots = assignSlots(before?.clusterSlots ?? [], port.clusterEndpoints);
    const localSlots = assignSlots(before?.localSlots ?? [], port.localEndpoints);
    if (port.affinitySeconds === 0) return { port, clusterSlots, localSlots, affinity: undefined };
    let service = before?.affinity?.service;
    if (service === undefined) {
      const taken = this.affinityNumbers.take();
      tx.onFailure(() => {
        this.affinityNumbers.release(taken);
      });
      service = taken;
    }
    const endpoints = numberEndpoints(before?.affinity?.endpoints ?? new Map<string, number>(), [
      ...clusterSlots,
      ...localSlots,
    ]);
    return { port, clusterSlots, localSlots, affinity: { service, endpoints } };
  }

  private writeDifference(tx: Transaction, old: Footprint, now: Footprint): void {
    if (old === emptyFootprint) {
      this.writeNew(tx, now);
      return;
    }
    for (const of of now.classes) this.acquireClass(tx, of);
    const oldElements = new Map(
      old.elements.map((element) => [elementId(element.set, element.key), element]),
    );
    for (const element of now.elements) {
      const id = elementId(element.set, element.key);
      const previous = oldElements.get(id);
      oldElements.delete(id);
      if (previous === undefined) {
        this.ensureSourceRangeSet(tx, element.set);
        tx.add(element);
      } else if (previous.value !== element.value) {
        tx.replace(element.set, element.key, element.value, element.comment);
      }
    }
    for (const element of oldElements.values()) tx.delete(element.set, element.key);

    const oldBlocks = new Map(old.blocks.map((block) => [elementId(block.set, block.prefix), block]));
    for (const block of now.blocks) {
      const id = elementId(block.set, block.prefix);
      this.writeSlots(tx, oldBlocks.get(id), block);
      oldBlocks.delete(id);
    }
    for (const block of oldBlocks.values()) this.writeSlots(tx, block, undefined);

    this.writeShared(tx, old.shared, now.shared);
    for (const of of old.classes) this.useClass(tx, className(of), -1);
  }

  private writeNew(tx: Transaction, { classes, elements, blocks, shared }: Footprint): void {
    for (const of of classes) this.acquireClass(tx, of);
    for (const element of elements) {
      this.ensureSourceRangeSet(tx, element.set);
      tx.add(element);
    }
    for (const block of blocks) this.writeSlots(tx, undefined, block);
    for (const element of shared) if (this.countShared(tx, element, 1) === 1) tx.add(element);
  }

  private writeSlots(tx: Transaction, old: SlotBlock | undefined, now: SlotBlock | undefined): void {
    if (old !== undefined) {
      for (let slot = now?.slots.length ?? 0; slot < old.slots.length; slot++)
        tx.delete(old.set, slotKey(old.prefix, slot));
    }
    if (now === undefined) return;
    now.slots.forEach((endpoint, slot) => {
      const held = old?.slots[slot];
      if (old === undefined || held === undefined) {
        tx.addSlot(now, slot, endpoint);
      } else if (held !== endpoint && slotValue(old, held) !== slotValue(now, endpoint)) {
        tx.delete(now.set, slotKey(now.prefix, slot));
        tx.addSlot(now, slot, endpoint);
      }
    });
  }

  private writeShared(tx: Transaction, old: readonly Element[], now: readonly Element[]): void {
    // Most of it is as it was, and endpoints keep their slots: so what is different stands near the end.
    let same = 0;
    while (same < old.length && same < now.length && isSame(old[same], now[same])) same++;
    const gone = new Map(old.slice(same).map((element) => [elementId(element.set, element.key), element]));
    for (const element of same === 0 ? now : now.slice(same)) {
      if (gone.delete(elementId(element.set, element.key))) continue;
      if (this.countShared(tx, element, 1) === 1) tx.add(element);
    }
    for (const element of gone.values()) {
      if (this.countShared(tx, element, -1) === 0) tx.delete(element.set, element.key);
    }
  }

  private countShared(tx: Transaction, { set, key }: Element, by: 1 | -1): number {
    const counts = this.sharedCounts[set];
    if (counts === undefined) throw new RangeError(`set ${set} is not shared`);
    const after = (counts.get(key) ?? 0) + by;
    tx.note(counts, key, after === 0 ? undefined : after);
    return after;
  }

  // ---- classes and source range sets, made when first needed

  private acquireClass(tx: Transaction, of: ServiceClass): void {
    const name = className(of);
    if (!this.classUse.has(name)) {
      tx.batch.addChain(name);
      for (const rule of classRules(this.options, of)) tx.batch.addRule(name, rule.expressions);
      tx.batch.addElement(
        classMap(of.kind),
        Buffer.from(hostUint32(this.numbers.idOf(of)), 'latin1'),
        goTo(name),
      );
      tx.note(this.classUse, name, 0);
    }
    this.useClass(tx, name, 1);
  }

  private useClass(tx: Transaction, name: string, by: 1 | -1): void {
    tx.note(this.classUse, name, (this.classUse.get(name) ?? 0) + by);
  }

  private deleteClass(tx: Transaction, name: string): void {
    const of = parseClassName(name);
    if (of === undefined) return;
    tx.delete(classMap(of.kind), hostUint32(this.numbers.idOf(of)));
    tx.batch.flushChain(name);
    tx.batch.deleteChain(name);
    tx.note(this.classUse, name, undefined);
  }

  private ensureSourceRangeSet(tx: Transaction, set: string): void {
    const length = sourceRangePrefix(set);
    if (length === undefined || this.sourceRangeLengths.has(length)) return;
    tx.batch.addSet(sourceRangeSetDefinition(this.family, length));
    this.sourceRangeLengths.add(length);
    tx.onFailure(() => this.sourceRangeLengths.delete(length));
    this.writeSourceRangeRules(tx);
  }

  private writeSourceRangeRules(tx: Transaction): void {
    tx.batch.flushChain(chains.sourceRanges);
    for (const rule of sourceRangeRules(this.family, this.sourceRangeLengths)) {
      tx.batch.addRule(chains.sourceRanges, rule.expressions);
    }
  }

  // ---- adoption

  /** @param dumpLimit see ReadOptions */
  private async compare(ports: readonly ServicePort[], tally: Tally, dumpLimit: number): Promise<void> {
    this.adopted = this.baseWritten = this.partial = false;
    const found = await readTable(this.connection, this.options, this.table, { dumpLimit });
    if (found === 'foreign' && this.isSmall(ports) && this.replaceTable(ports, tally)) {
      this.adopted = this.baseWritten = true;
      this.countElements();
      return;
    }
    if (found === 'foreign') await this.makeRoom(ports, tally);

    this.forget();
    const kernel = found === 'absent' || found === 'foreign' ? new KernelTable() : found;
    this.partial = kernel.isPartial;
    const tx = this.begin();
    this.writeBase(tx, kernel);
    const unknownChains = this.adoptClasses(tx, kernel);
    this.affinityNumbers.reserve(kernel.affinityServiceNumbers());
    this.commit(tx, tally);
    this.baseWritten = true;

    let current: Transaction | undefined;
    for (const part of kernel.parts(ports)) {
      kernel.readSlots(part);
      await this.inTransactions(part, tally, (each, port) => {
        if (each !== current) {
          current = each;
          kernel.checkpoint();
          each.onFailure(() => {
            kernel.rollBack();
          });
        }
        this.adoptServicePort(each, port, kernel);
      });
    }
    this.affinityNumbers.reserve([]);
    await this.removeLeftovers(kernel, tally);
    this.removeChains(
      unknownChains.filter((name) => !this.classUse.has(name)),
      tally,
    );
    if (this.table !== interimTableName)
      tally.transactions += await removeTable(this.connection, this.nft, interimTableName);
    this.adopted = true;
    this.partial = false;
    this.countElements();
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
  private async makeRoom(ports: readonly ServicePort[], tally: Tally): Promise<void> {
    if (this.table !== interimTableName) {
      const interim = new NftablesFamily(this.connection, this.options, this.dumpLimit, interimTableName);
      interim.setServiceCIDRs(this.serviceCIDRs);
      interim.setNodePortAddresses(this.nodePortAddresses);
      tally.add(await interim.adopt(ports));
    }
    tally.transactions += await removeTable(this.connection, this.nft, this.table);
  }

  private countElements(): void {
    this.elementCounts.clear();
    for (const { name, count = 0 } of this.connection.listSets(this.nft, this.table))
      this.elementCounts.set(name, count);
  }

  /**
   * A small table that is not laid out as ours (upstream's, or damaged) is replaced in one transaction with everything in
   * it, so that no packet meets a table that is half built.
   * @returns false when the kernel refused: a service port is to blame, and has to be found one by one
   */
  private replaceTable(ports: readonly ServicePort[], tally: Tally): boolean {
    this.forget();
    const kernel = new KernelTable();
    const tx = this.begin();
    try {
      tx.batch.deleteTable();
      this.writeBase(tx, kernel);
      for (const port of ports) this.adoptServicePort(tx, port, kernel);
      this.commit(tx, tally);
      return true;
    } catch (error) {
      if (ports.length === 0) throw error;
      return false;
    }
  }

  private forget(): void {
    this.states.clear();
    for (const counts of Object.values(this.sharedCounts)) counts.clear();
    this.classUse.clear();
    this.idleClasses.clear();
    this.sourceRangeLengths.clear();
    this.numbers = new ClassNumbers();
    this.affinityNumbers = new AffinityServiceNumbers();
  }

  /** Table, base chains, fixed chains and sets: only what is missing or different. */
  private writeBase(tx: Transaction, kernel: KernelTable): void {
    for (const length of kernel.sourceRangeLengths()) this.sourceRangeLengths.add(length);
    const base = baseObjects(this.options, this.sourceRangeLengths);
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
    const wanted = intervalElements(this.serviceCIDRs);
    if (!kernel.takeIntervals(sets.serviceCIDRs, wanted)) {
      if (kernel.hasSet(sets.serviceCIDRs)) tx.batch.flushSet(sets.serviceCIDRs);
      this.writeServiceCIDRs(tx, this.serviceCIDRs);
    }
  }

  private writeServiceCIDRs(tx: Transaction, cidrs: readonly Cidr[]): void {
    for (const { key, end } of intervalElements(cidrs)) {
      tx.batch.addElement(sets.serviceCIDRs, Buffer.from(key, 'latin1'), undefined, { intervalEnd: end });
    }
  }

  /**
   * Class chains of an earlier process: kept when they say what we would say, else written anew.
   * @returns chains that are nobody's, now empty
   */
  private adoptClasses(tx: Transaction, kernel: KernelTable): string[] {
    for (const { map, id, chain } of kernel.classes()) {
      const of = parseClassName(chain);
      if (
        of === undefined ||
        classMap(of.kind) !== map ||
        !kernel.hasChain(chain) ||
        !this.numbers.learn(id, of)
      ) {
        tx.delete(map, hostUint32(id));
        continue;
      }
      const rules = classRules(this.options, of);
      if (!kernel.hasRules(chain, rules)) {
        tx.batch.flushChain(chain);
        for (const rule of rules) tx.batch.addRule(chain, rule.expressions);
      }
      this.classUse.set(chain, 0);
    }
    const base = baseObjects(this.options, []).chains.map(({ name }) => name);
    const unknown = kernel.unknownChains(new Set([...base, ...this.classUse.keys()]));
    for (const chain of unknown) tx.batch.flushChain(chain);
    return unknown;
  }

  private adoptServicePort(tx: Transaction, port: ServicePort, kernel: KernelTable): void {
    if (!kernel.exists) {
      this.change(tx, port.key, port);
      return;
    }
    const state = this.nextState(tx, this.stateInKernel(tx, port, kernel), port);
    const now = footprintOf(state, this.numbers);
    for (const of of now.classes) this.acquireClass(tx, of);
    for (const element of now.elements) {
      this.ensureSourceRangeSet(tx, element.set);
      this.ensure(tx, kernel, element);
    }
    for (const block of now.blocks) {
      const { set, slots } = block;
      for (let slot = 0; slot < slots.length; slot++) {
        const endpoint = slots[slot];
        if (endpoint === undefined) continue;
        const element = slotElement(block, slot, endpoint);
        const found = kernel.take(set, element.key, element.value);
        if (found === 'absent') tx.addBytes(set, element);
        if (found === 'different') tx.replaceBytes(set, element);
      }
    }
    for (const element of now.shared) {
      if (this.countShared(tx, element, 1) === 1) this.ensure(tx, kernel, element);
    }
    tx.note(this.states, port.key, state);
  }

  /** Slots and affinity numbers as the kernel has them, so that what is right is not written again. */
  private stateInKernel(
    tx: Transaction,
    port: ServicePort,
    kernel: KernelTable,
  ): ServicePortState | undefined {
    const affinity = port.affinitySeconds === 0 ? undefined : kernel.affinityOf(port);
    if (affinity !== undefined) {
      if (!this.affinityNumbers.claim(affinity.service)) return undefined;
      tx.onFailure(() => {
        this.affinityNumbers.release(affinity.service);
      });
    }
    return {
      port,
      clusterSlots: kernel.slotsOf(port, 'cluster', affinity),
      localSlots: kernel.slotsOf(port, 'local', affinity),
      affinity,
    };
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

  private async removeLeftovers(kernel: KernelTable, tally: Tally): Promise<void> {
    const leftovers = Array.from(kernel.leftovers(), (leftover) => ({ ...leftover, name: leftover.key }));
    const own = new Tally();
    await this.inTransactions(leftovers, own, (tx, { set, element }) => {
      tx.delete(set, element);
    });
    tally.add(own);
    const [failure] = own.failures;
    if (failure === undefined) return;
    throw new TableDamagedError(
      `table ${this.nft} ${this.table} was changed by another program while it was read; comparing it again: ${failure.error.message}`,
      { cause: failure.error },
    );
  }

  private removeChains(names: readonly string[], tally: Tally): void {
    const tx = this.begin();
    for (const name of names) tx.batch.deleteChain(name);
    this.commitUnlessBusy(tx, tally);
  }
}
