/**
 * Takes packets through every mix of two states of the rules that a transaction may show them, and wants an outcome that the
 * objects before or after the change permit (permission.ts). Every draw is taken, so a fault needs no luck to be seen.
 */
import {
  destinationKey,
  Expectation,
  type Circumstances,
  type Destination,
  type Source,
} from '../soak/expectation.js';
import { asText, RulesetError, type Table } from '../soak/ruleset.js';
import { inWords, mismatch } from '../soak/comparison.js';
import { Touched, walk, walkBetween, type Look, type Node, type Packet } from '../soak/walk.js';
import type { Cluster, Family } from '../soak/objects.js';
import { Permission, selves } from './permission.js';
import { clients, nodeAddress, nodeName, podRange } from './world.js';

/** Objects of one moment, and what they ask for. */
export function expectationOf(cluster: Cluster, family: Family): Expectation {
  const circumstances: Circumstances = {
    nodeName,
    nodePortIPs: [nodeAddress(family)],
    podRanges: [podRange(family)],
    masqueradeAll: false,
  };
  return new Expectation(cluster, circumstances);
}

export function nodeOf(family: Family): Node {
  return { family: family === 'IPv4' ? 'ip' : 'ip6', addresses: new Set([nodeAddress(family)]) };
}

/** Every address that a Service has in one of the states. */
export function destinationsOf(states: readonly Expectation[]): Destination[] {
  const all = new Map<string, Destination>();
  for (const { ports } of states)
    for (const { destinations } of ports) for (const { to } of destinations) all.set(destinationKey(to), to);
  return [...all.values()];
}

export function packetOf({ address, protocol, port }: Destination, from: Source): Packet {
  return { source: from.address, destination: address, protocol: protocol === 'TCP' ? 'tcp' : 'udp', port };
}

/** What one transaction made of the rules. */
export interface Transition {
  readonly before: Table;
  readonly after: Table;
}

export interface Count {
  walks: number;
}

/**
 * What goes wrong, in words: of each address, client and memory the first.
 * @param damaged what others made of the table: what becomes of a packet there may become of it until the table is repaired
 */
export function* problemsOf(
  { before, after }: Transition,
  states: readonly Expectation[],
  recent: readonly Expectation[],
  family: Family,
  count: Count,
  damaged?: Table,
): Generator<string, void, undefined> {
  const node = nodeOf(family);
  const [remembered] = clients(family);
  for (const to of destinationsOf(states)) {
    for (const from of [...clients(family), ...selves(to, states)]) {
      const permission = new Permission(to, from, states, recent);
      const packet = packetOf(to, from);
      const asDamaged = damaged === undefined ? [] : walk(damaged, node, packet, new Touched());
      const inDamage = new Set(asDamaged.map((one) => inWords([one])));
      const wasServed = asDamaged.some(({ kind }) => kind === 'translated');
      // One client is enough for what is remembered: it leads into the same chains.
      for (const memory of [
        undefined,
        ...(from.address === remembered?.address ? memories(before, packet) : []),
      ]) {
        const where = `${from.address} to ${destinationKey(to)}${memory === undefined ? '' : `, remembered as ${[...memory.values()].join()}`}`;
        try {
          for (const { outcome, looks } of walkBetween(before, after, node, packet, memory)) {
            count.walks++;
            if (permission.permits(outcome, isMixed(looks)) || inDamage.has(inWords([outcome]))) continue;
            // It was under way when the address began to serve, and comes too late for that.
            const isRefused = outcome.kind === 'dropped' || outcome.kind === 'rejected';
            if (damaged !== undefined && isMixed(looks) && ((!wasServed && isRefused) || permission.moves))
              continue;
            yield `${where}: ${inWords([outcome])}, not ${permission.inWords()}\n${lookLines(looks)}`;
            break;
          }
        } catch (error) {
          if (!(error instanceof RulesetError)) throw error;
          yield `${where}: ${error.message}, not ${permission.inWords()}`;
        }
      }
    }
  }
}

function isMixed(looks: readonly Look[]): boolean {
  return looks.some(({ after }) => after) && looks.some(({ after }) => !after);
}

/** The state that is left: exactly what the objects ask for, every endpoint as likely as the next. */
export function restProblemOf(table: Table, state: Expectation, family: Family): string | undefined {
  const node = nodeOf(family);
  for (const to of destinationsOf([state])) {
    for (const from of clients(family)) {
      const outcomes = walk(table, node, packetOf(to, from), new Touched());
      const problem = mismatch(state.of(to, from), outcomes);
      if (problem !== undefined) return `at rest: ${from.address} to ${destinationKey(to)}: ${problem}`;
    }
  }
  return undefined;
}

export function lookLines(looks: readonly Look[]): string {
  return looks
    .map(
      (look) =>
        `    ${look.after ? 'after ' : 'before'} ${look.in} ${look.key}${look.found ? '' : ' (not found)'}`,
    )
    .join('\n');
}

/** Each endpoint number that the client may have been given, as an element of `affinity`. */
function memories(table: Table, { source, destination, protocol, port }: Packet): Map<string, string>[] {
  const of = (map: string, key: string): string | undefined => {
    const data = table.collections.get(map)?.elements.get(key);
    return data === undefined ? undefined : asText(data);
  };
  const number =
    of('affinity-ips', `${destination} ${protocol} ${port}`) ??
    of('affinity-nodeports', `${protocol} ${port}`);
  const service = number?.split(':')[0];
  if (service === undefined) return [];
  const ids = new Set(
    ['affinity-endpoints', 'affinity-endpoints-local'].flatMap((map) =>
      [...(table.collections.get(map)?.elements.keys() ?? [])].filter((id) => id.split(':')[0] === service),
    ),
  );
  return [...ids].map((id) => new Map([[`${source} ${service}:0`, id]]));
}
