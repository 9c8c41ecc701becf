/**
 * Mode ipvs for one family: virtual servers in IPVS, their addresses on an interface, and beside them the tables of
 * layout.ts. What a service port wants of them is in footprint.ts, how endpoints come and go in server-state.ts.
 *
 * Rules change in one step, each message to IPVS is a step of its own. A change is written in this order:
 *
 * 1. new virtual servers by mark, which nothing leads to yet;
 * 2. rules: all that is new, the refusals among it, and whatever admits packets that nobody serves any longer. A new port of
 *    an old address is refused at first;
 * 3. virtual servers of new addresses, then these addresses;
 * 4. other virtual servers, in place: endpoints come before others go;
 * 5. rules: refusals that go;
 * 6. some time later (deferred.ts) what packets may still look for that are under way.
 *
 * So a packet is treated as before the change or as afterwards, a new address answers only when everything behind it is
 * there, and a new port of an old one not before what changed with it.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { cidrContains, isLoopback } from '../../model/addresses/addresses.js';
import type { Cidr, FamilyChanges, IPFamily, ServicePort } from '../../model/types.js';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import type { VirtualServerKey } from '@kube-proxy-ts/netlink/ipvs';
import { Batch, type NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { TableDamagedError, type ApplyReport, type Dataplane, type DataplaneOptions } from '../backend.js';
import { intervalElements } from '../nft/intervals.js';
import { addressBytes } from '../nft/keys.js';
import { nftFamily } from '../nft/rules.js';
import { sourceRangePrefix, sourceRangeRules, sourceRangeSetDefinition } from '../nft/source-range-rules.js';
import { DeferredDeletions, elementId } from './table/deferred.js';
import { PartialChange, serversPerPart } from './partial-change.js';
import {
  commentOf,
  elementsOf,
  noState,
  desiredState,
  needsMark,
  serverId,
  type AddressPlan,
  type Element,
  type DesiredState,
  type FootprintContext,
  type DesiredServer,
} from './desired-state.js';
import { KernelFilter } from './table/kernel-filter.js';
import type { AddressChange, IpvsKernel, ServiceInterface } from './kernel.js';
import { chainDefinitions, setDefinitions, tableComment } from './table/layout.js';
import { Leases } from './table/leases.js';
import { isOurMark, Marks } from './servers/marks.js';
import { chains, maps, sets, tableName } from './table/names.js';
import { schedulerNamed } from './servers/schedulers.js';
import { SyncStats } from './sync-stats.js';
import { bytes, Transaction } from './table/transaction.js';
import { VirtualServers } from './servers/virtual-servers.js';
import type { CheckedFamily, CheckOptions } from './watch.js';

export interface IpvsOptions {
  /** As the kernel knows it. */
  readonly scheduler: string;
  /** Virtual servers with these addresses are not deleted, nor their endpoints drained, when nobody wants them. */
  readonly excludeCIDRs: readonly Cidr[];
  /** Addresses of this family on the interfaces of this node, without those of kube-ipvs0; canonical text. */
  readonly localAddresses: readonly string[];
  /**
   * Called when the kernel is compared: recognises virtual servers that another kube-proxy made (upstream's node ports, for
   * one), and which are ours to delete if nobody wants them.
   */
  readonly formerServers?: () => (key: VirtualServerKey) => boolean;
}

/** What the dataplane writes to. It closes them. */
export interface IpvsKernelSide {
  readonly nft: NftablesConnection;
  readonly ipvs: IpvsKernel;
  /** Another connection to IPVS, which is busy for as long as everything is listed. */
  readonly observer: IpvsKernel;
  readonly addresses: ServiceInterface;
}

/** IPv4 addresses of this kind are like any other to a node. */
const linkLocal: Cidr = { ip: 'fe80::', prefixLength: 10 };

interface PortState {
  readonly port: ServicePort;
  readonly mark: number;
  readonly desired: DesiredState;
}

interface Step {
  readonly key: string;
  readonly name: string;
  readonly next: ServicePort | undefined;
}

/** To whom addresses (by id) pass in the change that is under way: keys of service ports. */
interface Heirs {
  readonly services: Map<string, string>;
  readonly nodePorts: Map<string, string>;
}

/** An element that was found and that nobody wants. */
type Leftover = Pick<Element, 'set' | 'key'>;

/** Service ports between two turns of the event loop, where nothing is written. */
const portsPerTurn = 500;
/** Elements of one transaction that deletes what nobody wants. */
const deletionsPerTurn = 2_000;

export class IpvsFamily implements Dataplane, CheckedFamily {
  readonly family: IPFamily;
  private readonly nft: 'ip' | 'ip6';
  private context: FootprintContext;
  private localAddresses: ReadonlySet<string>;
  private readonly ports = new Map<string, PortState>();
  /** Who has an address of a Service, and who a node port on an address of the node; by id. */
  private readonly services = new Map<string, AddressPlan>();
  private readonly nodePorts = new Map<string, AddressPlan>();
  private readonly byMark = new Map<string, DesiredServer>();
  private marks = new Marks();
  /** How many virtual servers of Services want an address on the interface. */
  private readonly addressUse = new Map<string, number>();
  private readonly hairpinUse = new Map<string, number>();
  private readonly sourceRangeLengths = new Set<number>();
  private serviceCIDRs: readonly Cidr[] = [];

  // What the kernel holds, as far as we know.
  private readonly servers: VirtualServers;
  private readonly hairpins = new Set<string>();
  private readonly boundElements = new Set<string>();
  private readonly bound = new Set<string>();
  /** The table is being compared: what is in it and right is not written again. */
  private kernel: KernelFilter | undefined;
  /** Virtual servers whose elements were compared. */
  private readonly compared = new Set<string>();
  /** Until their heirs have claimed them, addresses stay with whom they were. */
  private readonly heirs: Heirs = { services: new Map(), nodePorts: new Map() };
  private readonly deferred = new DeferredDeletions();
  /** Service ports whose node ports are still to follow the addresses of the node. */
  private readonly toMove = new Set<string>();
  private readonly leases: Leases;
  private serviceCIDRsWritten = false;
  private resynced = false;

  constructor(
    private readonly side: IpvsKernelSide,
    private readonly options: DataplaneOptions,
    private readonly ipvs: IpvsOptions,
  ) {
    this.family = options.family;
    this.nft = nftFamily(options.family);
    this.leases = new Leases(options.family);
    this.localAddresses = new Set(ipvs.localAddresses);
    this.servers = new VirtualServers(side.ipvs, {
      family: this.nft,
      wanted: (id) => this.planFor(id)?.server ?? this.byMark.get(id),
      isExcluded: (key) => this.isExcluded(key),
      isServiceAddress: (ip) => this.bound.has(ip),
    });
    this.context = {
      scheduler: ipvs.scheduler,
      traits: schedulerNamed(ipvs.scheduler),
      nodePortAddresses: this.selectNodePortAddresses(options.nodePortAddresses),
    };
  }

  async apply(changes: FamilyChanges): Promise<ApplyReport> {
    const stats = new SyncStats();
    const steps: Step[] = [
      ...changes.removed.map((key) => ({
        key,
        name: this.ports.get(key)?.port.name ?? key,
        next: undefined,
      })),
      ...changes.upserted.map((port) => ({ key: port.key, name: port.name, next: port })),
    ];
    try {
      await this.findHeirs(changes);
      await this.runInTurns(steps, stats);
      const heirs = new Set([...this.heirs.services.values(), ...this.heirs.nodePorts.values()]);
      const failure = stats.failures.find(({ key }) => heirs.has(key));
      if (failure !== undefined)
        throw new TableDamagedError(
          `${failure.servicePort} can't have an address that was another service port's; comparing everything: ${failure.error.message}`,
          { cause: failure.error },
        );
    } finally {
      this.heirs.services.clear();
      this.heirs.nodePorts.clear();
    }
    return stats;
  }

  get deferredDueAt(): number | undefined {
    if (!this.resynced) return undefined;
    return this.toMove.size > 0 ? 0 : this.deferred.dueAt;
  }

  async deleteDeferred(now: number): Promise<ApplyReport> {
    const stats = new SyncStats();
    await nextTurn();
    if (!this.resynced) return stats;
    if (this.toMove.size > 0) this.moveSome(stats);
    const tx = this.begin();
    for (const { set, key } of this.deferred.takeDueElements(now)) tx.delete(set, key);
    try {
      this.commit(tx, stats);
    } catch (error) {
      this.assertTable(error);
      throw error;
    }
    const marks = this.deferred.takeDueMarks(now);
    this.servers.write(
      marks.map((mark) => serverId({ family: this.nft, fwmark: mark })),
      stats,
    );
    for (const mark of marks) this.marks.release(mark);
    return stats;
  }

  setServiceCIDRs(cidrs: readonly Cidr[]): ApplyReport {
    const stats = new SyncStats();
    const text = (list: readonly Cidr[]): string =>
      list.map(({ ip, prefixLength }) => `${ip}/${prefixLength}`).join();
    if (text(this.serviceCIDRs) === text(cidrs)) return stats;
    this.serviceCIDRs = cidrs;
    if (!this.serviceCIDRsWritten) return stats;
    const tx = this.begin();
    tx.batch.flushSet(sets.serviceCIDRs);
    this.addServiceCIDRs(tx);
    this.commit(tx, stats);
    return stats;
  }

  setNodePortAddresses(addresses: readonly string[]): ApplyReport {
    const stats = new SyncStats();
    if (this.options.nodePortAddresses !== 'all') this.moveNodePorts(addresses, stats);
    return stats;
  }

  setLocalAddresses(addresses: readonly string[]): ApplyReport {
    const stats = new SyncStats();
    const before = this.localAddresses;
    this.localAddresses = new Set(addresses);
    if (this.options.nodePortAddresses === 'all')
      this.moveNodePorts(this.selectNodePortAddresses('all'), stats);
    if (!this.resynced) return stats;
    // A service address that another interface has now, or had, is taken off kube-ipvs0, or put on it.
    const partial = new PartialChange();
    for (const ip of [...before, ...addresses]) if (this.addressUse.has(ip)) partial.ips.add(ip);
    if (partial.ips.size > 0) this.write(partial, stats);
    return stats;
  }

  maintain(): ApplyReport {
    const stats = new SyncStats();
    if (!this.resynced) return stats;
    this.renewLeases();
    this.releaseAddresses(this.servers.settle(undefined, stats), stats);
    return stats;
  }

  hasBound(ip: string): boolean {
    return this.bound.has(ip);
  }

  /**
   * Looks whether IPVS and the service interface are as we left them.
   * @returns milliseconds in which nothing else was done
   * @throws TableDamagedError
   */
  async check({ addresses, signal }: CheckOptions): Promise<number> {
    const busyMs = this.resynced ? await this.servers.verify(this.side.observer, signal) : 0;
    if (this.isResynced() && addresses) this.verifyAddresses();
    return busyMs;
  }

  /** It may be compared anew while something else is waited for. */
  private isResynced(): boolean {
    return this.resynced;
  }

  /** Not told of in reports: no Service changed. */
  private renewLeases(): void {
    const now = performance.now();
    if (!this.leases.isDue(now)) return;
    const { batch } = this.begin();
    this.leases.renew(batch, now);
    this.side.nft.commit(batch);
  }

  close(): void {
    if (this.resynced) {
      const { batch } = this.begin();
      this.leases.shorten(batch);
      try {
        this.side.nft.commit(batch);
      } catch {
        // Somebody deleted the table, or it expires later.
      }
    }
    this.side.nft.close();
    this.servers.close();
    this.side.observer.close();
    this.side.addresses.close();
  }

  // ---- steps

  private async runInTurns(steps: readonly Step[], stats: SyncStats): Promise<void> {
    const parts = this.run(steps, stats);
    while (parts.next().done !== true) await nextTurn();
  }

  /** Carries out steps in parts of bounded size; after each it yields. */
  private *run(steps: readonly Step[], stats: SyncStats): Generator<undefined, void> {
    let from = 0;
    while (from < steps.length) {
      const partial = new PartialChange();
      let to = from;
      let built = false;
      try {
        while (to < steps.length && !partial.isFull) {
          const step = steps[to];
          if (step !== undefined) this.change(partial, step.key, step.next);
          to++;
        }
        built = true;
        this.write(partial, stats);
      } catch (error) {
        // Rules are in the kernel, what belongs to them may not be: only a comparison can tell.
        if (partial.isCommitted) throw error;
        partial.rollBack();
        this.kernel?.rollBack();
        // Nothing leads to them.
        this.servers.write(partial.earlyMarks, stats);
        if (!built) {
          // The step at `to` can't be put into bytes; those before it can.
          yield* this.run(steps.slice(from, to), stats);
          this.refused(steps[to], error, stats);
          to++;
        } else if (to - from > 1) {
          const middle = Math.ceil((from + to) / 2);
          yield* this.run(steps.slice(from, middle), stats);
          yield* this.run(steps.slice(middle, to), stats);
        } else {
          this.assertTable(error);
          this.refused(steps[from], error, stats);
        }
      }
      from = to;
      if (from < steps.length) yield;
    }
  }

  private refused(step: Step | undefined, error: unknown, stats: SyncStats): void {
    if (step === undefined) return;
    stats.fail(step, error);
    // It was to be the owner of addresses that nobody has now.
    if (this.kernel !== undefined) this.change(new PartialChange(), step.key, undefined);
  }

  /** Tells a refused service port from a kernel that is not as this process left it. */
  private assertTable(failure: unknown): void {
    if (!(failure instanceof NetlinkError)) return;
    if (failure.code === 'EPERM') throw failure;
    if (this.resynced && ['ENOENT', 'EEXIST', 'EBUSY', 'ENODEV'].includes(failure.code)) {
      throw new TableDamagedError(
        `table ${this.nft} ${tableName} or IPVS was changed by another program; comparing all of it: ${failure.message}`,
        { cause: failure },
      );
    }
  }

  /** Changes what is wanted in our own memory, and notes in the draft what may have to be written. */
  private change(partial: PartialChange, key: string, next: ServicePort | undefined): void {
    const before = this.ports.get(key);
    const old = before?.desired ?? noState;
    const mark = this.markFor(partial, before, next);
    const now = next === undefined ? noState : desiredState(next, mark, this.context);
    this.moveClaims(partial, 'services', key, old.services, now.services, (ip, by) => {
      partial.count(this.addressUse, ip, by);
    });
    for (const plans of [old.services, now.services])
      for (const { address } of plans.values()) partial.ips.add(address.ip);
    this.moveClaims(partial, 'nodePorts', key, old.nodePorts, now.nodePorts);
    for (const server of [old.byMark, now.byMark]) if (server !== undefined) partial.marks.add(server.id);
    if (old.byMark !== undefined && old.byMark.id !== now.byMark?.id)
      partial.note(this.byMark, old.byMark.id, undefined);
    if (now.byMark !== undefined) partial.note(this.byMark, now.byMark.id, now.byMark);
    for (const hairpin of now.hairpins) {
      if (!old.hairpins.has(hairpin)) partial.count(this.hairpinUse, hairpin, 1);
      partial.hairpins.add(hairpin);
    }
    for (const hairpin of old.hairpins) {
      if (!now.hairpins.has(hairpin)) partial.count(this.hairpinUse, hairpin, -1);
      partial.hairpins.add(hairpin);
    }
    partial.note(this.ports, key, next === undefined ? undefined : { port: next, mark, desired: now });
    partial.endpoints += (now.services.size + now.nodePorts.size) * (next?.clusterEndpoints.length ?? 0);
  }

  private markFor(
    partial: PartialChange,
    before: PortState | undefined,
    next: ServicePort | undefined,
  ): number {
    const had = before?.mark ?? 0;
    const needs = next !== undefined && needsMark(next);
    if (needs && had !== 0) return had;
    if (had !== 0)
      partial.onSuccess(() => {
        this.deferred.addMark(had, performance.now());
      });
    if (!needs) return 0;
    const known = this.knownMark(next);
    const mark = known ?? this.marks.take();
    partial.onFailure(() => {
      this.marks.release(mark);
    });
    return mark;
  }

  /** The mark that an earlier process gave to a service port. */
  private knownMark(port: ServicePort): number | undefined {
    if (this.kernel === undefined) return undefined;
    const { services, nodePorts } = desiredState(port, 0, this.context);
    for (const id of [...services.keys(), ...nodePorts.keys()]) {
      const mark = this.kernel.markOf(id, commentOf(port));
      if (mark !== undefined && this.marks.claim(mark)) return mark;
    }
    return undefined;
  }

  /** @param onUse called when an address gets a virtual server more or less */
  private moveClaims(
    partial: PartialChange,
    kind: 'services' | 'nodePorts',
    key: string,
    old: ReadonlyMap<string, AddressPlan>,
    now: ReadonlyMap<string, AddressPlan>,
    onUse?: (ip: string, by: 1 | -1) => void,
  ): void {
    const claims = this[kind];
    for (const [id, plan] of old) {
      this.touch(partial, id);
      // An address that has moved on to another service port meanwhile is that one's, …
      if (now.has(id) || claims.get(id)?.server.owner.key !== key) continue;
      // … and one that will do so stays until then.
      if ((this.heirs[kind].get(id) ?? key) !== key) continue;
      partial.note(claims, id, undefined);
      onUse?.(plan.address.ip, -1);
    }
    for (const [id, plan] of now) {
      this.touch(partial, id);
      if (!claims.has(id)) onUse?.(plan.address.ip, 1);
      partial.note(claims, id, plan);
    }
  }

  /** Notes which addresses pass from one service port to another: a large change is written in parts. */
  private async findHeirs({ upserted, removed }: FamilyChanges): Promise<void> {
    if (upserted.length + removed.length < 2) return;
    for (const [at, port] of upserted.entries()) {
      if (at % portsPerTurn === portsPerTurn - 1) await nextTurn();
      let desired;
      try {
        desired = desiredState(port, 0, this.context);
      } catch {
        // It will be named when it is to be written.
        continue;
      }
      for (const kind of ['services', 'nodePorts'] as const) {
        for (const id of desired[kind].keys()) {
          const owner = this[kind].get(id)?.server.owner.key;
          if (owner !== undefined && owner !== port.key) this.heirs[kind].set(id, port.key);
        }
      }
    }
  }

  private touch(partial: PartialChange, id: string): void {
    if (partial.before.has(id)) return;
    // While the kernel is compared, all is as if new at first.
    const compares = this.kernel !== undefined && !this.compared.has(id);
    partial.before.set(id, compares ? undefined : this.planFor(id));
    if (!compares) return;
    this.compared.add(id);
    partial.onFailure(() => this.compared.delete(id));
  }

  /** Who serves an address: a Service whose address it is, before one that has it as a node port. */
  private planFor(id: string): AddressPlan | undefined {
    return this.services.get(id) ?? this.nodePorts.get(id);
  }

  private isExcluded(key: VirtualServerKey): boolean {
    return 'address' in key && this.ipvs.excludeCIDRs.some((cidr) => cidrContains(cidr, key.address));
  }

  private selectNodePortAddresses(selection: DataplaneOptions['nodePortAddresses']): readonly string[] {
    const v6 = this.family === 'IPv6';
    return [...(selection === 'all' ? this.localAddresses : selection)].filter(
      (ip) => ip.includes(':') === v6 && !isLoopback(ip) && !cidrContains(linkLocal, ip),
    );
  }

  private moveNodePorts(addresses: readonly string[], stats: SyncStats): void {
    const nodePortAddresses = this.selectNodePortAddresses(addresses);
    if (nodePortAddresses.join() === this.context.nodePortAddresses.join()) return;
    this.context = { ...this.context, nodePortAddresses };
    this.toMove.clear();
    if (!this.resynced) return;
    for (const [key, { port }] of this.ports)
      if (port.addresses.some(({ kind }) => kind === 'NodePort')) this.toMove.add(key);
    this.moveSome(stats);
  }

  /** Lets some node ports follow the addresses of the node; the others are left to deleteDeferred(). */
  private moveSome(stats: SyncStats): void {
    const most = Math.ceil(serversPerPart / Math.max(1, this.context.nodePortAddresses.length));
    const steps: Step[] = [];
    for (const key of this.toMove) {
      if (steps.length === most) break;
      this.toMove.delete(key);
      const port = this.ports.get(key)?.port;
      if (port !== undefined) steps.push({ key, name: port.name, next: port });
    }
    const parts = this.run(steps, stats);
    while (parts.next().done !== true);
    const [failure] = stats.failures;
    // Nobody tries these again, so everything is.
    if (failure !== undefined)
      throw new TableDamagedError(`cannot move node ports: ${failure.error.message}`, {
        cause: failure.error,
      });
  }

  // ---- writing

  private begin(): Transaction {
    return new Transaction(new Batch(this.nft, tableName));
  }

  private commit(tx: Transaction, stats: SyncStats): void {
    if (tx.batch.isEmpty) return;
    stats.timed(() => {
      this.side.nft.commit(tx.batch);
    });
    stats.transactions++;
    stats.elementsAdded += tx.added;
    stats.elementsDeleted += tx.deleted;
  }

  /**
   * Makes the kernel follow, in the order that is told at the head of this file.
   * @param whole replaces the table, so everything goes into it at once
   */
  private write(partial: PartialChange, stats: SyncStats, whole?: Transaction): void {
    this.kernel?.checkpoint();
    const marks = [...partial.marks].filter((id) => this.byMark.has(id));
    const [known, early]: [string[], string[]] = [[], []];
    for (const id of marks) (this.servers.has(id) ? known : early).push(id);
    partial.earlyMarks = early;
    this.servers.write(early, stats);

    const tx = whole ?? this.begin();
    const opening = this.begin();
    for (const [id, before] of partial.before) {
      const now = this.planFor(id);
      this.writeElements(partial, { tx, opening }, before, now);
      if (now !== undefined && before === undefined && whole === undefined && this.isToBeRefused(now)) {
        const element = { set: sets.rejectedIPs, key: id, value: undefined, comment: undefined };
        this.addElement(partial, tx, element);
        opening.delete(element.set, element.key);
      }
    }
    this.writeHairpins(partial, tx);
    if (whole !== undefined) this.addBoundElements(partial, tx);
    this.commit(tx, stats);
    partial.done();

    const [unbound, others] = this.byAddress(partial, known);
    this.servers.write(unbound, stats);
    const binding = this.begin();
    this.addBoundElements(partial, binding);
    this.commit(binding, stats);
    this.bindAddresses(partial.ips, stats);
    this.servers.write(others, stats);
    this.commit(opening, stats);
    this.releaseAddresses(partial.ips, stats);
  }

  /** A new port of an address that can be reached already: a process of this host may listen there. */
  private isToBeRefused({ server: { id }, address: { ip, kind, fallback } }: AddressPlan): boolean {
    const isReachable = kind === 'NodePort' || !this.isToBind(ip);
    return isReachable && fallback !== 'reject' && this.kernel?.had(sets.serviceIPs, id) !== true;
  }

  private writeHairpins(partial: PartialChange, tx: Transaction): void {
    for (const key of partial.hairpins) {
      const wanted = this.hairpinUse.has(key);
      if (wanted === this.hairpins.has(key)) continue;
      if (wanted) {
        this.writeMembership(partial, tx, this.hairpins, { set: sets.hairpin, key }, key);
        continue;
      }
      this.hairpins.delete(key);
      partial.onFailure(() => this.hairpins.add(key));
      this.defer(partial, { set: sets.hairpin, key, value: undefined, comment: undefined });
    }
  }

  private addBoundElements(partial: PartialChange, tx: Transaction): void {
    for (const ip of partial.ips)
      if (this.wantsBound(ip) && !this.boundElements.has(ip)) this.addBoundElement(partial, tx, ip);
  }

  private writeElements(
    partial: PartialChange,
    to: { readonly tx: Transaction; readonly opening: Transaction },
    before: AddressPlan | undefined,
    now: AddressPlan | undefined,
  ): void {
    if (before === now) return;
    const { tx } = to;
    const old = new Map((before === undefined ? [] : elementsOf(before)).map((e) => [elementId(e), e]));
    for (const element of now === undefined ? [] : elementsOf(now)) {
      const id = elementId(element);
      const previous = old.get(id);
      old.delete(id);
      if (previous === undefined) {
        this.ensureSourceRangeSet(partial, tx, element.set);
        const waits = element.set === sets.localIPs && this.servesOutsidersElsewhere(before, now);
        this.addElement(partial, waits ? to.opening : tx, element);
      } else if (previous.value !== element.value || previous.comment !== element.comment) {
        tx.replace(element);
      }
    }
    for (const element of old.values()) this.dropElement(partial, to, element, before, now);
    this.dropFormerList(to, now);
  }

  /** Outsiders are masqueraded for as long as they may be sent to other nodes. */
  private servesOutsidersElsewhere(before: AddressPlan | undefined, now: AddressPlan | undefined): boolean {
    if (now === undefined || now.address.fallback === 'drop') return false;
    const { kernel } = this;
    const { id } = now.server;
    return (
      before !== undefined || (kernel?.had(sets.serviceIPs, id) === true && !kernel.had(sets.localIPs, id))
    );
  }

  /**
   * Packets look the sets up one after the other: service-ips first, the source ranges behind firewall-ips, external-ips and
   * dropped-local-ips behind local-ips.
   */
  private dropElement(
    partial: PartialChange,
    { tx, opening }: { readonly tx: Transaction; readonly opening: Transaction },
    element: Element,
    before: AddressPlan | undefined,
    now: AddressPlan | undefined,
  ): void {
    const { set, key } = element;
    if (now === undefined) {
      (set === sets.serviceIPs ? tx : opening).delete(set, key);
    } else if (set === sets.localIPs) {
      // Whoever is masqueraded may be sent to other nodes; whoever is dropped is not sent anywhere.
      (before?.address.fallback === 'drop' ? opening : tx).delete(set, key);
    } else if (sourceRangePrefix(set) === undefined) {
      const isLate =
        set === sets.externalIPs || (set === sets.droppedLocalIPs && now.address.policy !== 'Local');
      if (isLate) this.defer(partial, element);
      else opening.delete(set, key);
    } else if (now.address.sourceRanges === undefined || now.server.owner.key === before?.server.owner.key) {
      this.defer(partial, element);
    } else {
      // Not a moment longer: these were allowed to use another Service.
      opening.delete(set, key);
    }
  }

  /** While the kernel is compared: the same for what an earlier process has left of policy Local. */
  private dropFormerList(
    { tx, opening }: { readonly tx: Transaction; readonly opening: Transaction },
    now: AddressPlan | undefined,
  ): void {
    const { kernel } = this;
    if (kernel === undefined || now === undefined) return;
    const key = now.server.id;
    if (elementsOf(now).some(({ set }) => set === sets.localIPs)) return;
    if (kernel.take(sets.localIPs, bytes(key), undefined) === 'absent') return;
    (kernel.had(sets.droppedLocalIPs, key) ? opening : tx).delete(sets.localIPs, key);
  }

  private defer(partial: PartialChange, element: Element): void {
    partial.onSuccess(() => {
      this.deferred.add(element, performance.now());
    });
  }

  /** Adds an element that we have not written: it may be there from an earlier process. */
  private addElement(partial: PartialChange, tx: Transaction, element: Element): void {
    const leaving = this.deferred.take(element);
    if (leaving !== undefined) {
      partial.onFailure(() => {
        this.deferred.add(leaving, performance.now());
      });
      if (leaving.value !== element.value) tx.replace(element);
      return;
    }
    const value = element.value === undefined ? undefined : bytes(element.value);
    const found = this.kernel?.take(element.set, bytes(element.key), value, element.comment) ?? 'absent';
    if (found === 'absent') tx.add(element);
    if (found === 'different') tx.replace(element);
  }

  private addBoundElement(partial: PartialChange, tx: Transaction, ip: string): void {
    const element = { set: sets.boundIPs, key: addressBytes(ip) };
    this.writeMembership(partial, tx, this.boundElements, element, ip);
  }

  private writeMembership(
    partial: PartialChange,
    tx: Transaction,
    members: Set<string>,
    { set, key }: Pick<Element, 'set' | 'key'>,
    member: string,
  ): void {
    this.addElement(partial, tx, { set, key, value: undefined, comment: undefined });
    members.add(member);
    partial.onFailure(() => members.delete(member));
  }

  private ensureSourceRangeSet(partial: PartialChange, tx: Transaction, set: string): void {
    const length = sourceRangePrefix(set);
    if (length === undefined || this.sourceRangeLengths.has(length)) return;
    tx.batch.addSet(sourceRangeSetDefinition(this.family, length));
    this.sourceRangeLengths.add(length);
    partial.onFailure(() => this.sourceRangeLengths.delete(length));
    tx.batch.flushChain(chains.sourceRanges);
    for (const { expressions } of sourceRangeRules(this.family, this.sourceRangeLengths))
      tx.batch.addRule(chains.sourceRanges, expressions);
  }

  private writeServiceCIDRs(tx: Transaction, kernel: KernelFilter): void {
    if (kernel.hasIntervals(intervalElements(this.serviceCIDRs))) return;
    if (kernel.hasSet(sets.serviceCIDRs)) tx.batch.flushSet(sets.serviceCIDRs);
    this.addServiceCIDRs(tx);
  }

  private addServiceCIDRs(tx: Transaction): void {
    for (const { key, end } of intervalElements(this.serviceCIDRs))
      tx.batch.addElement(sets.serviceCIDRs, bytes(key), undefined, { intervalEnd: end });
  }

  // ---- addresses

  private wantsBound(ip: string): boolean {
    return this.addressUse.has(ip) && !this.localAddresses.has(ip);
  }

  private isToBind(ip: string): boolean {
    return this.wantsBound(ip) && !this.bound.has(ip);
  }

  /** Ids of virtual servers that may change: of addresses that are still to be bound, and all others. */
  private byAddress(
    { before }: PartialChange,
    marks: readonly string[],
  ): readonly [unbound: string[], others: string[]] {
    const [unbound, others]: [string[], string[]] = [[], []];
    for (const id of before.keys()) {
      const ip = this.services.get(id)?.address.ip;
      (ip !== undefined && this.isToBind(ip) ? unbound : others).push(id);
    }
    // A new address may be served by mark, and so may be who loses endpoints elsewhere.
    return unbound.length > 0 ? [[...marks, ...unbound], others] : [unbound, [...marks, ...others]];
  }

  private bindAddresses(ips: Iterable<string>, stats: SyncStats): void {
    const changes: AddressChange[] = [];
    for (const ip of ips) if (this.isToBind(ip)) changes.push({ do: 'add', ip });
    this.changeAddresses(changes, stats);
  }

  /** Takes off what nothing needs any more; addresses of virtual servers that are still used stay. */
  private releaseAddresses(ips: ReadonlySet<string>, stats: SyncStats): void {
    if (ips.size === 0) return;
    const retiring = this.servers.retiringAddresses();
    const unused = [...ips].filter(
      (ip) => !this.wantsBound(ip) && (!retiring.has(ip) || this.localAddresses.has(ip)),
    );
    this.changeAddresses(
      unused.filter((ip) => this.bound.has(ip)).map((ip) => ({ do: 'delete', ip })),
      stats,
    );
    const tx = this.begin();
    const released = unused.filter((ip) => this.boundElements.has(ip));
    for (const ip of released) tx.delete(sets.boundIPs, addressBytes(ip));
    this.commit(tx, stats);
    for (const ip of released) this.boundElements.delete(ip);
  }

  /** @throws TableDamagedError */
  private verifyAddresses(): void {
    const there = new Set(this.side.addresses.open());
    const gone = [...this.bound].find((ip) => !there.has(ip));
    if (gone !== undefined)
      throw new TableDamagedError(`another program took address ${gone} away; comparing everything`);
  }

  private changeAddresses(changes: readonly AddressChange[], stats: SyncStats): void {
    if (changes.length === 0) return;
    const refusals = stats.timed(() => this.side.addresses.change(changes));
    const refused = new Map(refusals.map(({ index, error }) => [changes[index]?.ip, error]));
    stats.transactions++;
    for (const change of changes) {
      const error = refused.get(change.ip);
      if (error !== undefined) {
        this.addressRejected(change, error, stats);
      } else if (change.do === 'add') {
        this.bound.add(change.ip);
        stats.elementsAdded++;
      } else {
        this.bound.delete(change.ip);
        stats.elementsDeleted++;
      }
    }
  }

  private addressRejected({ ip }: AddressChange, error: NetlinkError, stats: SyncStats): void {
    // The interface is gone.
    this.assertTable(error);
    for (const { server, address } of this.services.values())
      if (address.ip === ip) stats.fail(server.owner, error);
  }

  // ---- adoption

  async resync(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    const stats = new SyncStats();
    this.resynced = this.serviceCIDRsWritten = false;
    // Before anything is written: what tells them may be replaced.
    const isFormer = this.ipvs.formerServers?.() ?? (() => false);
    const found = await KernelFilter.read(this.side.nft, this.options);
    const kernel = found === 'absent' || found === 'foreign' ? new KernelFilter() : found;
    this.forget();
    for (const length of kernel.sourceRangeLengths()) this.sourceRangeLengths.add(length);
    for (const ip of this.side.addresses.open()) this.bound.add(ip);
    this.kernel = kernel;
    try {
      const steps = await this.claimAll(wanted, stats);
      this.servers.readAll();
      const tx = this.begin();
      if (found === 'foreign') tx.batch.deleteTable();
      this.writeBase(tx, kernel);
      if (found === 'foreign') this.replaceTable(tx, steps, stats);
      else this.commit(tx, stats);
      this.renewLeases();
      await this.runInTurns(steps, stats);
      // What drops all addresses that nobody has comes after those that somebody has.
      const last = this.begin();
      this.writeServiceCIDRs(last, kernel);
      this.commit(last, stats);
      this.serviceCIDRsWritten = true;
      await this.removeLeftovers(kernel, isFormer, stats);
      this.resynced = true;
      return stats;
    } finally {
      this.kernel = undefined;
      this.servers.endReading();
      this.compared.clear();
    }
  }

  private forget(): void {
    for (const memory of [
      this.ports,
      this.services,
      this.nodePorts,
      this.byMark,
      this.addressUse,
      this.hairpinUse,
      this.sourceRangeLengths,
      this.hairpins,
      this.boundElements,
      this.bound,
    ])
      memory.clear();
    this.marks = new Marks();
    this.deferred.clear();
    this.toMove.clear();
  }

  /** Who has which address is settled before anything is written: it must not change hands in between. */
  private async claimAll(wanted: Iterable<ServicePort>, stats: SyncStats): Promise<Step[]> {
    const steps: Step[] = [];
    let at = 0;
    for (const port of wanted) {
      if (++at % portsPerTurn === 0) await nextTurn();
      const partial = new PartialChange();
      try {
        this.change(partial, port.key, port);
        steps.push({ key: port.key, name: port.name, next: port });
      } catch (error) {
        partial.rollBack();
        stats.fail(port, error);
      }
    }
    this.compared.clear();
    return steps;
  }

  /** A table that is not laid out as ours is replaced in one transaction with everything in it. */
  private replaceTable(tx: Transaction, steps: readonly Step[], stats: SyncStats): void {
    const partial = new PartialChange();
    for (const { key, next } of steps) this.change(partial, key, next);
    this.write(partial, stats, tx);
  }

  /** Table, sets and chains: only what is missing or different. */
  private writeBase(tx: Transaction, kernel: KernelFilter): void {
    if (!kernel.exists) tx.batch.addTable({ comment: tableComment });
    for (const definition of setDefinitions(this.options))
      if (!kernel.hasSet(definition.name)) tx.batch.addSet(definition);
    // A table that is there holds until then by what its process left.
    if (!kernel.hasSet(sets.refusalLease)) this.leases.renew(tx.batch, performance.now());
    const layout = chainDefinitions(this.options, this.sourceRangeLengths);
    for (const { name, base } of layout)
      if (!kernel.hasChain(name)) tx.batch.addChain(name, base === undefined ? {} : { base });
    for (const chain of layout) {
      if (kernel.hasRules(chain)) continue;
      if (kernel.hasChain(chain.name)) tx.batch.flushChain(chain.name);
      for (const { expressions } of chain.rules) tx.batch.addRule(chain.name, expressions);
    }
  }

  private async removeLeftovers(
    kernel: KernelFilter,
    isFormer: (key: VirtualServerKey) => boolean,
    stats: SyncStats,
  ): Promise<void> {
    const unwanted: string[] = [];
    const marks: number[] = [];
    for (const [id, key] of this.servers.unclaimed()) {
      if (this.isExcluded(key)) continue;
      if ('fwmark' in key) {
        if (isOurMark(key.fwmark) && this.marks.claim(key.fwmark)) marks.push(key.fwmark);
      } else if (this.bound.has(key.address) || kernel.had(sets.serviceIPs, id) || isFormer(key)) {
        unwanted.push(id);
        const released = this.servers.released(key);
        if (released !== undefined) stats.released.push(released);
      }
    }
    for (const mark of marks) {
      this.servers.learn(serverId({ family: this.nft, fwmark: mark }));
      this.deferred.addMark(mark, performance.now());
    }

    const leftovers = [...kernel.leftovers()];
    const admits = ({ set }: Leftover): boolean => set === sets.serviceIPs || set === maps.shortCircuits;
    await this.deleteElements(leftovers.filter(admits), stats);
    this.servers.write(unwanted, stats);
    await nextTurn();

    const partial = new PartialChange();
    const tx = this.begin();
    const stillBound = new Set<string>();
    for (const ip of this.servers.retiringAddresses()) {
      if (!this.bound.has(ip)) continue;
      this.addBoundElement(partial, tx, ip);
      stillBound.add(addressBytes(ip));
    }
    this.commit(tx, stats);
    const rest = leftovers.filter(
      (one) => !admits(one) && !(one.set === sets.boundIPs && stillBound.has(one.key)),
    );
    for (const one of rest)
      if (isSoughtLater(one.set))
        this.deferred.add({ ...one, value: undefined, comment: undefined }, performance.now());
    await this.deleteElements(
      rest.filter(({ set }) => set !== sets.boundIPs && !isSoughtLater(set)),
      stats,
    );
    this.releaseAddresses(new Set(this.bound), stats);
    await this.deleteElements(
      rest.filter(({ set }) => set === sets.boundIPs),
      stats,
    );
  }

  private async deleteElements(list: readonly Leftover[], stats: SyncStats): Promise<void> {
    for (let from = 0; from < list.length; from += deletionsPerTurn) {
      const tx = this.begin();
      for (const { set, key } of list.slice(from, from + deletionsPerTurn)) tx.delete(set, key);
      this.commit(tx, stats);
      await nextTurn();
    }
  }
}

/** Packets come here from other sets: see dropElement(). */
function isSoughtLater(set: string): boolean {
  return (
    set === sets.externalIPs ||
    set === sets.droppedLocalIPs ||
    set === sets.hairpin ||
    sourceRangePrefix(set) !== undefined
  );
}
