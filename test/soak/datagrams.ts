/**
 * Exchanges of datagrams that go on from one port for a long time, as those of DNS resolvers and QUIC do. The kernel decides
 * once for each where it goes; what is checked here is that it stays with its endpoint as long as that one serves, and is
 * sent elsewhere when it does not (docs/conntrack.md).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ProbeResult } from '../conformance/protocol.js';
import type { Topology } from '../conformance/topology.js';
import type { Random } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../patience.js';
import { expectedInWords } from './comparison.js';
import { destinationKey, type Destination, type Expectation, type ServicePort } from './expectation.js';
import { clients, describe, type Client } from './clients.js';
import { keyOf } from './world.js';

const most = 16;
const answerMs = patiently(1000);
const silenceMs = patiently(250);
/** Stale flows are looked for beside the sync, at most every second. */
const cleanedMs = patiently(15_000);
/** The kernel forgets a flow after 30 s without a datagram. */
const rememberedMs = 20_000;

interface Flow {
  readonly id: string;
  readonly client: Client;
  readonly to: Destination;
  /** 'namespace/service port' that had the address last time. */
  owner: string;
  /** Who answered last, 'address port'. */
  by: string | undefined;
  askedAt: number;
}

export class Datagrams {
  sent = 0;
  private flows: Flow[] = [];
  private nextId = 1;

  constructor(
    private readonly topology: Topology,
    private readonly random: Random,
    private readonly port: (client: Client) => number,
  ) {}

  get open(): number {
    return this.flows.length;
  }

  /** Begins another one, to some address that is served. */
  async begin(expectation: Expectation): Promise<void> {
    const choices = expectation.ports.filter(({ protocol }) => protocol === 'UDP');
    const port = choices[this.random.below(Math.max(1, choices.length))];
    const to = port?.destinations[this.random.below(port.destinations.length)]?.to;
    if (to === undefined) return;
    const candidates = clients(to.address.includes(':'));
    const client = candidates[this.random.below(candidates.length)];
    const owner = expectation.owners.get(destinationKey(to));
    if (client === undefined || owner === undefined) return;
    if (expectation.of(to, client).kind !== 'translated') return;
    const flow = {
      id: `flow-${this.nextId++}`,
      client,
      to,
      owner: nameOf(owner),
      askedAt: performance.now(),
    };
    const probe = {
      protocol: 'UDP',
      source: client.ownNode ? '' : client.address,
      sourcePort: this.port(client),
      target: to.address,
      port: to.port,
      timeout: answerMs,
    } as const;
    this.sent++;
    const result = await this.topology.agent(client.place).request({ op: 'hold', id: flow.id, probe });
    this.flows.push({ ...flow, by: result.kind === 'answered' ? result.by : undefined });
    if (this.flows.length > most) await this.release(this.flows.slice(0, 1));
  }

  /**
   * Every one says something.
   * @param changed Services, namespace/name, whose endpoints may have gone and come back since the last time
   * @returns what went wrong, in words
   */
  async ask(expectation: Expectation, changed: ReadonlySet<string>): Promise<string[]> {
    // An address that is another's or nobody's now: its flows may stay for a while.
    await this.release(
      this.flows.filter(({ to, owner }) => {
        const now = expectation.owners.get(destinationKey(to));
        return now === undefined || nameOf(now) !== owner;
      }),
    );
    const deadline = performance.now() + cleanedMs;
    let open: readonly Flow[] = this.flows;
    for (;;) {
      const problems = await Promise.all(open.map((flow) => this.askOne(flow, expectation, changed)));
      open = open.filter((_, i) => problems[i] !== undefined);
      if (open.length === 0) return [];
      if (performance.now() > deadline) return problems.flatMap((problem) => problem ?? []);
      await sleep(100);
    }
  }

  private async askOne(
    flow: Flow,
    expectation: Expectation,
    changed: ReadonlySet<string>,
  ): Promise<string | undefined> {
    const { id, client, to, by } = flow;
    const expected = expectation.of(to, client);
    const owner = expectation.owners.get(destinationKey(to));
    const timeout = expected.kind === 'translated' ? answerMs : silenceMs;
    this.sent++;
    const result = await this.topology.agent(client.place).request({ op: 'again', id, timeout });
    const serves = owner?.endpoints.some(({ target, serving }) => serving && target === by) === true;
    const fresh = performance.now() - flow.askedAt < rememberedMs;
    const unchanged = owner !== undefined && !changed.has(keyOf(owner.service));
    const mustStay = by !== undefined && serves && fresh && unchanged;
    const answer = result.kind === 'answered' ? result.by : undefined;
    const right = mustStay ? answer === by : isRight(result, by, serves, expected);
    if (!right) {
      return `datagrams of ${client.address} to ${destinationKey(to)}, ${by === undefined ? 'unanswered' : `answered by ${by}`} before: ${describe(result)}, not ${mustStay ? 'as before' : expectedInWords(expected)}`;
    }
    flow.by = answer;
    flow.askedAt = performance.now();
    return undefined;
  }

  private async release(flows: readonly Flow[]): Promise<void> {
    this.flows = this.flows.filter((flow) => !flows.includes(flow));
    for (const { client, id } of flows) {
      await this.topology.agent(client.place).request({ op: 'release', id });
    }
  }
}

function isRight(
  result: ProbeResult,
  by: string | undefined,
  serves: boolean,
  expected: ReturnType<Expectation['of']>,
): boolean {
  if (result.kind === 'answered' && result.by === by && serves) return true;
  if (expected.kind === 'translated')
    return result.kind === 'answered' && expected.endpoints.includes(result.by);
  return result.kind === 'silent' || result.kind === 'refused';
}

function nameOf({ service, portName }: ServicePort): string {
  return `${keyOf(service)} ${portName}`;
}
