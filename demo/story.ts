/** The story of the demo, chapter by chapter. Every claim it prints has been checked on the packets; a false one ends it. */
import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Display } from './display.js';
import { DemoError } from './errors.js';
import { ManifestFolder, service } from './manifests.js';
import { count, draw, percent, type PodView } from './picture.js';
import { now, Proxy, type Commit } from './proxy.js';
import { chainCount, exhibits } from './ruleset.js';
import { buildNode, buildSandbox, node, startPod } from './topology.js';
import { isFair, Traffic, type Tally } from './traffic.js';

const url = `http://${service.ip}`;
const proxyArguments = [
  ['--manifests', '/run/manifests'],
  ['--hostname-override', node.name],
  ['--cluster-cidr', node.podCidr],
  ['--bind-address', node.ip],
  ['--healthz-bind-address', '127.0.0.1:10256'],
  ['--metrics-bind-address', '127.0.0.1:10249'],
  ['--logging-format', 'json'],
  ['--v', '2'],
];

/** Long enough to see, and for some 1,500 requests. */
const watchMs = 3000;
/** How long the cluster takes to notice a dead pod, here. */
const unnoticedMs = 700;
const withoutProxyMs = 1500;
const frameMs = 100;

/** A line of the last table. */
interface Timing {
  readonly change: string;
  /** Milliseconds from the manifest, or the start of the program, to the kernel's acknowledgement. */
  readonly wholeMs: number;
  readonly commit: Commit;
}

interface Pod extends PodView {
  readonly process: ChildProcess;
}

/** @throws {DemoError} */
export async function tell(display: Display): Promise<void> {
  let fail: (error: DemoError) => void = () => undefined;
  const trouble = new Promise<never>((_, reject) => (fail = reject));
  await Promise.race([new Story(display, fail).tell(), trouble]);
}

class Story {
  private readonly pods: Pod[] = [];
  private readonly timings: Timing[] = [];
  private chapter = 0;

  constructor(
    private readonly display: Display,
    private readonly fail: (error: DemoError) => void,
  ) {}

  async tell(): Promise<void> {
    const started = now();
    this.title();
    const client = await this.buildNetwork();
    const folder = this.writeManifests();
    const proxy = await this.startProxy();
    const traffic = new Traffic(client, url, this.fail);
    const frames = this.drawFrames(traffic);
    await this.balance(traffic);
    await this.losePod(traffic, folder, proxy);
    await this.gainPod(traffic, folder, proxy);
    await this.restartProxy(traffic, proxy);
    clearInterval(frames);
    this.display.keepPicture();
    this.showRules();
    this.showTimings();
    this.end(traffic, started);
  }

  private title(): void {
    const { bold, dim } = this.display.colour;
    this.display.say(
      '',
      `  ${bold('kube-proxy-ts')}: real packets, balanced by the kernel, without a cluster`,
      '',
      `    client ──▶ ${bold(`${service.ip}:${service.port}`)} ──▶ demo-node ──┬─▶ my-app-1`,
      `    ${dim('a pod      a virtual address, the kernel')}  ├─▶ my-app-2`,
      `    ${dim('           which no machine has')}         └─▶ my-app-3`,
    );
  }

  private async buildNetwork(): Promise<ReturnType<typeof buildSandbox>> {
    this.heading('A node, three pods with a web server each, and a client');
    const start = now();
    buildNode();
    const client = buildSandbox('client', '10.244.0.100');
    await Promise.all([1, 2, 3].map((number) => this.startPod(number)));
    this.pods.sort((a, b) => a.name.localeCompare(b.name));
    this.note(`every one in a network namespace of its own, made in ${ms(now() - start)}`);
    return client;
  }

  private writeManifests(): ManifestFolder {
    this.heading(`The Service ${service.name} and its pods, as the cluster would describe them`);
    const folder = new ManifestFolder('/run/manifests');
    folder.putService();
    for (const pod of this.pods) folder.putPod(pod);
    this.note(
      `service.yaml: clusterIP ${service.ip}, port ${service.port}, targetPort ${service.targetPort}, selector app=${service.name}`,
      ...this.pods.map((pod) => `${pod.name}.yaml: label app=${service.name}, podIP ${pod.ip}`),
    );
    return folder;
  }

  private async startProxy(): Promise<Proxy> {
    this.heading('kube-proxy starts on the node');
    const [first, ...others] = proxyArguments.map((option) => option.join(' '));
    this.note(`bin/kube-proxy ${first ?? ''} \\`);
    for (let at = 0; at < others.length; at += 2) {
      const last = at + 2 >= others.length;
      this.note(`               ${others.slice(at, at + 2).join(' ')}${last ? '' : ' \\'}`);
    }
    const start = now();
    const proxy = new Proxy(proxyArguments.flat(), this.fail);
    const commit = await proxy.nextCommit();
    this.keepTiming(`start, ${service.name} with 3 endpoints`, start, commit);
    this.success(`the Service is in the kernel ${ms(commit.at - start)} after the start of the program`);
    return proxy;
  }

  private async balance(traffic: Traffic): Promise<void> {
    const from = now();
    this.heading(`The client asks ${url}`);
    const tally = await this.watch(traffic, from, watchMs);
    this.expectFlawless(tally, this.living());
    this.success(`${count(tally.answered)} requests, none failed, shared evenly:`, this.shares(tally));
  }

  private async losePod(traffic: Traffic, folder: ManifestFolder, proxy: Proxy): Promise<void> {
    const pod = this.pods[1];
    if (pod === undefined) throw new DemoError('SETUP_FAILED', 'there is no second pod');
    this.heading(`${pod.name} dies: kill -9 of its server`);
    const killed = now();
    pod.process.removeAllListeners('exit');
    pod.process.kill('SIGKILL');
    pod.alive = false;
    await sleep(unnoticedMs);
    this.note(
      'nobody has noticed yet, and connections to it are refused; now the cluster does: rm its manifest',
    );
    const commit = await this.change(proxy, `${pod.name} is gone`, () => {
      folder.removePod(pod);
    });
    const before = await this.watch(traffic, killed, 0, commit.at);
    const after = await this.watch(traffic, commit.at, watchMs);
    this.note(`${count(before.failed)} requests failed before the kernel knew`);
    this.expectFlawless(after, this.living());
    this.success(`${count(after.answered)} requests since then, none failed:`, this.shares(after));
  }

  private async gainPod(traffic: Traffic, folder: ManifestFolder, proxy: Proxy): Promise<void> {
    this.heading('A new pod takes its place: my-app-4');
    const pod = await this.startPod(4);
    const commit = await this.change(proxy, `${pod.name} is new`, () => {
      folder.putPod(pod);
    });
    const tally = await this.watch(traffic, commit.at, watchMs);
    this.expectFlawless(tally, this.living());
    this.success(`${count(tally.answered)} requests since then, none failed:`, this.shares(tally));
  }

  private async restartProxy(traffic: Traffic, proxy: Proxy): Promise<void> {
    this.heading('kube-proxy itself dies (kill -9), and comes back');
    const killed = now();
    await proxy.kill();
    const without = await this.watch(traffic, killed, withoutProxyMs);
    this.expectFlawless(without, this.living());
    this.success(`${count(without.answered)} requests without it, none failed: the kernel does the work`);
    const start = now();
    const commit = await new Proxy(proxyArguments.flat(), this.fail).nextCommit();
    this.keepTiming('restart, nothing to change', start, commit);
    this.expectFlawless(await this.watch(traffic, start, withoutProxyMs), this.living());
    if (commit.transactions > 0) {
      throw new DemoError(
        'TRAFFIC_WRONG',
        `the restart wrote ${commit.transactions} transactions to a kernel that held everything already`,
      );
    }
    this.success('started again: it read the kernel, found everything right, and wrote nothing');
  }

  private showRules(): void {
    const { dim, cyan } = this.display.colour;
    this.heading('What the kernel holds');
    const shown = exhibits();
    if (shown === undefined) {
      this.note('not shown: the command nft is missing (package nftables)');
      return;
    }
    for (const { explanation, command, lines } of shown) {
      this.display.say(
        `    ${explanation}`,
        `      ${dim(`# ${command}`)}`,
        ...lines.map((line) => `      ${cyan(line)}`),
      );
    }
    this.note(`${chainCount() ?? 0} chains in the table: more Services mean more elements, not more chains`);
  }

  private showTimings(): void {
    const { bold, dim } = this.display.colour;
    this.heading('How long each change took, in milliseconds');
    const row = (change: string, ...columns: readonly string[]): string =>
      `    ${change.padEnd(33)}${columns.map((column) => column.padStart(14)).join('')}`;
    this.display.say(
      dim(row('', 'elements', 'end to end', 'inside kernel')),
      ...this.timings.map(({ change, wholeMs, commit }) =>
        row(
          change,
          commit.added + commit.deleted === 0 ? 'none' : `+${commit.added} -${commit.deleted}`,
          wholeMs.toFixed(1),
          bold(commit.kernelMs.toFixed(2).padStart(14)),
        ),
      ),
    );
    this.note('end to end: from the manifest, or from the start of the program, to the acknowledgement');
  }

  private end(traffic: Traffic, started: number): void {
    const { failed, answered } = traffic.between(0, now());
    this.display.say(
      '',
      `  ${count(answered)} answers, ${count(failed)} failures, all of these before the kernel was told.`,
      `  ${((now() - started) / 1000).toFixed(0)} s; nothing is left behind: the namespaces end with this program.`,
      '',
    );
  }

  // ---- telling

  private heading(text: string): void {
    const { bold, cyan } = this.display.colour;
    this.display.say('', `  ${cyan(String(++this.chapter))} ${bold(text)}`);
  }

  private note(...lines: readonly string[]): void {
    this.display.say(...lines.map((line) => this.display.colour.dim(`    ${line}`)));
  }

  private success(...lines: readonly string[]): void {
    const { green } = this.display.colour;
    this.display.say(...lines.map((line, index) => `    ${index === 0 ? green('✔') : ' '} ${line}`));
  }

  private drawFrames(traffic: Traffic): NodeJS.Timeout {
    // Reports come a little late: the newest moments are not complete yet.
    const recentMs = 1000;
    const lateMs = 200;
    return setInterval(() => {
      const until = now() - lateMs;
      const recent = traffic.between(until - recentMs, until);
      const { lines, plain } = draw(
        this.display.colour,
        this.pods,
        traffic.between(0, until),
        recent,
        recentMs,
      );
      this.display.show(lines, plain);
    }, frameMs);
  }

  private shares(tally: Tally): string {
    return this.living()
      .map((pod) => `${pod} ${percent((tally.answers.get(pod) ?? 0) / tally.answered)}`)
      .join(', ');
  }

  // ---- doing

  private async startPod(number: number): Promise<Pod> {
    const sandbox = buildSandbox(`${service.name}-${number}`, `10.244.0.${10 + number}`);
    const process = await startPod(sandbox, service.targetPort);
    process.once('exit', () => {
      this.fail(new DemoError('SETUP_FAILED', `the server of ${sandbox.name} ended`));
    });
    const pod = { ...sandbox, process, alive: true };
    this.pods.push(pod);
    return pod;
  }

  private living(): string[] {
    return this.pods.filter((pod) => pod.alive).map((pod) => pod.name);
  }

  /** Makes a change and waits until the kernel has it. */
  private async change(proxy: Proxy, what: string, make: () => void): Promise<Commit> {
    const acknowledged = proxy.nextCommit();
    const written = now();
    make();
    const commit = await acknowledged;
    this.keepTiming(what, written, commit);
    this.note(`in the kernel ${ms(commit.at - written)} after the manifest changed`);
    return commit;
  }

  private keepTiming(change: string, start: number, commit: Commit): void {
    this.timings.push({ change, wholeMs: commit.at - start, commit });
  }

  /** Lets time pass, then counts the requests that were started since `from`. */
  private async watch(traffic: Traffic, from: number, forMs: number, to?: number): Promise<Tally> {
    await sleep(forMs);
    const until = to ?? now();
    await traffic.settled(until);
    return traffic.between(from, until);
  }

  private expectFlawless(tally: Tally, pods: readonly string[]): void {
    const wrong = (message: string): DemoError => new DemoError('TRAFFIC_WRONG', message);
    if (tally.failed > 0) {
      const errors = [...tally.errors].map(([error, times]) => `${error} ${times} times`).join(', ');
      throw wrong(`${tally.failed} requests failed that should not (${errors})`);
    }
    for (const pod of tally.answers.keys()) {
      if (!pods.includes(pod)) throw wrong(`${pod} answered, though it is not an endpoint any more`);
    }
    for (const pod of pods) {
      if (!tally.answers.has(pod)) throw wrong(`${pod} is an endpoint and got no request`);
    }
    if (!isFair(tally, pods)) {
      throw wrong(`the requests are not shared evenly: ${this.shares(tally)} of ${tally.answered}`);
    }
  }
}

function ms(duration: number): string {
  return `${Math.round(duration)} ms`;
}
