/**
 * Mode ipvs for one family: virtual servers in IPVS, their addresses on an interface, and beside them the tables of
 * layout.ts. What a service port wants of them is in footprint.ts, how endpoints come and go in server-state.ts.
 *
 * A change is written in this order: rules, virtual servers of new addresses, these addresses, other virtual servers. So a
 * new address answers only when everything behind it is there, and a new port of an old one not before what changed with it;
 * what goes is refused first.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { cidrContains, isLoopback } from '../../model/addresses.js';
import type { Cidr, FamilyChanges, IPFamily, ServicePort } from '../../model/types.js';
import { NetlinkError } from '../../netlink/index.js';
import type { VirtualServerKey } from '../../netlink/ipvs/index.js';
import { Batch, type NftablesConnection } from '../../netlink/nftables/index.js';
import { TableDamagedError, type ApplyReport, type Dataplane, type DataplaneOptions } from '../dataplane.js';
import { intervalElements } from '../nft/intervals.js';
import { addressBytes } from '../nft/keys.js';
import { nftFamily } from '../nft/rules.js';
import { sourceRangePrefix, sourceRangeRules, sourceRangeSetDefinition } from '../nft/source-range-rules.js';
import { Draft } from './draft.js';
import {
  commentOf,
  elementsOf,
  emptyFootprint,
  footprintOf,
  needsMark,
  type AddressPlan,
  type Element,
  type Footprint,
  type FootprintContext,
  type WantedServer,
} from './footprint.js';
import { KernelFilter } from './kernel-filter.js';
import type { AddressChange, IpvsKernel, ServiceInterface } from './kernel.js';
import { chainDefinitions, setDefinitions, tableComment } from './layout.js';
import { isOurMark, Marks } from './marks.js';
import { chains, sets, tableName } from './names.js';
import { schedulerNamed } from './schedulers.js';
import { Tally } from './tally.js';
import { bytes, Transaction } from './transaction.js';
import { VirtualServers } from './virtual-servers.js';
import type { CheckedFamily } from './watch.js';

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
  readonly addresses: ServiceInterface;
}

/** IPv4 addresses of this kind are like any other to a node. */
const linkLocal: Cidr = { ip: 'fe80::', prefixLength: 10 };

interface PortState {
  readonly port: ServicePort;
  readonly mark: number;
  readonly footprint: Footprint;
}

interface Step {
  readonly key: string;
  readonly name: string;
  readonly next: ServicePort | undefined;
}

export class IpvsFamily implements Dataplane, CheckedFamily {
  readonly family: IPFamily;
  private readonly nft: 'ip' | 'ip6';
  private context: FootprintContext;
  private localAddresses: ReadonlySet<string>;
  private readonly ports = new Map<string, PortState>();
  /** Who has an address of a Service, and who a node port on an address of the node; by id. */
  private readonly services = new Map<string, AddressPlan>();
  private readonly nodePorts = new Map<string, AddressPlan>();
  private readonly byMark = new Map<string, WantedServer>();
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
  private baseWritten = false;
  private adopted = false;

  constructor(
    private readonly side: IpvsKernelSide,
    private readonly options: DataplaneOptions,
    private readonly ipvs: IpvsOptions,
  ) {
    this.family = options.family;
    this.nft = nftFamily(options.family);
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
    const tally = new Tally();
    const steps: Step[] = [
      ...changes.removed.map((key) => ({
        key,
        name: this.ports.get(key)?.port.name ?? key,
        next: undefined,
      })),
      ...changes.upserted.map((port) => ({ key: port.key, name: port.name, next: port })),
    ];
    await this.runInTurns(steps, tally);
    return tally;
  }

  setServiceCIDRs(cidrs: readonly Cidr[]): ApplyReport {
    const tally = new Tally();
    const text = (list: readonly Cidr[]): string =>
      list.map(({ ip, prefixLength }) => `${ip}/${prefixLength}`).join();
    if (text(this.serviceCIDRs) === text(cidrs)) return tally;
    this.serviceCIDRs = cidrs;
    if (!this.baseWritten) return tally;
    const tx = this.begin();
    tx.batch.flushSet(sets.serviceCIDRs);
    this.writeServiceCIDRs(tx);
    this.commit(tx, tally);
    return tally;
  }

  setNodePortAddresses(addresses: readonly string[]): ApplyReport {
    const tally = new Tally();
    if (this.options.nodePortAddresses !== 'all') this.moveNodePorts(addresses, tally);
    return tally;
  }

  setLocalAddresses(addresses: readonly string[]): ApplyReport {
    const tally = new Tally();
    const before = this.localAddresses;
    this.localAddresses = new Set(addresses);
    if (this.options.nodePortAddresses === 'all')
      this.moveNodePorts(this.selectNodePortAddresses('all'), tally);
    if (!this.adopted) return tally;
    // A service address that another interface has now, or had, is taken off kube-ipvs0, or put on it.
    const draft = new Draft();
    for (const ip of [...before, ...addresses]) if (this.addressUse.has(ip)) draft.ips.add(ip);
    if (draft.ips.size > 0) this.write(draft, tally);
    return tally;
  }

  maintain(): ApplyReport {
    const tally = new Tally();
    if (!this.adopted) return tally;
    this.releaseAddresses(this.servers.settle(undefined, tally), tally);
    return tally;
  }

  hasBound(ip: string): boolean {
    return this.bound.has(ip);
  }

  /** Looks whether IPVS and the service interface are as we left them. @throws TableDamagedError */
  check(): void {
    if (!this.adopted) return;
    this.servers.verify();
    this.verifyAddresses();
  }

  close(): void {
    this.side.nft.close();
    this.servers.close();
    this.side.addresses.close();
  }

  // ---- steps

  private async runInTurns(steps: readonly Step[], tally: Tally): Promise<void> {
    const parts = this.run(steps, tally);
    while (parts.next().done !== true) await nextTurn();
  }

  /** Carries out steps in parts of bounded size; after each it yields. */
  private *run(steps: readonly Step[], tally: Tally): Generator<undefined, void> {
    let from = 0;
    while (from < steps.length) {
      const draft = new Draft();
      let to = from;
      let built = false;
      try {
        while (to < steps.length && !draft.isFull) {
          const step = steps[to];
          if (step !== undefined) this.change(draft, step.key, step.next);
          to++;
        }
        built = true;
        this.write(draft, tally);
      } catch (error) {
        // Rules are in the kernel, what belongs to them may not be: only a comparison can tell.
        if (draft.isCommitted) throw error;
        draft.rollBack();
        this.kernel?.rollBack();
        if (!built) {
          // The step at `to` can't be put into bytes; those before it can.
          yield* this.run(steps.slice(from, to), tally);
          this.refused(steps[to], error, tally);
          to++;
        } else if (to - from > 1) {
          const middle = Math.ceil((from + to) / 2);
          yield* this.run(steps.slice(from, middle), tally);
          yield* this.run(steps.slice(middle, to), tally);
        } else {
          this.assertTable(error);
          this.refused(steps[from], error, tally);
        }
      }
      from = to;
      if (from < steps.length) yield;
    }
  }

  private refused(step: Step | undefined, error: unknown, tally: Tally): void {
    if (step === undefined) return;
    tally.fail(step, error);
    // It was to be the owner of addresses that nobody has now.
    if (this.kernel !== undefined) this.change(new Draft(), step.key, undefined);
  }

  /** Tells a refused service port from a kernel that is not as this process left it. */
  private assertTable(failure: unknown): void {
    if (!(failure instanceof NetlinkError)) return;
    if (failure.code === 'EPERM') throw failure;
    if (this.adopted && ['ENOENT', 'EEXIST', 'EBUSY', 'ENODEV'].includes(failure.code)) {
      throw new TableDamagedError(
        `table ${this.nft} ${tableName} or IPVS was changed by another program; comparing all of it: ${failure.message}`,
        { cause: failure },
      );
    }
  }

  /** Changes what is wanted in our own memory, and notes in the draft what may have to be written. */
  private change(draft: Draft, key: string, next: ServicePort | undefined): void {
    const before = this.ports.get(key);
    const old = before?.footprint ?? emptyFootprint;
    const mark = this.markFor(draft, before, next);
    const now = next === undefined ? emptyFootprint : footprintOf(next, mark, this.context);
    this.moveClaims(draft, this.services, key, old.services, now.services, (ip, by) => {
      draft.count(this.addressUse, ip, by);
    });
    for (const plans of [old.services, now.services])
      for (const { address } of plans.values()) draft.ips.add(address.ip);
    this.moveClaims(draft, this.nodePorts, key, old.nodePorts, now.nodePorts);
    for (const server of [old.byMark, now.byMark]) if (server !== undefined) draft.marks.add(server.id);
    if (old.byMark !== undefined && old.byMark.id !== now.byMark?.id)
      draft.note(this.byMark, old.byMark.id, undefined);
    if (now.byMark !== undefined) draft.note(this.byMark, now.byMark.id, now.byMark);
    for (const hairpin of now.hairpins) {
      if (!old.hairpins.has(hairpin)) draft.count(this.hairpinUse, hairpin, 1);
      draft.hairpins.add(hairpin);
    }
    for (const hairpin of old.hairpins) {
      if (!now.hairpins.has(hairpin)) draft.count(this.hairpinUse, hairpin, -1);
      draft.hairpins.add(hairpin);
    }
    draft.note(this.ports, key, next === undefined ? undefined : { port: next, mark, footprint: now });
    draft.endpoints += (now.services.size + now.nodePorts.size) * (next?.clusterEndpoints.length ?? 0);
  }

  private markFor(draft: Draft, before: PortState | undefined, next: ServicePort | undefined): number {
    const had = before?.mark ?? 0;
    const needs = next !== undefined && needsMark(next);
    if (needs && had !== 0) return had;
    if (had !== 0)
      draft.onSuccess(() => {
        this.marks.release(had);
      });
    if (!needs) return 0;
    const known = this.knownMark(next);
    const mark = known ?? this.marks.take();
    draft.onFailure(() => {
      this.marks.release(mark);
    });
    return mark;
  }

  /** The mark that an earlier process gave to a service port. */
  private knownMark(port: ServicePort): number | undefined {
    if (this.kernel === undefined) return undefined;
    const { services, nodePorts } = footprintOf(port, 0, this.context);
    for (const id of [...services.keys(), ...nodePorts.keys()]) {
      const mark = this.kernel.markOf(id, commentOf(port));
      if (mark !== undefined && this.marks.claim(mark)) return mark;
    }
    return undefined;
  }

  /** @param onUse called when an address gets a virtual server more or less */
  private moveClaims(
    draft: Draft,
    claims: Map<string, AddressPlan>,
    key: string,
    old: ReadonlyMap<string, AddressPlan>,
    now: ReadonlyMap<string, AddressPlan>,
    onUse?: (ip: string, by: 1 | -1) => void,
  ): void {
    for (const [id, plan] of old) {
      this.touch(draft, id);
      // An address that has moved on to another service port meanwhile is that one's.
      if (now.has(id) || claims.get(id)?.server.owner.key !== key) continue;
      draft.note(claims, id, undefined);
      onUse?.(plan.address.ip, -1);
    }
    for (const [id, plan] of now) {
      this.touch(draft, id);
      if (!claims.has(id)) onUse?.(plan.address.ip, 1);
      draft.note(claims, id, plan);
    }
  }

  private touch(draft: Draft, id: string): void {
    if (draft.before.has(id)) return;
    // While the kernel is compared, all is as if new at first.
    const compares = this.kernel !== undefined && !this.compared.has(id);
    draft.before.set(id, compares ? undefined : this.planFor(id));
    if (!compares) return;
    this.compared.add(id);
    draft.onFailure(() => this.compared.delete(id));
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

  private moveNodePorts(addresses: readonly string[], tally: Tally): void {
    const nodePortAddresses = this.selectNodePortAddresses(addresses);
    if (nodePortAddresses.join() === this.context.nodePortAddresses.join()) return;
    this.context = { ...this.context, nodePortAddresses };
    if (!this.adopted) return;
    const steps: Step[] = [];
    for (const [key, { port }] of this.ports) {
      if (port.addresses.some(({ kind }) => kind === 'NodePort'))
        steps.push({ key, name: port.name, next: port });
    }
    const parts = this.run(steps, tally);
    while (parts.next().done !== true);
    const [failure] = tally.failures;
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

  private commit(tx: Transaction, tally: Tally): void {
    if (tx.batch.isEmpty) return;
    tally.timed(() => {
      this.side.nft.commit(tx.batch);
    });
    tally.transactions++;
    tally.rulesetTransactions++;
    tally.elementsAdded += tx.added;
    tally.elementsDeleted += tx.deleted;
  }

  /** Makes the kernel follow: rules in one transaction, then virtual servers and addresses. */
  private write(draft: Draft, tally: Tally, tx = this.begin()): void {
    this.kernel?.checkpoint();
    for (const [id, before] of draft.before) this.writeElements(draft, tx, before, this.planFor(id));
    for (const key of draft.hairpins) {
      const wanted = this.hairpinUse.has(key);
      if (wanted === this.hairpins.has(key)) continue;
      this.writeMembership(draft, tx, this.hairpins, { set: sets.hairpin, key }, key, wanted);
    }
    for (const ip of draft.ips) {
      if (!this.wantsBound(ip) || this.boundElements.has(ip)) continue;
      this.addBoundElement(draft, tx, ip);
    }
    this.commit(tx, tally);
    draft.done();
    const [unbound, others] = this.byAddress(draft);
    this.servers.write(unbound, tally);
    this.bindAddresses(draft.ips, tally);
    this.servers.write(others, tally);
    this.releaseAddresses(draft.ips, tally);
  }

  private writeElements(
    draft: Draft,
    tx: Transaction,
    before: AddressPlan | undefined,
    now: AddressPlan | undefined,
  ): void {
    if (before === now) return;
    const id = ({ set, key }: Element): string => `${set}\0${key}`;
    const old = new Map((before === undefined ? [] : elementsOf(before)).map((e) => [id(e), e]));
    for (const element of now === undefined ? [] : elementsOf(now)) {
      const previous = old.get(id(element));
      old.delete(id(element));
      if (previous === undefined) {
        this.ensureSourceRangeSet(draft, tx, element.set);
        this.addElement(tx, element);
      } else if (previous.value !== element.value || previous.comment !== element.comment) {
        tx.replace(element);
      }
    }
    for (const { set, key } of old.values()) tx.delete(set, key);
  }

  /** Adds an element that we have not written: it may be there from an earlier process. */
  private addElement(tx: Transaction, element: Element): void {
    const value = element.value === undefined ? undefined : bytes(element.value);
    const found = this.kernel?.take(element.set, bytes(element.key), value, element.comment) ?? 'absent';
    if (found === 'absent') tx.add(element);
    if (found === 'different') tx.replace(element);
  }

  private addBoundElement(draft: Draft, tx: Transaction, ip: string): void {
    const element = { set: sets.boundIPs, key: addressBytes(ip) };
    this.writeMembership(draft, tx, this.boundElements, element, ip, true);
  }

  private writeMembership(
    draft: Draft,
    tx: Transaction,
    members: Set<string>,
    { set, key }: Pick<Element, 'set' | 'key'>,
    member: string,
    wanted: boolean,
  ): void {
    if (wanted) {
      this.addElement(tx, { set, key, value: undefined, comment: undefined });
      members.add(member);
      draft.onFailure(() => members.delete(member));
    } else {
      tx.delete(set, key);
      members.delete(member);
      draft.onFailure(() => members.add(member));
    }
  }

  private ensureSourceRangeSet(draft: Draft, tx: Transaction, set: string): void {
    const length = sourceRangePrefix(set);
    if (length === undefined || this.sourceRangeLengths.has(length)) return;
    tx.batch.addSet(sourceRangeSetDefinition(this.family, length));
    this.sourceRangeLengths.add(length);
    draft.onFailure(() => this.sourceRangeLengths.delete(length));
    tx.batch.flushChain(chains.sourceRanges);
    for (const { expressions } of sourceRangeRules(this.family, this.sourceRangeLengths))
      tx.batch.addRule(chains.sourceRanges, expressions);
  }

  private writeServiceCIDRs(tx: Transaction): void {
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
  private byAddress({ before, marks }: Draft): readonly [unbound: string[], others: string[]] {
    const [unbound, others]: [string[], string[]] = [[], []];
    for (const id of before.keys()) {
      const ip = this.services.get(id)?.address.ip;
      (ip !== undefined && this.isToBind(ip) ? unbound : others).push(id);
    }
    // A new address may be served by mark.
    (unbound.length > 0 ? unbound : others).push(...marks);
    return [unbound, others];
  }

  private bindAddresses(ips: Iterable<string>, tally: Tally): void {
    const changes: AddressChange[] = [];
    for (const ip of ips) if (this.isToBind(ip)) changes.push({ do: 'add', ip });
    this.changeAddresses(changes, tally);
  }

  /** Takes off what nothing needs any more; addresses of virtual servers that are still used stay. */
  private releaseAddresses(ips: ReadonlySet<string>, tally: Tally): void {
    if (ips.size === 0) return;
    const retiring = this.servers.retiringAddresses();
    const unused = [...ips].filter(
      (ip) => !this.wantsBound(ip) && (!retiring.has(ip) || this.localAddresses.has(ip)),
    );
    this.changeAddresses(
      unused.filter((ip) => this.bound.has(ip)).map((ip) => ({ do: 'delete', ip })),
      tally,
    );
    const tx = this.begin();
    const released = unused.filter((ip) => this.boundElements.has(ip));
    for (const ip of released) tx.delete(sets.boundIPs, addressBytes(ip));
    this.commit(tx, tally);
    for (const ip of released) this.boundElements.delete(ip);
  }

  /** @throws TableDamagedError */
  private verifyAddresses(): void {
    const there = new Set(this.side.addresses.open());
    const gone = [...this.bound].find((ip) => !there.has(ip));
    if (gone !== undefined)
      throw new TableDamagedError(`another program took address ${gone} away; comparing everything`);
  }

  private changeAddresses(changes: readonly AddressChange[], tally: Tally): void {
    if (changes.length === 0) return;
    const refusals = tally.timed(() => this.side.addresses.change(changes));
    const refused = new Map(refusals.map(({ index, error }) => [changes[index]?.ip, error]));
    tally.transactions++;
    for (const change of changes) {
      const error = refused.get(change.ip);
      if (error !== undefined) {
        this.addressRefused(change, error, tally);
      } else if (change.do === 'add') {
        this.bound.add(change.ip);
        tally.elementsAdded++;
      } else {
        this.bound.delete(change.ip);
        tally.elementsDeleted++;
      }
    }
  }

  private addressRefused({ ip }: AddressChange, error: NetlinkError, tally: Tally): void {
    // The interface is gone.
    this.assertTable(error);
    for (const { server, address } of this.services.values())
      if (address.ip === ip) tally.fail(server.owner, error);
  }

  // ---- adoption

  async adopt(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    const tally = new Tally();
    this.adopted = this.baseWritten = false;
    // Before anything is written: what tells them may be replaced.
    const isFormer = this.ipvs.formerServers?.() ?? (() => false);
    const found = await KernelFilter.read(this.side.nft, this.options);
    const kernel = found === 'absent' || found === 'foreign' ? new KernelFilter() : found;
    this.forget();
    for (const length of kernel.sourceRangeLengths()) this.sourceRangeLengths.add(length);
    for (const ip of this.side.addresses.open()) this.bound.add(ip);
    this.kernel = kernel;
    try {
      const steps = this.claimAll(wanted, tally);
      this.servers.readAll();
      const tx = this.begin();
      if (found === 'foreign') tx.batch.deleteTable();
      this.writeBase(tx, kernel);
      if (found === 'foreign') this.replaceTable(tx, steps, tally);
      else this.commit(tx, tally);
      this.baseWritten = true;
      await this.runInTurns(steps, tally);
      await this.removeLeftovers(kernel, isFormer, tally);
      this.adopted = true;
      return tally;
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
  }

  /** Who has which address is settled before anything is written: it must not change hands in between. */
  private claimAll(wanted: Iterable<ServicePort>, tally: Tally): Step[] {
    const steps: Step[] = [];
    for (const port of wanted) {
      const draft = new Draft();
      try {
        this.change(draft, port.key, port);
        steps.push({ key: port.key, name: port.name, next: port });
      } catch (error) {
        draft.rollBack();
        tally.fail(port, error);
      }
    }
    this.compared.clear();
    return steps;
  }

  /** A table that is not laid out as ours is replaced in one transaction with everything in it. */
  private replaceTable(tx: Transaction, steps: readonly Step[], tally: Tally): void {
    const draft = new Draft();
    for (const { key, next } of steps) this.change(draft, key, next);
    this.write(draft, tally, tx);
  }

  /** Table, sets and chains: only what is missing or different. */
  private writeBase(tx: Transaction, kernel: KernelFilter): void {
    if (!kernel.exists) tx.batch.addTable({ comment: tableComment });
    for (const definition of setDefinitions(this.options))
      if (!kernel.hasSet(definition.name)) tx.batch.addSet(definition);
    const layout = chainDefinitions(this.options, this.sourceRangeLengths);
    for (const { name, base } of layout)
      if (!kernel.hasChain(name)) tx.batch.addChain(name, base === undefined ? {} : { base });
    for (const chain of layout) {
      if (kernel.hasRules(chain)) continue;
      if (kernel.hasChain(chain.name)) tx.batch.flushChain(chain.name);
      for (const { expressions } of chain.rules) tx.batch.addRule(chain.name, expressions);
    }
    if (kernel.hasIntervals(intervalElements(this.serviceCIDRs))) return;
    if (kernel.hasSet(sets.serviceCIDRs)) tx.batch.flushSet(sets.serviceCIDRs);
    this.writeServiceCIDRs(tx);
  }

  private async removeLeftovers(
    kernel: KernelFilter,
    isFormer: (key: VirtualServerKey) => boolean,
    tally: Tally,
  ): Promise<void> {
    const unwanted: string[] = [];
    for (const [id, key] of this.servers.unclaimed()) {
      const ours =
        'fwmark' in key
          ? isOurMark(key.fwmark)
          : this.bound.has(key.address) || kernel.had(sets.serviceIPs, id) || isFormer(key);
      if (ours && !this.isExcluded(key)) unwanted.push(id);
    }
    this.servers.write(unwanted, tally);
    await nextTurn();

    const draft = new Draft();
    const tx = this.begin();
    for (const ip of this.servers.retiringAddresses()) {
      if (!this.bound.has(ip)) continue;
      this.addBoundElement(draft, tx, ip);
    }
    for (const { set, key } of kernel.leftovers()) tx.delete(set, key);
    this.commit(tx, tally);
    this.releaseAddresses(new Set(this.bound), tally);
  }
}
