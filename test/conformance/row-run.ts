/** Carries out one test of the cases in a lab: puts its objects, does its steps, and says what was not as expected. */
import type { Family, Place } from './addresses.js';
import { familyOf, findActor, nameOf, sameAddress } from './addresses.js';
import {
  inColumn,
  type ClusterSpec,
  type Column,
  type HttpExpectation,
  type ServiceSpec,
  type Step,
  type Test,
} from './cases.js';
import { patchServices } from './cases.js';
import { closeHook, type ClosedHook } from './host-policy.js';
import type { Circumstances, Observation } from './judge.js';
import { describe, judge, silence } from './judge.js';
import type { Lab } from './lab.js';
import type { Outcome, PacketSpec } from './notation.js';
import { parseEndpoints, parseOutcome, parsePacket, parseSlicePort } from './notation.js';
import {
  familyOfService,
  objectKey,
  portsOf,
  serviceCidrObject,
  serviceName,
  serviceObject,
  sliceObject,
  slicesOf,
} from './objects.js';
import type { KubeObject } from './objects.js';
import type { ListenAddress, Probe, ProbeResult, Protocol } from './protocol.js';
import { addressPart } from './protocol.js';
import { patiently } from '../patience.js';

/** A connection that was reset is forgotten by IPVS after 10 s, by its own clock; and then the proxy has to look. */
const forgetsConnections = 20_000 + patiently(1000);
/** How long a packet may take whose arrival is recorded, but that nobody answers. */
const arrivalPatience = patiently(300, 5);
/**
 * How long an answer may take. Shorter than the second after which TCP sends a lost SYN again: a connection whose first
 * packet was lost counts as failed.
 */
const answerPatience = patiently(950);
/** More at once would wait for the client itself, and fill the kernel's queue between two namespaces. */
const copiesAtOnce = 100;
/** A refused connection may need that second SYN: see silence() in judge.ts. */
const refusalPatience = patiently(2500);
/** Connections in which every endpoint of a set must show up: at least the first, at most the second. */
const leastConnections = 12;
const mostConnections = 96;

export class RowFailure extends Error {
  readonly code = 'ERR_CONFORMANCE_FAILED';
}

interface Packet {
  readonly place: Place;
  readonly sources: readonly string[];
  readonly target: string;
  readonly port: number;
  readonly protocol: PacketSpec['protocol'] & string;
  readonly family: Family;
  readonly backendPort: number | undefined;
}

/** What of a step's expectation applies: our own documented behaviour, or upstream's. */
export interface Expectations {
  readonly column: Column;
  readonly standard: 'better' | 'upstream';
}

export function expectationOf(step: Step, { column, standard }: Expectations): string | undefined {
  const chosen = standard === 'better' ? (step.better ?? step.expect) : step.expect;
  return typeof chosen === 'string' || chosen === undefined ? chosen : inColumn(chosen, column);
}

export class RowRun {
  private readonly lab: Lab;
  private readonly test: Test;
  private readonly expectations: Expectations;
  private readonly closed = new Set<ClosedHook>();
  private services: Map<string, ServiceSpec>;
  private readonly objects = new Map<string, KubeObject>();
  /** What a reader of the results should know although the test passed. */
  readonly notes: string[] = [];
  /** What each client reached in a step with `as`. */
  private readonly remembered = new Map<string, Map<string, string>>();
  private readonly occupied: ListenAddress[] = [];
  private readonly held = new Map<string, { place: Place; packet: Packet; saw?: string }>();

  constructor(lab: Lab, test: Test, expectations: Expectations) {
    this.lab = lab;
    this.test = test;
    this.expectations = expectations;
    this.services = new Map(test.services);
  }

  /** Puts the objects of the row and opens the servers that may be reached. The caller syncs. */
  async prepare(): Promise<void> {
    await this.lab.ownAddresses(this.test.alderAddresses, true);
    await this.lab.listen(this.servers());
    await this.publish();
  }

  async steps(): Promise<void> {
    for (const [index, step] of this.test.steps.entries()) {
      try {
        await this.step(step);
      } catch (error) {
        const where = this.test.steps.length === 1 ? '' : `step ${index + 1}: `;
        const message = error instanceof Error ? error.message : String(error);
        throw new RowFailure(`${where}${message}`, { cause: error });
      }
    }
  }

  /** Takes away what prepare() and the steps left, whatever happened. */
  async cleanUp(): Promise<void> {
    await this.lab.remove([...this.objects.keys()]);
    for (const [id, { place }] of this.held)
      await this.lab.topology.agent(place).request({ op: 'release', id });
    for (const socket of this.occupied) {
      await this.lab.topology.agent('alder').request({ op: 'unlisten', sockets: [socket] });
    }
    const added = this.test.steps.flatMap((step) => step['alder-addresses'] ?? []);
    await this.lab.ownAddresses([...this.test.alderAddresses, ...added], false);
    for (const hook of this.closed) {
      await closeHook(this.lab.topology, hook, this.expectations.column, false);
    }
    if (this.test.steps.some((step) => step['alder-rules'] !== undefined)) {
      await this.lab.topology.exec(
        'alder',
        'nft',
        ['-f', '-'],
        'table inet harness\ndelete table inet harness\n',
      );
    }
  }

  // --- objects

  private objectName(service: string): string {
    return serviceName(service, this.services.get(service) ?? {}, this.test.slug);
  }

  private wantedObjects(): KubeObject[] {
    const wanted: KubeObject[] = [];
    for (const [service, spec] of this.services) {
      const family = familyOfService(spec, this.test.family === 'v6' ? 'v6' : 'v4');
      const name = this.objectName(service);
      wanted.push(...copies(serviceObject(name, spec, family), name, spec));
      for (const slice of slicesOf(spec)) {
        const object = sliceObject(name, slice, spec, family, (other) => this.objectName(other));
        wanted.push(...copies(object, name, spec));
      }
    }
    return wanted;
  }

  /** Makes the API hold what the services now say: only what differs is written. */
  private async publish(): Promise<void> {
    const wanted = new Map(this.wantedObjects().map((object) => [objectKey(object), object]));
    const gone = [...this.objects.keys()].filter((key) => !wanted.has(key));
    const changed = [...wanted].filter(
      ([key, object]) => JSON.stringify(this.objects.get(key)) !== JSON.stringify(object),
    );
    if (gone.length > 0) await this.lab.remove(gone);
    if (changed.length > 0) await this.lab.put(changed.map(([, object]) => object));
    for (const key of gone) this.objects.delete(key);
    for (const [key, object] of changed) this.objects.set(key, object);
  }

  /** Every address that a packet of this test may end at, with the protocols and ports in question. */
  private servers(): readonly ListenAddress[] {
    const sockets = new Map<string, ListenAddress>();
    const add = (protocol: string, address: string, port: number): void => {
      if (
        protocol !== 'TCP' &&
        protocol !== 'UDP' &&
        !(protocol === 'SCTP' && this.test.transport === 'sctp')
      )
        return;
      if (address === '' || port === 0) return;
      sockets.set(`${protocol} ${address} ${port}`, { protocol, address, port });
    };
    const addService = (spec: ServiceSpec): void => {
      const ports = portsOf(spec);
      for (const slice of slicesOf(spec)) {
        if (slice.family === 'FQDN') continue;
        const family = slice.family ?? familyOfService(spec, this.test.family);
        const backends =
          slice.ports === undefined
            ? ports.map(({ protocol, target }) => ({ protocol, port: target }))
            : slice.ports.map(parseSlicePort);
        const stable = slice.eps.split(/\s+/).filter((token) => !token.includes('$'));
        for (const { addresses } of parseEndpoints(stable.join(' '), family)) {
          for (const address of addresses) {
            if (/(^|\.)0\d/.test(address)) continue;
            for (const { protocol, port } of backends) add(protocol, address, port ?? 0);
          }
        }
      }
    };
    let services: ReadonlyMap<string, ServiceSpec> = this.services;
    for (const spec of services.values()) addService(spec);
    for (const step of this.test.steps) {
      if (step.change !== undefined) {
        services = patchServices(services, step.change);
        for (const spec of services.values()) addService(spec);
      }
      if (step.send === undefined) continue;
      const before = this.services;
      this.services = new Map(services);
      const packet = this.resolve(parsePacket(step.send));
      this.services = before;
      add(packet.protocol, packet.target, packet.port);
    }
    return [...sockets.values()];
  }

  // --- packets

  private firstService(): [string, ServiceSpec] {
    const first = [...this.services][0] ?? [...this.test.services][0];
    if (first === undefined) throw new RowFailure('the row has no service');
    return first;
  }

  private resolve(spec: PacketSpec): Packet {
    const family = this.test.family;
    const firstActor = findActor(spec.from[0] ?? '');
    if (firstActor === undefined) throw new RowFailure(`nobody is called ${spec.from[0] ?? ''}`);
    const { target, port } = this.resolveTarget(spec, family);
    const targetFamily = familyOf(target);
    const addressed = this.servicePort(target, port, spec.protocol);
    const services = [...this.services.values()];
    const protocol =
      spec.protocol ??
      addressed?.protocol ??
      (services[0] === undefined ? 'TCP' : portsOf(services[0])[0]?.protocol) ??
      'TCP';
    return {
      place: firstActor.place,
      sources: spec.from.map((name) => findActor(name)![targetFamily]),
      target,
      port,
      protocol,
      family: targetFamily,
      backendPort: addressed?.target,
    };
  }

  private resolveTarget(spec: PacketSpec, family: Family): { target: string; port: number } {
    if (spec.kind === 'literal') {
      const actor = findActor(spec.address);
      return { target: actor?.[family] ?? spec.address, port: spec.port ?? (actor === undefined ? 0 : 9000) };
    }
    const [, service] =
      spec.service === ''
        ? this.firstService()
        : [spec.service, this.services.get(spec.service) ?? this.test.services.get(spec.service)];
    if (service === undefined) throw new RowFailure(`the row has no service ${spec.service}`);
    const ports = portsOf(service);
    if (spec.kind === 'NP') {
      return {
        target: nodeTarget(family),
        port: spec.port ?? ports.find(({ nodePort }) => nodePort !== 0)?.nodePort ?? 0,
      };
    }
    const addresses = { CIP: service.cip, VIP: service.vip, XIP: service.xip }[spec.kind] ?? [];
    const address = (addresses[spec.ordinal - 1] ?? '').trim().split(' ')[0] ?? '';
    if (address === '') throw new RowFailure(`the service has no ${spec.kind}`);
    return { target: address, port: spec.port ?? ports[0]?.port ?? 0 };
  }

  /** The service port at an address, to know its backend port. */
  private servicePort(
    target: string,
    port: number,
    protocol: string | undefined,
  ): { target: number; protocol: 'TCP' | 'UDP' | 'SCTP' } | undefined {
    for (const spec of this.services.values()) {
      const own = [...(spec.cip ?? []), ...(spec.vip ?? []), ...(spec.xip ?? [])]
        .map((text) => text.trim().split(' ')[0] ?? '')
        .some((address) => /^[0-9a-f.:]+$/.test(address) && sameAddress(address, target));
      const found = portsOf(spec).find(
        (entry) =>
          (protocol === undefined || entry.protocol === protocol) &&
          ((own && entry.port === port) ||
            (this.lab.isAlder(target) && entry.nodePort === port && port !== 0)),
      );
      if (found !== undefined) return found;
    }
    return undefined;
  }

  private probe(packet: Packet, source: string, timeout: number): Probe {
    return {
      protocol: packet.protocol as Protocol,
      source,
      sourcePort: 0,
      target: packet.target,
      port: packet.port,
      timeout,
    };
  }

  private circumstances(packet: Packet): Circumstances {
    return {
      target: packet.target,
      port: packet.port,
      targetPlace: this.lab.placeOf(packet.target),
      backendPort: packet.backendPort,
      isAlder: (address) => this.lab.isAlder(address),
    };
  }

  private async observe(packet: Packet, step: Step, outcome: Outcome): Promise<readonly Observation[]> {
    const agent = this.lab.topology.agent(packet.place);
    const patience =
      outcome.kind === 'DROP'
        ? silence(packet.protocol, packet.target)
        : outcome.kind === 'REJECT'
          ? refusalPatience
          : answerPatience;
    if (packet.protocol === 'ICMP') {
      const answer = await agent.request({
        op: 'echo',
        source: packet.sources[0] ?? '',
        target: packet.target,
        timeout: patience,
      });
      const result: ProbeResult =
        answer === 'answered'
          ? {
              kind: 'answered',
              place: this.lab.placeOf(packet.target),
              by: `${packet.target} ${packet.port}`,
              saw: `${packet.sources[0] ?? ''} 0`,
            }
          : { kind: answer };
      return [{ source: packet.sources[0] ?? '', result, count: 1 }];
    }
    const ask = async (sources: readonly string[]): Promise<Observation[]> => {
      const results = await agent.request({
        op: 'probe',
        probes: sources.map((source) => this.probe(packet, source, patience)),
      });
      return results.map((result, index) => ({ source: sources[index] ?? '', result, count: 1 }));
    };
    if (outcome.kind === 'REJECT' || outcome.kind === 'DROP' || outcome.kind === 'PASS') {
      return ask(repeat(packet.sources, step.connections ?? 3 * packet.sources.length));
    }
    if (outcome.kind === 'compared' || outcome.quantity === 'one' || packet.sources.length > 1) {
      // The first connection of each client alone: what follows must find it remembered.
      const count = step.connections ?? packet.sources.length;
      const first = await ask(packet.sources);
      const more = count - packet.sources.length;
      return more > 0 ? [...first, ...(await ask(repeat(packet.sources, more)))] : first;
    }
    const source = packet.sources[0] ?? '';
    if (step.connections !== undefined) {
      const tallies = await agent.request({
        op: 'tally',
        probe: this.probe(packet, source, patience),
        sources: [],
        count: step.connections,
        concurrency: 24,
      });
      return tallies.map(({ result, count }) => ({ source, result, count }));
    }
    const observations = await ask(repeat([source], leastConnections));
    while (observations.length < mostConnections) {
      const problem = judge(outcome, observations, this.circumstances(packet), undefined);
      if (problem?.startsWith('never reached') !== true) break;
      observations.push(...(await ask(repeat([source], leastConnections))));
    }
    return observations;
  }

  private async send(step: Step, text: string): Promise<void> {
    const expected = expectationOf(step, this.expectations);
    if (expected === undefined) throw new RowFailure(`no expectation for ${text}`);
    const packet = this.resolve(parsePacket(text));
    const outcome = parseOutcome(this.substitute(expected), packet.family);
    if (outcome.kind === 'endpoints' && outcome.quantity === 'arrives') {
      await this.sendAndRecord(packet, outcome, text, expected);
      return;
    }
    const deadline = Date.now() + patiently((step.within ?? 0) * 1000);
    const settling = Date.now() + this.settling(outcome);
    let mayBeLoad = step.within === undefined && (outcome.kind === 'endpoints' || outcome.kind === 'PASS');
    // Outside mode nftables what the state before refused goes 100 ms later (docs/iptables.md).
    let mayLinger = this.expectations.column !== 'nft';
    for (;;) {
      const observations = await this.observe(packet, step, outcome);
      const circumstances = this.circumstances(packet);
      const problem =
        outcome.kind === 'compared'
          ? this.compare(outcome, observations)
          : judge(outcome, observations, circumstances, step.share);
      if (problem === undefined) {
        if (step.as !== undefined) this.remember(step.as, observations);
        return;
      }
      if (mayLinger && outcome.kind !== 'endpoints') {
        mayLinger = false;
        await new Promise((resolve) => setTimeout(resolve, 150));
        continue;
      }
      if (mayBeLoad && observations.some(({ result }) => result.kind === 'silent')) {
        // A machine that is busy elsewhere can be silent for a second. Asked once more, and told if that helped.
        mayBeLoad = false;
        this.notes.push(`${text} was silent at first`);
        await new Promise((resolve) => setTimeout(resolve, 500));
        continue;
      }
      if (Date.now() < settling && observations.some(({ result }) => result.kind === 'refused')) {
        await new Promise((resolve) => setTimeout(resolve, 500));
        continue;
      }
      if (Date.now() >= deadline) {
        throw new RowFailure(
          `${text} (${packet.protocol} to ${packet.target} port ${packet.port}): expected ${expected}, got ${describe(observations, circumstances)} (${problem})`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /**
   * Mode ipvs keeps the address of a former Service until IPVS has forgotten its connections, and refuses new ones
   * meanwhile (docs/ipvs.md): how long that may take, where something else is expected. Milliseconds.
   */
  private settling(outcome: Outcome): number {
    const isFree = outcome.kind === 'PASS' || outcome.kind === 'DROP';
    return isFree && this.expectations.column === 'ipvs' ? forgetsConnections : 0;
  }

  /** For packets that nobody answers: only the arrival at the endpoint is asserted. */
  private async sendAndRecord(
    packet: Packet,
    outcome: Extract<Outcome, { kind: 'endpoints' }>,
    text: string,
    expected: string,
  ): Promise<void> {
    const { topology } = this.lab;
    const agent = topology.agent(packet.place);
    const source = packet.sources[0] ?? '';
    await topology.forgetArrivals();
    for (let attempt = 0; attempt < 6; attempt++) {
      if (packet.protocol === 'SCTP') {
        await agent.request({ op: 'sctp-init', source, target: packet.target, port: packet.port });
      } else {
        const [result] = await agent.request({
          op: 'probe',
          probes: [this.probe(packet, source, arrivalPatience)],
        });
        if (result?.kind === 'answered') {
          throw new RowFailure(`${text}: expected ${expected}, but it was answered by ${result.by}`);
        }
      }
    }
    await new Promise((resolve) => setTimeout(resolve, patiently(50)));
    const arrivals = [
      ...(await topology.arrivals('local-pods')),
      ...(await topology.arrivals('remote-pods')),
    ];
    for (const endpoint of outcome.endpoints) {
      const port = endpoint.port ?? packet.backendPort;
      const arrived = arrivals.filter(
        (one) => sameAddress(one.target, endpoint.address) && one.port === port,
      );
      const right = arrived.some((one) =>
        endpoint.source === 'masq' ? this.lab.isAlder(one.source) : sameAddress(one.source, source),
      );
      if (!right) {
        const seen = arrivals.map((one) => `${one.source} -> ${one.target} port ${one.port}`).join(', ');
        throw new RowFailure(`${text}: expected ${expected}, arrived: ${seen === '' ? 'nothing' : seen}`);
      }
    }
  }

  private remember(name: string, observations: readonly Observation[]): void {
    const reached = new Map<string, string>();
    for (const { source, result } of observations) {
      if (result.kind === 'answered') reached.set(source, addressPart(result.by));
    }
    this.remembered.set(name, reached);
  }

  private compare(
    outcome: Extract<Outcome, { kind: 'compared' }>,
    observations: readonly Observation[],
  ): string | undefined {
    const earlier = this.remembered.get(outcome.with);
    if (earlier === undefined) return `no step was called ${outcome.with}`;
    let same = 0;
    let other = 0;
    for (const { source, result } of observations) {
      if (result.kind !== 'answered') return `no answer for ${source}`;
      if (result.place === 'elsewhere') return 'passed to elsewhere';
      if (addressPart(result.by) === earlier.get(source)) same++;
      else other++;
    }
    if (outcome.how === 'same') return other === 0 ? undefined : `${other} of ${same + other} went elsewhere`;
    if (outcome.how === 'other')
      return same === 0 ? undefined : `${same} of ${same + other} went to the same`;
    return same > 0 && other > 0 ? undefined : `${same} to the same, ${other} to others: not independent`;
  }

  /** `$name` stands for the endpoint that the only client of that step reached. */
  private substitute(text: string): string {
    return text.replace(/\$(\w+)/g, (whole, name: string) => {
      const address = [...(this.remembered.get(name)?.values() ?? [])][0];
      if (address === undefined) return whole;
      return nameOf(address);
    });
  }

  // --- steps

  private async step(step: Step): Promise<void> {
    if (step.hold !== undefined) return this.hold(step, step.hold);
    if (step.steady !== undefined) return this.steady(step, step.steady);
    if (step.send !== undefined) return this.send(step, step.send);
    if (step.again !== undefined) return this.again(step, step.again);
    if (step['steady-end'] !== undefined) return this.steadyEnd(step, step['steady-end']);
    if (step.change !== undefined || step.delete !== undefined) return this.change(step);
    if (step.node !== undefined) return this.lab.changeNode(clusterWith(this.test.cluster, step.node));
    if (step['service-cidrs'] !== undefined) return this.addServiceCidr(step['service-cidrs']);
    if (step.proxy !== undefined) return this.proxy(step.proxy);
    if (step.api !== undefined) return this.api(step.api === 'withhold-slices');
    if (step['alder-addresses'] !== undefined) return this.addAddresses(step['alder-addresses']);
    if (step['alder-rules'] !== undefined) {
      await this.lab.topology.exec('alder', 'nft', ['-f', '-'], step['alder-rules']);
      return;
    }
    if (step['alder-drops'] !== undefined) {
      const hook = step['alder-drops'];
      this.closed.add(hook);
      return closeHook(this.lab.topology, hook, this.expectations.column, true);
    }
    if (step['alder-shows'] !== undefined) return this.alderShows(step['alder-shows']);
    if (step['lock-tables'] !== undefined) return this.lab.lockTables(step['lock-tables']);
    if (step.obstruct !== undefined) return this.obstruct(step.obstruct);
    if (step.occupy !== undefined) return this.occupy(step.occupy, true);
    if (step.vacate !== undefined) return this.occupy(step.vacate, false);
    if (step.get !== undefined) return this.get(step, step.get);
    if (step['every-copy'] !== undefined) return this.everyCopy(step, step['every-copy']);
    if (step.event !== undefined) return this.event(step.event);
    if (step.stray !== undefined) return this.stray(step, step.stray);
    if (step.wait !== undefined) {
      const seconds = step.wait;
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      return;
    }
    throw new RowFailure(`a step without a verb: ${JSON.stringify(step)}`);
  }

  private async change(step: Step): Promise<void> {
    const patches: Record<string, Readonly<Record<string, unknown>> | null> = {};
    for (const [name, patch] of Object.entries(step.change ?? {})) {
      patches[name] =
        patch !== null && typeof patch.eps === 'string'
          ? { ...patch, eps: settleEndpoints(this.substitute(patch.eps)) }
          : patch;
    }
    for (const name of step.delete ?? []) patches[name] = null;
    this.services = patchServices(this.services, patches);
    await this.publish();
    if (step.unsynced !== true) await this.lab.sync();
  }

  private async addServiceCidr(cidrs: readonly string[]): Promise<void> {
    const object = serviceCidrObject(`extra-${this.test.slug}`, cidrs);
    this.objects.set(objectKey(object), object);
    await this.lab.put([object]);
  }

  private async hold(step: Step, name: string): Promise<void> {
    const packet = this.resolve(parsePacket(step.send ?? ''));
    const id = `${this.test.slug}/${name}`;
    this.held.set(id, { place: packet.place, packet });
    const probe = this.probe(packet, packet.sources[0] ?? '', answerPatience);
    const result = await this.lab.topology.agent(packet.place).request({ op: 'hold', id, probe });
    if (result.kind === 'answered') this.held.set(id, { place: packet.place, packet, saw: result.saw });
    this.judgeHeld(step, packet, result);
  }

  private async again(step: Step, name: string): Promise<void> {
    const id = `${this.test.slug}/${name}`;
    const held = this.held.get(id);
    if (held === undefined) throw new RowFailure(`nothing is held as ${name}`);
    const deadline = Date.now() + patiently((step.within ?? 0) * 1000);
    for (;;) {
      const result = await this.lab.topology
        .agent(held.place)
        .request({ op: 'again', id, timeout: patiently(500) });
      try {
        this.judgeHeld(step, held.packet, result);
        const saw = result.kind === 'answered' ? result.saw : result.kind;
        if (step.unbroken === true && saw !== held.saw) {
          throw new RowFailure(`${name} is broken: its server saw ${held.saw ?? 'nothing'}, now ${saw}`);
        }
        return;
      } catch (error) {
        if (Date.now() >= deadline) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  private judgeHeld(step: Step, packet: Packet, result: ProbeResult): void {
    const expected = expectationOf(step, this.expectations);
    if (expected === undefined) return;
    const outcome = parseOutcome(this.substitute(expected), packet.family);
    const observations = [{ source: packet.sources[0] ?? '', result, count: 1 }];
    const circumstances = this.circumstances(packet);
    const problem =
      outcome.kind === 'endpoints'
        ? judge(
            { ...outcome, quantity: 'one' },
            observations,
            { ...circumstances, backendPort: undefined },
            undefined,
          )
        : judge(outcome, observations, circumstances, undefined);
    if (problem !== undefined) {
      throw new RowFailure(
        `${step.send ?? step.again ?? ''}: expected ${expected}, got ${describe(observations, circumstances)} (${problem})`,
      );
    }
    if (step.as !== undefined) this.remember(step.as, observations);
  }

  private async steady(step: Step, name: string): Promise<void> {
    const packet = this.resolve(parsePacket(step.send ?? ''));
    const id = `${this.test.slug}/${name}`;
    this.held.set(id, { place: packet.place, packet });
    const probe = this.probe(packet, packet.sources[0] ?? '', answerPatience);
    await this.lab.topology.agent(packet.place).request({ op: 'steady', id, probe, interval: patiently(4) });
  }

  private async steadyEnd(step: Step, name: string): Promise<void> {
    const id = `${this.test.slug}/${name}`;
    const held = this.held.get(id);
    if (held === undefined) throw new RowFailure(`nothing is steady as ${name}`);
    this.held.delete(id);
    const report = await this.lab.topology.agent(held.place).request({ op: 'steady-end', id });
    const expected = expectationOf(step, this.expectations) ?? '';
    const source = held.packet.sources[0] ?? '';
    const observations = report.tallies.map(({ result, count }) => ({ source, result, count }));
    const circumstances = this.circumstances(held.packet);
    const problem = judge(parseOutcome(expected, held.packet.family), observations, circumstances, undefined);
    if (problem !== undefined) {
      throw new RowFailure(
        `of ${report.attempts} connections without a pause: expected ${expected}, got ${describe(observations, circumstances)} (${problem})`,
      );
    }
  }

  private async proxy(what: 'terminate' | 'kill' | 'start' | 'cleanup'): Promise<void> {
    const { proxy } = this.lab;
    switch (what) {
      case 'terminate':
        return proxy.end('SIGTERM');
      case 'kill':
        return proxy.end('SIGKILL');
      case 'cleanup':
        return proxy.cleanUp(this.lab.mode);
      case 'start':
        proxy.start();
        return;
    }
  }

  private async api(withheld: boolean): Promise<void> {
    if (this.lab.source.withholdSlices === undefined) {
      throw new RowFailure(
        'this object source cannot withhold EndpointSlices; run the row with --source api',
      );
    }
    await this.lab.source.withholdSlices(withheld);
    if (!withheld) await this.lab.sync();
  }

  private async addAddresses(addresses: readonly string[]): Promise<void> {
    await this.lab.ownAddresses(addresses, true);
    await this.lab.listen(this.servers());
    await this.lab.sync();
  }

  private async alderShows({ command, matches }: { command: string; matches: string }): Promise<void> {
    const [program = '', ...args] = command.split(' ');
    const output = await this.lab.topology.exec('alder', program, args);
    if (!new RegExp(matches).test(output))
      throw new RowFailure(`${command} shows no /${matches}/ but: ${output.trim()}`);
  }

  /**
   * Puts an element into the proxy's map of service addresses, with a value that the proxy would never give it: a plain
   * add of the same key then fails. The map's name is upstream's; the value is a verdict there, a number here.
   */
  private async obstruct(target: string): Promise<void> {
    const packet = this.resolve(parsePacket(`PA -> ${target}`));
    const family = packet.family === 'v4' ? 'ip' : 'ip6';
    const key = `${packet.target} . ${packet.protocol.toLowerCase()} . ${packet.port}`;
    const add = (value: string): Promise<string> =>
      this.lab.topology.exec('alder', 'nft', [
        'add',
        'element',
        family,
        'kube-proxy',
        'service-ips',
        `{ ${key} : ${value} }`,
      ]);
    await add('drop').catch(() => add('dead:1'));
  }

  private async occupy(target: string, taken: boolean): Promise<void> {
    const { target: address, port } = this.resolveTarget(parsePacket(`PA -> ${target}`), this.test.family);
    const socket: ListenAddress = { protocol: 'TCP', address, port };
    if (taken) this.occupied.push(socket);
    await this.lab.topology.agent('alder').request({ op: taken ? 'listen' : 'unlisten', sockets: [socket] });
    if (!taken) await this.lab.sync();
  }

  private async get(step: Step, url: string): Promise<void> {
    const { hostname, port, pathname } = new URL(url);
    const target = hostname.replace(/[[\]]/g, '');
    const client = findActor(step.from ?? 'XA')!;
    const deadline = Date.now() + patiently((step.within ?? 0) * 1000);
    for (;;) {
      const answer = await this.lab.topology.agent(client.place).request({
        op: 'http',
        method: step.method ?? 'GET',
        source: client[familyOf(target)],
        target,
        port: Number(port),
        path: pathname,
        timeout: patiently(1000),
      });
      const problem = httpProblem(answer, this.answerOf(step));
      if (problem === undefined) return;
      if (Date.now() >= deadline) throw new RowFailure(`${step.method ?? 'GET'} ${url}: ${problem}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  private answerOf({ answer }: Step): HttpExpectation | undefined {
    return typeof answer === 'object' && 'nft' in answer
      ? inColumn(answer, this.expectations.column)
      : answer;
  }

  private async everyCopy(step: Step, name: string): Promise<void> {
    const spec = this.services.get(name);
    if (spec === undefined) throw new RowFailure(`the row has no service ${name}`);
    const first = this.resolve(parsePacket(`PA -> ${name}.CIP`));
    const source = first.sources[0] ?? '';
    const outcome = parseOutcome(expectationOf(step, this.expectations) ?? '', first.family);
    const probes = Array.from({ length: spec.copies ?? 1 }, (_, index) =>
      this.probe({ ...first, target: copyAddress(first.target, index) }, source, answerPatience),
    );
    const results: ProbeResult[] = [];
    for (let from = 0; from < probes.length; from += copiesAtOnce) {
      const some = probes.slice(from, from + copiesAtOnce);
      results.push(...(await this.lab.topology.agent(first.place).request({ op: 'probe', probes: some })));
    }
    for (const [index, result] of results.entries()) {
      const circumstances = this.circumstances({ ...first, target: copyAddress(first.target, index) });
      const observations = [{ source, result, count: 1 }];
      const problem = judge(outcome, observations, circumstances, undefined);
      if (problem !== undefined) {
        throw new RowFailure(
          `copy ${index} at ${circumstances.target}: ${describe(observations, circumstances)} (${problem})`,
        );
      }
    }
  }

  private async event(reason: string): Promise<void> {
    const { source } = this.lab;
    if (source.events === undefined)
      throw new RowFailure('this object source takes no events; run the row with --source api');
    const deadline = Date.now() + patiently(5000);
    while (Date.now() < deadline) {
      if ((await source.events()).some((body) => body.includes(reason))) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new RowFailure(`no event with reason ${reason} was posted`);
  }

  /** Sends a segment outside the window of a held connection, and sees whether it reaches the endpoint. */
  private async stray(step: Step, name: string): Promise<void> {
    const id = `${this.test.slug}/${name}`;
    const held = this.held.get(id);
    if (held === undefined) throw new RowFailure(`nothing is held as ${name}`);
    const { topology } = this.lab;
    await topology.forgetArrivals();
    await topology.agent(held.place).request({ op: 'stray-segment', id });
    await new Promise((resolve) => setTimeout(resolve, patiently(50)));
    const arrivals = [
      ...(await topology.arrivals('local-pods', true)),
      ...(await topology.arrivals('remote-pods', true)),
    ];
    const expected = expectationOf(step, this.expectations);
    if (arrivals.length > 0 !== (expected === 'PASS')) {
      throw new RowFailure(`the stray segment: expected ${expected ?? ''}, ${arrivals.length} arrived`);
    }
  }
}

function clusterWith(cluster: ClusterSpec, change: { zone?: string | null | undefined }): ClusterSpec {
  return change.zone === undefined ? cluster : { ...cluster, zone: change.zone };
}

function nodeTarget(family: Family): string {
  return family === 'v4' ? '100.64.10.11' : '2001:db8:a::11';
}

function repeat(sources: readonly string[], count: number): string[] {
  return Array.from({ length: count }, (_, index) => sources[index % sources.length] ?? '');
}

/** `L1 R1 -L1` is `R1`; `L1 R1 L1~` is `L1~ R1`: later tokens take away or replace earlier ones. */
function settleEndpoints(text: string): string {
  const tokens = new Map<string, string>();
  for (const token of text.split(/\s+/).filter((part) => part !== '')) {
    if (token.startsWith('-')) tokens.delete(token.slice(1));
    else tokens.set(token.replace(/[~x!]?(?:[[<(].*)?$/, ''), token);
  }
  return [...tokens.values()].join(' ');
}

/** Services with `copies`: the same object at consecutive addresses, 10.177.4.0 and up. */
function copies(object: KubeObject, name: string, spec: ServiceSpec): readonly KubeObject[] {
  if (spec.copies === undefined) return [object];
  return Array.from({ length: spec.copies }, (_, index) => {
    const text = JSON.stringify(object).replaceAll(name, `${name}-${index}`);
    const base = spec.cip?.[0] ?? '';
    const address = copyAddress(base, index);
    return JSON.parse(text.replaceAll(`"${base}"`, `"${address}"`)) as KubeObject;
  });
}

function copyAddress(base: string, index: number): string {
  return base.includes(':')
    ? base.replace(/:[0-9a-f]*$/, `:${(0x4000 + index).toString(16)}`)
    : base.replace(/\d+\.\d+$/, `${4 + Math.floor(index / 250)}.${index % 250}`);
}

function httpProblem(
  answer: { status: number; headers: Readonly<Record<string, string>>; body: string } | { error: string },
  expected: HttpExpectation | undefined,
): string | undefined {
  if (expected === undefined) return 'the step says no answer';
  if ('error' in answer)
    return expected === answer.error
      ? undefined
      : `expected ${JSON.stringify(expected)}, got ${answer.error}`;
  if (typeof expected === 'string') return `expected ${expected}, got status ${answer.status}`;
  if (answer.status !== expected.status)
    return `expected status ${expected.status}, got ${answer.status}: ${answer.body}`;
  for (const [name, value] of Object.entries(expected.headers)) {
    if (answer.headers[name.toLowerCase()] !== value) {
      return `header ${name}: expected ${value}, got ${answer.headers[name.toLowerCase()] ?? 'none'}`;
    }
  }
  if (Object.keys(expected.body).length === 0) return undefined;
  const body = JSON.parse(answer.body) as Record<string, unknown>;
  for (const [name, value] of Object.entries(expected.body)) {
    if (body[name] !== value) return `${name}: expected ${String(value)}, got ${String(body[name])}`;
  }
  return undefined;
}
