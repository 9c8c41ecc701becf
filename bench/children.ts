/** Other processes that a benchmark runs: what they print, what they use, and that none is left behind. */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';

const deadlineMs = 60_000;
/** Clock ticks per second of /proc/PID/stat: USER_HZ, 100 on every architecture that Linux and Node share. */
const ticksPerSecond = 100;

const children = new Set<ChildProcess>();

/** Its output has to be read: see line() and drain(). */
export function start(file: string, args: readonly string[]): ChildProcess {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

export function killAll(): void {
  for (const child of children) child.kill('SIGKILL');
}

/** Waits for a line of a child's output, and keeps reading it afterwards. */
export async function line(child: ChildProcess, from: 'stdout' | 'stderr', wanted: RegExp): Promise<string> {
  const stream = child[from];
  if (stream === null) throw new Error('no output to wait for');
  return await new Promise<string>((resolve, reject) => {
    let rest = '';
    let seen = '';
    const timer = setTimeout(() => {
      reject(new Error(`no line ${String(wanted)} within ${deadlineMs / 1000} s; the output was:\n${seen}`));
    }, deadlineMs);
    child.once('exit', (code) => {
      clearTimeout(timer);
      reject(new Error(`the process ended with ${String(code)}; its output was:\n${seen}`));
    });
    stream.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n');
      rest = lines.pop() ?? '';
      if (seen.length < 4000) seen += chunk.toString();
      const found = lines.find((candidate) => wanted.test(candidate));
      if (found === undefined) return;
      clearTimeout(timer);
      resolve(found);
    });
  });
}

export async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  await new Promise((resolve) => child.once('exit', resolve));
}

/** Value in MiB of a line of /proc/PID/status. */
export function memory(child: ChildProcess, what: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${child.pid ?? 0}/status`, 'utf8');
  const match = new RegExp(`^${what}:\\s+(\\d+) kB`, 'm').exec(status);
  return Number(match?.[1] ?? NaN) / 1024;
}

/** Seconds of processor time, of all its threads, user and system. */
export function processorSeconds(child: ChildProcess): number {
  const stat = readFileSync(`/proc/${child.pid ?? 0}/stat`, 'utf8');
  // Behind the name, which is in parentheses: utime and stime are fields 14 and 15 (proc(5)).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}
