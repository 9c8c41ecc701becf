/**
 * One run of the virtual machine: an x86 machine emulated by QEMU (no KVM needed), whose root is
 * the host's file system, read-only, under a layer in memory. A shared folder carries the command in, and its output
 * and exit status out.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Kernel } from './packages.js';
import { programPath } from './packages.js';
import { cpio, fileMode, folderMode, programMode } from './cpio.js';
import { Follower } from './follower.js';

export class MachineError extends Error {
  readonly code = 'ERR_VM_MACHINE';
}

export interface MachineOptions {
  readonly kernel: Kernel;
  /** Folder with initramfs.sh and init.sh. */
  readonly guestScripts: string;
  /** Program and arguments; empty: a shell on this terminal. */
  readonly command: readonly string[];
  /** Where the command runs: a path of the host. */
  readonly folder: string;
  readonly memoryMiB: number;
  readonly processors: number;
  readonly timeLimitMs: number;
  /** Is told what happens to the machine, but for the command's own output. */
  readonly tell: (line: string) => void;
}

/** Exit status when the time is up, as of timeout(1). */
export const timeLimitStatus = 124;

/** Exit status when there can be no machine here: what other test runners know as "skipped". */
export const unavailableStatus = 77;

/** Exit status when a signal ended us, as a shell tells it for an interrupt. */
const interruptedStatus = 130;

/** What it takes to reach the host's file system, in the order of their dependencies. */
const bootModules = [
  'drivers/virtio/virtio_ring',
  'drivers/virtio/virtio',
  'drivers/virtio/virtio_pci_modern_dev',
  'drivers/virtio/virtio_pci_legacy_dev',
  'drivers/virtio/virtio_pci',
  'fs/netfs/netfs',
  'fs/fscache/fscache',
  'net/9p/9pnet',
  'net/9p/9pnet_virtio',
  'fs/9p/9p',
  'fs/overlayfs/overlay',
];

/** How often output is brought over, in milliseconds. */
const followInterval = 100;

/**
 * Boots, runs the command, and ends the machine in any case.
 * @returns the command's exit status, `timeLimitStatus`, or 130 after a signal.
 * @throws MachineError when the machine ended without the command having done so.
 */
export async function runInMachine(options: MachineOptions): Promise<number> {
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'kube-proxy-vm-'));
  const exchange = path.join(scratch, 'exchange');
  const console = path.join(scratch, 'console');
  const initramfs = path.join(scratch, 'initramfs');
  const interactive = options.command.length === 0;
  const followers = [
    new Follower(path.join(exchange, 'stdout'), process.stdout),
    new Follower(path.join(exchange, 'stderr'), process.stderr),
  ];
  const follow = (): void => {
    for (const follower of followers) follower.copy();
  };
  try {
    fs.mkdirSync(exchange);
    fs.writeFileSync(
      path.join(exchange, 'settings'),
      `modules=${quoted(options.kernel.modules)}\ninteractive=${interactive ? 'yes' : 'no'}\n`,
    );
    // Programs are found where the host finds them: Node may be anywhere.
    const searchPath = quoted(process.env['PATH'] ?? '');
    const command = interactive ? ['bash'] : options.command;
    fs.writeFileSync(
      path.join(exchange, 'command'),
      `PATH=${searchPath}:$PATH\ncd ${quoted(options.folder)} || exit 127\nexec ${command.map(quoted).join(' ')}\n`,
    );
    fs.writeFileSync(initramfs, buildInitramfs(options));
    const machine = spawn(
      programPath('setpriv'),
      // The machine ends with this process, however that ends.
      ['--pdeathsig', 'KILL', '--', ...qemuCommand(options, { initramfs, exchange, console, interactive })],
      { stdio: interactive ? 'inherit' : ['ignore', 'pipe', 'pipe'] },
    );
    let said = '';
    machine.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()));
    machine.stdout?.resume();
    const end: { reason: number | undefined } = { reason: undefined };
    const stop = (reason: number): void => {
      end.reason = reason;
      machine.kill('SIGKILL');
    };
    const limit = setTimeout(() => {
      options.tell(`ended after ${options.timeLimitMs / 60_000} minutes`);
      stop(timeLimitStatus);
    }, options.timeLimitMs);
    const interrupt = (signal: NodeJS.Signals): void => {
      options.tell(`ended by ${signal}`);
      stop(interruptedStatus);
    };
    const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
    // A terminal's interrupt belongs to the shell inside.
    if (!interactive) for (const signal of signals) process.once(signal, interrupt);
    const following = setInterval(follow, followInterval);
    await new Promise<void>((resolve, reject) => {
      machine.once('close', () => {
        resolve();
      });
      machine.once('error', reject);
    }).finally(() => {
      clearTimeout(limit);
      clearInterval(following);
      for (const signal of signals) process.removeListener(signal, interrupt);
    });
    follow();
    if (end.reason !== undefined) return end.reason;
    const status = readIfThere(path.join(exchange, 'status')).trim();
    if (/^\d+$/.test(status)) return Number(status);
    const lastWords = readIfThere(console).split('\n').slice(-30).join('\n');
    throw new MachineError(`the machine ended before the command did. ${said}\nIts console:\n${lastWords}`);
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
}

function qemuCommand(
  options: MachineOptions,
  at: { initramfs: string; exchange: string; console: string; interactive: boolean },
): string[] {
  // panic=-1 with -no-reboot: a kernel that dies ends the machine. The other words make an emulated processor faster
  // or spare it warnings about being slow.
  const words = ['console=ttyS0', 'quiet', 'panic=-1', 'mitigations=off', 'nokaslr', 'nowatchdog'];
  words.push('rcupdate.rcu_cpu_stall_suppress=1');
  const share = (id: string, folder: string, mode: string): string[] => [
    '-fsdev',
    `local,id=${id},path=${folder.replaceAll(',', ',,')},security_model=none,multidevs=remap${mode}`,
    '-device',
    `virtio-9p-pci,fsdev=${id},mount_tag=${id}`,
  ];
  return [
    programPath('qemu-system-x86_64'),
    ...[
      '-accel',
      'tcg,thread=multi',
      '-cpu',
      'max',
      '-smp',
      String(options.processors),
      '-m',
      String(options.memoryMiB),
    ],
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none', '-nic', 'none'],
    ...['-serial', at.interactive ? 'mon:stdio' : `file:${at.console}`],
    ...['-kernel', options.kernel.image, '-initrd', at.initramfs, '-append', words.join(' ')],
    ...share('host', '/', ',readonly=on'),
    ...share('exchange', at.exchange, ''),
  ];
}

function buildInitramfs(options: MachineOptions): Buffer {
  const modules = bootModules.map((file) => ({
    name: path.basename(file),
    content: fs.readFileSync(path.join(options.kernel.modules, 'kernel', `${file}.ko`)),
  }));
  const script = (name: string): Buffer => fs.readFileSync(path.join(options.guestScripts, name));
  const folder = (name: string) => ({ path: name, mode: folderMode, content: Buffer.alloc(0) });
  return cpio([
    folder('dev'),
    folder('modules'),
    { path: 'busybox', mode: programMode, content: fs.readFileSync(programPath('busybox')) },
    // switch_root insists on this name.
    { path: 'init', mode: programMode, content: script('initramfs.sh') },
    { path: 'init.sh', mode: fileMode, content: script('init.sh') },
    {
      path: 'modules/order',
      mode: fileMode,
      content: Buffer.from(modules.map(({ name }) => `${name}\n`).join('')),
    },
    ...modules.map(({ name, content }) => ({ path: `modules/${name}.ko`, mode: fileMode, content })),
  ]);
}

function readIfThere(file: string): string {
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '';
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}
