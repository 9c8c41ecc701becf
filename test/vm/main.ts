/**
 * Runs a command of this checkout on another kernel: Debian's, in a virtual machine that this makes and ends.
 * docs/architecture.md, "How to test", says what for.
 */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { MachineError, runInMachine, timeLimitStatus, unavailableStatus } from './machine.js';
import { fetchKernel, installPrograms, NoPackagesError, PackageError } from './packages.js';

const usage = `usage: node dist/test/vm/main.js [options] [--] COMMAND...

Boots a virtual machine with Debian's kernel, runs the command in it as root, in this checkout, prints its output and
exits with its status; ${timeLimitStatus}: the time was up; 125: the machine failed. The command sees the files of this host and may
change them: changes are made in memory and forgotten. There is no network but what the command makes. ${unavailableStatus}: nothing was run,
for this host is no x86, or has no way to Debian's packages.

  --kernel PACKAGE  Debian package of the kernel (linux-image-amd64)
  --minutes N       time limit for everything (15)
  --memory MIB      memory of the machine (4096)
  --processors N    processors of the machine (2); on a host that is busy one gets more done
  --shell           no command but a shell on this terminal; 'exit' ends the machine`;

const checkout = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..', '..');

class UsageError extends Error {
  readonly code = 'ERR_VM_USAGE';
}

function positive(flag: string, value: string): number {
  const number = Number(value);
  if (!(number > 0)) throw new UsageError(`--${flag} is a positive number, not '${value}'`);
  return number;
}

/** Options end at the first word that is none: the command's own options are its own. */
function splitArguments(words: readonly string[]): { own: string[]; command: string[] } {
  let at = 0;
  while (words[at]?.startsWith('--') === true && words[at] !== '--') {
    const alone = words[at]?.includes('=') === true || words[at] === '--shell' || words[at] === '--help';
    at += alone ? 1 : 2;
  }
  return { own: words.slice(0, at), command: words.slice(words[at] === '--' ? at + 1 : at) };
}

async function main(): Promise<number> {
  const { own, command } = splitArguments(process.argv.slice(2));
  const { values } = parseArgs({
    args: own,
    options: {
      kernel: { type: 'string', default: 'linux-image-amd64' },
      minutes: { type: 'string', default: '15' },
      memory: { type: 'string', default: '4096' },
      processors: { type: 'string', default: '2' },
      shell: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  if (values.shell !== (command.length === 0)) {
    throw new UsageError('say a command, or --shell and no command; --help explains');
  }
  if (process.arch !== 'x64') throw new NoPackagesError('the machine is an x86: this runs only on x86 hosts');
  const tell = (line: string): void => void process.stderr.write(`virtual machine: ${line}\n`);
  installPrograms(tell);
  const kernel = fetchKernel(values.kernel, path.join(checkout, 'dist', '.vm'), tell);
  const minutes = values.shell ? 24 * 60 : positive('minutes', values.minutes);
  return await runInMachine({
    kernel,
    guestScripts: path.join(checkout, 'test', 'vm', 'guest'),
    command,
    folder: checkout,
    memoryMiB: positive('memory', values.memory),
    processors: positive('processors', values.processors),
    timeLimitMs: minutes * 60_000,
    tell,
  });
}

try {
  process.exitCode = await main();
} catch (error) {
  const foreseen =
    error instanceof UsageError ||
    error instanceof MachineError ||
    error instanceof PackageError ||
    (error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS'));
  process.stderr.write(`virtual machine: ${foreseen ? error.message : String(error)}\n`);
  process.exitCode = error instanceof NoPackagesError ? unavailableStatus : 125;
}
