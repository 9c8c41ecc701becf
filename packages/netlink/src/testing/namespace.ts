/**
 * A network namespace of its own for a test that changes the kernel. The calling thread moves there, and with it the sockets and
 * processes that it makes from then on; the namespace is gone when the process is. (node --test runs every
 * file in a process of its own.)
 */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { createRequire } from 'node:module';
import type * as Koffi from 'koffi';

const CLONE_NEWNET = 0x40000000;

/** @returns why it is impossible here, for a test's `skip`; false when done */
export function enterNetworkNamespace(): string | false {
  if (process.getuid?.() !== 0) return 'needs root: network namespaces can only be made by root';
  const koffi = createRequire(import.meta.url)('koffi') as typeof Koffi;
  const unshare: (flags: number) => number = koffi.load(null).func('int unshare(int flags)');
  if (unshare(CLONE_NEWNET) !== 0) return `unshare(CLONE_NEWNET) failed with errno ${koffi.errno()}`;
  const up = spawnSync('ip', ['link', 'set', 'lo', 'up'], { encoding: 'utf8' });
  return up.status === 0 ? false : `ip link set lo up failed: ${up.error?.message ?? up.stderr}`;
}

/**
 * Moves the calling thread into a namespace that `ip netns add` made, and with it what it opens and starts from then on.
 * @returns moves it back
 * @throws Error when the namespace is not there, or this is not root
 */
export function joinNetworkNamespace(name: string): () => void {
  const koffi = createRequire(import.meta.url)('koffi') as typeof Koffi;
  const setns: (fd: number, kind: number) => number = koffi.load(null).func('int setns(int fd, int kind)');
  const enter = (fd: number): void => {
    if (setns(fd, CLONE_NEWNET) !== 0) throw new Error(`setns(${name}) failed with errno ${koffi.errno()}`);
  };
  const home = openSync('/proc/thread-self/ns/net', 'r');
  const away = openSync(`/run/netns/${name}`, 'r');
  try {
    enter(away);
  } finally {
    closeSync(away);
  }
  return () => {
    enter(home);
    closeSync(home);
  };
}

/** @returns why nft can't be used here, for a test's `skip`; false when it can */
export function missingNft(): string | false {
  const { status } = spawnSync('nft', ['--version']);
  return status === 0 ? false : 'nft is not installed';
}

/** Runs a command to its end. @throws Error with its output when it fails */
export function run(command: string, ...args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (status === 0) return stdout;
  throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? stderr + stdout}`);
}
