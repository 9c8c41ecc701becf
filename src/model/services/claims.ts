/**
 * Who owns a virtual address (service-model.md 10). Service ports claim addresses; where several claim the same
 * (address, protocol, port), one rule decides: a claimant with usable endpoints before one without, then the older
 * Service, then the smaller namespace, name and port name. So the winner never depends on the order of events.
 */
import type { IPFamily, Protocol } from '../../sources/objects.js';
import { formatIpPort } from '../addresses/addresses.js';
import type { AddressConflict, ServiceName, VirtualAddress } from '../types.js';

export interface Claimant {
  /** As printed in reports. */
  readonly name: string;
  readonly family: IPFamily;
  readonly protocol: Protocol;
  readonly namespace: string;
  readonly serviceName: string;
  readonly portName: string;
  /** Creation of the Service, milliseconds since the epoch; Infinity when unknown. */
  readonly created: number;
  /** Some endpoint of the cluster is usable. */
  readonly any: boolean;
  readonly service: ServiceName;
}

export interface ClaimResolution<T> {
  /** Claimants that won or lost an address. */
  readonly affected: ReadonlySet<T>;
  /** Contests whose owner or claimants changed, and those that are over. */
  readonly conflicts: readonly AddressConflict[];
}

/** Contests are rare: an address with one claimant costs one map entry and nothing else. */
export class Claims<T extends Claimant> {
  /** By protocol and port, then by address: so no text has to be put together for a key. */
  private readonly byPort = new Map<number, Map<string, T | Contest<T>>>();
  private readonly contestsOf = new Map<T, Set<Contest<T>>>();
  /** Contests to be decided again by settle(). */
  private readonly open = new Set<Contest<T>>();

  claim(claimant: T, address: VirtualAddress): void {
    const port = portKey(claimant, address);
    const ip = addressKey(claimant, address);
    let addresses = this.byPort.get(port);
    if (addresses === undefined) this.byPort.set(port, (addresses = new Map<string, T | Contest<T>>()));
    const current = addresses.get(ip);
    if (current === undefined) {
      addresses.set(ip, claimant);
      return;
    }
    let contest: Contest<T>;
    if (current instanceof Contest) {
      contest = current;
    } else {
      contest = new Contest(port, ip, printedAddress(claimant, address), claimant.family, current);
      addresses.set(ip, contest);
      this.enter(current, contest);
    }
    this.enter(claimant, contest);
  }

  release(claimant: T, address: VirtualAddress): void {
    const port = portKey(claimant, address);
    const ip = addressKey(claimant, address);
    const current = this.byPort.get(port)?.get(ip);
    if (current instanceof Contest) this.leave(claimant, current);
    else if (current === claimant) this.free(port, ip);
  }

  /** What decides contests (`created`, `any`) is different now. */
  rankChanged(claimant: T): void {
    for (const contest of this.contestsOf.get(claimant) ?? []) this.open.add(contest);
  }

  /** The addresses that the claimant owns since the last settle(): the list itself when it owns them all. */
  owned(claimant: T, addresses: readonly VirtualAddress[]): readonly VirtualAddress[] {
    const contests = this.contestsOf.get(claimant);
    if (contests === undefined) return addresses;
    const lost = new Set<string>();
    for (const { owner, ip, port } of contests) if (owner !== claimant) lost.add(`${ip} ${port}`);
    if (lost.size === 0) return addresses;
    return addresses.filter(
      (address) => !lost.has(`${addressKey(claimant, address)} ${portKey(claimant, address)}`),
    );
  }

  /** Decides what was claimed, released or ranked anew since the last call. */
  settle(): ClaimResolution<T> {
    const affected = new Set<T>();
    const conflicts: AddressConflict[] = [];
    for (const contest of this.open) {
      const claimants = [...contest.claimants].sort(compareClaimants);
      const [winner, ...others] = claimants;
      if (winner !== contest.owner) {
        affected.add(contest.owner);
        if (winner !== undefined) affected.add(winner);
      }
      if (winner === undefined || others.length === 0) {
        if (winner === undefined) {
          this.free(contest.port, contest.ip);
        } else {
          this.leave(winner, contest);
          this.byPort.get(contest.port)?.set(contest.ip, winner);
        }
        if (contest.reported === '') continue;
        conflicts.push({
          family: contest.family,
          address: contest.printed,
          owner: winner?.name ?? '',
          others: [],
          losers: [],
        });
      } else {
        contest.owner = winner;
        const names = claimants.map((claimant) => claimant.name);
        // Owner and set of claimants, whatever the others' order among themselves.
        const outcome = [winner.name, ...names.sort()].join(' ');
        if (outcome === contest.reported) continue;
        contest.reported = outcome;
        conflicts.push({
          family: winner.family,
          address: contest.printed,
          owner: winner.name,
          others: others.map((claimant) => claimant.name),
          losers: others.map(({ service: { namespace, name, uid } }) => ({ namespace, name, uid })),
        });
      }
    }
    this.open.clear();
    return { affected, conflicts };
  }

  private free(port: number, ip: string): void {
    const addresses = this.byPort.get(port);
    addresses?.delete(ip);
    if (addresses?.size === 0) this.byPort.delete(port);
  }

  private enter(claimant: T, contest: Contest<T>): void {
    contest.claimants.add(claimant);
    this.open.add(contest);
    const contests = this.contestsOf.get(claimant);
    if (contests === undefined) this.contestsOf.set(claimant, new Set([contest]));
    else contests.add(contest);
  }

  private leave(claimant: T, contest: Contest<T>): void {
    contest.claimants.delete(claimant);
    this.open.add(contest);
    const contests = this.contestsOf.get(claimant);
    contests?.delete(contest);
    if (contests?.size === 0) this.contestsOf.delete(claimant);
  }
}

/** One address with several claimants. */
class Contest<T> {
  readonly claimants = new Set<T>();
  /** Who was told about it last: what settle() reported for this contest. */
  reported = '';

  constructor(
    /** portKey() */
    readonly port: number,
    /** addressKey() */
    readonly ip: string,
    readonly printed: string,
    readonly family: IPFamily,
    public owner: T,
  ) {}
}

/** A port number of one protocol. */
function portKey({ protocol }: Claimant, { port }: VirtualAddress): number {
  return port * protocols.length + protocols.indexOf(protocol);
}

const protocols: readonly Protocol[] = ['TCP', 'UDP', 'SCTP'];

/** A node port has no address of its own, so its family keeps the two families apart. */
function addressKey({ family }: Claimant, { ip }: VirtualAddress): string {
  return ip === '' ? family : ip;
}

function printedAddress(claimant: Claimant, { ip, port }: VirtualAddress): string {
  return `${ip === '' ? `node port ${port}` : formatIpPort(ip, port)}/${claimant.protocol}`;
}

function compareClaimants(a: Claimant, b: Claimant): number {
  if (a.any !== b.any) return a.any ? -1 : 1;
  if (a.created !== b.created) return a.created < b.created ? -1 : 1;
  return (
    compareText(a.namespace, b.namespace) ||
    compareText(a.serviceName, b.serviceName) ||
    compareText(a.portName, b.portName)
  );
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
