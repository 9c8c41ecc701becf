/** A node that boots while the API server is away: the real program answers packets from its state file. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { enterNetworkNamespace, missingNft, run } from '@kube-proxy-ts/netlink/testing';
import { ApiServer } from '../apiserver/server.js';
import {
  type Child,
  eventually,
  ownNode,
  podIP,
  program,
  serviceIP,
  SmallNode,
  start,
  trafficResult,
} from './node.js';
import { bothCompared } from '../both-families.js';

const skip = enterNetworkNamespace() || missingNft();

const service = (name: string, clusterIP: string) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'orchard' },
  spec: { clusterIP, ports: [{ name: 'web', port: 80, protocol: 'TCP' }] },
});
const slice = (name: string, ...addresses: readonly string[]) => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name, namespace: 'orchard', labels: { 'kubernetes.io/service-name': name } },
  addressType: 'IPv4',
  ports: [{ name: 'web', port: 9000, protocol: 'TCP' }],
  endpoints: addresses.map((address) => ({ addresses: [address], nodeName: 'alder' })),
});

describe('a state file', { skip }, () => {
  const node = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-state-'));
  const file = join(folder, 'state');
  const children: Child[] = [];
  let server: ApiServer;
  let port: number;

  const startProxy = (): Child => {
    const child = start(
      program,
      `--master=http://127.0.0.1:${port}`,
      '--hostname-override=alder',
      '--cluster-cidr=10.61.0.0/16',
      '--proxy-mode=nftables',
      '--startup-timeout=2s',
      `--state-file=${file}`,
      '--v=2',
    );
    children.push(child);
    return child;
  };
  const inKernel = (ip: string): boolean => run('nft', 'list', 'table', 'ip', 'kube-proxy').includes(ip);
  before(async () => {
    await node.open();
    server = await ApiServer.start();
    ({ port } = server);
    for (const object of [
      ownNode,
      service('pear', serviceIP),
      slice('pear', podIP),
      service('plum', '10.177.0.51'),
    ])
      server.store.put(object);
  });
  after(async () => {
    for (const child of children) child.kill('SIGTERM');
    await Promise.all(children.map((child) => child.end()));
    await server.close();
    await node.close();
    rmSync(folder, { recursive: true });
  });

  test('is written while the API server is there', async () => {
    const proxy = startProxy();
    await eventually('the file', () => existsSync(file), children);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    proxy.kill('SIGTERM');
    assert.equal(await proxy.end(), 0);
  });

  test('serves packets after a boot without API server, and longer than the start may take', async () => {
    await server.close();
    // What a boot leaves of tables and rules.
    run('nft', 'flush', 'ruleset');
    const proxy = startProxy();
    await proxy.waitFor('Serving the last known state from the state file');
    await proxy.waitFor(bothCompared, 30_000);
    const traffic = await node.traffic(serviceIP, 80);
    traffic.kill('SIGTERM');
    assert.equal(await traffic.end(), 0);
    assert.ok(inKernel('10.177.0.51'), 'the Service without endpoints is there to reject');
    await new Promise((resolve) => setTimeout(resolve, 3000));
    assert.equal(proxy.process.exitCode, null, '--startup-timeout does not end it');
  });

  test('the API server comes back: differences only, no connection is lost', async () => {
    const traffic = await node.traffic(serviceIP, 80);
    server = await ApiServer.start({ port });
    for (const object of [
      ownNode,
      service('pear', serviceIP),
      slice('pear', podIP),
      service('fig', '10.177.0.52'),
    ])
      server.store.put(object);
    await eventually('the new Service', () => inKernel('10.177.0.52'), children);
    await eventually('the end of the one that is gone', () => !inKernel('10.177.0.51'), children);
    const { linesLost } = await trafficResult(traffic);
    assert.equal(linesLost, 0);
  });
});
