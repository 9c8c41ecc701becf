/**
 * `make test`: formatter and linter, unit and kernel tests, the pure tests on other Node versions, the packet tests.
 * Prints what it does as it goes, and closes with one line: 'N passed, M failed'.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unavailableStatus } from './vm/machine.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const dist = join(root, 'dist');
/** For the part in the virtual machine; on two processors that do nothing else it takes less than half of it. */
const machineMinutes = 20;
const scratch = mkdtempSync(join(tmpdir(), 'kube-proxy-test-'));

interface Outcome {
  readonly name: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly seconds: number;
  readonly note: string;
}

interface Finished {
  readonly status: number;
  readonly output: string;
}

/** The command that is running: the leader of a process group of its own, so that nothing it started outlives it. */
let leader: number | undefined;

function endRunning(): void {
  if (leader === undefined) return;
  try {
    process.kill(-leader, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.once(signal, () => {
    endRunning();
    process.exit(status);
  });
}

/** Runs a command to its end, its output shown and kept; ended after `minutes`. */
async function run(
  command: string,
  args: readonly string[],
  minutes: number,
  show = true,
): Promise<Finished> {
  return await new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: testEnvironment(),
      detached: true,
    });
    leader = child.pid;
    let output = '';
    const take = (chunk: Buffer): void => {
      output += chunk.toString();
      if (show) process.stdout.write(chunk);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    const timer = setTimeout(() => {
      output += `\nended after ${minutes} minutes\n`;
      endRunning();
    }, minutes * 60_000);
    child.on('error', (error) => {
      clearTimeout(timer);
      resolve({ status: 127, output: `${output}${error.message}\n` });
    });
    child.on('close', (status) => {
      clearTimeout(timer);
      leader = undefined;
      resolve({ status: status ?? 1, output });
    });
  });
}

/** Without what an outer test runner would pass on to inner ones. */
function testEnvironment(): NodeJS.ProcessEnv {
  const environment = { ...process.env };
  delete environment['NODE_TEST_CONTEXT'];
  return { ...environment, PATH: `${environment['PATH'] ?? ''}:/usr/sbin:/sbin` };
}

/** @param compiled what tsc made of `source` */
function findTests(source: string, compiled: string): string[] {
  return (
    readdirSync(compiled, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.test.js'))
      // A compiled test whose source is gone.
      .filter((name) => existsSync(join(source, name.replace(/\.js$/, '.ts'))))
      .map((name) => join(compiled, name))
      .sort()
  );
}

async function timed(name: string, work: () => Promise<Omit<Outcome, 'name' | 'seconds'>>): Promise<Outcome> {
  process.stdout.write(`\n=== ${name}\n`);
  const start = Date.now();
  const outcome = await work();
  return { name, ...outcome, seconds: (Date.now() - start) / 1000 };
}

/** A command that is one test. */
async function check(command: string, args: readonly string[]): Promise<Omit<Outcome, 'name' | 'seconds'>> {
  const { status } = await run(command, args, 10);
  return { passed: status === 0 ? 1 : 0, failed: status === 0 ? 0 : 1, skipped: 0, note: '' };
}

async function nodeTests(node: string, files: readonly string[]): Promise<Omit<Outcome, 'name' | 'seconds'>> {
  const tap = join(scratch, `${Math.random().toString(36).slice(2)}.tap`);
  const args = [
    '--test',
    '--test-concurrency=2',
    '--test-reporter=dot',
    '--test-reporter-destination=stdout',
  ];
  args.push('--test-reporter=tap', `--test-reporter-destination=${tap}`);
  const { status, output } = await run(node, [...args, ...files], 20);
  const report = existsSync(tap) ? readFileSync(tap, 'utf8') : output;
  const count = (what: string): number =>
    Number(new RegExp(`^# ${what} (\\d+)$`, 'm').exec(report)?.[1] ?? 0);
  const failed = count('fail') + count('cancelled');
  if (status !== 0) process.stdout.write(failureLines(report));
  for (const line of skipReasons(report)) process.stdout.write(`skipped: ${line}\n`);
  return {
    passed: count('pass'),
    failed: status === 0 ? failed : Math.max(1, failed),
    skipped: count('skipped'),
    note: '',
  };
}

function failureLines(tap: string): string {
  const blocks = tap.split(/^(?= *(?:not )?ok \d+ )/m).filter((block) => /^ *not ok/.test(block));
  return blocks.map((block) => block.slice(0, 2000)).join('\n');
}

function skipReasons(tap: string): string[] {
  return [...new Set([...tap.matchAll(/# SKIP (.+)$/gm)].map((match) => match[1] ?? ''))];
}

/** The pure tests on another Node; its binary comes from npm. */
async function otherNode(
  major: number,
  files: readonly string[],
): Promise<Omit<Outcome, 'name' | 'seconds'>> {
  const cpu = process.arch;
  const prefix = join(dist, `.node-${major}`);
  const binary = join(prefix, 'node_modules', `node-linux-${cpu}`, 'bin', 'node');
  if (!existsSync(binary)) {
    const args = ['install', '--no-save', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
    await run('npm', [...args, '--prefix', prefix, `node-linux-${cpu}@${major}`], 5, false);
  }
  if (!existsSync(binary)) {
    const note = `Node ${major} could not be had from npm`;
    process.stdout.write(`skipped: ${note}\n`);
    return { passed: 0, failed: 0, skipped: 1, note };
  }
  return await nodeTests(binary, files);
}

function skipped(note: string): Promise<Omit<Outcome, 'name' | 'seconds'>> {
  process.stdout.write(`skipped: ${note}\n`);
  return Promise.resolve({ passed: 0, failed: 0, skipped: 1, note });
}

/** In a namespace of its own: to look is to make the kernel's tables. */
function hasIptables(kind: string): boolean {
  const command = ['--net', `iptables-${kind}`, '-t', 'nat', '-S'];
  return spawnSync('unshare', command, { env: testEnvironment() }).status === 0;
}

/** Less than a minute of what `make soak` does for ten. */
async function soak(): Promise<Omit<Outcome, 'name' | 'seconds'>> {
  if (process.getuid?.() !== 0) return await skipped('the soak needs root: it makes network namespaces');
  const options = ['--minutes', '0.7', '--seed', '1'];
  return await check(process.execPath, [join(dist, 'test', 'soak', 'main.js'), ...options]);
}

async function conformance(
  mode: string,
  ...more: readonly string[]
): Promise<Omit<Outcome, 'name' | 'seconds'>> {
  if (process.getuid?.() !== 0) {
    return await skipped('packet tests need root: they make network namespaces');
  }
  const program = join(root, 'bin', 'kube-proxy');
  const main = join(dist, 'test', 'conformance', 'main.js');
  const { status, output } = await run(
    process.execPath,
    [main, '--program', program, '--mode', mode, ...more],
    25,
  );
  return packetCounts(status, output);
}

/** What needs another kernel than most machines have: test/vm. */
async function inMachine(): Promise<Omit<Outcome, 'name' | 'seconds'>> {
  if (process.getuid?.() !== 0) return await skipped('the virtual machine needs root, to read all files');
  const args = ['--minutes', String(machineMinutes), '--', 'node', join(dist, 'test/vm/packets.js')];
  const { status, output } = await run(
    process.execPath,
    [join(dist, 'test/vm/main.js'), ...args],
    machineMinutes + 5,
  );
  if (status === unavailableStatus) {
    const reason = /^virtual machine: (no .*|the machine is .*|please .*)$/m.exec(output)?.[1];
    return await skipped(reason ?? 'there can be no virtual machine here');
  }
  return packetCounts(status, output);
}

function packetCounts(status: number, output: string): Omit<Outcome, 'name' | 'seconds'> {
  // The last one counts: there may be a line for each part.
  const [, passed, failed] = [...output.matchAll(/^(\d+) passed, (\d+) failed$/gm)].at(-1) ?? [];
  if (passed === undefined) return { passed: 0, failed: 1, skipped: 0, note: 'ended early' };
  return {
    passed: Number(passed),
    failed: Math.max(Number(failed), status === 0 ? 0 : 1),
    skipped: 0,
    note: '',
  };
}

function table(outcomes: readonly Outcome[]): string {
  const width = Math.max(...outcomes.map(({ name }) => name.length));
  const head = `${''.padEnd(width)}   passed   failed  skipped  seconds`;
  const rows = outcomes.map(
    ({ name, passed, failed, skipped, seconds, note }) =>
      `${name.padEnd(width)} ${String(passed).padStart(8)} ${String(failed).padStart(8)} ${String(skipped).padStart(8)} ${seconds.toFixed(1).padStart(8)}  ${note}`,
  );
  return `${[head, ...rows].join('\n')}\n`;
}

async function main(): Promise<number> {
  const bin = (name: string): string => join(root, 'node_modules', '.bin', name);
  const netlink = join(root, 'packages', 'netlink');
  const library = findTests(join(netlink, 'src'), join(netlink, 'dist'));
  const [src = [], demo = [], test = []] = ['src', 'demo', 'test'].map((folder) =>
    findTests(join(root, folder), join(dist, folder)),
  );
  const all = [...library, ...src, ...demo, ...test];
  const pure = [...library, ...src].filter((file) => !file.endsWith('.kernel.test.js'));
  const current = Number(process.versions.node.split('.')[0]);
  const outcomes: Outcome[] = [
    await timed('formatter', () => check(bin('prettier'), ['--check', '--log-level=warn', '.'])),
    await timed('linter and import boundaries', () => check(bin('eslint'), ['.'])),
    await timed(`unit, kernel and process tests (Node ${current})`, () => nodeTests(process.execPath, all)),
  ];
  for (const major of [20, 22, 24].filter((candidate) => candidate !== current)) {
    outcomes.push(await timed(`unit tests on Node ${major}`, () => otherNode(major, pure)));
  }
  outcomes.push(await timed('conformance (packets, nftables mode)', () => conformance('nftables')));
  // What differs is where node ports answer.
  outcomes.push(
    await timed('conformance (packets, no mode configured)', () => conformance('', '--cases', 'H')),
  );
  for (const kind of ['nft', 'legacy']) {
    // The rules of a protocol differ by a word.
    const more = ['--iptables', kind, '--protocols', 'tcp'];
    outcomes.push(
      await timed(`conformance (packets, iptables-${kind})`, () =>
        hasIptables(kind) ? conformance('iptables', ...more) : skipped(`no iptables-${kind} in this kernel`),
      ),
    );
  }

  outcomes.push(await timed('conformance (mode ipvs and SCTP, in a virtual machine)', inMachine));
  outcomes.push(await timed('soak (short)', soak));

  const sum = (of: (outcome: Outcome) => number): number =>
    outcomes.reduce((total, outcome) => total + of(outcome), 0);
  const failed = sum((outcome) => outcome.failed);
  process.stdout.write(
    `\n${table(outcomes)}\n${sum((outcome) => outcome.passed)} passed, ${failed} failed\n`,
  );
  return failed === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
