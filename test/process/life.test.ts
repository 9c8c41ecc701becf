/** Signals and `--init-only`: what happens to the process, and what does not happen to the rules. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { NftablesConnection } from '@kube-proxy-ts/netlink/nftables';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { type Child, generation, manifest, program, start } from './node.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace();

const configuration = (settings: Readonly<Record<string, unknown>>): string =>
  JSON.stringify({
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode: 'nftables',
    clusterCIDR: '10.61.0.0/16,fd61::/48',
    bindAddress: '100.64.10.11',
    logging: { verbosity: 2 },
    ...settings,
  });

function tables(): readonly string[] {
  const connection = NftablesConnection.open();
  try {
    return connection.listTables().map(({ family, name }) => `${String(family)} ${name}`);
  } finally {
    connection.close();
  }
}

describe('the life of the process', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'kpp-life-'));
  const file = join(folder, 'config.conf');
  let proxy: Child;

  /** What the program says from now on. */
  const says = async (what: RegExp, cause: () => void): Promise<void> => {
    const before = proxy.output.length;
    cause();
    await proxy.waitFor(new RegExp(`^[^]{${String(before)},}${what.source}`), 20_000);
  };

  before(async () => {
    writeFileSync(join(folder, 'pear.yaml'), manifest);
    writeFileSync(file, configuration({}));
    const manifests = `--manifests=${join(folder, 'pear.yaml')}`;
    proxy = start(program, manifests, `--config=${file}`, '--hostname-override=alder');
    await proxy.waitFor(bothCompared);
  });
  after(async () => {
    proxy.kill('SIGKILL');
    await proxy.end();
    rmSync(folder, { recursive: true });
  });

  test('pgrep, the OOM killer and nf_tables know it by its name, ps with its arguments', () => {
    const { pid } = proxy.process;
    const read = (name: string): string => readFileSync(`/proc/${String(pid)}/${name}`, 'utf8');
    assert.equal(read('comm'), 'kube-proxy\n');
    assert.match(read('cmdline'), /\0--hostname-override=alder\0$/);
  });

  test('SIGHUP without a change: the kernel is compared, nothing is written', async () => {
    const written = generation();
    await says(
      /"Configuration unchanged(?=[^]*"Resync complete".* family="IPv4")[^]*"Resync complete".* family="IPv6"/,
      () => {
        proxy.kill('SIGHUP');
      },
    );
    assert.equal(generation(), written);
  });

  test('SIGHUP with a change: started over in place, the rules stay', async () => {
    writeFileSync(file, configuration({ nftables: { masqueradeAll: true } }));
    await says(
      /"Reloading in place(?=[^]*"Resync complete".* family="IPv4")[^]*"Resync complete".* family="IPv6"/,
      () => {
        proxy.kill('SIGHUP');
      },
    );
    assert.deepEqual(tables(), ['ip kube-proxy', 'ip6 kube-proxy']);
    assert.equal(proxy.process.exitCode, null);
  });

  test('SIGINT: status 0, and the rules stay in force', async () => {
    proxy.kill('SIGINT');
    assert.equal(await proxy.end(), 0);
    assert.deepEqual(tables(), ['ip kube-proxy', 'ip6 kube-proxy']);
  });

  test('--init-only makes the settings that need privileges, writes no rule, asks no API server', async () => {
    const cleanup = start(program, '--cleanup');
    assert.equal(await cleanup.end(), 0);
    const timeout = '/proc/sys/net/netfilter/nf_conntrack_udp_timeout';
    writeFileSync(timeout, '30');
    const init = start(program, '--init-only', '--conntrack-udp-timeout=41s', '--hostname-override=alder');
    assert.equal(await init.end(), 0, init.output);
    assert.equal(readFileSync(timeout, 'utf8').trim(), '41');
    assert.equal(readFileSync('/proc/sys/net/ipv4/conf/all/route_localnet', 'utf8').trim(), '1');
    assert.deepEqual(tables(), []);
  });
});
