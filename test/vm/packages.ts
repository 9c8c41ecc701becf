/** What the machine is made of, from Debian's packages: QEMU, busybox, a kernel with its modules. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

export class PackageError extends Error {
  readonly code = 'ERR_VM_PACKAGE';
}

/** There is no way to get packages here: no apt, or no network. Nothing is wrong with the program or its tests. */
export class NoPackagesError extends PackageError {}

export interface Kernel {
  /** Of `uname -r`. */
  readonly version: string;
  /** The bootable image. */
  readonly image: string;
  /** Folder of this version's modules, with the index that modprobe needs. */
  readonly modules: string;
}

/** What of a kernel package is unpacked: the network and what it needs. All of it would be 400 MB. */
const wanted = [
  './boot/vmlinuz-*',
  './lib/modules/*/modules.*',
  './lib/modules/*/kernel/net',
  './lib/modules/*/kernel/lib',
  './lib/modules/*/kernel/crypto',
  './lib/modules/*/kernel/arch/x86/crypto',
  './lib/modules/*/kernel/drivers/net/*.ko',
  './lib/modules/*/kernel/drivers/virtio',
  './lib/modules/*/kernel/fs/9p',
  './lib/modules/*/kernel/fs/fscache',
  './lib/modules/*/kernel/fs/netfs',
  './lib/modules/*/kernel/fs/overlayfs',
];

/** Programs that must be there, and the package of each. */
const programs = {
  'qemu-system-x86_64': 'qemu-system-x86',
  busybox: 'busybox-static',
  depmod: 'kmod',
  setpriv: 'util-linux',
};

/** Installs what is missing; says so with `tell`. @throws PackageError */
export function installPrograms(tell: (line: string) => void): void {
  const missing = Object.entries(programs).filter(([name]) => locate(name) === undefined);
  if (missing.length === 0) return;
  const names = missing.map(([, name]) => name);
  if (process.getuid?.() !== 0) {
    throw new NoPackagesError(`please install these Debian packages first: ${names.join(' ')}`);
  }
  tell(`installing Debian packages: ${names.join(' ')}`);
  withLists(() => apt(['install', '-y', '-qq', '--no-install-recommends', ...names]));
}

/** Does what needs apt's lists of packages; if that fails, once more with new lists. @throws NoPackagesError */
function withLists<Result>(work: () => Result): Result {
  try {
    return work();
  } catch {
    const problem = refreshLists();
    try {
      return work();
    } catch (error) {
      if (problem === undefined) throw error;
      throw new NoPackagesError(`no Debian packages can be had here: ${problem}`, { cause: error });
    }
  }
}

/** @returns why not all of them could be had; undefined: they could */
function refreshLists(): string | undefined {
  try {
    // Without the option apt-get is content with the lists that it has.
    apt(['update', '-qq', '--error-on=any']);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** @returns the path of a program. @throws PackageError when it is not installed. */
export function programPath(name: keyof typeof programs): string {
  const found = locate(name);
  if (found === undefined) throw new PackageError(`${name} is missing: install Debian's ${programs[name]}`);
  return found;
}

function locate(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
  return folders.map((folder) => path.join(folder, name)).find((file) => fs.existsSync(file));
}

/**
 * Fetches the kernel that a package such as `linux-image-amd64` stands for, and unpacks it below `folder`, unless it
 * is there. Nothing is installed: the host's own kernels and boot loader are left alone.
 * @throws PackageError
 */
export function fetchKernel(name: string, folder: string, tell: (line: string) => void): Kernel {
  const target = path.join(folder, name);
  if (!fs.existsSync(target)) {
    const scratch = `${target}.${process.pid}`;
    fs.mkdirSync(scratch, { recursive: true });
    try {
      const image = imagePackage(name);
      tell(`fetching the kernel: ${image}`);
      withLists(() => apt(['download', '-qq', image], scratch));
      unpack(scratch);
      // Another process may have been as fast.
      if (!fs.existsSync(target)) fs.renameSync(scratch, target);
    } finally {
      fs.rmSync(scratch, { recursive: true, force: true });
    }
  }
  const version = fs.readdirSync(path.join(target, 'lib/modules'))[0];
  if (version === undefined)
    throw new PackageError(`package ${name} has no kernel modules: remove ${target}`);
  return {
    version,
    image: path.join(target, 'boot', `vmlinuz-${version}`),
    modules: path.join(target, 'lib/modules', version),
  };
}

/** `linux-image-amd64` is empty but for its dependency on the newest image. */
function imagePackage(name: string): string {
  const said = withLists(() => command('apt-cache', ['depends', name]));
  return /^ *Depends: (linux-image-\d\S*)$/m.exec(said)?.[1] ?? name;
}

function unpack(folder: string): void {
  const file = fs.readdirSync(folder).find((entry) => entry.endsWith('.deb'));
  if (file === undefined) throw new PackageError('apt-get download brought no package');
  const archive = path.join(folder, file);
  const tarball = path.join(folder, 'files.tar');
  const out = fs.openSync(tarball, 'w');
  try {
    execFileSync('dpkg-deb', ['--fsys-tarfile', archive], { stdio: ['ignore', out, 'inherit'] });
  } finally {
    fs.closeSync(out);
  }
  const flags = ['--wildcards', '--no-wildcards-match-slash', '--no-same-owner'];
  command('tar', ['-x', '-f', tarball, '-C', folder, ...flags, ...wanted]);
  fs.rmSync(tarball);
  fs.rmSync(archive);
  const version = fs.readdirSync(path.join(folder, 'lib/modules'))[0] ?? '';
  command(programPath('depmod'), ['-b', folder, version]);
}

function apt(args: readonly string[], cwd?: string): string {
  return command('apt-get', args, cwd);
}

function command(name: string, args: readonly string[], cwd?: string): string {
  try {
    return execFileSync(name, args, {
      ...(cwd === undefined ? {} : { cwd }),
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'pipe'],
      encoding: 'utf8',
      timeout: 10 * 60_000,
    });
  } catch (cause) {
    const said = cause instanceof Error && 'stderr' in cause ? String(cause.stderr).trim() : String(cause);
    throw new PackageError(`${[name, ...args].join(' ')} failed: ${said}`, { cause });
  }
}
