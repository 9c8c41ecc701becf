/**
 * Compares a table of the kernel with what the API's objects ask for: every address by walking packets from several sources
 * through the rules, and every element that no such packet has met has to have a reason to be there.
 */
import {
  destinationKey,
  onThisNode,
  type Destination,
  type Expectation,
  type Expected,
  type ServicePort,
  type Source,
} from './expectation.js';
import type { Family, Protocol, Service } from './objects.js';
import { asText, RulesetError, type Table } from './ruleset.js';
import { Touched, walk, type Node, type Outcome } from './walk.js';

/** A port that no Service of the soak has. */
const unusedPort = 9;
/** More would not be read. */
const mostDifferences = 12;
/** The kernel's own memory of clients, and classes that have just fallen out of use. */
const unstable = new Set(['affinity', 'service-classes', 'pick-classes']);

export interface ComparisonOptions {
  readonly family: Family;
  readonly expectation: Expectation;
  readonly sources: readonly Source[];
  /** All addresses that the node has. */
  readonly nodeAddresses: ReadonlySet<string>;
  /** Addresses that no Service ever has. */
  readonly unallocated: readonly string[];
  /**
   * For large clusters: every so manieth address is asked about from all sources, and those where it matters who asks; the
   * others from one of them in turn. 1: all.
   */
  readonly thin: number;
}

/** @returns differences, in words; none: the kernel is right */
export function compareTable(table: Table | undefined, options: ComparisonOptions): string[] {
  if (table === undefined) return [`${options.family}: the table is not there`];
  if (table.asleep) return [`${options.family}: the table is asleep`];
  return new Comparison(table, options).run();
}

class Comparison {
  private readonly differences: string[] = [];
  private readonly touched = new Touched();
  private readonly node: Node;

  constructor(
    private readonly table: Table,
    private readonly options: ComparisonOptions,
  ) {
    const family = options.family === 'IPv6' ? 'ip6' : 'ip';
    this.node = { family, addresses: options.nodeAddresses };
  }

  run(): string[] {
    let count = 0;
    for (const to of this.destinations()) {
      for (const from of [...this.sources(to, count++), ...this.permitted(to)]) {
        this.check(to, from);
        if (this.differences.length >= mostDifferences) return this.differences;
      }
    }
    this.checkHairpins();
    this.checkLeftovers();
    return this.differences;
  }

  /** Every address of a Service, every address that the kernel knows, and some that mean nothing. */
  private destinations(): Iterable<Destination> {
    const { family, expectation, unallocated } = this.options;
    const all = new Map<string, Destination>();
    const add = (address: string, protocol: Protocol, port: number): void => {
      const to = { address, protocol, port };
      all.set(destinationKey(to), to);
    };
    for (const port of expectation.ports) {
      if (port.family !== family) continue;
      for (const { to, kind } of port.destinations) {
        add(to.address, to.protocol, to.port);
        if (kind === 'cluster IP') add(to.address, 'TCP', unusedPort);
      }
    }
    for (const address of unallocated) add(address, 'TCP', unusedPort);
    for (const address of this.nodePortIPs()) add(address, 'UDP', unusedPort);
    for (const { name, elements } of this.table.collections.values()) {
      for (const key of elements.keys()) {
        const found = destinationOf(key);
        // Endpoints are not addresses of Services.
        if (found === undefined || name === 'hairpin-connections') continue;
        const addresses = found.address === undefined ? this.nodePortIPs() : [found.address];
        for (const address of addresses) add(address, found.protocol, found.port);
      }
    }
    return all.values();
  }

  private nodePortIPs(): readonly string[] {
    const { family, expectation } = this.options;
    return expectation.circumstances.nodePortIPs.filter((ip) => ip.includes(':') === (family === 'IPv6'));
  }

  private sources(to: Destination, count: number): readonly Source[] {
    const { sources, thin, expectation } = this.options;
    const owner = expectation.owners.get(destinationKey(to));
    if (count % thin === 0 || owner?.service.spec.externalTrafficPolicy === 'Local') return sources;
    return sources.slice(count % sources.length).slice(0, 1);
  }

  /** Sources that source ranges are about. */
  private permitted(to: Destination): readonly Source[] {
    const owner = this.options.expectation.owners.get(destinationKey(to));
    const ranges = owner?.service.spec.loadBalancerSourceRanges ?? [];
    return [...ranges.map((range) => range.split('/')[0] ?? ''), ...(ranges.length > 0 ? [to.address] : [])]
      .filter((address) => address.includes(':') === (this.options.family === 'IPv6'))
      .map((address) => ({ address, ownNode: this.options.nodeAddresses.has(address) }));
  }

  private check(to: Destination, from: Source): void {
    const expected = this.options.expectation.of(to, from);
    const problem = this.problem(to, from, (outcomes) => mismatch(expected, outcomes));
    if (problem !== undefined) this.differences.push(`${from.address} to ${destinationKey(to)}: ${problem}`);
  }

  private problem(
    { address, protocol, port }: Destination,
    { address: source }: Source,
    judge: (outcomes: readonly Outcome[]) => string | undefined,
  ): string | undefined {
    const packet = {
      source,
      destination: address,
      protocol: protocol === 'TCP' ? 'tcp' : 'udp',
      port,
    } as const;
    try {
      return judge(walk(this.table, this.node, packet, this.touched));
    } catch (error) {
      if (error instanceof RulesetError) return error.message;
      throw error;
    }
  }

  /** A pod of this node that reaches itself through a Service would get its own address as that of its client. */
  private checkHairpins(): void {
    for (const port of this.options.expectation.ports) {
      const clusterIP = port.destinations.find(({ kind }) => kind === 'cluster IP')?.to;
      if (port.family !== this.options.family || clusterIP === undefined) continue;
      for (const { target, maybeHere } of port.endpoints) {
        if (!maybeHere) continue;
        const source = { address: target.split(' ')[0] ?? '', ownNode: false };
        const problem = this.problem(clusterIP, source, (outcomes) =>
          outcomes.some((one) => one.kind === 'translated' && one.to === target && !one.masqueraded)
            ? 'it would get its own address as the client'
            : undefined,
        );
        if (problem !== undefined)
          this.differences.push(`${target} to itself by ${destinationKey(clusterIP)}: ${problem}`);
      }
    }
  }

  /** What no packet meets has to have another reason. */
  private checkLeftovers(): void {
    const { expectation } = this.options;
    const hairpins = new Set<string>();
    for (const { endpoints, protocol } of expectation.ports) {
      for (const { target, maybeHere } of endpoints) {
        const [address = '', port = ''] = target.split(' ');
        if (maybeHere) hairpins.add(`${address} ${address} ${protocol.toLowerCase()} ${port}`);
      }
    }
    for (const { name, elements } of this.table.collections.values()) {
      if (unstable.has(name)) continue;
      for (const key of elements.keys()) {
        if (this.touched.has(name, key)) continue;
        if (name === 'hairpin-connections' && hairpins.has(key)) continue;
        if (this.isBehindRanges(name, key) || this.isOfAffinity(name, key)) continue;
        this.differences.push(`${this.options.family}: ${name} holds '${key}', which nothing needs`);
        if (this.differences.length >= mostDifferences) return;
      }
    }
    for (const name of [...this.table.chains.keys(), ...this.table.collections.keys()]) {
      if (name.startsWith('foreign')) this.differences.push(`${this.options.family}: ${name} is still there`);
    }
  }

  /** Source ranges may keep everybody out: then what is behind them is met by nobody. */
  private isBehindRanges(name: string, key: string): boolean {
    if (name.startsWith('source-ranges')) return false;
    return this.ownersOf(key).some(({ service }) => (service.spec.loadBalancerSourceRanges ?? []).length > 0);
  }

  /** An address has its number for affinity also while nothing can serve it. */
  private isOfAffinity(name: string, key: string): boolean {
    if (!name.startsWith('affinity-')) return false;
    if (this.ownersOf(key).some(({ service }) => hasAffinity(service))) return true;
    // Endpoints by number: there as long as they are endpoints, though another Service may have the address.
    const number = key.split(':')[0];
    const ports = ['affinity-ips', 'affinity-nodeports'].flatMap((map) =>
      [...(this.table.collections.get(map)?.elements ?? [])]
        .filter(([, data]) => asText(data).split(':')[0] === number)
        .flatMap(([address]) => this.ownersOf(address)),
    );
    const local = name.endsWith('-local');
    const endpoints = this.table.collections.get(`affinity-endpoints${local ? '-local' : ''}`)?.elements;
    const id = name.startsWith('affinity-slots') ? this.table.collections.get(name)?.elements.get(key) : key;
    const data = endpoints?.get(asText(id));
    const target = asText(data);
    return ports.some((port) =>
      (local ? onThisNode(port) : this.options.expectation.everywhere(port)).includes(target),
    );
  }

  /** The service ports that have the address in an element's key. */
  private ownersOf(key: string): readonly ServicePort[] {
    const found = destinationOf(key);
    if (found === undefined) return [];
    const { address, protocol, port } = found;
    const addresses = address === undefined ? this.nodePortIPs() : [address];
    return addresses.flatMap((ip) => {
      const owner = this.options.expectation.owners.get(destinationKey({ address: ip, protocol, port }));
      return owner === undefined ? [] : [owner];
    });
  }
}

function hasAffinity({ spec }: Service): boolean {
  return spec.sessionAffinity === 'ClientIP';
}

/** The address, protocol and port in an element's key; without address: a node port. */
function destinationOf(
  key: string,
): { readonly address: string | undefined; readonly protocol: Protocol; readonly port: number } | undefined {
  const parts = key.split(' ');
  const at = parts.findIndex((part) => part === 'tcp' || part === 'udp');
  if (at < 0) return undefined;
  return {
    address: at === 0 ? undefined : parts[at - 1],
    protocol: parts[at] === 'tcp' ? 'TCP' : 'UDP',
    port: Number(parts[at + 1]),
  };
}

/** @returns what is wrong, in words; undefined: nothing */
export function mismatch(expected: Expected, outcomes: readonly Outcome[]): string | undefined {
  const wrong = (): string => `${inWords(outcomes)}, not ${expectedInWords(expected)}`;
  if (expected.kind !== 'translated') {
    const right = outcomes.every(
      (one) => one.kind === expected.kind && !('masqueraded' in one && one.masqueraded),
    );
    return right ? undefined : wrong();
  }
  const counts = new Map(expected.endpoints.map((endpoint) => [endpoint, 0]));
  for (const one of outcomes) {
    const count = one.kind === 'translated' ? counts.get(one.to) : undefined;
    if (count === undefined || one.kind !== 'translated') return wrong();
    if (one.masqueraded !== expected.masqueraded) return wrong();
    counts.set(one.to, count + 1);
  }
  // Every endpoint has the same chance.
  const [first = 0, ...others] = counts.values();
  return first > 0 && others.every((count) => count === first) ? undefined : wrong();
}

/** All that may become of a packet. */
export function inWords(outcomes: readonly Outcome[]): string {
  const words = outcomes.map((one) => {
    const masqueraded = 'masqueraded' in one && one.masqueraded ? ', masqueraded' : '';
    return one.kind === 'translated' ? `to ${one.to}${masqueraded}` : `${one.kind}${masqueraded}`;
  });
  return [...new Set(words)].sort().join(' | ');
}

export function expectedInWords(expected: Expected): string {
  if (expected.kind !== 'translated') return expected.kind;
  const masqueraded = expected.masqueraded ? ', masqueraded' : '';
  return expected.endpoints.map((endpoint) => `to ${endpoint}${masqueraded}`).join(' | ');
}
