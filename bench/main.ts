/**
 * All benchmarks, one after the other, each in a process of its own. Run as root (`make bench`):
 *
 *     node dist/bench/main.js [--quick] [--json FILE] [--docs]
 *     node dist/bench/main.js --from FILE [--docs]
 *
 * --json writes the figures, --from reads them instead of measuring, --docs renews the table and the picture of
 * docs/performance.md. The exit status is 1 when a figure is not what was promised.
 */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { missingNft } from '@kube-proxy-ts/netlink/testing';
import type { DataPathResult } from './data-path.js';
import type { NftPeersResult } from './nft-peers.js';
import type { PipelineResult } from './pipeline.js';
import { plot } from './plot.js';
import type { ProgramResult } from './program.js';
import { machineLine, table, unmet } from './report.js';
import { describeMachine, type Results } from './results.js';
import type { VerdictMapResult } from './verdict-map.js';

/** How the program has itself started: the pipeline in one process is measured under the same conditions. */
const programFlags = readFileSync(new URL('../../bin/kube-proxy', import.meta.url), 'utf8')
  .split('\n', 1)
  .join()
  .split(' ')
  .filter((word) => word.startsWith('--'));
const caseDeadlineMs = 120_000;
const chainServices = 2_000;

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    from: { type: 'string' },
    docs: { type: 'boolean', default: false },
  },
});

/** Runs a script of this folder; its standard output is one JSON object of the shape that the script documents. */
async function run<T>(script: string, ...args: readonly number[]): Promise<T> {
  const name = `${script} ${args.join(' × ')}`;
  const start = performance.now();
  process.stderr.write(`${name} … `);
  const file = fileURLToPath(new URL(`./${script}.js`, import.meta.url));
  const child = spawn(process.execPath, ['--expose-gc', ...programFlags, file, ...args.map(String)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: caseDeadlineMs,
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const status = await new Promise<number | null>((resolve) => child.once('close', resolve));
  if (status !== 0) throw new Error(`${name} failed`);
  process.stderr.write(`${((performance.now() - start) / 1000).toFixed(1)} s\n`);
  return JSON.parse(output) as T;
}

/** The run with the middle ratio of cold start to bare batch: one run on a busy machine says little. */
async function pipeline(rounds: number, services: number, endpoints: number): Promise<PipelineResult> {
  const results: PipelineResult[] = [];
  for (let i = 0; i < rounds; i++) results.push(await run<PipelineResult>('pipeline', services, endpoints));
  results.sort((a, b) => a.coldMs / a.bareMs - b.coldMs / b.bareMs);
  const middle = results[Math.floor(results.length / 2)];
  if (middle === undefined) throw new RangeError('at least one round');
  return middle;
}

async function measure(quick: boolean): Promise<Results> {
  const start = performance.now();
  const machine = describeMachine();
  const pipelines = [
    await pipeline(quick ? 1 : 3, 100, 10),
    await pipeline(1, chainServices, 10),
    await pipeline(3, 10_000, 10),
    await pipeline(quick ? 1 : 3, 50_000, 10),
  ];
  if (!quick) pipelines.push(await pipeline(1, 5_006, 50), await pipeline(1, 44_125, 1));
  const programs = quick ? [] : [await run<ProgramResult>('program', 100, 10)];
  programs.push(await run<ProgramResult>('program', 10_000, 10, quick ? 5 : 20));
  if (!quick) {
    programs.push(await run<ProgramResult>('program', 50_000, 10));
    programs.push(await run<ProgramResult>('program', 44_125, 1));
  }
  const dataPath = await run<DataPathResult>('data-path', 10, 5_000, ...(quick ? [] : [50_000]));
  const nft =
    missingNft() === false ? await run<NftPeersResult>('nft-peers', 10_000, 10, chainServices) : undefined;
  const verdictMap = await run<VerdictMapResult>('verdict-map', 50_000);
  const seconds = (performance.now() - start) / 1000;
  return { version: 4, quick, machine, seconds, pipelines, programs, dataPath, nft, verdictMap };
}

function load(file: string): Results {
  const results = JSON.parse(readFileSync(file, 'utf8')) as Results;
  const { version } = results as { readonly version: number };
  if (version !== 4) throw new Error(`${file} was not written by this version of the benchmarks`);
  return results;
}

function renewDocs(results: Results): void {
  const docs = new URL('../../docs/', import.meta.url);
  const page = new URL('performance.md', docs);
  const text = readFileSync(page, 'utf8');
  const [begin, end] = ['<!-- figures -->\n', '<!-- end of figures -->'];
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error('docs/performance.md has lost the marks of its table');
  const figures = `\n${machineLine(results)}\n\n${table(results)}\n\n`;
  writeFileSync(page, text.slice(0, from + begin.length) + figures + text.slice(to));
  writeFileSync(new URL('performance.svg', docs), plot(results));
}

if (options.from === undefined && process.getuid?.() !== 0) {
  process.stderr.write(
    'The benchmarks make network namespaces and nftables rulesets of their own: run as root.\n',
  );
  process.exit(1);
}
const results = options.from === undefined ? await measure(options.quick) : load(options.from);
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(results, undefined, 2)}\n`);
if (options.docs) renewDocs(results);
const missed = unmet(results);
process.stdout.write(`\n${machineLine(results)}\n\n${table(results)}\n\n`);
process.stdout.write(
  missed === 0 ? 'All figures are as wanted.\n' : `${missed} figures are not as wanted.\n`,
);
process.exitCode = missed === 0 ? 0 : 1;
