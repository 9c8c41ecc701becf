/** Clients of the health port can't take the descriptors that the kernel's sockets need. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { patiently } from '../patience.js';
import { type Child, manifest, program, proxyArguments, start } from './node.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace();
const descriptors = 200;
const clients = 400;

describe('many clients and few descriptors', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'kpp-clients-'));
  let proxy: Child;

  before(async () => {
    writeFileSync(join(folder, 'all.yaml'), manifest);
    proxy = start(
      'sh',
      '-c',
      `ulimit -n ${descriptors}; exec "$@"`,
      'sh',
      program,
      `--manifests=${folder}`,
      '--nodeport-addresses=100.64.0.0/16',
      ...proxyArguments,
    );
    await proxy.waitFor(bothCompared);
  });
  after(async () => {
    proxy.kill('SIGTERM');
    await proxy.end();
    rmSync(folder, { recursive: true });
  });

  test('addresses are followed meanwhile, and it serves when they have gone', async () => {
    const sockets: Socket[] = [];
    for (let i = 0; i < clients; i++) {
      for (const port of [10256, 10249])
        sockets.push(connect(port, '127.0.0.1').on('error', () => undefined));
    }
    await sleep(500);
    // A thousand addresses come and go, fast enough for lists of them to be interrupted.
    const addresses = Array.from({ length: 1000 }, (_, i) => `100.64.${1 + (i >> 8)}.${i & 255}/32`);
    for (const action of ['add', 'del', 'add']) {
      const batch = join(folder, '..', `kpp-clients-${process.pid}.batch`);
      writeFileSync(batch, addresses.map((address) => `address ${action} ${address} dev lo\n`).join(''));
      run('ip', '-batch', batch);
      rmSync(batch);
    }
    await sleep(500);
    assert.equal(proxy.process.exitCode, null, proxy.output);
    for (const socket of sockets) socket.destroy();
    const deadline = Date.now() + patiently(5000);
    const serves = async (): Promise<boolean> => {
      const answer = await fetch('http://127.0.0.1:10256/healthz').catch(() => undefined);
      return answer?.ok === true;
    };
    while (!(await serves())) {
      assert.ok(Date.now() < deadline, `does not serve:\n${proxy.output}`);
      await sleep(50);
    }
    const last = addresses.at(-1)!.split('/', 1)[0]!;
    const known = (): boolean => run('nft', 'list', 'set', 'ip', 'kube-proxy', 'nodeport-ips').includes(last);
    while (!known()) {
      assert.ok(Date.now() < deadline, `does not know ${last}:\n${proxy.output}`);
      await sleep(50);
    }
  });
});
