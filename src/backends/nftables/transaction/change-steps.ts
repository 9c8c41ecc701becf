/** Changes as steps that may end up in different transactions, each of which leaves a table that serves. Pure. */
import type { Endpoint, FamilyChanges, ServicePort, VirtualAddress } from '../../../model/types.js';
import type { GuardedAddress, ServicePortState } from '../state/desired-elements.js';
import { differenceOf } from '../state/slots.js';
import { addressKey } from '../state/elements.js';

/** One service port and what becomes of it. */
export interface Step {
  readonly key: string;
  readonly name: string;
  /** undefined: it goes. */
  readonly next: ServicePort | undefined;
  /** Not in the transaction of the step before. */
  readonly startsTransaction?: boolean;
  /** Addresses of others that it takes over, by addressKey(): the keys of their service ports. */
  readonly claims?: ReadonlyMap<string, string>;
  /** Addresses that it goes on to serve until others take them over, by addressKey(). */
  readonly keeps?: ReadonlySet<string>;
}

/**
 * Order: service ports that are there, then those that go. An address that moves from one service port to another is
 * released in the very step that claims it, so that at no time it is nobody's, whatever the size of the change.
 */
export function stepsOf(changes: FamilyChanges, states: ReadonlyMap<string, ServicePortState>): Step[] {
  const moves = movesOf(changes, states);
  const ports = moves === undefined ? changes.upserted : claimersFirst(changes.upserted, moves);
  const done = new Set<string>();
  const later: Step[] = [];
  const steps: Step[] = guardsOf(changes.upserted, states, moves);
  let startsTransaction = steps.length > 0;
  for (const port of ports) {
    const { key, name } = port;
    const before = states.get(key)?.port;
    const claims = moves?.claimed.get(key);
    const lost = moves?.lost.get(key);
    done.add(key);
    const keeps = new Set(
      [...(lost ?? [])].filter(([, claimer]) => !done.has(claimer)).map(([address]) => address),
    );
    for (const next of [...stages(before, port), port]) {
      steps.push({
        key,
        name,
        next,
        ...(startsTransaction ? { startsTransaction } : {}),
        ...(claims === undefined ? {} : { claims }),
        ...(keeps.size === 0 ? {} : { keeps }),
      });
      startsTransaction = true;
    }
    startsTransaction = false;
    // Nothing is left to do unless who takes over is refused.
    if (keeps.size > 0) later.push({ key, name, next: port });
  }
  for (const key of changes.removed)
    later.push({ key, name: states.get(key)?.port.name ?? key, next: undefined });
  return [...steps, ...later];
}

/**
 * Source ranges are looked at before the address is translated. So those of an address that is new to a service port are in force
 * one transaction before it serves: else a packet in flight could pass by them.
 */
export function guardsOf(
  ports: readonly ServicePort[],
  states: ReadonlyMap<string, ServicePortState>,
  moves?: Moves,
): Step[] {
  const steps: Step[] = [];
  for (const port of ports) {
    if (!port.addresses.some(({ sourceRanges }) => sourceRanges !== undefined)) continue;
    const { key, name } = port;
    const before = states.get(key)?.port;
    const known = new Set(before?.addresses.map((address) => addressKey(port, address)));
    const guards = port.addresses
      .filter((address) => {
        const id = addressKey(port, address);
        return (
          address.sourceRanges !== undefined &&
          !known.has(id) &&
          !isGuarded(id, moves?.claimed.get(key), states)
        );
      })
      .map((address): GuardedAddress => ({ ...address, guardOnly: true }));
    if (guards.length === 0) continue;
    const base = before ?? { ...port, addresses: [], clusterEndpoints: [], localEndpoints: [] };
    steps.push({ key, name, next: { ...base, addresses: [...base.addresses, ...guards] } });
  }
  return steps;
}

/** Whoever has the address now has source ranges for it. */
function isGuarded(
  id: string,
  claims: ReadonlyMap<string, string> | undefined,
  states: ReadonlyMap<string, ServicePortState>,
): boolean {
  const owner = states.get(claims?.get(id) ?? '')?.port;
  return (
    owner?.addresses.some(
      (address) => address.sourceRanges !== undefined && addressKey(owner, address) === id,
    ) ?? false
  );
}

interface Moves {
  /** By service port: addresses that it takes over, and from whom. */
  readonly claimed: ReadonlyMap<string, ReadonlyMap<string, string>>;
  /** By service port: addresses that it loses, and to whom. */
  readonly lost: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

/** Looks only at what changes: the model gives each address one owner, so both sides of a move are among it. */
function movesOf(
  { upserted, removed }: FamilyChanges,
  states: ReadonlyMap<string, ServicePortState>,
): Moves | undefined {
  /** By address: who has it and will not. */
  const losers = new Map<string, string>();
  const lose = (before: ServicePort, kept: ReadonlySet<string>): void => {
    for (const address of before.addresses) {
      const id = addressKey(before, address);
      if (!kept.has(id)) losers.set(id, before.key);
    }
  };
  const none = new Set<string>();
  for (const key of removed) {
    const before = states.get(key)?.port;
    if (before !== undefined) lose(before, none);
  }
  for (const port of upserted) {
    const before = states.get(port.key)?.port;
    if (before === undefined || sameAddresses(before.addresses, port.addresses)) continue;
    lose(before, new Set(port.addresses.map((address) => addressKey(port, address))));
  }
  if (losers.size === 0) return undefined;

  const claimed = new Map<string, Map<string, string>>();
  const lost = new Map<string, Map<string, string>>();
  for (const port of upserted) {
    for (const address of port.addresses) {
      const id = addressKey(port, address);
      const loser = losers.get(id);
      if (loser === undefined || loser === port.key) continue;
      entry(claimed, port.key).set(id, loser);
      entry(lost, loser).set(id, port.key);
    }
  }
  return claimed.size === 0 ? undefined : { claimed, lost };
}

function entry(map: Map<string, Map<string, string>>, key: string): Map<string, string> {
  let found = map.get(key);
  if (found === undefined) map.set(key, (found = new Map<string, string>()));
  return found;
}

function sameAddresses(a: readonly VirtualAddress[], b: readonly VirtualAddress[]): boolean {
  return (
    a === b ||
    (a.length === b.length &&
      a.every(({ kind, ip, port }, i) => b[i]?.kind === kind && b[i].ip === ip && b[i].port === port))
  );
}

/** Who takes an address over comes before who loses it, but for circles: so few have to be kept in between. */
function claimersFirst(ports: readonly ServicePort[], { lost }: Moves): ServicePort[] {
  const byKey = new Map(ports.map((port) => [port.key, port]));
  const seen = new Set<string>();
  const order: ServicePort[] = [];
  for (const first of ports) {
    if (seen.has(first.key)) continue;
    const path = [{ port: first, claimers: [...(lost.get(first.key)?.values() ?? [])] }];
    seen.add(first.key);
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const claimer = top.claimers.pop();
      if (claimer === undefined) {
        order.push(top.port);
        path.pop();
        continue;
      }
      const port = byKey.get(claimer);
      if (port === undefined || seen.has(claimer)) continue;
      seen.add(claimer);
      path.push({ port, claimers: [...(lost.get(claimer)?.values() ?? [])] });
    }
  }
  return order;
}

/** A service port of which more elements than this change gets them in several steps. */
const stageElements = 4096;

/**
 * What a service port is on its way to far more or to far other endpoints than it had: everything of it already works, with
 * those that stay and the first of the new ones. So neither the kernel's lock nor our event loop is held for
 * long; where there were none, it works sooner, too. Endpoints that go cost nothing here: they go later (deferred.ts).
 */
function stages(before: ServicePort | undefined, next: ServicePort): readonly ServicePort[] {
  const perEndpoint = next.affinitySeconds > 0 ? 2 : Math.max(1, next.addresses.length);
  const step = Math.max(1, Math.floor(stageElements / perEndpoint));
  const cluster = stayingFirst(before?.clusterEndpoints, next.clusterEndpoints, step);
  const local = stayingFirst(before?.localEndpoints, next.localEndpoints, step);
  const count = Math.max(cluster.stages, local.stages);
  return Array.from({ length: count }, (_, i) => ({
    ...next,
    clusterEndpoints: cluster.at(i),
    localEndpoints: local.at(i),
  }));
}

/** What a service port becomes first on its way from what it was. */
export function firstStage(before: ServicePort, next: ServicePort): ServicePort {
  return stages(before, next)[0] ?? next;
}

/** It takes several steps to write it, and several turns of the event loop to compare it. */
export function isLarge(port: ServicePort): boolean {
  return extentOf(port) > stageElements;
}

/** @returns how many stages come before the last, and what is there at each */
function stayingFirst(
  before: readonly Endpoint[] | undefined,
  next: readonly Endpoint[],
  step: number,
): { readonly stages: number; readonly at: (stage: number) => readonly Endpoint[] } {
  if (next.length <= step || differenceOf(before ?? [], next, step) !== undefined)
    return { stages: 0, at: () => next };
  const { stay, come } = divide(before ?? [], next, step);
  const stages = Math.max(0, Math.ceil(come.length / step) - 1);
  return {
    stages,
    at: (stage) => (stage >= stages ? next : [...stay, ...come.slice(0, (stage + 1) * step)]),
  };
}

function divide(
  before: readonly Endpoint[],
  next: readonly Endpoint[],
  step: number,
): { readonly stay: readonly Endpoint[]; readonly come: readonly Endpoint[] } {
  // The model keeps the objects of endpoints that stay. One that moved to another node counts as new: it keeps its slot
  // and its number if it is there in time.
  const known = new Set(before);
  const come = next.filter((endpoint) => !known.has(endpoint));
  if (come.length <= step) return { stay: next, come };
  return { stay: next.length === come.length ? [] : next.filter((endpoint) => known.has(endpoint)), come };
}

/** About how many elements a service port has. */
export function extentOf(port: ServicePort | undefined): number {
  if (port === undefined) return 0;
  const { addresses, clusterEndpoints, localEndpoints } = port;
  let ranges = 0;
  for (const { sourceRanges } of addresses) ranges += sourceRanges?.length ?? 0;
  return 1 + ranges + addresses.length * (1 + clusterEndpoints.length + localEndpoints.length);
}
