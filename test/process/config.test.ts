/** The command's ways with its configuration: what it prints, what it writes, and files that change while it runs. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { upstreamDefault } from '../../src/config/testing/upstream-default.js';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { exitCodes } from '../../src/exit/exit-codes.js';
import { program, start, type Child } from './node.js';

const skip = enterNetworkNamespace();
const folder = mkdtempSync(join(tmpdir(), 'kpp-config-'));
after(() => {
  rmSync(folder, { recursive: true });
});
const file = (name: string, content: string): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

const run = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
  spawnSync(program, args, { encoding: 'utf8', timeout: 60_000 });

describe('what it prints', () => {
  test("--version: upstream's line first, for tools that read it", () => {
    const { status, stdout, stderr } = run('--version');
    assert.match(stdout, /^Kubernetes v1\.37\.2\nkube-proxy-ts v\d+\.\d+\.\d+\n$/);
    assert.deepEqual([status, stderr], [0, '']);
  });

  test('--version=raw: one line of all details', () => {
    const { status, stdout } = run('--version=raw', '--nope');
    assert.match(
      stdout,
      /^version\.Info\{Major:"1", Minor:"37", .*GitVersion:"v1\.37\.2", .*Platform:"linux\/\w+"\}\n$/,
    );
    assert.equal(status, 0);
  });

  test('--help', () => {
    const { status, stdout, stderr } = run('--help');
    assert.match(stdout, /^ {6}--proxy-mode ProxyMode$/m);
    assert.deepEqual([status, stderr], [0, '']);
  });
});

describe('--write-config-to', () => {
  test('writes what is in force, and nothing else happens', () => {
    const path = join(folder, 'written.yaml');
    const source = file('upstream.yaml', upstreamDefault);
    const { status, stdout, stderr } = run(`--config=${source}`, `--write-config-to=${path}`, '--cleanup');
    assert.deepEqual([status, stdout], [0, '']);
    assert.match(stderr, /^I\d{4} .*\] "Wrote configuration" file=".*written\.yaml"\n$/);
    assert.equal(readFileSync(path, 'utf8'), upstreamDefault);
  });

  test('a wrong configuration is not written', () => {
    const path = join(folder, 'absent.yaml');
    const { status } = run('--bind-address=x', `--write-config-to=${path}`);
    assert.equal(status, exitCodes.configuration);
    assert.throws(() => readFileSync(path));
  });

  test('a place that can not be written is told', () => {
    const { status, stderr } = run('--write-config-to=/nonexistent/x');
    assert.equal(status, exitCodes.configuration);
    assert.match(stderr, /^kube-proxy: --write-config-to: cannot write \/nonexistent\/x: ENOENT/);
  });

  test('a deprecated flag is told on its own line, and warnings are not lost', () => {
    const path = join(folder, 'ports.yaml');
    const { stderr } = run('--healthz-port=9', `--write-config-to=${path}`);
    const lines = stderr.split('\n');
    assert.equal(lines[0], 'Flag --healthz-port has been deprecated, use --healthz-bind-address instead');
    assert.match(lines[1] ?? '', /^W.*"--healthz-port=9 has no effect/);
  });
});

describe('a configuration file that changes while it runs', { skip }, () => {
  const manifests = (): string => file('empty.yaml', '{ apiVersion: v1, kind: List, items: [] }');
  const yaml = (fields: string): string =>
    `apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n${fields}\n`;

  /** A ConfigMap's volume. @returns the path of its file, and what exchanges the content */
  function configMap(name: string): { path: string; write: (fields: string) => void } {
    const volume = join(folder, name);
    mkdirSync(volume);
    symlinkSync(join('..data', 'config.conf'), join(volume, 'config.conf'));
    let version = 0;
    const write = (fields: string): void => {
      const next = `..${version++}`;
      mkdirSync(join(volume, next));
      writeFileSync(join(volume, next, 'config.conf'), yaml(fields));
      symlinkSync(next, join(volume, 'next'));
      renameSync(join(volume, 'next'), join(volume, '..data'));
    };
    return { path: join(volume, 'config.conf'), write };
  }

  async function whileRunning(path: string, body: (child: Child) => Promise<void>): Promise<void> {
    const child = start(program, `--config=${path}`, `--manifests=${manifests()}`);
    try {
      await child.waitFor('Resync complete');
      await body(child);
    } finally {
      child.kill('SIGTERM');
    }
    assert.equal(await child.end(), 0);
  }

  const count = (child: Child, text: string): number => child.output.split(text).length - 1;
  const mode = 'mode: nftables\nhealthzBindAddress: 127.0.0.1:21256\nmetricsBindAddress: 127.0.0.1:21249\n';

  test("a ConfigMap's volume: logging at once, the rest by starting over in place", async () => {
    const { path, write } = configMap('volume');
    write(mode);
    await whileRunning(path, async (child) => {
      write(`${mode}logging: { format: json }`);
      await child.waitFor('"msg":"Logging settings reloaded"');
      assert.equal(count(child, 'Resync complete'), 2, 'one line per family');

      write(`${mode}logging: { format: json }\nclusterCIDR: 10.61.0.0/16`);
      await child.waitFor('the configuration changed (clusterCIDR)');
      const both = /(Resync complete[^]*){4}/;
      await child.waitFor(both);
      const rules = execFileSync('nft', ['list', 'table', 'ip', 'kube-proxy'], { encoding: 'utf8' });
      assert.match(rules, /10\.61\.0\.0\/16/);

      write(`${mode}oomScoreAdj: 9999`);
      await child.waitFor('Configuration rejected, keeping the previous one');
      assert.match(child.output, /config\.conf:6: oomScoreAdj: 9999: must be from -1000 to 1000/);

      write(`${mode}logging: { format: text }\nclusterCIDR: 10.62.0.0/16`);
      await child.waitFor('the configuration changed (logging.format, clusterCIDR)');
      await child.waitFor(/(Resync complete[^]*){6}/);
    });
  });

  test('pages for operators follow gates, flags and the file', async () => {
    const page = async (path: string): Promise<{ status: number; body: string }> => {
      const answer = await fetch(`http://127.0.0.1:21249${path}`);
      return { status: answer.status, body: await answer.text() };
    };
    const path = file(
      'pages.yaml',
      yaml(`${mode}featureGates: { ComponentFlagz: false }\nenableProfiling: true`),
    );
    await whileRunning(path, async (child) => {
      const configz = JSON.parse((await page('/configz')).body) as Record<string, Record<string, unknown>>;
      assert.equal(configz['kubeproxy.config.k8s.io']?.['mode'], 'nftables');
      assert.deepEqual(configz['kubeproxy.config.k8s.io']['nodePortAddresses'], ['primary']);
      assert.equal((await page('/flagz')).status, 404);
      assert.match((await page('/statusz')).body, /1\.37\.2/);

      const put = await fetch('http://127.0.0.1:21249/debug/flags/v', { method: 'PUT', body: '3' });
      assert.equal(await put.text(), 'successfully set klog.logging.verbosity to 3\n');

      writeFileSync(path, yaml(`${mode}featureGates: { ComponentStatusz: false }`));
      await child.waitFor('the configuration changed (featureGates, enableProfiling)');
      await child.waitFor(/(Resync complete[^]*){4}/);
      const { status, body } = await page('/flagz');
      assert.equal(status, 200);
      assert.match(body, /^config.{1,2}\S*pages\.yaml$/m);
      assert.equal((await page('/statusz')).status, 404);
    });
  });
});
