/**
 * `make soak`: the real program under random changes, troubles, attacks and kills, compared with the API's objects at every
 * step. See --help.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { removeStale } from '../conformance/topology.js';
import { Lab } from './lab.js';
import { Report } from './report.js';
import { longSeconds, Mismatch, Soak } from './soak.js';

const usage = `usage: node dist/test/soak/main.js [options]
  --minutes N    how long (10)
  --seed N       the same changes, troubles, attacks and kills again (random)
  --services N   Services that come and go (60)
`;
/** Share by which the memory of a process may grow. */
const mostGrowth = 0.1;
/** Open files: connections to the API server come and go. */
const mostFiles = 4;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '10' },
      seed: { type: 'string', default: '' },
      services: { type: 'string', default: '60' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const minutes = Number(values.minutes);
  const seed = values.seed === '' ? Math.floor(Math.random() * 1_000_000) : Number(values.seed);
  const services = Number(values.services);
  if (!(minutes > 0) || !Number.isInteger(seed) || !Number.isInteger(services) || services < 1) {
    process.stderr.write(usage);
    return 2;
  }
  if (process.getuid?.() !== 0) {
    process.stderr.write('the soak needs root: it makes network namespaces\n');
    return 2;
  }
  const title = `soak of ${minutes} minutes, seed ${seed}, ${services} Services`;
  process.stdout.write(`${title}\n`);
  await removeStale();
  const logs = fileURLToPath(new URL('../../soak', import.meta.url));
  mkdirSync(logs, { recursive: true });
  const lab = await Lab.open();
  const report = new Report();
  const soak = new Soak(lab, { seed, seconds: minutes * 60, services }, report);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      soak.interrupt();
    });
  }
  let told = 0;
  try {
    await soak.run(() => {
      const pause = process.stdout.isTTY ? 1000 : 30_000;
      if (performance.now() - told < pause) return;
      told = performance.now();
      process.stdout.write(process.stdout.isTTY ? `\r\x1b[K${report.progress}` : `${report.progress}\n`);
    });
  } catch (error) {
    if (report.mismatches.length === 0) report.mismatches.push(String(error));
    if (!(error instanceof Mismatch))
      process.stderr.write(`${error instanceof Error ? (error.stack ?? '') : String(error)}\n`);
  } finally {
    soak.close();
    if (process.stdout.isTTY) process.stdout.write('\n');
    await lab.close(logs);
  }
  const growth = report.growth();
  if (growth !== undefined && minutes * 60 >= longSeconds) {
    const { from, to } = growth;
    if (to.memory > from.memory * (1 + mostGrowth)) report.mismatches.push('the memory of the process grew');
    if (Math.abs(to.files - from.files) > mostFiles)
      report.mismatches.push('the open files of the process are not as many as they were');
  }
  process.stdout.write(`\n${report.table(title)}\n`);
  if (report.mismatches.length === 0) return 0;
  process.stdout.write(
    `\nThe last steps:\n${report.story}\n\nWrong:\n${report.mismatches.slice(0, 40).join('\n')}\n\n` +
      `The programs' logs are in ${join(logs, 'alder.log')} and birch.log. Again: make soak SEED=${seed} MINUTES=${minutes}\n`,
  );
  return 1;
}

process.exitCode = await main();
