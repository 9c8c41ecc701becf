/** The program under test as a process on its node: started, ended, its configuration exchanged, its memory read. */
import { spawn, type ChildProcess } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { patiently } from '../patience.js';
import { program } from '../process/node.js';

export interface Settings {
  readonly nodePortAddresses: readonly string[];
  readonly masqueradeAll: boolean;
}

export interface Usage {
  /** Resident memory, MiB. */
  readonly memory: number;
  readonly files: number;
}

export interface ProgramOptions {
  /** Network namespace, a name for `ip netns`. */
  readonly namespace: string;
  readonly nodeName: string;
  /** Holds what belongs to it: kubeconfig-NODE is there already, the rest is made. */
  readonly folder: string;
  readonly clusterCIDR: string;
}

/** Takes descriptors that are closed, see there. */
const hog = fileURLToPath(new URL('../process/descriptor-hog.js', import.meta.url));

export class ProgramProcess {
  readonly log: string;
  /** How often it was started. */
  starts = 0;
  private child: ChildProcess | undefined;
  private readonly configuration: string;
  /** Length of the log when the last process was started. */
  private saidBefore = 0;
  /** Length of the log that news() has told. */
  private told = 0;
  private readonly hogFolder: string;

  constructor(private readonly options: ProgramOptions) {
    this.log = join(options.folder, `${options.nodeName}.log`);
    this.configuration = join(options.folder, `${options.nodeName}.yaml`);
    this.hogFolder = join(options.folder, `${options.nodeName}-hog`);
  }

  /** Written at once, as a ConfigMap's volume would be. A process that runs takes it without being told. */
  configure({ nodePortAddresses, masqueradeAll }: Settings): void {
    const { folder, nodeName, clusterCIDR } = this.options;
    const next = `${this.configuration}.next`;
    writeFileSync(
      next,
      JSON.stringify({
        apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
        kind: 'KubeProxyConfiguration',
        mode: 'nftables',
        clientConnection: { kubeconfig: join(folder, `kubeconfig-${nodeName}`), qps: -1 },
        clusterCIDR,
        nodePortAddresses,
        nftables: { masqueradeAll },
        logging: { verbosity: 2 },
      }),
    );
    renameSync(next, this.configuration);
  }

  start(): void {
    const { namespace, nodeName } = this.options;
    const log = openSync(this.log, 'a');
    this.saidBefore = fstatSync(log).size;
    const options = [`--config=${this.configuration}`, `--hostname-override=${nodeName}`];
    // ip executes the program in its own place: the process is the program's.
    rmSync(this.hogFolder, { recursive: true, force: true });
    mkdirSync(this.hogFolder);
    this.child = spawn('ip', ['netns', 'exec', namespace, program, ...options], {
      stdio: ['ignore', log, log],
      env: { ...process.env, NODE_OPTIONS: `--import=${hog}`, HOG_FOLDER: this.hogFolder },
    });
    closeSync(log);
    this.starts++;
  }

  /** Whether the process that runs has compared the kernel's table of the family since it was started. */
  hasCompared(family: 'IPv4' | 'IPv6'): boolean {
    return this.hasSaid(new RegExp(`"Resync complete" .*family="${family}"`));
  }

  /** Since it was started. */
  hasSaid(what: RegExp): boolean {
    return what.test(readFileSync(this.log, 'utf8').slice(this.saidBefore));
  }

  get running(): boolean {
    return this.child !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** undefined while it runs, and when a signal ended it. */
  get exitCode(): number | undefined {
    return this.child?.exitCode ?? undefined;
  }

  get pid(): number {
    return this.child?.pid ?? 0;
  }

  signal(signal: NodeJS.Signals): void {
    this.child?.kill(signal);
  }

  /** Resolves when it has ended. */
  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const { child } = this;
    if (child === undefined || !this.running) return;
    await new Promise<void>((resolve) => {
      const hard = setTimeout(() => child.kill('SIGKILL'), patiently(10_000));
      child.once('exit', () => {
        clearTimeout(hard);
        resolve();
      });
      child.kill(signal);
    });
  }

  /**
   * Ends it while a hog takes every descriptor that it closes.
   * @returns what is wrong with how it ended, in words
   */
  async stopWithHog(): Promise<string[]> {
    if (!this.running) return [];
    this.signal('SIGUSR2');
    await this.end('SIGTERM');
    const problems = this.exitCode === 0 ? [] : [`exit code ${this.exitCode ?? 'none'}, not 0`];
    for (const file of readdirSync(this.hogFolder)) {
      const content = readFileSync(join(this.hogFolder, file));
      if (content.length > 0)
        problems.push(`used a descriptor after close: ${content.subarray(0, 64).toString('hex')}`);
    }
    return problems;
  }

  /** What it has logged since the last call. */
  news(): string {
    if (!existsSync(this.log)) return '';
    const length = statSync(this.log).size - this.told;
    const text = Buffer.alloc(length);
    const log = openSync(this.log, 'r');
    readSync(log, text, 0, length, this.told);
    closeSync(log);
    this.told += length;
    return text.toString();
  }

  /** undefined when it does not run. */
  usage(): Usage | undefined {
    try {
      const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
      const kib = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
      if (Number.isNaN(kib)) return undefined;
      return { memory: kib / 1024, files: readdirSync(`/proc/${this.pid}/fd`).length };
    } catch {
      return undefined;
    }
  }

  /** Its last words. */
  tail(lines: number): string {
    return readFileSync(this.log, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  }
}
