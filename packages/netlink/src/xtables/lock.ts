/** The lock under which programs change tables of iptables (legacy): they read, change and replace a whole table. */
import { closeSync, constants, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { tryLock } from '../libc.js';

const defaultFile = '/run/xtables.lock';
/** Others hold it for milliseconds, but there may be many, and who comes first is chance. */
const waitMs = 30_000;
const pauseMs = 10;

/** Other programs have held the lock for too long. */
export class LockError extends Error {
  readonly code = 'ERR_XTABLES_LOCKED';

  constructor(file: string, waitedMs: number) {
    super(
      `other programs have held the lock of iptables (${file}) for ${waitedMs / 1000} s: try again later`,
    );
    this.name = 'LockError';
  }
}

/** Which lock, and how patiently. */
export interface LockOptions {
  /** What other programs lock, too; they also take it from the environment. */
  readonly file?: string;
  /** How long to wait for others, milliseconds. */
  readonly waitMs?: number;
}

/**
 * Runs `work` while nobody else changes tables. The event loop turns while it waits.
 * @throws LockError when others have the lock for too long
 */
export async function withXtablesLock<T>(work: () => T, options: LockOptions = {}): Promise<T> {
  const file = options.file ?? process.env['XTABLES_LOCKFILE'] ?? defaultFile;
  const limit = options.waitMs ?? waitMs;
  let fd: number;
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_CREAT, 0o600);
  } catch {
    // Where it can't be made nobody here has it either, and the kernel refuses a table that has changed its size.
    return work();
  }
  try {
    const deadline = performance.now() + limit;
    while (!tryLock(fd, `lock ${file}`)) {
      if (performance.now() >= deadline) throw new LockError(file, limit);
      await sleep(pauseMs);
    }
    return work();
  } finally {
    closeSync(fd);
  }
}
