/** The whole way, with an API server that speaks TLS, HTTP/2 and protobuf: kubeconfig in, answered packets out. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { enterNetworkNamespace, run } from '@kube-proxy-ts/netlink/testing';
import { makeCertificates } from '../apiserver/certificates.js';
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

const skip = enterNetworkNamespace();

const metadata = { name: 'pear', namespace: 'orchard' };
const service = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata,
  spec: {
    clusterIP: serviceIP,
    clusterIPs: [serviceIP],
    ipFamilies: ['IPv4'],
    ports: [{ name: 'web', port: 80, protocol: 'TCP' }],
  },
};
const slice = (...addresses: readonly string[]) => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { ...metadata, labels: { 'kubernetes.io/service-name': 'pear' } },
  addressType: 'IPv4',
  ports: [{ name: 'web', port: 9000, protocol: 'TCP' }],
  endpoints: addresses.map((address) => ({
    addresses: [address],
    conditions: { ready: true },
    nodeName: 'alder',
  })),
});

describe('a cluster', { skip }, () => {
  const node = new SmallNode();
  const folder = mkdtempSync(join(tmpdir(), 'kpp-api-'));
  const children: Child[] = [];
  let server: ApiServer;

  const endpoints = (): string[] =>
    [...run('nft', 'list', 'map', 'ip', 'kube-proxy', 'endpoints').matchAll(/: (\S+) \. 9000/g)].map(
      (m) => m[1] ?? '',
    );
  before(async () => {
    await node.open();
    const tls = makeCertificates();
    server = await ApiServer.start({ tls, clientCertificates: true });
    for (const object of [ownNode, service, slice(podIP)]) server.store.put(object);
    for (const [name, content] of [
      ['ca.crt', tls.authority],
      ['client.crt', tls.clientCertificate],
      ['client.key', tls.clientKey],
      [
        'kubeconfig',
        JSON.stringify({
          apiVersion: 'v1',
          kind: 'Config',
          clusters: [{ name: 'double', cluster: { server: server.url, 'certificate-authority': 'ca.crt' } }],
          users: [{ name: 'me', user: { 'client-certificate': 'client.crt', 'client-key': 'client.key' } }],
          contexts: [{ name: 'double', context: { cluster: 'double', user: 'me' } }],
          'current-context': 'double',
        }),
      ],
    ] as const) {
      writeFileSync(join(folder, name), content);
    }
    const proxy = start(
      program,
      `--kubeconfig=${join(folder, 'kubeconfig')}`,
      '--hostname-override=alder',
      '--cluster-cidr=10.61.0.0/16',
      '--v=2',
    );
    children.push(proxy);
    await proxy.waitFor(bothCompared);
  });
  after(async () => {
    for (const child of children) child.kill('SIGTERM');
    await Promise.all(children.map((child) => child.end()));
    await server.close();
    await node.close();
    rmSync(folder, { recursive: true });
  });

  test('its Service answers', async () => {
    const traffic = await node.traffic(serviceIP, 80);
    traffic.kill('SIGTERM');
    assert.equal(await traffic.end(), 0);
    assert.deepEqual(endpoints(), [podIP]);
    const versions = new Set(server.requests.map(({ httpVersion }) => httpVersion));
    assert.deepEqual([...versions], ['2.0'], 'one HTTP/2 connection');
    const reads = server.requests.filter(({ target }) => !target.includes('/events'));
    assert.ok(reads.every(({ accept }) => accept.startsWith('application/vnd.kubernetes.protobuf')));
  });

  test('a change of the slice is followed', async () => {
    server.store.put(slice(podIP, '10.61.2.41'));
    await eventually('second endpoint', () => endpoints().length === 2, children);
    server.store.put(slice(podIP));
    await eventually('one endpoint', () => endpoints().length === 1, children);
  });

  const troubles: readonly (readonly [name: string, cause: () => void])[] = [
    [
      'watches are cut',
      () => {
        server.cutWatches();
      },
    ],
    [
      'connections are cut',
      () => {
        server.cutConnections();
      },
    ],
    [
      'garbage comes over a watch',
      () => {
        server.garbage('EndpointSlice');
      },
    ],
    [
      'its versions expire',
      () => {
        server.compact(true);
      },
    ],
    [
      'it fails three times',
      () => {
        server.failNext({ status: 500, count: 3 });
        server.cutWatches();
      },
    ],
  ];
  for (const [name, cause] of troubles) {
    test(`${name}: nothing flaps, and the next change is followed`, async () => {
      const traffic = await node.traffic(serviceIP, 80);
      cause();
      server.store.put(slice(podIP, '10.61.2.42'));
      await eventually('second endpoint', () => endpoints().length === 2, children);
      server.store.put(slice(podIP));
      await eventually('one endpoint', () => endpoints().length === 1, children);
      const { linesLost } = await trafficResult(traffic);
      assert.equal(linesLost, 0, 'established connections go on');
    });
  }
});
