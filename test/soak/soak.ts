/**
 * The long random test. Each step does something to the cluster, the API server, the kernel or the process, waits until the
 * kernel is right again, and asks by packets.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { CommandError } from '../conformance/commands.js';
import { catalogue } from '../faults/catalogue.js';
import { patiently } from '../patience.js';
import { attackKinds, makeAttack } from './attacks.js';
import type { Destination, ServicePort } from './expectation.js';
import type { Lab } from './lab.js';
import { foreignTables, nodePortChoices, type NodeUnderTest } from './lab.js';
import { Datagrams } from './datagrams.js';
import { Neighbours } from './neighbours.js';
import { Packets } from './packets.js';
import type { Report } from './report.js';
import type { Ruleset } from './ruleset.js';
import { throngOfAddresses, withoutDescriptors } from './scarcity.js';
import { Transactions } from './transactions.js';
import { keyOf, ownerOf, World, type Change } from './world.js';

export interface SoakOptions {
  readonly seed: number;
  readonly seconds: number;
  /** Services that come and go. */
  readonly services: number;
}

/** By then the kernel has to be right, from the last thing that happened. */
const limits = {
  usual: patiently(20_000),
  /** Pauses between tries of a client that was turned away, as docs/resilience.md tells them. */
  trouble: patiently(100_000),
};
/** The API server refused at a start: the program ends, and whoever looks after it starts it again (docs/errors.md). */
const refusals = [5, 6, 7];
const beforeStartingAgainMs = 500;
/** Runs of so many seconds tell about memory, too, … */
export const longSeconds = 300;
/** … when the program has been busy for a while. */
const warmUpMs = 30_000;
/** Without a transaction for so long nothing seems to be under way. */
const quietMs = 60;
/** Faults that last for a minute or more by themselves (docs/resilience.md); test/faults has them. */
const tooLong = new Set([
  'no answer',
  'a body that stops',
  'a streaming list without an end',
  '429 with Retry-After',
  'bookmarks',
]);
const troubleNames = Object.keys(catalogue).filter((name) => !tooLong.has(name));
/** What takes milliseconds in the catalogue of faults takes so many times as long. */
const troubleScale = 10;
/** So long another program is busy. */
const neighbourMs = 1500;
/** So long a program can open nothing. */
const descriptorsMs = 1500;
/** In these steps somebody else changes our tables. */
const violent: ReadonlySet<Kind> = new Set(['attack', 'kill', 'stop']);
/** Only that is a reason for these lines of the log. */
const complaints = /^W.*\b[Aa]nother program/;
/** Repairs soon after one another are put off by the program, more and more. */
const restBetweenAttacksMs = 1500;

/** What a step does, and in how many of a hundred. */
const kinds = [
  { kind: 'changes', share: 35 },
  { kind: 'attack', share: 23 },
  { kind: 'kill', share: 7 },
  { kind: 'trouble', share: 10 },
  { kind: 'configuration', share: 4 },
  { kind: 'burst', share: 6 },
  { kind: 'neighbour', share: 3 },
  { kind: 'addresses', share: 4 },
  { kind: 'descriptors', share: 3 },
  { kind: 'stop', share: 5 },
] as const;
type Kind = (typeof kinds)[number]['kind'];

function draw(random: Random): Kind {
  let dice = random.below(100);
  for (const { kind, share } of kinds) {
    if (dice < share) return kind;
    dice -= share;
  }
  return 'changes';
}

export class Mismatch extends Error {
  readonly code = 'ERR_SOAK_MISMATCH';
}

/** What a step leaves behind for its check. */
interface Done {
  readonly what: string;
  readonly limitMs: number;
  /** Told when alder's kernel is right; undefined: without a transaction. */
  readonly count: (times: Times | undefined) => void;
}

/** performance.now(): when the step began, and the first and last transaction in the kernel. */
interface Times {
  readonly begun: number;
  readonly first: number;
  readonly last: number;
}

export class Soak {
  private readonly random: Random;
  private readonly attacks: Random;
  private readonly world: World;
  private readonly packets: Packets;
  private readonly datagrams: Datagrams;
  private readonly neighbours: Neighbours;
  private readonly transactions: Transactions;
  /** Services that this step changed. */
  private changed = new Set<string>();
  private foreign: string | undefined;
  private lastAttackAt = -Infinity;
  private hasTraffic = false;
  private interrupted = false;

  constructor(
    private readonly lab: Lab,
    private readonly options: SoakOptions,
    private readonly report: Report,
  ) {
    // Each has its own, so that one seed is one story, whatever the kernel holds and however long something takes.
    const [steps, changes, attacks, questions] = [0, 1, 2, 3].map((i) => new Random(options.seed * 4 + i));
    this.random = steps!;
    this.attacks = attacks!;
    this.world = new World(changes!, options.services);
    this.packets = new Packets(lab.topology, questions!);
    this.datagrams = new Datagrams(lab.topology, questions!, (client) => this.packets.port(client));
    this.neighbours = new Neighbours(lab.birch.namespace);
    this.transactions = new Transactions(() => this.neighbours.transactions);
  }

  /**
   * @param progress called after every step
   * @throws Mismatch at the first thing that is wrong; the report has it, too
   */
  async run(progress: () => void): Promise<void> {
    const { report, options } = this;
    await this.write([...this.world.begin()]);
    for (const node of this.nodes) {
      await node.nft(foreignTables);
      node.program.start();
    }
    await this.judge({ what: 'start', limitMs: limits.usual, count: () => undefined }, performance.now());
    if (options.seconds >= longSeconds) await this.warmUp();
    await this.beginTraffic();
    while (report.seconds < options.seconds) {
      await this.step();
      progress();
    }
    await this.endTraffic();
    await this.final();
  }

  /** Ends it soon, with a Mismatch that says so. */
  interrupt(): void {
    this.interrupted = true;
  }

  close(): void {
    this.transactions.close();
    this.neighbours.close();
  }

  private get nodes(): readonly NodeUnderTest[] {
    return [this.lab.alder, this.lab.birch];
  }

  /** So many changes that the program has compiled what it uses often: from then on its memory should stay as it is. */
  private async warmUp(): Promise<void> {
    const begun = performance.now();
    while (performance.now() - begun < warmUpMs) {
      await this.change(3);
      await sleep(15);
    }
    this.report.tell('warmed up');
    await this.judge({ what: 'warm-up', limitMs: limits.usual, count: () => undefined }, begun);
  }

  /** A cluster IP and a load balancer's address of Services that are never touched. */
  private lastingAddresses(): readonly Destination[] {
    const ports = this.lab.alder.expectation(this.world).ports;
    const stays = ports.filter(
      ({ service, protocol }) => service.metadata.namespace === 'stay' && protocol === 'TCP',
    );
    const address = (kind: string, family: string): readonly Destination[] =>
      stays
        .filter((port) => port.family === family)
        .flatMap(({ destinations }) => destinations.filter((one) => one.kind === kind).map(({ to }) => to))
        .slice(0, 1);
    return [...address('cluster IP', 'IPv4'), ...address('load balancer', 'IPv6')];
  }

  private async step(): Promise<void> {
    const { random, report } = this;
    this.changed = new Set();
    report.steps++;
    const begun = performance.now();
    this.transactions.forget();
    // One of each to begin with, so that also a short run has them all.
    const kind = kinds[report.steps - 1]?.kind ?? draw(random);
    let what = `${kind}, broken off`;
    let done: Done;
    for (const { program } of this.nodes) program.news();
    try {
      done = await this.carryOut(kind);
      what = done.what;
    } finally {
      report.tell(`step ${report.steps}: ${what}`);
    }
    await this.judge(done, begun);
    await this.ask();
    for (const { name, program } of this.nodes) {
      if (!program.running) this.mismatches([`the program ended by itself:\n${program.tail(5)}`]);
      const complaint = violent.has(kind)
        ? undefined
        : program
            .news()
            .split('\n')
            .find((line) => complaints.test(line));
      if (complaint !== undefined) this.mismatches([`${name}: nobody has changed its tables: ${complaint}`]);
    }
    const usage = this.lab.birch.program.usage();
    if (usage !== undefined) report.usage.push({ at: report.seconds, ...usage });
  }

  private async carryOut(kind: Kind): Promise<Done> {
    const { random, report } = this;
    const usual = { limitMs: limits.usual };
    const counted = (what: string) => (times: Times | undefined) => {
      this.follow(what, times);
    };
    switch (kind) {
      case 'changes': {
        const what = await this.change(1 + random.below(4));
        return { ...usual, what, count: counted('a few changes') };
      }
      case 'burst': {
        const moves = random.below(2) === 0 ? [...this.world.passOn()] : [];
        const what = await this.change(30 + random.below(90), moves);
        return {
          ...usual,
          what: `burst of ${this.changed.size} Services: ${what.slice(0, 200)}`,
          count: counted('a burst'),
        };
      }
      case 'attack':
        return (await this.attack()) ?? { ...usual, what: 'nothing to attack', count: () => undefined };
      case 'trouble':
        return await this.trouble();
      case 'kill':
        return await this.kill();
      case 'neighbour': {
        const [what] = await Promise.all([this.changeSlowly(), this.neighbour()]);
        return {
          ...usual,
          what: `another program is busy with its own table; ${what}`,
          count: () => undefined,
        };
      }
      case 'addresses': {
        let changes = '';
        await throngOfAddresses(this.lab.alder.namespace, async () => {
          changes = await this.change(1 + random.below(8));
        });
        return { ...usual, what: `a thousand addresses come and go; ${changes}`, count: () => undefined };
      }
      case 'descriptors': {
        const changes = await this.withoutDescriptors();
        return {
          limitMs: limits.trouble,
          what: `no descriptors for a moment; ${changes}`,
          count: () => undefined,
        };
      }
      case 'stop':
        return await this.stop();
      case 'configuration': {
        const choice = nodePortChoices[random.below(nodePortChoices.length)] ?? {
          cidrs: ['primary'],
          ips: [],
        };
        const { masqueradeAll } = this.lab.alder.settings;
        const settings = {
          nodePortAddresses: choice.cidrs,
          nodePortIPs: choice.ips,
          masqueradeAll: random.below(2) === 0 ? !masqueradeAll : masqueradeAll,
        };
        this.lab.alder.configure(settings);
        report.configurations++;
        const what = `configuration ${JSON.stringify(settings)}; ${await this.change(random.below(3))}`;
        return { ...usual, what, count: counted('another configuration') };
      }
    }
  }

  private follow(what: string, times: Times | undefined): void {
    if (times !== undefined) this.report.followed(what, times.last - times.begun);
  }

  /** @returns what was changed, in words */
  private async change(count: number, before: readonly Change[] = []): Promise<string> {
    const changes: Change[] = [...before];
    for (let i = 0; i < count; i++) changes.push(...this.world.change());
    await this.write(changes);
    return changes
      .map((change) =>
        'put' in change
          ? `${change.put.kind} ${change.put.metadata.name}`
          : `no ${change.remove.kind} ${change.remove.key}`,
      )
      .join(', ');
  }

  private async changeSlowly(): Promise<string> {
    const what: string[] = [];
    for (let i = 0; i < 8; i++) {
      what.push(await this.change(1));
      await sleep(neighbourMs / 8);
    }
    return what.join(', ');
  }

  /** Another program changes a table of its own again and again, and takes it away. */
  private async neighbour(): Promise<void> {
    const end = performance.now() + neighbourMs;
    await this.lab.alder.nft('add table inet neighbour\nadd set inet neighbour busy { type ipv4_addr; }\n');
    for (let i = 0; performance.now() < end; i++) {
      await this.lab.alder.nft(
        `add element inet neighbour busy { 192.0.2.${i % 250} }\nflush set inet neighbour busy`,
      );
    }
    await this.lab.alder.nft('delete table inet neighbour');
  }

  private async write(changes: readonly Change[]): Promise<void> {
    for (const change of changes) {
      if (!('put' in change)) this.changed.add(change.remove.key.replace(/-[46][ab]$/, ''));
      else if (change.put.kind === 'Service') this.changed.add(keyOf(change.put));
      else if (change.put.kind === 'EndpointSlice') this.changed.add(ownerOf(change.put));
    }
    this.report.changes += changes.length;
    await this.lab.api.write(changes);
  }

  private async attack(): Promise<Done | undefined> {
    const { random, report } = this;
    const kind = attackKinds[random.below(attackKinds.length)] ?? '';
    const both = random.below(2) === 0;
    const attack = makeAttack(kind, await this.rulesetOf(this.lab.alder), this.attacks);
    if (attack === undefined) return undefined;
    const rest = this.lastAttackAt + restBetweenAttacksMs - performance.now();
    if (rest > 0) await sleep(rest);
    const withChanges = random.below(4) === 0 ? this.change(1 + random.below(3)) : Promise.resolve('');
    if (attack.disturbs) await this.endTraffic();
    const worked = await this.strikeAt(this.lab.alder, attack.script);
    if (both) {
      const own = makeAttack(kind, await this.rulesetOf(this.lab.birch), this.attacks);
      if (own !== undefined) await this.strikeAt(this.lab.birch, own.script);
    }
    this.lastAttackAt = performance.now();
    if (attack.flushesAll) {
      await this.lab.alder.nft(foreignTables);
      if (both) await this.lab.birch.nft(foreignTables);
    }
    const changes = await withChanges;
    return {
      what: `attack${both ? ' on both' : ''}: ${kind}: ${attack.script.slice(0, 300).trim()} ${changes}`,
      limitMs: limits.usual,
      count: (times) => {
        // The first transaction was the attack itself; nothing else may have come in between.
        const alone = changes === '' && times !== undefined && times.last > times.first;
        if (worked) report.repaired(kind, alone ? times.last - times.first : undefined);
        this.lastAttackAt = performance.now();
      },
    };
  }

  private rulesetOf(node: NodeUnderTest): Promise<Ruleset> {
    return this.neighbours.pausedFor(() => node.ruleset());
  }

  /** @returns false when it came too late: what it names has gone meanwhile */
  private async strikeAt(node: NodeUnderTest, script: string): Promise<boolean> {
    try {
      await node.nft(script);
      return true;
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      this.report.tell(`an attack that did not work: ${error.message}`);
      return false;
    }
  }

  private async trouble(): Promise<Done> {
    const { random, report, lab } = this;
    const name = troubleNames[random.below(troubleNames.length)] ?? '';
    const trouble = catalogue[name]?.(random, troubleScale);
    const ways = ['on', 'on', 'refused', 'invalid', 'ignored'];
    await lab.api.set(`streaming-lists=${ways[random.below(ways.length)] ?? 'on'}`);
    report.troubles++;
    if (trouble !== undefined && 'arm' in trouble) {
      await lab.api.arm(trouble.arm, trouble.count, trouble.match);
      // What is armed meets the next requests: there have to be some.
      const causes = [
        { kind: 'cut-watches' },
        { kind: 'cut-connections' },
        { kind: 'compact', expire: true },
      ] as const;
      await lab.api.strike(causes[random.below(causes.length)] ?? causes[0]);
    } else if (trouble !== undefined && 'strike' in trouble) {
      await lab.api.strike(trouble.strike);
    }
    const changes = await this.change(1 + random.below(5));
    const kill = random.below(6) === 0;
    if (kill) await this.restart('SIGKILL', 0);
    return {
      what: `trouble: ${name} ${JSON.stringify(trouble)}${kill ? ', and killed' : ''}; ${changes}`,
      limitMs: limits.trouble,
      count: (times) => {
        this.follow('changes, and the API server in trouble', times);
      },
    };
  }

  private async kill(): Promise<Done> {
    const { random, lab } = this;
    const signal = random.below(3) === 0 ? 'SIGTERM' : 'SIGKILL';
    // Right before it dies, while it is away, or both.
    const before = random.below(2) === 0 ? await this.change(1 + random.below(20)) : '';
    if (before !== '') await sleep(random.below(30));
    await this.restartEnd(signal);
    const during = random.below(3) > 0 ? await this.change(1 + random.below(10)) : '';
    const attacked = random.below(4) === 0;
    let attack: ReturnType<typeof makeAttack>;
    if (attacked) {
      const kind = attackKinds[random.below(attackKinds.length)] ?? '';
      attack = makeAttack(kind, await this.rulesetOf(lab.alder), this.attacks);
      if (attack?.disturbs === true) await this.endTraffic();
      if (attack !== undefined) await this.strikeAt(lab.alder, attack.script);
      if (attack?.flushesAll === true) await lab.alder.nft(foreignTables);
    }
    lab.alder.program.start();
    return {
      what: `${signal}, ${before} | ${during} | ${attack?.kind ?? ''} ${attack?.script.slice(0, 200).trim() ?? ''}`,
      limitMs: limits.usual,
      count: (times) => {
        this.follow('killed and started again, with changes', times);
      },
    };
  }

  /** Both programs can open nothing, and would have to: their connections are cut. */
  private async withoutDescriptors(): Promise<string> {
    const { random, lab } = this;
    const what: string[] = [];
    const pids = this.nodes.map(({ program }) => program.pid);
    const work = async (): Promise<void> => {
      if (random.below(3) > 0) await lab.api.strike({ kind: 'cut-connections' });
      for (let i = 0; i < 5; i++) {
        what.push(await this.change(1 + random.below(4)));
        await sleep(descriptorsMs / 5);
      }
    };
    await pids.reduce<() => Promise<void>>((inner, pid) => () => withoutDescriptors(pid, inner), work)();
    return what.join(', ');
  }

  /** Ended in an orderly way at a random moment, while what it closes is taken by others at once. */
  private async stop(): Promise<Done> {
    const { random, lab, report } = this;
    // SIGHUP: everything is compared.
    const way = ['busy', 'compares', 'starts'][random.below(3)];
    if (way === 'starts') {
      await this.restart('SIGKILL', 0);
      // Before that signals have no handlers.
      while (lab.alder.program.running && !lab.alder.program.hasSaid(/Starting kube-proxy-ts/))
        await sleep(5);
    }
    if (way === 'compares') lab.alder.program.signal('SIGHUP');
    const changes = await this.change(1 + random.below(30));
    await sleep(random.below(way === 'busy' ? 60 : 600));
    const problems = await lab.alder.program.stopWithHog();
    report.kills.SIGTERM++;
    this.mismatches(
      problems.map((problem) => `stopped while it ${way}: ${problem}\n${lab.alder.program.tail(5)}`),
    );
    lab.alder.program.start();
    return {
      limitMs: limits.usual,
      what: `stopped while it ${way}, ${changes}`,
      count: (times) => {
        this.follow('killed and started again, with changes', times);
      },
    };
  }

  private async restart(signal: 'SIGKILL' | 'SIGTERM', pauseMs: number): Promise<void> {
    await this.restartEnd(signal);
    if (pauseMs > 0) await sleep(pauseMs);
    this.lab.alder.program.start();
  }

  private async restartEnd(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    await this.lab.alder.program.end(signal);
    this.report.kills[signal]++;
  }

  /** Waits until both kernels are right, for as long as `done` allows. */
  private async judge(done: Done, begun: number): Promise<void> {
    const deadline = performance.now() + done.limitMs;
    for (const node of this.nodes) {
      for (;;) {
        while (this.transactions.quietSince(begun) < quietMs) await sleep(5);
        await this.lookAfter(node, done);
        if (this.interrupted) this.mismatches(['interrupted']);
        const { differences, foreign } = await this.neighbours.pausedFor(() => node.judge(this.world));
        this.report.comparisons++;
        if (differences.length === 0 && foreign !== undefined) {
          this.foreign ??= foreign;
          if (foreign === this.foreign) break;
          this.mismatches([`${node.name}: the tables of others are not as they were: ${foreign}`]);
        }
        if (performance.now() > deadline) {
          this.mismatches(differences.map((difference) => `${node.name}: ${difference}`));
        }
        await sleep(30);
      }
      if (node === this.lab.alder) {
        const { first, last } = this.transactions;
        done.count(first === undefined || last === undefined ? undefined : { begun, first, last });
        if (first !== undefined && last !== undefined) {
          const after = (time: number): string => (time - begun).toFixed(0);
          this.report.tell(`  transactions from ${after(first)} to ${after(last)} ms`);
        }
      }
    }
    await this.lab.api.heal();
  }

  /** As a kubelet would. */
  private async lookAfter({ name, program }: NodeUnderTest, { limitMs }: Done): Promise<void> {
    if (program.running) return;
    const { exitCode } = program;
    if (exitCode === undefined || !refusals.includes(exitCode) || limitMs !== limits.trouble) {
      this.mismatches([`${name}: the program ended by itself, exit code ${exitCode}:\n${program.tail(5)}`]);
    }
    await sleep(beforeStartingAgainMs);
    program.start();
    this.report.startedAgain++;
  }

  /** New connections to Services that last, all the time: none may fail. */
  private async beginTraffic(): Promise<void> {
    await this.packets.startSteady(this.lastingAddresses());
    this.hasTraffic = true;
  }

  /**
   * Also before what disturbs it: what passes while there are no rules goes astray, and the kernel remembers that for a while.
   */
  private async endTraffic(): Promise<void> {
    if (!this.hasTraffic) return;
    this.hasTraffic = false;
    this.mismatches(await this.packets.endSteady(this.lastingAddresses()));
  }

  private async ask(): Promise<void> {
    const { report, packets } = this;
    const expectation = this.lab.alder.expectation(this.world);
    await this.endTraffic();
    await this.beginTraffic();
    const all = expectation.ports;
    const changed = all.filter(({ service }) => this.changed.has(keyOf(service)));
    const some = new Set<ServicePort>();
    for (let i = 0; i < 8 && changed.length > 0; i++) some.add(changed[this.attacks.below(changed.length)]!);
    for (let i = 0; i < 4 && all.length > 0; i++) some.add(all[this.attacks.below(all.length)]!);
    this.mismatches(await packets.ask(expectation, [...some], report.steps % 10 === 0));
    this.mismatches(await packets.askHeld());
    this.mismatches(await this.datagrams.ask(expectation, this.changed));
    report.held += packets.holding + this.datagrams.open;
    for (let i = 0; i < 2; i++) await packets.hold(expectation);
    await this.datagrams.begin(expectation);
    report.packets = packets.sent + this.datagrams.sent;
  }

  /** Everything once more, and by packets every Service. */
  private async final(): Promise<void> {
    this.report.tell('everything once more');
    await this.judge({ what: 'the end', limitMs: limits.usual, count: () => undefined }, performance.now());
    const expectation = this.lab.alder.expectation(this.world);
    this.mismatches(await this.packets.ask(expectation, expectation.ports, true));
    this.mismatches(await this.packets.askHeld());
    this.report.packets = this.packets.sent + this.datagrams.sent;
  }

  /** @throws Mismatch when there are any */
  private mismatches(problems: readonly string[]): void {
    if (problems.length === 0) return;
    this.report.mismatches.push(...problems);
    throw new Mismatch(problems.slice(0, 20).join('\n'));
  }
}
