/** The lock under which programs change tables of iptables (legacy): they read, change and replace a whole table. */
import { closeSync, constants, openSync } from 'node:fs';
import { tryLock } from '../../netlink/libc.js';

const defaultFile = '/run/xtables.lock';
const waitMs = 5_000;
const pauseMs = 50;

export class LockError extends Error {
  readonly code = 'ERR_XTABLES_LOCKED';

  constructor(file: string) {
    super(`another program has held the lock of iptables (${file}) for ${waitMs / 1000} s: try again later`);
    this.name = 'LockError';
  }
}

/**
 * Runs `work` while nobody else changes tables. Blocks; meant for starting up and cleaning up.
 * @throws LockError when somebody else has the lock for too long
 */
export function withXtablesLock<T>(work: () => T, file = process.env['XTABLES_LOCKFILE'] ?? defaultFile): T {
  let fd: number;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_CREAT, 0o600);
  } catch {
    // Where /run can't be written nobody else has it open either; the kernel still refuses to overwrite changes.
    return work();
  }
  try {
    const deadline = Date.now() + waitMs;
    while (!tryLock(fd, `lock ${file}`)) {
      if (Date.now() > deadline) throw new LockError(file);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pauseMs);
    }
    return work();
  } finally {
    closeSync(fd);
  }
}
