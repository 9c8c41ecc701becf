/** Runs what README.md shows, each example in a network namespace of its own, and compares what it prints. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '..');
const compiled = join(root, 'dist', 'examples');
const readme = readFileSync(join(root, 'README.md'), 'utf8');

interface Step {
  readonly command: string;
  readonly output: string;
}

interface Example {
  readonly name: string;
  readonly steps: readonly Step[];
}

/** The console block behind each example's code: commands after '$ ', and what they print. */
function examplesOf(text: string): Example[] {
  const pairs = text.matchAll(/^```ts\n\/\/ examples\/(\w+)\.ts\n[^]*?^```\n+```console\n([^]*?)^```$/gm);
  return [...pairs].map(([, name = '', block = '']) => ({
    name,
    steps: block
      .split(/^\$ /m)
      .slice(1)
      .map((step) => {
        const end = step.indexOf('\n');
        return { command: step.slice(0, end), output: step.slice(end + 1) };
      }),
  }));
}

/** All in one namespace, which is gone with the last of them. */
function runIn(namespaceCommands: readonly string[]): readonly string[] {
  const script = namespaceCommands.map((command) => `{ ${command}; } 2>&1; printf '\\1'`).join('\n');
  const environment: NodeJS.ProcessEnv = {
    ...process.env,
    PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`,
  };
  // What an outer test runner would pass on to the example of a test.
  delete environment['NODE_TEST_CONTEXT'];
  const { stdout, error } = spawnSync('unshare', ['--net', 'sh', '-c', `ip link set lo up\n${script}`], {
    cwd: compiled,
    encoding: 'utf8',
    timeout: 30_000,
    env: environment,
  });
  if (error !== undefined) throw error;
  return stdout.split('\x01').slice(0, -1);
}

/** A command that works where the example does, and what is missing otherwise. */
const needs: Readonly<Record<string, readonly [command: string, missing: string]>> = {
  nftables: ['nft list ruleset', 'nft is not installed'],
  conntrack: ['conntrack -C', 'conntrack is not installed'],
  ipvs: ['ipvsadm -L', 'this kernel has no IPVS, or ipvsadm is not installed'],
  ipset: ['ipset list', 'ipset is not installed, or the kernel has none'],
  xtables: ['iptables-legacy -t nat -S', 'this kernel has no iptables (legacy)'],
};

function missing(name: string): string | false {
  if (process.getuid?.() !== 0) return 'needs root: network namespaces can only be made by root';
  const need = needs[name];
  if (need === undefined) return false;
  return runIn([`${need[0]} > /dev/null && echo works`])[0]?.endsWith('works\n') === true ? false : need[1];
}

const examples = examplesOf(readme);

test('every example shows what it prints', () => {
  assert.equal(examples.length, [...readme.matchAll(/^\/\/ examples\//gm)].length);
  for (const { name, steps } of examples) {
    assert.ok(
      steps.some(({ command }) => command.startsWith('node ') && command.includes(`${name}.js`)),
      name,
    );
  }
});

for (const { name, steps } of examples) {
  test(`examples/${name}.ts`, { skip: missing(name) }, () => {
    const outputs = runIn(steps.map(({ command }) => command.replace(/^node /, `'${process.execPath}' `)));
    assert.deepEqual(
      steps.map(({ command }, i) => ({ command, output: outputs[i] })),
      steps,
    );
  });
}
