/**
 * The program is ended at random moments, with thousands of Services, while a hog in the same process takes every descriptor that
 * is closed: nobody may use a descriptor's number after close. STOPS=50 for more of them, STOP_SEED=n for others.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { enterNetworkNamespace } from '@kube-proxy-ts/netlink/testing';
import { Random } from '@kube-proxy-ts/netlink/testing';
import { generateCluster } from '../apiserver/generate.js';
import { ApiServer } from '../apiserver/server.js';
import { patiently } from '../patience.js';
import { Child, kubeconfigFor, ownNode, program } from './node.js';
import { bothCompared } from '../both-families.js';

const stops = Number(process.env['STOPS'] ?? '10');
const random = new Random(Number(process.env['STOP_SEED'] ?? '1'));
const hog = join(dirname(fileURLToPath(import.meta.url)), 'descriptor-hog.js');
const size = { services: 3000, endpoints: 10, nodes: 50 };
const skip = enterNetworkNamespace();

describe('stopped at random moments', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'kpp-stop-'));
  let server: ApiServer;

  before(async () => {
    server = await ApiServer.start();
    server.store.put(ownNode);
    generateCluster(server.store, size);
  });
  after(async () => {
    await server.close();
    rmSync(folder, { recursive: true });
  });

  function startProxy(files: string): Child {
    mkdirSync(files);
    return new Child(
      spawn(
        program,
        [
          `--kubeconfig=${kubeconfigFor(server.url, folder)}`,
          '--hostname-override=alder',
          '--cluster-cidr=10.61.0.0/16',
          '--full-check-period=100ms',
          '--v=2',
        ],
        {
          stdio: ['ignore', 'pipe', 'pipe'],
          env: { ...process.env, NODE_OPTIONS: `--import=${hog}`, HOG_FOLDER: files },
        },
      ),
    );
  }

  /** Milliseconds from 0 to `most`. */
  const someTime = (most: number): Promise<void> => sleep((random.below(1000) / 1000) * most);

  const moments: readonly [what: string, bringAbout: (proxy: Child) => Promise<void>][] = [
    [
      'while everything is compared',
      async (proxy) => {
        await proxy.waitFor(bothCompared, 30_000);
        proxy.kill('SIGHUP');
        await someTime(250);
      },
    ],
    [
      'during a look at the kernel',
      async (proxy) => {
        await proxy.waitFor(bothCompared, 30_000);
        await someTime(400);
      },
    ],
    [
      'during the start',
      async (proxy) => {
        await proxy.waitFor('Starting kube-proxy-ts');
        await someTime(900);
      },
    ],
  ];
  for (let i = 0; i < stops; i++) {
    const [what, bringAbout] = moments[i % moments.length]!;
    test(`${i + 1}: ${what}: it ends at once, and no descriptor is used after close`, async () => {
      const files = join(folder, String(i));
      const proxy = startProxy(files);
      await bringAbout(proxy);
      proxy.kill('SIGUSR2');
      proxy.kill('SIGTERM');
      const stopped = performance.now();
      assert.equal(await proxy.end(15_000), 0, proxy.output);
      const tookMs = performance.now() - stopped;
      const taken = readdirSync(files);
      assert.ok(taken.length > 0, 'the hog was at work');
      const foreign = taken
        .map((file) => readFileSync(join(files, file)))
        .filter(({ length }) => length > 0)
        .map((content) => content.subarray(0, 64).toString('hex'));
      assert.deepEqual(foreign, [], 'bytes that were written to files of the hog');
      assert.doesNotMatch(proxy.output, /^E/m);
      assert.ok(tookMs < patiently(5_000), `it took ${tookMs.toFixed(0)} ms`);
    });
  }
});
