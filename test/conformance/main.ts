/**
 * Holds a kube-proxy-compatible command against the conformance cases. docs/conformance.md explains the command line,
 * the topology and the case files.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import type { Family } from './addresses.js';
import type { Column, Test, TransportName } from './cases.js';
import { CaseFileError, loadSections, needsApi, testsOf, transports } from './cases.js';
import { hasSctp } from './sctp.js';
import { CommandError } from './commands.js';
import { chooseIptables, iptablesKinds } from './iptables-kind.js';
import { NotationError } from './notation.js';
import { Report, selects } from './report.js';
import { destroyLabs, runGroups } from './runner.js';
import { groupByConfiguration } from './schedule.js';
import { checkTools, removeStale } from './topology.js';

const usage = `usage: conformance --program '<command line>' [options]

Runs the conformance cases against a kube-proxy-compatible command, in network namespaces of its own. Needs root.

  --program '<command line>'  the proxy, as a command line for the shell
  --mode MODE                 value for its --proxy-mode, may be empty (nftables)
  --iptables nft|legacy       the kind of iptables that it finds (what PATH has)
  --cases LIST                sections and rows, as A,B,17,30-40 (all)
  --families LIST             v4,v6
  --protocols LIST            of tcp,udp,sctp (tcp,udp)
  --source api|manifests      where the proxy gets its objects (api)
  --expect better|upstream    what counts where upstream is judged weak (better)
  --jobs N                    nodes under test at the same time (2)
  --json FILE                 write every result there
  --logs FOLDER               keep the logs of the proxy there
  --list                      only list the tests
  --verbose                   tell the duration of every batch`;

class UsageError extends Error {
  readonly code = 'ERR_CONFORMANCE_USAGE';
}

function oneOf<Choice extends string>(flag: string, value: string, choices: readonly Choice[]): Choice {
  const found = choices.find((choice) => choice === value);
  if (found === undefined) throw new UsageError(`--${flag} is one of ${choices.join(', ')}, not '${value}'`);
  return found;
}

function someOf<Choice extends string>(
  flag: string,
  value: string,
  choices: readonly Choice[],
): readonly Choice[] {
  return value.split(',').map((item) => oneOf(flag, item, choices));
}

function readOptions() {
  const { values } = parseArgs({
    options: {
      program: { type: 'string', default: '' },
      mode: { type: 'string', default: 'nftables' },
      iptables: { type: 'string' },
      cases: { type: 'string', default: '' },
      families: { type: 'string', default: 'v4,v6' },
      protocols: { type: 'string', default: 'tcp,udp' },
      source: { type: 'string', default: 'api' },
      expect: { type: 'string', default: 'better' },
      jobs: { type: 'string', default: '2' },
      json: { type: 'string' },
      logs: { type: 'string' },
      list: { type: 'boolean', default: false },
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.program === '' && !values.list && !values.help) {
    throw new UsageError("--program is missing: say which proxy, as in --program 'bin/kube-proxy'");
  }
  return {
    ...values,
    families: someOf<Family>('families', values.families, ['v4', 'v6']),
    protocols: someOf<TransportName>('protocols', values.protocols, transports),
    iptables: values.iptables === undefined ? undefined : oneOf('iptables', values.iptables, iptablesKinds),
    source: oneOf('source', values.source, ['api', 'manifests']),
    expect: oneOf('expect', values.expect, ['better', 'upstream']),
  };
}

/** Which column of the cases a mode is held against. */
function columnOf(mode: string): Column {
  if (mode === '') return 'auto';
  if (mode === 'ipvs') return 'ipvs';
  return mode === 'nftables' || mode === 'ebpf' ? 'nft' : 'ipt';
}

async function main(): Promise<number> {
  const options = readOptions();
  if (options.help) {
    console.log(usage);
    return 0;
  }
  const column = columnOf(options.mode);
  const { families, protocols } = options;
  const report = new Report(column);
  const tests: Test[] = [];
  for (const section of loadSections()) {
    for (const row of section.rows) {
      if (!selects(options.cases, section.letter, row.row)) continue;
      report.expectRow(section.letter, section.title, row, options.source);
      if (row.exempt !== undefined || (row.modes !== undefined && !row.modes.includes(column))) continue;
      if (options.source === 'manifests' && needsApi(row)) continue;
      tests.push(
        ...testsOf(section, row).filter(
          ({ family, transport }) => families.includes(family) && protocols.includes(transport),
        ),
      );
    }
  }
  if (options.list) {
    for (const test of tests) console.log(`${test.section} ${test.id}: ${test.row.title}`);
    return 0;
  }
  if (process.getuid?.() !== 0) {
    console.error('conformance: must run as root: it makes network namespaces. Try again with sudo.');
    return 2;
  }
  if (protocols.includes('sctp') && !hasSctp()) {
    console.error(
      "conformance: this kernel has no SCTP sockets: load them with 'modprobe sctp', or leave sctp out of --protocols",
    );
    return 2;
  }
  const folder = options.logs ?? fs.mkdtempSync(path.join(os.tmpdir(), 'conformance-'));
  fs.mkdirSync(folder, { recursive: true });
  if (options.iptables !== undefined) chooseIptables(options.iptables, path.resolve(folder));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      void destroyLabs().then(() => process.exit(130));
    });
  }
  await checkTools();
  await removeStale();
  const started = Date.now();
  try {
    await runGroups(groupByConfiguration(tests), {
      program: options.program,
      mode: options.mode,
      source: options.source,
      families,
      // Rows are about other protocols than their own, too.
      protocols: ['TCP', 'UDP', ...(protocols.includes('sctp') ? (['SCTP'] as const) : [])],
      folder: path.resolve(folder),
      jobs: Number(options.jobs),
      expectations: { column, standard: options.expect },
      onResult: (result) => {
        report.add(result);
      },
      verbose: (line) => {
        if (options.verbose) console.log(line);
      },
    });
  } finally {
    await destroyLabs();
    if (options.logs === undefined && report.failed === 0)
      fs.rmSync(folder, { recursive: true, force: true });
  }
  if (options.json !== undefined)
    fs.writeFileSync(options.json, `${JSON.stringify(report.toJson(), null, 2)}\n`);
  report.print((Date.now() - started) / 1000);
  if (report.failed > 0) console.log(`logs of the proxy: ${folder}`);
  console.log(`${report.passed} passed, ${report.failed} failed`);
  return report.failed === 0 ? 0 : 1;
}

main().then(
  (status) => process.exit(status),
  (error: unknown) => {
    const foreseen =
      error instanceof CaseFileError ||
      error instanceof UsageError ||
      error instanceof NotationError ||
      error instanceof CommandError;
    console.error(foreseen ? `conformance: ${error.message}` : error);
    process.exit(2);
  },
);
