/** The story of the demo, chapter by chapter. Every claim it prints is checked on the packets first; a false one ends it. */
import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Display } from './display.js';
import { DemoError } from './errors.js';
import { ManifestFolder, others, service } from './manifests.js';
import { count, draw, percent, type PodView } from './picture.js';
import { now, KubeProxy, type Commit } from './proxy.js';
import { chainCount, exhibits } from './ruleset.js';
import { buildNode, buildSandbox, node, startPod, type Sandbox } from './topology.js';
import { isFair, Traffic, type Tally } from './traffic.js';

const url = `http://${service.ip}`;
const manifests = '/run/manifests';
/** As printed, a line each. */
const proxyArguments = [
  ['--manifests', manifests, '--hostname-override', node.name],
  ['--cluster-cidr', node.podCidr, '--bind-address', node.ip],
  ['--healthz-bind-address', '127.0.0.1:10256'],
  ['--metrics-bind-address', '127.0.0.1:10249'],
  ['--logging-format', 'json', '--v', '2'],
] as const;

/** Long enough to see, and for more than 1,000 requests. */
const watchMs = 2500;
/** How long nobody notices the dead pod. */
const unnoticedMs = 1000;
const withoutProxyMs = 1500;
const frameMs = 100;
/** Reports of the client come a little late: the newest moments are not complete yet. */
const lateMs = 200;
const recentMs = 1000;

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
  /** Failed requests that were started before the kernel knew of the dead pod. */
  private failedInTime = 0;

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
    this.showRules();
    const successor = await this.restartProxy(traffic, proxy);
    await this.growCluster(traffic, folder, successor);
    clearInterval(frames);
    this.display.keepPicture();
    this.showTimings();
    this.end(traffic, started);
  }

  // ---- chapters

  private title(): void {
    const { bold, dim, green } = this.display.colour;
    const address = `${service.ip}:${service.port}`;
    const way = (text: string): string => text.padEnd(54);
    const pod = (fork: string, name: string): string => `${fork}─▶ ${green('●')} ${name}`;
    this.display.say(
      '',
      `  ${bold('kube-proxy-ts')}: real packets, balanced by the kernel, and no cluster needed`,
      '',
      way(`    client ──▶ ${address} ──▶ kernel of ${node.name} ─`) + pod('┬', 'my-app-1'),
      dim(way('               a virtual address')) + pod('├', 'my-app-2'),
      dim(way('               that no machine has')) + pod('└', 'my-app-3'),
    );
  }

  private async buildNetwork(): Promise<Sandbox> {
    this.heading('A node, a client, and three pods with a web server each');
    const start = now();
    buildNode();
    const client = buildSandbox('client', '10.244.0.100');
    for (const number of [1, 2, 3]) await this.startPod(number);
    this.note(`network namespaces of their own, made in ${ms(now() - start)}`);
    return client;
  }

  private writeManifests(): ManifestFolder {
    this.heading(`The Service ${service.name} and its pods, as the cluster would describe them`);
    const folder = new ManifestFolder(manifests);
    folder.putService();
    for (const pod of this.pods) folder.putPod(pod);
    this.note(
      `service.yaml   clusterIP ${service.ip}, port ${service.port} -> ${service.targetPort}, selector app: ${service.name}`,
      ...this.pods.map((pod) => `${pod.name}.yaml  podIP ${pod.ip}, label app: ${service.name}`),
    );
    return folder;
  }

  private async startProxy(): Promise<KubeProxy> {
    this.heading('kube-proxy starts on the node');
    const lines = proxyArguments.map((line) => line.join(' '));
    this.note(...`bin/kube-proxy ${lines.join(' \\\n    ')}`.split('\n'));
    const start = now();
    const proxy = new KubeProxy(proxyArguments.flat(), this.fail);
    const commit = await proxy.nextCommit();
    this.keepTiming(`start: ${service.name}, 3 endpoints`, start, commit);
    this.success(`the Service is in the kernel ${ms(commit.at - start)} after the start of the program`);
    return proxy;
  }

  private async balance(traffic: Traffic): Promise<void> {
    this.heading(`The client asks ${url} again and again`);
    const from = now();
    const tally = await this.watch(traffic, from, watchMs);
    this.expectFlawless(tally);
    this.success(`${count(tally.answered)} requests, none failed, shared evenly:`, this.shares(tally));
  }

  private async losePod(traffic: Traffic, folder: ManifestFolder, proxy: KubeProxy): Promise<void> {
    const pod = this.pods[1];
    if (pod === undefined) throw new DemoError('SETUP_FAILED', 'there is no second pod');
    this.heading(`${pod.name} dies: kill -9 of its server`);
    pod.process.removeAllListeners('exit');
    pod.process.kill('SIGKILL');
    pod.alive = false;
    this.note('nobody has noticed: its share of the connections is refused');
    await sleep(unnoticedMs);
    this.note(`the cluster notices: rm ${pod.name}.yaml`);
    const commit = await this.change(proxy, `${pod.name} removed`, () => {
      folder.removePod(pod);
    });
    const after = await this.watch(traffic, commit.at, watchMs);
    this.failedInTime = traffic.between(0, commit.at).failed;
    this.expectFlawless(after);
    this.success(
      `${count(this.failedInTime)} requests failed before the kernel knew, and none of ${count(after.answered)} after:`,
      this.shares(after),
    );
  }

  private async gainPod(traffic: Traffic, folder: ManifestFolder, proxy: KubeProxy): Promise<void> {
    const number = this.pods.length + 1;
    this.heading(`A new pod takes its place: ${service.name}-${number}`);
    const pod = await this.startPod(number);
    const commit = await this.change(proxy, `${pod.name} added`, () => {
      folder.putPod(pod);
    });
    const tally = await this.watch(traffic, commit.at, watchMs);
    this.expectFlawless(tally);
    this.success(`it takes its share of ${count(tally.answered)} requests, none failed:`, this.shares(tally));
  }

  private showRules(): void {
    const { dim, cyan } = this.display.colour;
    this.heading('What the kernel holds for it, in the order a packet meets it');
    const shown = exhibits();
    if (shown === undefined) {
      this.note('not shown: the command nft is missing (package nftables)');
      return;
    }
    for (const { explanation, command, lines } of shown) {
      this.display.say(
        `    ${explanation}`,
        `      ${dim(`# ${command}`)}`,
        ...lines.flatMap(fold).map((line) => `      ${cyan(line)}`),
      );
    }
  }

  private async restartProxy(traffic: Traffic, proxy: KubeProxy): Promise<KubeProxy> {
    this.heading('kube-proxy itself dies (kill -9), and comes back');
    const killed = now();
    await proxy.kill();
    const without = await this.watch(traffic, killed, withoutProxyMs);
    this.expectFlawless(without);
    this.success(`none of ${count(without.answered)} requests failed without it: the kernel does the work`);
    const start = now();
    const successor = new KubeProxy(proxyArguments.flat(), this.fail);
    const commit = await successor.nextCommit();
    this.keepTiming('restart, nothing to change', start, commit);
    this.expectFlawless(await this.watch(traffic, start, withoutProxyMs));
    if (commit.transactions > 0) {
      throw new DemoError(
        'TRAFFIC_WRONG',
        `the restart wrote ${commit.transactions} transactions, though the kernel held everything already`,
      );
    }
    this.success(`back after ${ms(commit.at - start)}: it read the kernel, found all right, wrote nothing`);
    return successor;
  }

  private async growCluster(traffic: Traffic, folder: ManifestFolder, proxy: KubeProxy): Promise<void> {
    const services = count(others.services);
    const endpoints = count(others.services * others.endpointsEach);
    this.heading(`The cluster grows: ${services} more Services with ${endpoints} endpoints, all at once`);
    const from = now();
    const chainsBefore = chainCount();
    await this.change(proxy, `${services} Services added`, () => {
      folder.putOthers();
    });
    const chains = chainCount();
    if (chainsBefore !== undefined && chains !== undefined) {
      this.note(`the table has ${chains} chains now, and had ${chainsBefore}: Services are elements of maps`);
    }
    const pod = await this.startPod(this.pods.length + 1);
    this.note(`and one more pod: ${pod.name}`);
    const commit = await this.change(proxy, `${pod.name} added among them`, () => {
      folder.putPod(pod);
    });
    const after = await this.watch(traffic, commit.at, watchMs);
    this.expectFlawless(after);
    const meanwhile = traffic.between(from, commit.at);
    this.success(
      `none of ${count(meanwhile.answered)} requests failed meanwhile, and none of ${count(after.answered)} after:`,
      this.shares(after),
    );
  }

  private showTimings(): void {
    const { bold, dim } = this.display.colour;
    this.heading('How long each change took, in milliseconds');
    const row = (change: string, ...columns: readonly string[]): string =>
      `    ${change.padEnd(28)}${columns.map((column) => column.padStart(12)).join('')}`;
    const elements = ({ added, deleted }: Commit): string =>
      added + deleted === 0
        ? 'none'
        : [`+${count(added)}`, `-${count(deleted)}`].filter((n) => n !== '-0').join(' ');
    this.display.say(
      dim(row('', 'elements', 'end to end', 'kube-proxy', 'kernel')),
      ...this.timings.map(
        ({ change, wholeMs, commit }) =>
          row(change, elements(commit), wholeMs.toFixed(1), commit.totalMs.toFixed(1)) +
          bold(commit.kernelMs.toFixed(2).padStart(12)),
      ),
    );
    this.note(
      '',
      'end to end   from the file, or the start of the program, until it is there;',
      '             this waits 20 ms for more files, and reads all of them again',
      'kube-proxy   from the change that was read to the acknowledgement',
      'kernel       inside the kernel',
    );
  }

  private end(traffic: Traffic, started: number): void {
    const total = traffic.between(0, now());
    if (total.failed > this.failedInTime) this.expectNoFailure(total);
    const seconds = Math.round((now() - started) / 1000);
    this.display.say(
      '',
      `  ${count(total.answered)} answers in ${seconds} s; ${count(total.failed)} failures, all before the kernel knew.`,
      '  Nothing is left behind: the namespaces end with this program.',
      '',
    );
  }

  // ---- telling

  private heading(text: string): void {
    const { bold, cyan } = this.display.colour;
    this.display.say('', `  ${cyan(String(++this.chapter))} ${bold(text)}`);
  }

  private note(...lines: readonly string[]): void {
    const { dim } = this.display.colour;
    this.display.say(...lines.map((line) => (line === '' ? '' : dim(`    ${line}`))));
  }

  private success(first: string, ...more: readonly string[]): void {
    const { green } = this.display.colour;
    this.display.say(`    ${green('✔')} ${first}`, ...more.map((line) => `      ${line}`));
  }

  private drawFrames(traffic: Traffic): NodeJS.Timeout {
    return setInterval(() => {
      const until = now() - lateMs;
      const total = traffic.between(0, until);
      const recent = traffic.between(until - recentMs, until);
      if (total.answered + total.failed === 0) return;
      const { lines, plain } = draw(this.display.colour, this.pods, total, recent, recentMs);
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
  private async change(proxy: KubeProxy, what: string, make: () => void): Promise<Commit> {
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
  private async watch(traffic: Traffic, from: number, forMs: number): Promise<Tally> {
    await sleep(forMs);
    const until = now();
    await traffic.settled(until);
    return traffic.between(from, until);
  }

  // ---- checking

  private expectNoFailure(tally: Tally): void {
    if (tally.failed === 0) return;
    const errors = [...tally.errors].map(([error, times]) => `${error} ${times} times`).join(', ');
    throw new DemoError('TRAFFIC_WRONG', `requests failed that should not (${errors})`);
  }

  /** No failure, and each living pod has its share. */
  private expectFlawless(tally: Tally): void {
    this.expectNoFailure(tally);
    const pods = this.living();
    const wrong = (message: string): DemoError => new DemoError('TRAFFIC_WRONG', message);
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

/** Long rules go on in a second line. */
function fold(line: string): string[] {
  return line
    .replaceAll(/(.{1,72})(?:\s|$)/g, '$1\n  ')
    .trimEnd()
    .split('\n');
}

function ms(duration: number): string {
  return `${Math.round(duration)} ms`;
}
