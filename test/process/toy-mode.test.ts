/** A mode is one module: one that registers itself needs no change in src/, and all that is around modes works with it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { NftablesConnection, Batch } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { Child, eventually, manifest, podIP, proxyArguments } from './node.js';

const toyProgram = fileURLToPath(new URL('./toy-mode.js', import.meta.url));
const skip = enterNetworkNamespace();

function tables(): readonly string[] {
  const connection = NftablesConnection.open();
  try {
    return connection.listTables('ip').map(({ name }) => name);
  } finally {
    connection.close();
  }
}

function addTable(name: string): void {
  const connection = NftablesConnection.open();
  try {
    const batch = new Batch('ip', name);
    batch.addTable();
    connection.commit(batch);
  } finally {
    connection.close();
  }
}

test(
  'a mode that registers itself is chosen, opened, fed, reported, and leaves its own alone',
  { skip },
  async () => {
    run('ip', 'link', 'set', 'lo', 'up');
    const folder = mkdtempSync(join(tmpdir(), 'kpp-toy-'));
    const file = join(folder, 'programmed.json');
    const manifests = join(folder, 'pear.yaml');
    writeFileSync(manifests, manifest);
    const startToy = (): Child =>
      new Child(
        spawn(
          process.execPath,
          [toyProgram, ...proxyArguments, '--proxy-mode=toy', `--manifests=${manifests}`],
          { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, TOY_MODE_FILE: file } },
        ),
      );
    const programmed = (): string =>
      existsSync(file)
        ? Object.values(JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>).join()
        : '';
    addTable('toy-kube-proxy');
    addTable('kube-proxy-interim');
    const proxy = startToy();
    try {
      await proxy.waitFor(/"Starting kube-proxy-ts".* mode="toy"/);
      await eventually('the endpoint is programmed', () => programmed() === `${podIP}:9000`, [proxy]);
      assert.equal(await (await fetch('http://127.0.0.1:10249/proxyMode')).text(), 'toy');
      writeFileSync(manifests, manifest.replace('port: 9000', 'port: 9001'));
      await eventually('the change is programmed', () => programmed() === `${podIP}:9001`, [proxy]);
      // The table of another mode is a leftover, its own is not.
      await eventually('leftovers are removed', () => tables().join() === 'toy-kube-proxy', [proxy]);
      const metrics = await (await fetch('http://127.0.0.1:10249/metrics')).text();
      assert.match(metrics, /^kubeproxy_sync_proxy_rules_last_timestamp_seconds\{ip_family="IPv4"\} \d/m);
    } finally {
      proxy.kill('SIGTERM');
      assert.equal(await proxy.end(), 0);
      rmSync(folder, { recursive: true });
    }
  },
);

test('what it says of the machine ends the start', { skip }, async () => {
  const environment = { ...process.env };
  delete environment['TOY_MODE_FILE'];
  const proxy = new Child(
    spawn(process.execPath, [toyProgram, '--proxy-mode=toy', '--manifests=/tmp'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: environment,
    }),
  );
  assert.notEqual(await proxy.end(), 0);
  assert.match(proxy.output, /TOY_MODE_FILE is not set/);
});
