/** Where a real kube-apiserver and etcd are: scripts/install-apiserver builds them, or the environment names them. */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface Binaries {
  readonly apiserver: string;
  readonly etcd: string;
}

const script = join(
  dirname(fileURLToPath(import.meta.url)),
  '..',
  '..',
  '..',
  'scripts',
  'install-apiserver',
);

/**
 * `make test-apiserver` sets REAL_APISERVER=1; without it nothing is looked for, for these tests last minutes.
 * @returns why there are none, for a test's `skip`
 */
export function findBinaries(): Binaries | string {
  if (process.env['REAL_APISERVER'] !== '1') {
    return 'needs a real kube-apiserver: `make test-apiserver` gets one and runs this';
  }
  const { KUBE_APISERVER: apiserver, ETCD: etcd } = process.env;
  if (apiserver !== undefined && etcd !== undefined) return { apiserver, etcd };
  // Built before: the first time takes minutes, and is for the make target to show.
  const { status, stdout, stderr } = spawnSync(script, { encoding: 'utf8', timeout: 3_600_000 });
  if (status !== 0) return stderr.trim().split('\n').at(-1) ?? 'no kube-apiserver';
  const folder = stdout.trim();
  return { apiserver: join(folder, 'kube-apiserver'), etcd: join(folder, 'etcd') };
}
