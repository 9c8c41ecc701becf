/**
 * The programs iptables-save and iptables-restore (and their ip6tables twins): this mode's way into the kernel, so that its
 * rules and those of everybody else who uses the same tool fit together. There are two kinds (kind.ts): the node's is used
 * where the kubelet tells which it is and both are installed, otherwise the one that PATH has under the plain name.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { performance } from 'node:perf_hooks';
import { Readable } from 'node:stream';
import { guarded } from '../../../callbacks/guarded.js';
import type { IPFamily } from '../../../model/types.js';
import { IptablesError } from './errors.js';
import { kindInUse, type ToolKind } from './kind.js';
import type { TableName } from '../rules/names.js';

export interface ToolOptions {
  readonly family: IPFamily;
  /** Seconds to wait for the lock of the legacy kind (`-w`). Default 5. */
  readonly lockSeconds?: number;
  /** Milliseconds after which a run is ended. Default two minutes: a million rules take the legacy tool half of one. */
  readonly timeoutMs?: number;
  /** Folders that are searched; default that of the environment. */
  readonly path?: string;
}

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Of the names under which both kinds are installed beside each other. */
const suffixes: Readonly<Record<ToolKind, string>> = { legacy: 'legacy', nf_tables: 'nft' };
const defaultLockSeconds = 5;
const defaultTimeoutMs = 120_000;
const maxErrorText = 2000;
/** Notifications come a little later than the runs that cause them. */
const rememberedRuns = 64;

/** What iptables-save of the nf_tables kind prints in place of a table in which there is a rule that it can't read. */
const incompatible = /(?<=^# )Table .* is incompatible.*$/m;

/** Since 1.6.2 (2018): `-w` of iptables-restore with seconds, MASQUERADE --random-fully. */
const modern = [1, 6, 2] as const;

export class IptablesTool {
  readonly kind: ToolKind;
  /** As printed: '1.8.9'. */
  readonly version: string;
  private readonly isModern: boolean;
  private readonly recentPids: number[] = [];
  /** Milliseconds spent in runs. */
  spentMs = 0;
  /** … and in those of them that write. */
  writingMs = 0;

  private constructor(
    private readonly options: ToolOptions,
    /** The program's name: 'iptables', 'ip6tables-legacy'. */
    private readonly name: string,
    { kind, version }: Program,
    /** The kubelet uses the other kind, which is not installed: its rules and ours do not see each other. */
    readonly differsFrom: ToolKind | undefined,
  ) {
    this.kind = kind;
    this.version = version;
    this.isModern = isAtLeast(version, modern);
  }

  /**
   * Finds the program, and asks it what it is.
   * @throws IptablesError IPTABLES_MISSING
   */
  static async open(options: ToolOptions): Promise<IptablesTool> {
    const name = commandOf(options.family);
    const inUse = await kindInUse(async (family) => {
      const saved = await tryRun(`${commandOf(family)}-legacy-save`, ['-t', 'mangle'], options);
      return saved instanceof IptablesError ? '' : saved.stdout;
    });
    const plain = await askProgram(name, options);
    const isPlain = !(plain instanceof IptablesError);
    if (inUse !== undefined && !(isPlain && plain.kind === inUse)) {
      const otherName = `${name}-${suffixes[inUse]}`;
      const other = await askProgram(otherName, options);
      if (!(other instanceof IptablesError) && other.kind === inUse)
        return new IptablesTool(options, otherName, other, undefined);
    }
    if (!isPlain) throw plain;
    return new IptablesTool(options, name, plain, plain.kind === inUse ? undefined : inUse);
  }

  /** `iptables-restore 1.8.9 (nf_tables)` */
  get description(): string {
    return `${this.restoreName} ${this.version} (${this.kind})`;
  }

  /** Whether a change that the kernel reports for this netlink port was made here: the kernel names ports after processes. */
  isOwnRun(portId: number): boolean {
    return this.recentPids.includes(portId);
  }

  get hasRandomFully(): boolean {
    return this.isModern;
  }

  get family(): IPFamily {
    return this.options.family;
  }

  /**
   * A table as iptables-save prints it.
   * @throws IptablesError; IPTABLES_UNREADABLE when a rule that iptables has not written keeps it from reading the table
   */
  async save(table: TableName): Promise<string> {
    const name = `${this.name}-save`;
    const outcome = await this.run(name, ['-t', table], '');
    if (outcome.status !== 0) throw this.failure(name, outcome, '');
    // It says so in a comment, prints nothing of the table, and ends well.
    const said = this.kind === 'nf_tables' ? incompatible.exec(outcome.stdout)?.[0] : undefined;
    if (said !== undefined) throw new IptablesError('IPTABLES_UNREADABLE', `${name}: ${said}`);
    return outcome.stdout;
  }

  /**
   * Makes the changes of `input`, table by table; each table changes in one step or not at all.
   * @throws IptablesError
   */
  async restore(input: string): Promise<void> {
    const before = this.spentMs;
    const outcome = await this.run(this.restoreName, [...this.waitFlags, '--noflush'], input);
    this.writingMs += this.spentMs - before;
    if (outcome.status !== 0) throw this.failure(this.restoreName, outcome, input);
  }

  /**
   * Chains and their rules as `-S` prints them, in one run for all of them; those beside them are not read.
   * @throws IptablesError when one of them is not there, or can't be read
   */
  async listChains(table: TableName, chains: readonly string[]): Promise<string> {
    const input = [`*${table}`, ...chains.map((chain) => `-S ${chain}`), 'COMMIT', ''].join('\n');
    const outcome = await this.run(this.restoreName, [...this.waitFlags, '--noflush'], input);
    if (outcome.status !== 0) throw this.failure(this.restoreName, outcome, input);
    return outcome.stdout;
  }

  private get restoreName(): string {
    return `${this.name}-restore`;
  }

  private get waitFlags(): string[] {
    return this.isModern ? ['-w', String(this.options.lockSeconds ?? defaultLockSeconds)] : [];
  }

  private async run(name: string, args: readonly string[], input: string): Promise<Outcome> {
    const start = performance.now();
    try {
      return await run(name, args, input, this.options, (pid) => {
        this.recentPids.push(pid);
        if (this.recentPids.length > rememberedRuns) this.recentPids.shift();
      });
    } finally {
      this.spentMs += performance.now() - start;
    }
  }

  private failure(name: string, { status, stderr, stdout }: Outcome, input: string): IptablesError {
    const said = brief(stderr === '' ? stdout : stderr);
    if (/xtables lock|Can't lock/.test(stderr)) {
      return new IptablesError(
        'IPTABLES_LOCKED',
        `another program has held the xtables lock (${process.env['XTABLES_LOCKFILE'] ?? '/run/xtables.lock'}) for more than ${this.options.lockSeconds ?? defaultLockSeconds} s: find it with 'lslocks'; it is tried again`,
      );
    }
    if (/must be root|Permission denied/.test(stderr)) {
      return new IptablesError(
        'IPTABLES_PERMISSION',
        `not permitted to run ${name}: run as root, or give the container the capabilities NET_ADMIN and NET_RAW (${said})`,
      );
    }
    if (/do you need to insmod|Table does not exist|Protocol not supported/.test(stderr)) {
      return new IptablesError(
        'IPTABLES_KERNEL',
        `the kernel lacks what ${name} (${this.kind}) needs: load its modules, or install the other kind of iptables (${said})`,
      );
    }
    const line = /line:? (\d+)/.exec(stderr)?.[1];
    const text = line === undefined ? undefined : input.split('\n')[Number(line) - 1];
    const at = text === 'COMMIT' ? undefined : text;
    return new IptablesError(
      'IPTABLES_REJECTED',
      `${name} ended with status ${status ?? 'none'}: ${said}${at === undefined ? '' : `, in '${at}'`}`,
      undefined,
      at,
    );
  }
}

function commandOf(family: IPFamily): 'iptables' | 'ip6tables' {
  return family === 'IPv4' ? 'iptables' : 'ip6tables';
}

/** What a program says of itself. */
interface Program {
  readonly kind: ToolKind;
  readonly version: string;
}

async function askProgram(command: string, options: ToolOptions): Promise<Program | IptablesError> {
  const name = `${command}-restore`;
  const said = await tryRun(name, ['--version'], options);
  if (said instanceof IptablesError) return said;
  const version = /v(\d+(?:\.\d+)+)/.exec(said.stdout)?.[1];
  if (version === undefined)
    return new IptablesError(
      'IPTABLES_MISSING',
      `${name} --version says no version: ${brief(said.stdout + said.stderr)}`,
    );
  return { kind: said.stdout.includes('nf_tables') ? 'nf_tables' : 'legacy', version };
}

async function tryRun(
  name: string,
  args: readonly string[],
  options: ToolOptions,
): Promise<Outcome | IptablesError> {
  try {
    return await run(name, args, '', options);
  } catch (error) {
    if (error instanceof IptablesError) return error;
    throw error;
  }
}

function isAtLeast(version: string, least: readonly number[]): boolean {
  const parts = version.split('.').map(Number);
  for (const [at, wanted] of least.entries()) {
    const part = parts[at] ?? 0;
    if (part !== wanted) return part > wanted;
  }
  return true;
}

/** One line, for people. */
function brief(text: string): string {
  const hint = /^Try `|^Perhaps iptables or your kernel/;
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !hint.test(line))
    .join('; ')
    .slice(0, maxErrorText);
}

const chunkLength = 1 << 16;

function* chunksOf(text: string): Generator<string> {
  for (let from = 0; from < text.length; from += chunkLength) yield text.slice(from, from + chunkLength);
}

function run(
  name: string,
  args: readonly string[],
  input: string,
  options: ToolOptions,
  onStart?: (pid: number) => void,
): Promise<Outcome> {
  const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
  return new Promise((resolve, reject) => {
    // Without descriptors it has neither streams nor a process.
    const child: ChildProcess = spawn(name, args, {
      stdio: 'pipe',
      env: options.path === undefined ? process.env : { ...process.env, PATH: options.path },
    });
    const { pid } = child;
    if (pid !== undefined) onStart?.(pid);
    let timedOut = false;
    const timer = setTimeout(
      guarded('end a run of iptables', () => {
        timedOut = true;
        child.kill('SIGKILL');
      }),
      timeoutMs,
    );
    child.on(
      'error',
      guarded('run iptables', (error: NodeJS.ErrnoException) => {
        clearTimeout(timer);
        reject(
          new IptablesError(
            'IPTABLES_MISSING',
            error.code === 'ENOENT'
              ? `${name} is not in PATH: install the package iptables, or use --proxy-mode nftables`
              : `cannot run ${name}: ${error.message}`,
            { cause: error },
          ),
        );
      }),
    );
    const output = { stdout: new Array<string>(), stderr: new Array<string>() };
    // All of a long text at once would hold the event loop, here as below.
    for (const name of ['stdout', 'stderr'] as const) {
      const read = guarded('read from iptables', (chunk: string) => output[name].push(chunk));
      child[name]?.setEncoding('utf8').on('data', read);
    }
    child.on(
      'close',
      guarded('end a run of iptables', (status: number | null) => {
        clearTimeout(timer);
        if (timedOut) {
          reject(
            new IptablesError(
              'IPTABLES_TIMEOUT',
              `${name} did not end within ${timeoutMs / 1000} s and was ended: look for a machine under load, or very many rules of others`,
            ),
          );
          return;
        }
        resolve({
          status,
          stdout: output.stdout.join(''),
          stderr: output.stderr.join(''),
        });
      }),
    );
    // A program that ends before it has read everything says why on standard error.
    child.stdin?.on('error', () => undefined);
    if (child.stdin) Readable.from(chunksOf(input)).pipe(child.stdin);
  });
}
