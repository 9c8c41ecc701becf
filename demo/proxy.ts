/** Runs the real program on the node and reads its log, as any operator could. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { DemoError } from './errors.js';

const program = fileURLToPath(new URL('../../bin/kube-proxy', import.meta.url));

/** The log line of a change that the kernel has acknowledged. */
const commitLine = z.object({
  msg: z.enum(['Sync complete', 'Resync complete']),
  family: z.literal('IPv4'),
  /** Milliseconds in the kernel. */
  kernelMs: z.number(),
  /** Milliseconds from the wish to the acknowledgement, inside the program. */
  totalMs: z.number(),
  /** Elements of maps and sets. */
  added: z.number(),
  deleted: z.number(),
  transactions: z.number(),
});

export type Commit = z.infer<typeof commitLine> & {
  /** When we read the line, in milliseconds since the epoch: a little later than the acknowledgement. */
  readonly at: number;
};

const patienceMs = 10_000;
const linesKept = 5;

export const now = (): number => performance.timeOrigin + performance.now();

export class KubeProxy {
  private readonly child: ChildProcess;
  private readonly lastLines: string[] = [];
  private commit: (commit: Commit) => void = () => undefined;
  private expectedToEnd = false;

  /** @param fail called when the program ends by itself */
  constructor(args: readonly string[], fail: (error: DemoError) => void) {
    this.child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.child.once('error', (cause) => {
      fail(new DemoError('PROXY_FAILED', `${program} can not be started: ${cause.message}`, { cause }));
    });
    this.child.once('close', (status, signal) => {
      if (this.expectedToEnd) return;
      fail(
        new DemoError(
          'PROXY_FAILED',
          `kube-proxy ended (${signal ?? `exit status ${status}`})${this.said()}`,
        ),
      );
    });
    if (this.child.stderr === null) throw new DemoError('PROXY_FAILED', 'kube-proxy has no standard error');
    createInterface({ input: this.child.stderr }).on('line', (line) => {
      this.read(line);
    });
  }

  /** The next change that reaches the kernel. Ask before you make the change. */
  async nextCommit(): Promise<Commit> {
    const commit = new Promise<Commit>((resolve) => (this.commit = resolve));
    const deadline = new AbortController();
    const late = sleep(patienceMs, undefined, { signal: deadline.signal }).then(() => {
      throw new DemoError('PROXY_FAILED', `no change reached the kernel within 10 s${this.said()}`);
    });
    try {
      return await Promise.race([commit, late]);
    } finally {
      late.catch(() => undefined);
      deadline.abort();
    }
  }

  /** `kill -9`: no chance to tidy up. */
  async kill(): Promise<void> {
    this.expectedToEnd = true;
    const closed = new Promise((resolve) => this.child.once('close', resolve));
    this.child.kill('SIGKILL');
    await closed;
  }

  private read(line: string): void {
    this.lastLines.push(line);
    if (this.lastLines.length > linesKept) this.lastLines.shift();
    let parsed: unknown;
    try {
      parsed = JSON.parse(line);
    } catch {
      return;
    }
    const result = commitLine.safeParse(parsed);
    if (result.success) this.commit({ ...result.data, at: now() });
  }

  private said(): string {
    return this.lastLines.length === 0 ? '' : `; its last words:\n  ${this.lastLines.join('\n  ')}`;
  }
}
