/**
 * Asks by real connections: who answers at an address, from where the question seems to come, or that it is refused or
 * dropped. Long connections are held over many steps.
 */
import { nodeAddress } from '../conformance/addresses.js';
import type { Place } from '../conformance/addresses.js';
import type { Probe, ProbeResult } from '../conformance/protocol.js';
import type { Topology } from '../conformance/topology.js';
import type { Random } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../patience.js';
import { clients, describe, type Client } from './clients.js';
import { expectedInWords } from './comparison.js';
import {
  destinationKey,
  type Destination,
  type Expectation,
  type Expected,
  type ServicePort,
} from './expectation.js';

/** An answer may take long on a busy machine; a drop is known by silence, and waiting for more proves no more. */
const answerMs = patiently(5000);
const silenceMs = patiently(250);

interface Question {
  readonly client: Client;
  readonly to: Destination;
  readonly expected: Expected;
  /** Answers that came, 'address port'. */
  readonly answers: Set<string>;
  /** Clients are remembered, … */
  readonly affinity: boolean;
  /** … and get the same answer every time. */
  readonly sticky: boolean;
}

interface Held {
  readonly id: string;
  readonly place: Place;
  readonly what: string;
  readonly by: string;
  readonly saw: string;
}

export class Packets {
  /** Connections made and datagrams sent. */
  sent = 0;
  private nextId = 1;
  private held: Held[] = [];
  private readonly nextPort = new Map<string, number>();

  constructor(
    private readonly topology: Topology,
    private readonly random: Random,
  ) {}

  /**
   * Every address of these service ports, from two clients each.
   * @param thorough until every endpoint has answered that should
   * @returns what went wrong, in words
   */
  async ask(expectation: Expectation, ports: readonly ServicePort[], thorough: boolean): Promise<string[]> {
    const questions: Question[] = [];
    const add = (to: Destination): void => {
      const choice = [...clients(to.address.includes(':'))];
      for (let i = 0; i < 2; i++) {
        const [client] = choice.splice(this.random.below(choice.length), 1);
        if (client === undefined) continue;
        const expected = expectation.of(to, client);
        const affinity = hasAffinity(expectation, to);
        const sticky = affinity && choosesAlike(expectation, to, client);
        questions.push({ client, to, expected, answers: new Set(), affinity, sticky });
      }
    };
    for (const { destinations } of ports) {
      for (const { to, kind } of destinations) {
        add(to);
        if (kind === 'cluster IP' && this.random.below(4) === 0) add({ ...to, protocol: 'TCP', port: 9 });
      }
    }
    const problems = await this.round(questions, 1);
    // Two at the same moment may both be the first of their client; from now on it has its endpoint.
    for (const { sticky, answers } of questions) if (sticky) answers.clear();
    problems.push(...(await this.round(questions, 3)));
    for (let rounds = 0; thorough && rounds < 40; rounds++) {
      const open = questions.filter(
        ({ expected, answers, affinity }) =>
          expected.kind === 'translated' && !affinity && answers.size < expected.endpoints.length,
      );
      if (open.length === 0) break;
      problems.push(...(await this.round(open, 6)));
      if (rounds < 39) continue;
      for (const { to, client, expected, answers } of open) {
        problems.push(
          `${client.address} to ${destinationKey(to)}: only ${[...answers].join(', ')} answer, of ${expectedInWords(expected)}`,
        );
      }
    }
    return problems;
  }

  private async round(questions: readonly Question[], times: number): Promise<string[]> {
    const byPlace = new Map<Place, { readonly question: Question; readonly probe: Probe }[]>();
    for (const question of questions) {
      // Silence is the same every time.
      const count = question.expected.kind === 'translated' ? times : times === 1 ? 1 : 0;
      for (let i = 0; i < count; i++) {
        const { place } = question.client;
        const asked = byPlace.get(place) ?? [];
        asked.push({ question, probe: this.probe(question.client, question.to, question.expected) });
        byPlace.set(place, asked);
      }
    }
    const problems: string[] = [];
    await Promise.all(
      [...byPlace].map(async ([place, asked]) => {
        // Not all at once, for their sake who answer.
        for (let first = 0; first < asked.length; first += 100) {
          const some = asked.slice(first, first + 100);
          const probes = some.map(({ probe }) => probe);
          this.sent += probes.length;
          const results = await this.topology.agent(place).request({ op: 'probe', probes });
          for (const [i, { question }] of some.entries()) {
            const problem = judge(question, results[i]);
            if (problem !== undefined) problems.push(problem);
          }
        }
      }),
    );
    return problems;
  }

  private probe(client: Client, to: Destination, expected: Expected): Probe {
    return {
      protocol: to.protocol,
      source: client.ownNode ? '' : client.address,
      sourcePort: this.port(client),
      target: to.address,
      port: to.port,
      timeout: expected.kind === 'dropped' ? silenceMs : answerMs,
    };
  }

  /** In turn, so that no packet meets what connection tracking remembers of an older one. */
  port({ address, ownNode }: Client): number {
    // On the node the program listens below that, from 30000 on are node ports, then those that the kernel chooses.
    const [first, end] = ownNode ? [11_000, 29_999] : [3_000, 65_000];
    // A port of the node is the same one in both families.
    const whose = ownNode ? 'own' : address;
    const port = this.nextPort.get(whose) ?? first;
    this.nextPort.set(whose, port + 1 >= end ? first : port + 1);
    return port;
  }

  /** Opens a TCP connection to some address that is served, to be kept. */
  async hold(expectation: Expectation): Promise<void> {
    const choices = expectation.ports.filter(({ protocol }) => protocol === 'TCP');
    const port = choices[this.random.below(Math.max(1, choices.length))];
    const to = port?.destinations[this.random.below(port.destinations.length)]?.to;
    if (to === undefined) return;
    const candidates = clients(to.address.includes(':'));
    const client = candidates[this.random.below(candidates.length)];
    if (client === undefined) return;
    const expected = expectation.of(to, client);
    if (expected.kind !== 'translated') return;
    const id = `held-${this.nextId++}`;
    const { place } = client;
    const probe = this.probe(client, to, expected);
    this.sent++;
    const result = await this.topology.agent(place).request({ op: 'hold', id, probe });
    // Whether that is right is asked elsewhere.
    if (result.kind !== 'answered') return;
    const what = `${client.address}:${probe.sourcePort} to ${destinationKey(to)}`;
    this.held.push({ id, place, what, by: result.by, saw: result.saw });
    const oldest = this.held.length > 24 ? this.held.shift() : undefined;
    if (oldest !== undefined)
      await this.topology.agent(oldest.place).request({ op: 'release', id: oldest.id });
  }

  get holding(): number {
    return this.held.length;
  }

  /** All that are held must still get their answers, from the same endpoint. @returns what went wrong, in words */
  async askHeld(): Promise<string[]> {
    const problems = await Promise.all(
      this.held.map(async ({ id, place, what, by, saw }) => {
        const result = await this.topology.agent(place).request({ op: 'again', id, timeout: answerMs });
        const same = result.kind === 'answered' && result.by === by && result.saw === saw;
        return same ? [] : [`a connection that was up, ${what}, answered by ${by}: ${describe(result)}`];
      }),
    );
    this.held = problems.some((some) => some.length > 0) ? [] : this.held;
    return problems.flat();
  }

  /** New connections again and again, until endSteady(). */
  async startSteady(targets: readonly Destination[]): Promise<void> {
    for (const [index, to] of targets.entries()) {
      const client = clients(to.address.includes(':'))[1 + (index % 2)];
      if (client === undefined) continue;
      const { place, address: source } = client;
      const probe = {
        protocol: to.protocol,
        source,
        sourcePort: 0,
        target: to.address,
        port: to.port,
        timeout: answerMs,
      };
      const request = { op: 'steady', id: `steady-${index}`, probe, interval: 15 } as const;
      await this.topology.agent(place).request(request);
    }
  }

  /** @returns answers that were none, in words */
  async endSteady(targets: readonly Destination[]): Promise<string[]> {
    const problems: string[] = [];
    for (const [index, to] of targets.entries()) {
      const client = clients(to.address.includes(':'))[1 + (index % 2)];
      if (client === undefined) continue;
      const report = await this.topology
        .agent(client.place)
        .request({ op: 'steady-end', id: `steady-${index}` });
      this.sent += report.attempts;
      for (const { result, count } of report.tallies) {
        if (result.kind === 'answered' && result.place.endsWith('-pods')) continue;
        problems.push(
          `${count} of ${report.attempts} connections from ${client.address} to ${destinationKey(to)}: ${describe(result)}`,
        );
      }
    }
    return problems;
  }
}

function hasAffinity(expectation: Expectation, to: Destination): boolean {
  return expectation.owners.get(destinationKey(to))?.service.spec.sessionAffinity === 'ClientIP';
}

/** All addresses of a service port share what they remember of a client; here also the endpoints that they choose from. */
function choosesAlike(expectation: Expectation, to: Destination, client: Client): boolean {
  const owner = expectation.owners.get(destinationKey(to));
  const choices = (owner?.destinations ?? []).map((one) => expectation.of(one.to, client));
  return new Set(choices.map((one) => (one.kind === 'translated' ? one.endpoints.join() : ''))).size === 1;
}

function judge(
  { client, to, expected, answers, sticky }: Question,
  result: ProbeResult | undefined,
): string | undefined {
  const wrong = (): string =>
    `${client.address} to ${destinationKey(to)}: ${describe(result)}, not ${expectedInWords(expected)}`;
  switch (expected.kind) {
    case 'dropped':
      return result?.kind === 'silent' ? undefined : wrong();
    case 'rejected':
      return result?.kind === 'refused' ? undefined : wrong();
    case 'passed':
      return result?.kind === 'answered' && result.place === 'elsewhere' ? undefined : wrong();
    case 'translated': {
      if (result?.kind !== 'answered' || !expected.endpoints.includes(result.by)) return wrong();
      answers.add(result.by);
      if (sticky && answers.size > 1)
        return `${wrong()}; and it was to stay with ${[...answers].join(' or ')}`;
      const seen = result.saw.split(' ')[0];
      const own = to.address.includes(':') ? nodeAddress.v6 : nodeAddress.v4;
      return seen === (expected.masqueraded ? own : client.address) ? undefined : wrong();
    }
  }
}
