/**
 * What IPVS holds of one virtual server, and what has to be done to make it what is wanted. Pure.
 *
 * An endpoint that is no longer wanted is not deleted while it has connections that could go on: it gets weight 0, which
 * means no new connections, and goes when the old ones are over. The same with a whole virtual server.
 */
import { FORWARDING } from '@kube-proxy-ts/netlink/ipvs';
import type {
  IpvsCommand,
  RealServer,
  RealServerKey,
  VirtualServer,
  VirtualServerKey,
  VirtualServerSettings,
} from '@kube-proxy-ts/netlink/ipvs';
import { IPVS_SVC_F } from '@kube-proxy-ts/netlink/ipvs';
import type { Protocol } from '../../../model/types.js';
import type { DesiredServer } from '../desired-state.js';
import { schedulerNamed } from './schedulers.js';

/** An endpoint as IPVS sees it. */
export interface Destination {
  readonly ip: string;
  readonly port: number;
}

export interface ServerState {
  readonly key: VirtualServerKey;
  /** undefined: not known, for a virtual server by mark of an earlier process. */
  readonly protocol: Protocol | undefined;
  /** Flags without the kernel's own. */
  readonly settings: VirtualServerSettings;
  /** Endpoints that get new connections. */
  readonly live: readonly Destination[];
  /** Endpoints of weight 0, by destinationId(). */
  readonly draining: ReadonlyMap<string, Destination>;
  /** Endpoints that packets reach in another way than ours: to be written anew. */
  readonly misplaced: readonly Destination[];
  /** Nobody wants it; it is there for the connections of its endpoints. */
  readonly retired: boolean;
}

export interface ServerChange {
  readonly commands: readonly IpvsCommand[];
  /** What the kernel holds once all commands have been carried out; undefined: nothing. */
  readonly next: ServerState | undefined;
  /** Endpoints were set to weight 0: those without connections can go at once. */
  readonly drains: boolean;
}

export function destinationId({ ip, port }: Destination): string {
  return `${ip} ${port}`;
}

export function destinationOf({ address, port }: RealServerKey): Destination {
  return { ip: address, port };
}

function keyOf({ ip, port }: Destination, { family }: VirtualServerKey): RealServerKey {
  return { family, address: ip, port };
}

function withWeight(weight: 0 | 1) {
  return { forwarding: FORWARDING.masquerade, weight, upperThreshold: 0, lowerThreshold: 0 } as const;
}

const none: ReadonlyMap<string, Destination> = new Map();

/**
 * What the kernel says. A weight that is neither 0 nor 1 was given by somebody else, and stays as long as the endpoint; so
 * do thresholds.
 */
export function stateInKernel(
  { key, settings }: VirtualServer,
  protocol: Protocol | undefined,
  destinations: readonly RealServer[],
): ServerState {
  const live: Destination[] = [];
  const misplaced: Destination[] = [];
  const draining = new Map<string, Destination>();
  for (const { key: of, settings: how } of destinations) {
    const destination = destinationOf(of);
    if (how.forwarding !== FORWARDING.masquerade) misplaced.push(destination);
    else if (how.weight > 0) live.push(destination);
    else draining.set(destinationId(destination), destination);
  }
  const flags = settings.flags & ~IPVS_SVC_F.hashed;
  return { key, protocol, settings: { ...settings, flags }, live, draining, misplaced, retired: false };
}

/** @param a with our flags only */
export function sameSettings(a: VirtualServerSettings, b: VirtualServerSettings): boolean {
  return (
    a.scheduler === b.scheduler &&
    a.flags === b.flags &&
    a.timeoutSeconds === b.timeoutSeconds &&
    a.clientPrefixLength === b.clientPrefixLength
  );
}

/** From what the kernel holds to what is wanted; undefined: nothing. */
export function planServer(
  current: ServerState | undefined,
  wanted: DesiredServer | undefined,
): ServerChange {
  if (wanted === undefined)
    return current === undefined ? { commands: [], next: undefined, drains: false } : retire(current);
  const { key, protocol, settings, endpoints } = wanted;
  const commands: IpvsCommand[] = [];
  if (current === undefined) {
    commands.push({ do: 'add service', server: { key, settings } });
    for (const endpoint of endpoints)
      commands.push({
        do: 'add destination',
        service: key,
        destination: keyOf(endpoint, key),
        settings: withWeight(1),
      });
    const next = { key, protocol, settings, live: endpoints, draining: none, misplaced: [], retired: false };
    return { commands, next, drains: false };
  }
  if (!sameSettings(current.settings, settings))
    commands.push({ do: 'change service', server: { key, settings } });
  if (current.live === endpoints && current.draining.size === 0 && current.misplaced.length === 0) {
    return { commands, next: { ...current, protocol, settings, retired: false }, drains: false };
  }
  for (const destination of current.misplaced)
    commands.push({ do: 'delete destination', service: key, destination: keyOf(destination, key) });

  const draining = new Map(current.draining);
  const held = new Map(current.live.map((destination) => [destinationId(destination), destination]));
  for (const endpoint of endpoints) {
    const id = destinationId(endpoint);
    if (held.delete(id)) continue;
    const back = draining.delete(id);
    commands.push({
      do: back ? 'change destination' : 'add destination',
      service: key,
      destination: keyOf(endpoint, key),
      settings: withWeight(1),
    });
  }
  let drains = false;
  const mayDrain = drainability(protocol, settings, wanted.owner.servingEndpoints);
  for (const [id, destination] of held) {
    if (mayDrain(destination)) {
      drains = true;
      draining.set(id, destination);
      commands.push({
        do: 'change destination',
        service: key,
        destination: keyOf(destination, key),
        settings: withWeight(0),
      });
    } else {
      commands.push({ do: 'delete destination', service: key, destination: keyOf(destination, key) });
    }
  }
  for (const [id, destination] of current.draining) {
    // Flows of UDP endpoints that have stopped serving meanwhile are to find another one.
    if (!draining.has(id) || mayDrain(destination)) continue;
    draining.delete(id);
    commands.push({ do: 'delete destination', service: key, destination: keyOf(destination, key) });
  }
  const next = { key, protocol, settings, live: endpoints, draining, misplaced: [], retired: false };
  return { commands, next, drains };
}

/** Which endpoints keep their connections when they are no longer wanted. */
function drainability(
  protocol: Protocol | undefined,
  { scheduler }: VirtualServerSettings,
  serving: readonly string[],
): (destination: Destination) => boolean {
  if (!schedulerNamed(scheduler).drains) return () => false;
  // TCP tells a client when its endpoint is gone. UDP doesn't: only endpoints that still answer may keep their flows.
  if (protocol === 'TCP' || protocol === undefined) return () => true;
  const keep = new Set(serving);
  return ({ ip, port }) => keep.has(ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`);
}

/** Nobody wants the virtual server any more. */
function retire(current: ServerState): ServerChange {
  const { key, protocol, live } = current;
  // Flows of UDP and SCTP go in other modes, too. IPVS would remember an SCTP association for a minute after its end.
  const lasts = protocol === 'TCP' || protocol === undefined;
  const drainable = lasts && schedulerNamed(current.settings.scheduler).drains;
  if (!drainable || (live.length === 0 && current.draining.size === 0)) {
    return { commands: [{ do: 'delete service', service: key }], next: undefined, drains: false };
  }
  const draining = new Map(current.draining);
  const commands = live.map((destination): IpvsCommand => {
    draining.set(destinationId(destination), destination);
    return {
      do: 'change destination',
      service: key,
      destination: keyOf(destination, key),
      settings: withWeight(0),
    };
  });
  return { commands, next: { ...current, live: [], draining, retired: true }, drains: true };
}

/**
 * What can go of a virtual server that drains endpoints.
 * @param destinations as the kernel has them now
 * @param shadows it stands in front of sockets of this host, so it goes with its last open connection
 */
export function settleServer(
  current: ServerState,
  destinations: readonly RealServer[],
  shadows: boolean,
): ServerChange {
  const { key } = current;
  const draining = new Map<string, Destination>();
  const commands: IpvsCommand[] = [];
  for (const { key: of, activeConnections, inactiveConnections } of destinations) {
    const destination = destinationOf(of);
    const id = destinationId(destination);
    if (!current.draining.has(id)) continue;
    if (activeConnections > 0 || (inactiveConnections > 0 && !(shadows && current.retired)))
      draining.set(id, destination);
    else commands.push({ do: 'delete destination', service: key, destination: of });
  }
  if (current.retired && draining.size === 0)
    return { commands: [{ do: 'delete service', service: key }], next: undefined, drains: false };
  return { commands, next: { ...current, draining }, drains: false };
}
