/**
 * Inside the machine: the packet cases that need IPVS or SCTP sockets, which the kernels of containers and clouds often
 * lack. A choice of rows that takes minutes, for `make test`; with --all every row, for `make test-ipvs`.
 * Ends as test/conformance/main.ts does: 'N passed, M failed'.
 */
import { spawn } from 'node:child_process';
import { release } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const checkout = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..', '..');

interface Part {
  readonly mode: 'ipvs' | 'nftables' | 'iptables';
  readonly protocols: string;
  /** Rows, as --cases takes them; absent: all. */
  readonly rows?: string;
}

/**
 * Of each section some ten rows, since that many rounds it takes (rows of one address are never sent at the same time), and
 * none that needs the proxy set up in another way.
 */
const choice: readonly Part[] = [
  {
    mode: 'ipvs',
    protocols: 'tcp',
    rows: '1-10,28-39,67-78,91-102,117-128,150-156,173-180,189-198,207-217,255-260,282-292,310-321,331,347-354,362',
  },
  {
    mode: 'ipvs',
    protocols: 'udp,sctp',
    rows: '1-6,67-76,91-94,117-120,150-153,173-178,207-212,282,283,320-328',
  },
  { mode: 'nftables', protocols: 'sctp', rows: '1-6,67-76,173-178,282,283' },
  { mode: 'iptables', protocols: 'sctp', rows: '1-6,67-70,173-175,282' },
];

const all: readonly Part[] = [
  { mode: 'ipvs', protocols: 'tcp' },
  { mode: 'ipvs', protocols: 'udp' },
  { mode: 'ipvs', protocols: 'sctp' },
  { mode: 'nftables', protocols: 'sctp' },
  { mode: 'iptables', protocols: 'sctp' },
];

interface Count {
  readonly passed: number;
  readonly failed: number;
}

/** A part that ends without its closing line is one failure. */
function run({ mode, protocols, rows }: Part): Promise<Count> {
  const program = path.join(checkout, 'dist/test/conformance/main.js');
  const args = ['--program', path.join(checkout, 'bin/kube-proxy'), '--mode', mode];
  args.push('--protocols', protocols, ...(rows === undefined ? [] : ['--cases', rows]));
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [program, ...args], {
      cwd: checkout,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      process.stdout.write(chunk);
    });
    child.on('close', (status) => {
      const [, passed = '0', failed = '0'] = /^(\d+) passed, (\d+) failed$/m.exec(said) ?? [];
      resolve({ passed: Number(passed), failed: Math.max(Number(failed), status === 0 ? 0 : 1) });
    });
  });
}

process.stdout.write(`Linux ${release()}, Node ${process.versions.node}\n`);
const counts: Count[] = [];
const lines: string[] = [];
for (const part of process.argv.includes('--all') ? all : choice) {
  const title = `mode ${part.mode}, ${part.protocols}`;
  process.stdout.write(`\n=== packets, ${title}\n`);
  const started = Date.now();
  const count = await run(part);
  counts.push(count);
  const seconds = ((Date.now() - started) / 1000).toFixed(0);
  lines.push(`${title}: ${count.passed} passed, ${count.failed} failed, ${seconds} s\n`);
}
const sum = (of: (count: Count) => number): number => counts.reduce((total, count) => total + of(count), 0);
const failed = sum((count) => count.failed);
process.stdout.write(`\n${lines.join('')}${sum((count) => count.passed)} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
