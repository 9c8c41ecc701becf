/** The virtual servers that IPVS holds for us: what we know of them, and how they become what is wanted. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { formatIpPort } from '../../../model/addresses/addresses.js';
import type { ReleasedAddress } from '../../../model/types.js';
import { NetlinkError } from '@kube-proxy-ts/netlink';
import {
  describeKey,
  FORWARDING,
  IPVS_SVC_F,
  type IpvsCommand,
  type RealServer,
  type VirtualServer,
  type VirtualServerKey,
} from '@kube-proxy-ts/netlink/ipvs';
import { TableDamagedError } from '../../backend.js';
import { protocolOf, serverId, type DesiredServer } from '../desired-state.js';
import type { IpvsKernel } from '../kernel.js';
import {
  destinationId,
  destinationOf,
  planServer,
  sameSettings,
  settleServer,
  stateInKernel,
  type ServerChange,
  type ServerState,
} from './server-state.js';
import { missingScheduler } from './schedulers.js';
import { SyncStats } from '../sync-stats.js';

export class SchedulerMissingError extends Error {
  readonly code = 'ERR_IPVS_SCHEDULER_MISSING';
}

export interface VirtualServersOptions {
  readonly family: 'ip' | 'ip6';
  /** By id; undefined: none. */
  readonly wanted: (id: string) => DesiredServer | undefined;
  /** Somebody else's, whatever it looks like: left alone when we don't want it. */
  readonly isExcluded: (key: VirtualServerKey) => boolean;
  /** The address is on the service interface, so there are no sockets of this host behind it. */
  readonly isServiceAddress: (ip: string) => boolean;
}

/** Virtual servers whose endpoints are looked at by one verify(), … */
const endpointChecks = 1_000;
/** … and by one settle() that is not told of which: 0.1 s. */
const settledAtOnce = 1_000;

/** Virtual servers that are asked for in one turn of the event loop. */
const piece = 50;

/** Goes through a collection that changes meanwhile, some at a time, and begins anew at its end. */
class Rounds<T> {
  private at: Iterator<T>;

  constructor(private readonly items: { readonly size: number; values(): Iterator<T> }) {
    this.at = items.values();
  }

  *next(most: number): Generator<T> {
    for (let left = Math.min(most, this.items.size); left > 0; left--) {
      let next = this.at.next();
      if (next.done === true) {
        this.at = this.items.values();
        next = this.at.next();
      }
      if (next.done !== true) yield next.value;
    }
  }
}

interface PlannedChange {
  readonly id: string;
  readonly change: ServerChange;
}

export class VirtualServers {
  /** By id. */
  private readonly states = new Map<string, ServerState>();
  /** Ids of those that drain endpoints. */
  private readonly draining = new Set<string>();
  private readonly toVerify = new Rounds(this.states);
  private readonly toSettle = new Rounds(this.draining);
  /** Those that an earlier process or somebody else left, and whose endpoints were not read yet. */
  private readonly unread = new Map<string, VirtualServer>();

  constructor(
    private readonly kernel: IpvsKernel,
    private readonly options: VirtualServersOptions,
  ) {}

  /** Forgets everything, and looks what there is. */
  readAll(): void {
    this.states.clear();
    this.draining.clear();
    this.unread.clear();
    for (const server of this.kernel.listServices())
      if (server.key.family === this.options.family) this.unread.set(serverId(server.key), server);
  }

  /** Of those found by readAll() that nobody has asked for since. */
  *unclaimed(): Iterable<readonly [id: string, key: VirtualServerKey]> {
    for (const [id, { key }] of this.unread) yield [id, key];
  }

  /** Learns what was found of a virtual server, so that it can be deleted later. */
  learn(id: string): void {
    const unread = this.unread.get(id);
    if (unread !== undefined) this.takeOver(id, unread);
    this.unread.delete(id);
  }

  /** What conntrack has to know of one that nobody wants: its flows outlive it. Of UDP and SCTP, which know no end. */
  released(key: VirtualServerKey): ReleasedAddress | undefined {
    const protocol = protocolOf(key);
    if ('fwmark' in key || protocol === undefined || protocol === 'TCP') return undefined;
    const endpoints = this.kernel.listDestinations(key).map((server) => destinationOf(server.key));
    return {
      protocol,
      ip: key.address,
      port: key.port,
      endpoints: endpoints.map(({ ip, port }) => formatIpPort(ip, port)),
    };
  }

  /** All others are nobody's business from now on. */
  endReading(): void {
    this.unread.clear();
  }

  /** Whether the kernel holds this virtual server, as far as we know. */
  has(id: string): boolean {
    return this.states.has(id);
  }

  /** Makes the kernel follow what is wanted of these virtual servers. What it refuses is reported of the owner. */
  write(ids: Iterable<string>, stats: SyncStats): void {
    const changes: PlannedChange[] = [];
    const drained: string[] = [];
    for (const id of ids) {
      const unread = this.unread.get(id);
      if (unread !== undefined) {
        stats.timed(() => {
          this.takeOver(id, unread);
        });
        this.unread.delete(id);
      }
      const change = this.plan(id);
      if (change.commands.length === 0) this.set(id, change.next);
      else changes.push({ id, change });
      if (change.drains) drained.push(id);
    }
    for (const [id, error] of this.execute(changes, stats)) this.repair(id, error, stats);
    this.settle(drained, stats);
  }

  /**
   * Deletes drained endpoints that have no connections any more, and virtual servers that nobody wants and nobody uses.
   * @param ids of those that drain endpoints, some in turn, if not given
   * @returns addresses that may have become free
   */
  settle(ids: Iterable<string> | undefined, stats: SyncStats): Set<string> {
    const changes: PlannedChange[] = [];
    const freed = new Set<string>();
    for (const id of ids ?? [...this.toSettle.next(settledAtOnce)]) {
      const current = this.states.get(id);
      if (current === undefined) continue;
      const { key } = current;
      if (current.retired && 'address' in key) freed.add(key.address);
      let destinations;
      try {
        destinations = stats.timed(() => this.kernel.listDestinations(key));
      } catch (error) {
        if (!(error instanceof NetlinkError && ['ESRCH', 'ENOENT'].includes(error.code))) throw error;
        this.set(id, undefined);
        continue;
      }
      const shadows = 'address' in key && !this.options.isServiceAddress(key.address);
      const change = settleServer(current, destinations, shadows);
      if (change.commands.length > 0) changes.push({ id, change });
      else this.set(id, change.next);
    }
    for (const [id, error] of this.execute(changes, stats)) this.repair(id, error, stats);
    return freed;
  }

  /** Addresses of virtual servers that nobody wants, and that some connections still need. */
  retiringAddresses(): Set<string> {
    const ips = new Set<string>();
    for (const id of this.draining) {
      const server = this.states.get(id);
      if (server?.retired === true && 'address' in server.key) ips.add(server.key.address);
    }
    return ips;
  }

  /**
   * IPVS tells nobody when it is changed, so we ask now and then: all virtual servers, and the endpoints of some of them, in
   * turn. In small pieces, between which our own changes are made.
   * @param observer lists them
   * @returns milliseconds in which nothing else was done
   * @throws TableDamagedError
   */
  async verify(observer: IpvsKernel, signal?: AbortSignal): Promise<number> {
    const stats = new SyncStats();
    const missing = new Set(this.states.keys());
    const suspects: string[] = [];
    const compare = (server: VirtualServer): void => {
      if (server.key.family !== this.options.family) return;
      const id = serverId(server.key);
      missing.delete(id);
      const state = this.states.get(id);
      if (state !== undefined && !isAsLeft(server, state)) suspects.push(id);
    };
    await observer.listServicesAsync((server) => {
      stats.timed(() => {
        compare(server);
      });
    }, signal);
    // What we changed meanwhile may have been passed over.
    let at = 0;
    for (const id of [...suspects, ...missing]) {
      if (++at % piece === 0) await nextTurn();
      stats.timed(() => {
        this.verifyServer(id);
      });
    }
    for (const state of this.toVerify.next(endpointChecks)) {
      stats.timed(() => {
        this.verifyEndpoints(state);
      });
      if (++at % piece !== 0) continue;
      await nextTurn();
      signal?.throwIfAborted();
    }
    return stats.kernelMs;
  }

  /** @throws TableDamagedError */
  private verifyServer(id: string): void {
    const state = this.states.get(id);
    if (state === undefined) return;
    const server = this.kernel.getService(state.key);
    const name = describeKey(state.key);
    if (server === undefined) throw damaged(`another program deleted virtual server ${name}`);
    if (!isAsLeft(server, state)) throw damaged(`another program changed virtual server ${name}`);
  }

  /** @throws TableDamagedError */
  private verifyEndpoints({ key, live, draining }: ServerState): void {
    const held = new Map(
      this.destinationsOf(key).map((server) => [destinationId(destinationOf(server.key)), server]),
    );
    const isLive = ({ settings }: RealServer): boolean =>
      settings.weight > 0 && settings.forwarding === FORWARDING.masquerade;
    for (const destination of live) {
      const server = held.get(destinationId(destination));
      if (server === undefined || !isLive(server))
        throw damaged(`another program took endpoint ${destinationId(destination)} from ${describeKey(key)}`);
      held.delete(destinationId(destination));
    }
    for (const id of held.keys())
      if (!draining.has(id)) throw damaged(`another program gave ${describeKey(key)} endpoint ${id}`);
  }

  private destinationsOf(key: VirtualServerKey): readonly RealServer[] {
    try {
      return this.kernel.listDestinations(key);
    } catch (error) {
      if (!(error instanceof NetlinkError && ['ESRCH', 'ENOENT'].includes(error.code))) throw error;
      throw damaged(`another program deleted virtual server ${describeKey(key)}`);
    }
  }

  close(): void {
    this.kernel.close();
  }

  private plan(id: string): ServerChange {
    const current = this.states.get(id);
    const wanted = this.options.wanted(id);
    if (wanted === undefined && current !== undefined && this.options.isExcluded(current.key))
      return { commands: [], next: undefined, drains: false };
    return planServer(current, wanted);
  }

  /** @returns ids of which a command was refused, with the first reason */
  private execute(changes: readonly PlannedChange[], stats: SyncStats): ReadonlyMap<string, NetlinkError> {
    const refused = new Map<string, NetlinkError>();
    const commands: IpvsCommand[] = [];
    /** Where each change ends among the commands. */
    const ends: number[] = [];
    for (const { change } of changes) {
      for (const command of change.commands) commands.push(command);
      ends.push(commands.length);
    }
    if (commands.length === 0) return refused;
    const refusals = stats.timed(() => this.kernel.executeAll(commands));
    let at = 0;
    for (const { index, error } of refusals) {
      while (index >= (ends[at] ?? Infinity)) at++;
      const id = changes[at]?.id;
      if (id !== undefined && !refused.has(id)) refused.set(id, error);
    }
    stats.transactions++;
    for (const command of commands) {
      if (command.do === 'delete service' || command.do === 'delete destination') stats.elementsDeleted++;
      else stats.elementsAdded++;
    }
    for (const { id, change } of changes) if (!refused.has(id)) this.set(id, change.next);
    return refused;
  }

  /** The kernel did not hold what we thought: look, and try once more. */
  private repair(id: string, reason: NetlinkError, stats: SyncStats): void {
    const key = this.states.get(id)?.key ?? this.options.wanted(id)?.key;
    if (key === undefined) return;
    this.takeOver(id, this.kernel.getService(key));
    const change = this.plan(id);
    if (change.commands.length === 0) this.set(id, change.next);
    const again = this.execute([{ id, change }], stats).get(id);
    if (again === undefined) return;
    this.takeOver(id, this.kernel.getService(key));
    const wanted = this.options.wanted(id);
    if (wanted === undefined) {
      throw new TableDamagedError(`cannot delete virtual server ${describeKey(key)}: ${again.message}`, {
        cause: reason,
      });
    }
    const hasScheduler = this.states.get(id)?.settings.scheduler === wanted.settings.scheduler;
    stats.fail(wanted.owner, hasScheduler ? again : explain(again, wanted));
  }

  /** Learns what the kernel holds of a virtual server. */
  private takeOver(id: string, found: VirtualServer | undefined): void {
    if (found === undefined) {
      this.set(id, undefined);
      return;
    }
    const protocol = protocolOf(found.key) ?? this.options.wanted(id)?.protocol;
    this.set(id, stateInKernel(found, protocol, this.kernel.listDestinations(found.key)));
  }

  private set(id: string, next: ServerState | undefined): void {
    if (next === undefined) this.states.delete(id);
    else this.states.set(id, next);
    if (next !== undefined && (next.draining.size > 0 || next.retired)) this.draining.add(id);
    else this.draining.delete(id);
  }
}

/** Why a virtual server can't have its scheduler. The configured one was tried at the start; affinityByHash may be missing. */
function explain(error: NetlinkError, { settings: { scheduler } }: DesiredServer): Error {
  if (error.code !== 'ENOENT') return error;
  return new SchedulerMissingError(missingScheduler(scheduler), { cause: error });
}

function isAsLeft({ settings }: VirtualServer, state: ServerState): boolean {
  return sameSettings({ ...settings, flags: settings.flags & ~IPVS_SVC_F.hashed }, state.settings);
}

function damaged(what: string): TableDamagedError {
  return new TableDamagedError(`${what}; comparing everything`);
}
