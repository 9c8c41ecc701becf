/**
 * Runs a credential plugin of a kubeconfig: a program that prints an ExecCredential (client.authentication.k8s.io). It runs in a process
 * group of its own, so that what it started ends with it: at its deadline, at close(), and when this process exits.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { guarded } from '../../../callbacks/guarded.js';
import { isObject } from '../decode/json/fields.js';

export interface ExecPluginOptions {
  readonly command: string;
  readonly args: readonly string[];
  /** The whole environment of the plugin. */
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly deadlineMs: number;
}

export interface PluginCredential {
  readonly token: string | undefined;
  readonly clientCertificate: string | undefined;
  readonly clientKey: string | undefined;
  /** Milliseconds since the epoch; undefined: the plugin did not say. */
  readonly expiresAt: number | undefined;
}

/** Tokens and certificates are a few KiB. */
const maxOutput = 1024 * 1024;
/** Of what it says on standard error only the beginning is of use. */
const maxErrorOutput = 16 * 1024;
/** After the plugin's end something it started may still hold its standard output open. */
const outputGraceMs = 500;

/** Leaders of process groups that run now. */
const running = new Set<number>();

/** SIGKILL: whatever hangs need not be asked. */
function killGroup(leader: number): void {
  try {
    process.kill(-leader, 'SIGKILL');
  } catch {
    // It is gone already.
  }
}

process.on(
  'exit',
  guarded('end credential plugins', () => {
    for (const leader of running) killGroup(leader);
  }),
);

export class ExecPlugin {
  private readonly options: ExecPluginOptions;
  private readonly runs = new Set<(why: string) => void>();
  private closed = false;

  constructor(options: ExecPluginOptions) {
    this.options = options;
  }

  /** @throws Error with one line of text; code ENOENT: there is no such program */
  async run(): Promise<PluginCredential> {
    if (this.closed) throw new Error('ended with kube-proxy');
    return parseCredential(await this.output());
  }

  /** Kills what runs. Nothing runs afterwards. */
  close(): void {
    this.closed = true;
    for (const end of this.runs) end('ended with kube-proxy');
  }

  private output(): Promise<string> {
    const { command, args, env, deadlineMs } = this.options;
    return new Promise((resolve, reject) => {
      // Throws for what can't be a command line. Without descriptors it has neither streams nor a process.
      const child: ChildProcess = spawn(command, args, {
        env,
        detached: true,
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      const { pid } = child;
      if (pid !== undefined) running.add(pid);
      const output = new BoundedOutput();
      const errorOutput = new BoundedOutput();
      const timers: NodeJS.Timeout[] = [];
      let over = false;
      const finish = (failure: Error | undefined): void => {
        if (over) return;
        over = true;
        for (const timer of timers) clearTimeout(timer);
        this.runs.delete(kill);
        if (pid !== undefined) {
          running.delete(pid);
          if (failure !== undefined) killGroup(pid);
        }
        child.stdout?.destroy();
        child.stderr?.destroy();
        if (failure === undefined) resolve(output.text());
        else reject(failure);
      };
      const kill = (why: string): void => {
        finish(new Error(why));
      };
      const ended = guarded('end a credential plugin', () => {
        finish(failureOf(child, errorOutput.text()));
      });
      this.runs.add(kill);
      child.on('error', guarded('run a credential plugin', finish));
      child.on('close', ended);
      const exited = guarded('end a credential plugin', () => {
        timers.push(setTimeout(ended, outputGraceMs));
      });
      child.on('exit', exited);
      const read = guarded('read from a credential plugin', (chunk: Buffer) => {
        if (!output.add(chunk, maxOutput)) kill(`printed more than ${maxOutput / 1024} KiB`);
      });
      child.stdout?.on('data', read);
      const readErrors = guarded('read from a credential plugin', (chunk: Buffer) => {
        errorOutput.add(chunk, maxErrorOutput);
      });
      child.stderr?.on('data', readErrors);
      const expired = guarded('end a credential plugin', () => {
        kill(`no answer in ${deadlineMs / 1000} s`);
      });
      timers.push(setTimeout(expired, deadlineMs));
    });
  }
}

class BoundedOutput {
  private readonly chunks: Buffer[] = [];
  private size = 0;

  /** @returns false when there is too much; what is too much is left out */
  add(chunk: Buffer, max: number): boolean {
    const room = max - this.size;
    if (room > 0) this.chunks.push(chunk.subarray(0, room));
    this.size += Math.min(room, chunk.length);
    return chunk.length <= room;
  }

  text(): string {
    return Buffer.concat(this.chunks).toString('utf8');
  }
}

function failureOf({ exitCode, signalCode }: ChildProcess, errorOutput: string): Error | undefined {
  if (exitCode === 0) return undefined;
  const said = errorOutput.trim().split('\n')[0] ?? '';
  if (said !== '') return new Error(said);
  return new Error(signalCode === null ? `exit status ${exitCode ?? 'unknown'}` : `ended by ${signalCode}`);
}

function parseCredential(output: string): PluginCredential {
  let printed: unknown;
  try {
    printed = JSON.parse(output);
  } catch (error) {
    // Not what the parser says: it quotes the text, which may be a secret.
    throw new Error('printed no JSON', { cause: error });
  }
  const status = isObject(printed) ? printed['status'] : undefined;
  if (!isObject(status)) throw new Error('printed no ExecCredential with a status');
  const text = (name: string): string | undefined => {
    const value = status[name];
    return typeof value === 'string' && value !== '' ? value : undefined;
  };
  const expiresAt = Date.parse(text('expirationTimestamp') ?? '');
  return {
    token: text('token'),
    clientCertificate: text('clientCertificateData'),
    clientKey: text('clientKeyData'),
    expiresAt: Number.isNaN(expiresAt) ? undefined : expiresAt,
  };
}
