/**
 * A lock file of its own for a test that changes tables of iptables-legacy: tables belong to a network namespace, but the
 * usual lock file to the machine, where other tests have it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** For this process and those that it starts from now on. */
export function useOwnXtablesLock(): void {
  const folder = mkdtempSync(path.join(tmpdir(), 'xtables-'));
  process.env['XTABLES_LOCKFILE'] = path.join(folder, 'lock');
  process.once('exit', () => {
    rmSync(folder, { recursive: true, force: true });
  });
}
