/**
 * `make test-vm`, inside the machine: what depends on the kernel. Tests that are about time or load stay out: they would
 * measure the emulation.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { release } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const checkout = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const dist = path.join(checkout, 'dist');

const kernelTests = [path.join(checkout, 'packages/netlink/dist'), path.join(dist, 'src')].flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.kernel.test.js'))
    .map((name) => path.join(folder, name))
    .sort(),
);

/** Rows 11 and 12 open 22,000 connections for statistics; the other sections differ less from kernel to kernel. */
const cases = '1-10,13-27,30-33,E,F,G,H,J,M,O';

/** With real connections, one file after the other: they count connections, and what is left of closed ones. */
const ipvsTests = readdirSync(path.join(dist, 'test/vm/ipvs'))
  .filter((name) => name.endsWith('.test.js'))
  .map((name) => path.join(dist, 'test/vm/ipvs', name))
  .sort();

const parts: readonly [name: string, args: readonly string[]][] = [
  [
    'kernel tests, and the text of nft',
    [
      '--test',
      '--test-concurrency=2',
      '--test-reporter=spec',
      ...kernelTests,
      path.join(dist, 'test/docs/nftables.test.js'),
    ],
  ],
  ['mode ipvs', ['--test', '--test-concurrency=1', '--test-reporter=spec', ...ipvsTests]],
  [
    'conformance (packets, nftables mode)',
    [
      path.join(dist, 'test/conformance/main.js'),
      ...['--program', path.join(checkout, 'bin/kube-proxy'), '--cases', cases],
    ],
  ],
];

process.stdout.write(`Linux ${release()}, Node ${process.versions.node}\n`);
const failed = parts.filter(([name, args]) => {
  process.stdout.write(`\n=== ${name}\n`);
  return spawnSync(process.execPath, args, { cwd: checkout, stdio: 'inherit' }).status !== 0;
});
for (const [name] of failed) process.stdout.write(`failed: ${name}\n`);
process.exitCode = failed.length === 0 ? 0 : 1;
