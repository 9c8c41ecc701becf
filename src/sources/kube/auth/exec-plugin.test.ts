import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLogger } from '../../../log/logger.js';
import { loadCredentials, type ApiCredentials } from './credentials.js';
import { ApiServerSource } from '../source.js';

interface Plugin {
  readonly credentials: ApiCredentials;
  /** Whether a process of that file's pid is there and no zombie. */
  readonly lives: (name: string) => boolean;
  readonly started: (name: string) => Promise<void>;
}

/** @param script in sh; $here is a folder where it may leave pids */
async function plugin(t: TestContext, script: string, pluginDeadlineMs = 60_000): Promise<Plugin> {
  const here = mkdtempSync(path.join(os.tmpdir(), 'exec-plugin-'));
  const pid = (name: string): number => Number(readFileSync(path.join(here, name), 'utf8'));
  const lives = (name: string): boolean => {
    try {
      return !/^State:\tZ/m.test(readFileSync(`/proc/${pid(name)}/status`, 'utf8'));
    } catch {
      return false;
    }
  };
  const file = path.join(here, 'plugin');
  writeFileSync(file, `#!/bin/sh\nhere='${here}'\n${script}\n`);
  chmodSync(file, 0o755);
  const kubeconfig = path.join(here, 'config');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'c', cluster: { server: 'https://127.0.0.1:1' } }],
    users: [
      { name: 'u', user: { exec: { apiVersion: 'client.authentication.k8s.io/v1', command: './plugin' } } },
    ],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  };
  writeFileSync(kubeconfig, JSON.stringify(config));
  const credentials = await loadCredentials({ kubeconfig, pluginDeadlineMs }, silentLogger);
  t.after(() => {
    for (const name of ['parent', 'child']) if (lives(name)) process.kill(pid(name), 'SIGKILL');
    rmSync(here, { recursive: true, force: true });
  });
  const started = async (name: string): Promise<void> => {
    for (let i = 0; i < 400 && !(existsSync(path.join(here, name)) && lives(name)); i++) await sleep(10);
    assert.ok(lives(name), `${name} does not run`);
  };
  return { credentials, lives, started };
}

const hangs = 'echo $$ > "$here/parent"; sleep 600 & echo $! > "$here/child"; wait';

async function gone({ lives }: Plugin, ...names: readonly string[]): Promise<void> {
  for (let i = 0; i < 100 && names.some(lives); i++) await sleep(10);
  assert.deepEqual(names.filter(lives), [], 'these live on');
}

test('a plugin that hangs is killed at its deadline, with what it started', async (t) => {
  const run = await plugin(t, hangs, 700);
  const answer = assert.rejects(run.credentials.headers(), {
    code: 'KUBE_EXEC_PLUGIN',
    message: 'exec plugin "./plugin" of user u failed: no answer in 0.7 s',
  });
  await run.started('child');
  await answer;
  await gone(run, 'parent', 'child');
});

test('a plugin that hangs holds up no stop, and is killed by it', async (t) => {
  const run = await plugin(t, hangs);
  const sink = {
    service: () => undefined,
    endpointSlice: () => undefined,
    node: () => undefined,
    serviceCIDR: () => undefined,
    synced: () => undefined,
    flush: () => undefined,
  };
  const source = new ApiServerSource({ connection: run.credentials, nodeName: 'n' }, sink, silentLogger);
  source.start();
  await run.started('child');
  const began = performance.now();
  await source.stop();
  assert.ok(performance.now() - began < 2000, 'stop() waits for the plugin');
  await gone(run, 'parent', 'child');
});

test('output without end is bounded, and ends the plugin', async (t) => {
  const run = await plugin(t, 'echo $$ > "$here/parent"; exec yes', 20_000);
  await assert.rejects(run.credentials.headers(), { message: /failed: printed more than 1024 KiB$/ });
  await gone(run, 'parent');
});

test('of errors without end the first line is kept', async (t) => {
  const run = await plugin(t, 'echo "no login" >&2; yes "$(printf %1000s)" | head -c 3000000 >&2; exit 1');
  await assert.rejects(run.credentials.headers(), { message: /failed: no login$/ });
});

test('what a plugin leaves running holds up nothing', async (t) => {
  const run = await plugin(t, 'sleep 600 & echo $! > "$here/child"; echo \'{"status":{"token":"t"}}\'');
  const began = performance.now();
  assert.deepEqual(await run.credentials.headers(), { authorization: 'Bearer t' });
  assert.ok(performance.now() - began < 5000);
});

test('a plugin has nothing to read, and what it prints must be an ExecCredential', async (t) => {
  const reads = await plugin(t, 'cat > /dev/null; echo "{}"', 10_000);
  await assert.rejects(reads.credentials.headers(), {
    message: /failed: printed no ExecCredential with a status$/,
  });
  const prints = await plugin(t, 'echo secret', 10_000);
  await assert.rejects(prints.credentials.headers(), { message: /failed: printed no JSON$/ });
  const silent = await plugin(t, 'exit 4', 10_000);
  await assert.rejects(silent.credentials.headers(), { message: /failed: exit status 4$/ });
});

test('a credential is kept until it expires', async (t) => {
  const script = (expires: string): string =>
    `echo $$ > "$here/parent"; echo '{"status":{"token":"'$$'","expirationTimestamp":"${expires}"}}'`;
  const fresh = await plugin(t, script(new Date(Date.now() + 3_600_000).toISOString()));
  assert.deepEqual(await fresh.credentials.headers(), await fresh.credentials.headers());
  const expired = await plugin(t, script(new Date(Date.now() - 1000).toISOString()));
  assert.notDeepEqual(await expired.credentials.headers(), await expired.credentials.headers());
});
