/** A file has one subject: none is longer than 400 lines, and no folder has more than 20 files. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const most = 400;
const mostFiles = 20;

/** Tables of data: a row for each field, feature gate or case. */
const dataTables = new Set(['src/config/fields.ts', 'src/config/settings.test.ts']);

/** Longer still than they should be. Whoever splits one takes it from here; none is added. */
const stillToBeSplit = new Set([
  'src/app/proxy-runtime.ts',
  'src/backends/iptables/family.kernel.test.ts',
  'src/backends/iptables/family.ts',
  'src/backends/ipvs/commit-order.kernel.test.ts',
  'src/backends/ipvs/family.kernel.test.ts',
  'src/backends/ipvs/family.ts',
  'src/backends/nftables/family.kernel.test.ts',
  'src/backends/nftables/family.ts',
  'src/backends/nftables/kernel/kernel-table.ts',
  'src/backends/nftables/state/applied-state.ts',
  'src/config/config.test.ts',
  'src/conntrack/cleaner.kernel.test.ts',
  'src/metrics/metrics.test.ts',
  'src/model/model.random.test.ts',
  'src/model/model.test.ts',
  'src/sources/kube/auth/credentials.ts',
  'src/sources/kube/client/client.ts',
  'src/sources/kube/decode.test.ts',
  'src/sources/kube/reflector/reflector.ts',
  'src/sources/kube/source.test.ts',
  'src/sources/manifests/source.test.ts',
  'src/sources/state/state-file.test.ts',
  'src/sync/sync-loop.test.ts',
  'test/apiserver/server.ts',
  'test/conformance/agent.ts',
  'test/conformance/row-run.ts',
  'test/process/conntrack.test.ts',
  'test/process/endpoints.test.ts',
  'test/process/errors.test.ts',
  'test/realserver/situations.test.ts',
  'test/soak/soak.ts',
  'test/soak/walk.ts',
  'test/soak/world.ts',
]);
const foldersStillToBeSplit = new Set([
  'bench',
  'packages/netlink/src/nftables/expression',
  'test/conformance',
  'test/process',
  'test/soak',
]);

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !/\.d\.ts$|(^|\/)(dist|node_modules)\//.test(name))
    .map((name) => posix.join(folder, name));
}

const files = ['src', 'packages', 'test', 'bench', 'demo'].flatMap(sources);

test('files of more than 400 lines are tables of data, or on the list of those that wait to be split', () => {
  const long = files.filter((file) => readFileSync(join(root, file), 'utf8').split('\n').length - 1 > most);
  const unexpected = long.filter((file) => !dataTables.has(file) && !stillToBeSplit.has(file));
  assert.deepEqual(unexpected, [], 'split these by subject');
  const split = [...stillToBeSplit].filter((file) => !long.includes(file));
  assert.deepEqual(split, [], 'these are short now: take them from the list');
});

test('folders have no more than 20 files, but for those on the list', () => {
  const counts = new Map<string, number>();
  for (const file of files) counts.set(posix.dirname(file), (counts.get(posix.dirname(file)) ?? 0) + 1);
  const full = [...counts].filter(([, count]) => count > mostFiles).map(([folder]) => folder);
  assert.deepEqual(full.filter((folder) => !foldersStillToBeSplit.has(folder)).sort(), []);
  assert.deepEqual(
    [...foldersStillToBeSplit].filter((folder) => !full.includes(folder)),
    [],
  );
});
