/**
 * Mode ipvs for one family: virtual servers in IPVS, their addresses on an interface, and beside them the tables of
 * layout.ts. What a service port wants of them is in footprint.ts, how endpoints come and go in server-state.ts.
 *
 * A change is written in this order: rules, virtual servers, addresses. So a new address answers only when everything
 * behind it is there; what goes is refused first.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { cidrContains, isLoopback } from '../../model/addresses.js';
import type { Cidr, FamilyChanges, IPFamily, ServicePort } from '../../model/types.js';
import { NetlinkError } from '../../netlink/index.js';
import {
  describeKey,
  type IpvsCommand,
  type VirtualServer,
  type VirtualServerKey,
} from '../../netlink/ipvs/index.js';
import { Batch, type NftablesConnection } from '../../netlink/nftables/index.js';
import {
  TableDamagedError,
  type ApplyReport,
  type Dataplane,
  type DataplaneOptions,
  type ProgrammingFailure,
} from '../dataplane.js';
import { intervalElements } from '../nft/intervals.js';
import { addressBytes } from '../nft/keys.js';
import { nftFamily } from '../nft/rules.js';
import { sourceRangePrefix, sourceRangeRules, sourceRangeSetDefinition } from '../nft/source-range-rules.js';
import {
  commentOf,
  elementsOf,
  emptyFootprint,
  footprintOf,
  needsMark,
  protocolOf,
  serverId,
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
import {
  planServer,
  settleServer,
  stateInKernel,
  type ServerChange,
  type ServerState,
} from './server-state.js';
import { bytes, Transaction } from './transaction.js';

export interface IpvsOptions {
  /** As the kernel knows it. */
  readonly scheduler: string;
  /** Virtual servers with these addresses are not deleted, nor their endpoints drained, when nobody wants them. */
  readonly excludeCIDRs: readonly Cidr[];
  /** Addresses of this family on the interfaces of this node, without those of kube-ipvs0; canonical text. */
  readonly localAddresses: readonly string[];
}

/** What the dataplane writes to. It closes them. */
export interface IpvsKernelSide {
  readonly nft: NftablesConnection;
  readonly ipvs: IpvsKernel;
  readonly addresses: ServiceInterface;
}

/** Virtual servers in one transaction; between two, the event loop has its turn. Some 20 ms of the kernel's time. */
const serversPerDraft = 2_000;
const endpointsPerDraft = 10_000;

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

class Tally {
  transactions = 0;
  elementsAdded = 0;
  elementsDeleted = 0;
  kernelMs = 0;
  readonly failures: ProgrammingFailure[] = [];

  /** Runs what waits for the kernel. */
  timed<T>(work: () => T): T {
    const start = performance.now();
    try {
      return work();
    } finally {
      this.kernelMs += performance.now() - start;
    }
  }

  fail({ key, name }: { readonly key: string; readonly name: string }, error: unknown): void {
    this.failures.push({
      servicePort: name,
      key,
      error: error instanceof Error ? error : new Error(String(error)),
    });
  }
}

/** A part of a change on its way into the kernel. */
class Draft {
  /** By virtual server that may change: what stood for its address before. */
  readonly before = new Map<string, AddressPlan | undefined>();
  /** Virtual servers by mark that may change. */
  readonly marks = new Set<string>();
  /** Addresses that may come or go. */
  readonly ips = new Set<string>();
  readonly hairpins = new Set<string>();
  endpoints = 0;
  /** The rules are in the kernel. */
  isCommitted = false;
  private readonly undoSteps: (() => void)[] = [];
  private readonly doneSteps: (() => void)[] = [];

  get isFull(): boolean {
    return this.before.size >= serversPerDraft || this.endpoints >= endpointsPerDraft;
  }

  /** Remembers how to take back a change of our own memory. */
  onFailure(undo: () => void): void {
    this.undoSteps.push(undo);
  }

  /** For when the rules are in the kernel. */
  onSuccess(work: () => void): void {
    this.doneSteps.push(work);
  }

  rollBack(): void {
    while (this.undoSteps.length > 0) this.undoSteps.pop()?.();
  }

  done(): void {
    this.isCommitted = true;
    for (const work of this.doneSteps) work();
  }
}

export class IpvsFamily implements Dataplane {
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
  private readonly servers = new Map<string, ServerState>();
  /** Ids of virtual servers that drain endpoints. */
  private readonly draining = new Set<string>();
  private readonly hairpins = new Set<string>();
  private readonly boundElements = new Set<string>();
  private readonly bound = new Set<string>();
  /** The table is being compared: what is in it and right is not written again. */
  private kernel: KernelFilter | undefined;
  /** While it is being compared: virtual servers whose elements were, and those whose endpoints were not read yet. */
  private readonly compared = new Set<string>();
  private readonly unread = new Map<string, VirtualServer>();
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
    this.verify();
    const draft = new Draft();
    this.settle([...this.draining], draft, tally);
    this.releaseAddresses(draft, tally);
    return tally;
  }

  close(): void {
    this.side.nft.close();
    this.side.ipvs.close();
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
      this.count(draft, this.addressUse, ip, by);
    });
    for (const plans of [old.services, now.services])
      for (const { address } of plans.values()) draft.ips.add(address.ip);
    this.moveClaims(draft, this.nodePorts, key, old.nodePorts, now.nodePorts);
    for (const server of [old.byMark, now.byMark]) if (server !== undefined) draft.marks.add(server.id);
    if (old.byMark !== undefined && old.byMark.id !== now.byMark?.id)
      this.note(draft, this.byMark, old.byMark.id, undefined);
    if (now.byMark !== undefined) this.note(draft, this.byMark, now.byMark.id, now.byMark);
    for (const hairpin of now.hairpins) {
      if (!old.hairpins.has(hairpin)) this.count(draft, this.hairpinUse, hairpin, 1);
      draft.hairpins.add(hairpin);
    }
    for (const hairpin of old.hairpins) {
      if (!now.hairpins.has(hairpin)) this.count(draft, this.hairpinUse, hairpin, -1);
      draft.hairpins.add(hairpin);
    }
    this.note(draft, this.ports, key, next === undefined ? undefined : { port: next, mark, footprint: now });
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
      this.note(draft, claims, id, undefined);
      onUse?.(plan.address.ip, -1);
    }
    for (const [id, plan] of now) {
      this.touch(draft, id);
      if (!claims.has(id)) onUse?.(plan.address.ip, 1);
      this.note(draft, claims, id, plan);
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

  private wantedServer(id: string): WantedServer | undefined {
    return this.planFor(id)?.server ?? this.byMark.get(id);
  }

  private note<T>(draft: Draft, map: Map<string, T>, key: string, value: T | undefined): void {
    const before = map.get(key);
    draft.onFailure(() => {
      if (before === undefined) map.delete(key);
      else map.set(key, before);
    });
    if (value === undefined) map.delete(key);
    else map.set(key, value);
  }

  private count(draft: Draft, uses: Map<string, number>, key: string, by: 1 | -1): void {
    const after = (uses.get(key) ?? 0) + by;
    this.note(draft, uses, key, after === 0 ? undefined : after);
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
    tally.elementsAdded += tx.added;
    tally.elementsDeleted += tx.deleted;
  }

  /** Makes the kernel follow: rules in one transaction, then virtual servers, then addresses. */
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
      this.writeMembership(
        draft,
        tx,
        this.boundElements,
        { set: sets.boundIPs, key: addressBytes(ip) },
        ip,
        true,
      );
    }
    this.commit(tx, tally);
    draft.done();
    this.writeServers([...draft.before.keys(), ...draft.marks], draft, tally);
    this.bindAddresses(draft, tally);
    this.releaseAddresses(draft, tally);
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

  // ---- virtual servers

  private writeServers(ids: readonly string[], draft: Draft, tally: Tally): void {
    const changes: { readonly id: string; readonly change: ServerChange }[] = [];
    const drained: string[] = [];
    for (const id of ids) {
      const unread = this.unread.get(id);
      if (unread !== undefined) {
        tally.timed(() => {
          this.readServer(id, unread);
        });
        this.unread.delete(id);
      }
      const change = this.planFromMemory(id);
      if (change.commands.length === 0) this.setServer(id, change.next);
      else changes.push({ id, change });
      if (change.drains) drained.push(id);
    }
    const refused = this.execute(changes, tally);
    for (const [id, error] of refused) this.repair(id, error, tally);
    this.settle(drained, draft, tally);
  }

  private planFromMemory(id: string): ServerChange {
    const current = this.servers.get(id);
    const wanted = this.wantedServer(id);
    if (wanted === undefined && current !== undefined && this.isExcluded(current.key))
      return { commands: [], next: undefined, drains: false };
    return planServer(current, wanted);
  }

  /** @returns ids of which a command was refused, with the first reason */
  private execute(
    changes: readonly { readonly id: string; readonly change: ServerChange }[],
    tally: Tally,
  ): ReadonlyMap<string, NetlinkError> {
    const refused = new Map<string, NetlinkError>();
    const commands: IpvsCommand[] = [];
    const ends: number[] = [];
    for (const { change } of changes) {
      commands.push(...change.commands);
      ends.push(commands.length);
    }
    if (commands.length === 0) return refused;
    const refusals = tally.timed(() => this.side.ipvs.executeAll(commands));
    let at = 0;
    for (const { index, error } of refusals) {
      while (index >= (ends[at] ?? Infinity)) at++;
      const id = changes[at]?.id;
      if (id !== undefined && !refused.has(id)) refused.set(id, error);
    }
    tally.transactions++;
    for (const command of commands) {
      if (command.do.startsWith('delete')) tally.elementsDeleted++;
      else tally.elementsAdded++;
    }
    for (const { id, change } of changes) if (!refused.has(id)) this.setServer(id, change.next);
    return refused;
  }

  /** The kernel did not hold what we thought: look, and try once more. */
  private repair(id: string, reason: NetlinkError, tally: Tally): void {
    const key = this.servers.get(id)?.key ?? this.wantedServer(id)?.key;
    if (key === undefined) return;
    this.readServer(id, this.side.ipvs.getService(key));
    const change = this.planFromMemory(id);
    const again = this.execute([{ id, change }], tally).get(id);
    if (change.commands.length > 0 && again === undefined) return;
    if (change.commands.length === 0) this.setServer(id, change.next);
    if (again === undefined) return;
    this.readServer(id, this.side.ipvs.getService(key));
    const owner = this.wantedServer(id)?.owner;
    if (owner === undefined)
      throw new TableDamagedError(`cannot delete virtual server ${describeKey(key)}: ${again.message}`, {
        cause: reason,
      });
    tally.fail(owner, again);
  }

  /** Takes over what the kernel holds of a virtual server. */
  private readServer(id: string, found: VirtualServer | undefined): void {
    if (found === undefined) {
      this.setServer(id, undefined);
      return;
    }
    const protocol = protocolOf(found.key) ?? this.wantedServer(id)?.protocol;
    this.setServer(id, stateInKernel(found, protocol, this.side.ipvs.listDestinations(found.key)));
  }

  private setServer(id: string, next: ServerState | undefined): void {
    if (next === undefined) this.servers.delete(id);
    else this.servers.set(id, next);
    if (next !== undefined && (next.draining.size > 0 || next.retired)) this.draining.add(id);
    else this.draining.delete(id);
  }

  /** Deletes drained endpoints, and virtual servers that nobody wants and nobody uses. */
  private settle(ids: readonly string[], draft: Draft, tally: Tally): void {
    const changes: { id: string; change: ServerChange }[] = [];
    for (const id of ids) {
      const current = this.servers.get(id);
      if (current === undefined) continue;
      let destinations;
      try {
        destinations = tally.timed(() => this.side.ipvs.listDestinations(current.key));
      } catch (error) {
        if (!(error instanceof NetlinkError && ['ESRCH', 'ENOENT'].includes(error.code))) throw error;
        this.setServer(id, undefined);
        continue;
      }
      const shadows = 'address' in current.key && !this.bound.has(current.key.address);
      const change = settleServer(current, destinations, shadows);
      if (change.commands.length > 0) changes.push({ id, change });
      else this.setServer(id, change.next);
      if (current.retired && 'address' in current.key) draft.ips.add(current.key.address);
    }
    for (const [id, error] of this.execute(changes, tally)) this.repair(id, error, tally);
  }

  private isExcluded(key: VirtualServerKey): boolean {
    return 'address' in key && this.ipvs.excludeCIDRs.some((cidr) => cidrContains(cidr, key.address));
  }

  /** IPVS tells nobody when it is changed, so we ask now and then. @throws TableDamagedError */
  private verify(): void {
    const found = new Set<string>();
    for (const { key } of this.side.ipvs.listServices())
      if (key.family === this.nft) found.add(serverId(key));
    const [missing] = [...this.servers].filter(([id]) => !found.has(id));
    if (missing !== undefined)
      throw new TableDamagedError(
        `another program deleted virtual server ${describeKey(missing[1].key)}; comparing everything`,
      );
    const there = new Set(this.side.addresses.open());
    const gone = [...this.bound].find((ip) => !there.has(ip));
    if (gone !== undefined)
      throw new TableDamagedError(`another program took address ${gone} away; comparing everything`);
  }

  // ---- addresses

  private wantsBound(ip: string): boolean {
    return this.addressUse.has(ip) && !this.localAddresses.has(ip);
  }

  private bindAddresses(draft: Draft, tally: Tally): void {
    const changes: AddressChange[] = [];
    for (const ip of draft.ips)
      if (this.wantsBound(ip) && !this.bound.has(ip)) changes.push({ do: 'add', ip });
    this.changeAddresses(changes, tally);
  }

  /** Addresses that nothing needs any more; those of virtual servers that are still used stay. */
  private releaseAddresses(draft: Draft, tally: Tally): void {
    if (draft.ips.size === 0) return;
    const retiring = this.retiringAddresses();
    const unused = [...draft.ips].filter(
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

  /** Of virtual servers that nobody wants, and that some connections still need. */
  private retiringAddresses(): Set<string> {
    const ips = new Set<string>();
    for (const id of this.draining) {
      const server = this.servers.get(id);
      if (server?.retired === true && 'address' in server.key) ips.add(server.key.address);
    }
    return ips;
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
    const found = await KernelFilter.read(this.side.nft, this.options);
    const kernel = found === 'absent' || found === 'foreign' ? new KernelFilter() : found;
    this.forget();
    for (const length of kernel.sourceRangeLengths()) this.sourceRangeLengths.add(length);
    for (const ip of this.side.addresses.open()) this.bound.add(ip);
    this.kernel = kernel;
    try {
      const steps = this.claimAll(wanted, tally);
      for (const server of this.side.ipvs.listServices())
        if (server.key.family === this.nft) this.unread.set(serverId(server.key), server);
      const tx = this.begin();
      if (found === 'foreign') tx.batch.deleteTable();
      this.writeBase(tx, kernel);
      if (found === 'foreign') this.replaceTable(tx, steps, tally);
      else this.commit(tx, tally);
      this.baseWritten = true;
      await this.runInTurns(steps, tally);
      await this.removeLeftovers(kernel, tally);
      this.adopted = true;
      return tally;
    } finally {
      this.kernel = undefined;
      this.unread.clear();
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
      this.servers,
      this.draining,
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

  private async removeLeftovers(kernel: KernelFilter, tally: Tally): Promise<void> {
    const unwanted: string[] = [];
    for (const [id, { key }] of this.unread) {
      const ours =
        'fwmark' in key
          ? isOurMark(key.fwmark)
          : this.bound.has(key.address) || kernel.had(sets.serviceIPs, id);
      if (ours && !this.isExcluded(key)) unwanted.push(id);
    }
    const draft = new Draft();
    this.writeServers(unwanted, draft, tally);
    await nextTurn();

    const tx = this.begin();
    for (const ip of this.retiringAddresses()) {
      if (!this.bound.has(ip)) continue;
      this.writeMembership(
        draft,
        tx,
        this.boundElements,
        { set: sets.boundIPs, key: addressBytes(ip) },
        ip,
        true,
      );
    }
    for (const { set, key } of kernel.leftovers()) tx.delete(set, key);
    this.commit(tx, tally);
    for (const ip of this.bound) draft.ips.add(ip);
    this.releaseAddresses(draft, tally);
  }
}
