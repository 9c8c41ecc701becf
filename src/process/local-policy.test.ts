import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Endpoint, ServicePort, VirtualAddress } from '../model/types.js';
import { LocalPolicyGaps } from './local-policy.js';

const endpoint: Endpoint = { ip: '10.61.1.31', port: 9000, local: true, nodeUnknown: false };
const address = (scope: 'internal' | 'external', policy: 'Cluster' | 'Local'): VirtualAddress => ({
  kind: scope === 'internal' ? 'ClusterIP' : 'NodePort',
  ip: '',
  port: 80,
  scope,
  policy,
  fallback: 'serve',
  sourceRanges: undefined,
});
const port = (
  key: string,
  addresses: readonly VirtualAddress[],
  cluster: number,
  local: number,
): ServicePort => ({
  key,
  name: key,
  namespace: 'default',
  serviceName: key,
  family: 'IPv4',
  protocol: 'TCP',
  clusterIP: '10.177.0.50',
  port: 80,
  addresses,
  clusterEndpoints: Array.from({ length: cluster }, () => endpoint),
  localEndpoints: Array.from({ length: local }, () => endpoint),
  affinitySeconds: 0,
  servingEndpoints: [],
});

const internal = address('internal', 'Local');
const external = address('external', 'Local');
const cases: [what: string, port: ServicePort, counts: [internal: number, external: number]][] = [
  ['policy Cluster', port('a', [address('internal', 'Cluster')], 2, 0), [0, 0]],
  ['internal, none here', port('a', [internal], 2, 0), [1, 0]],
  ['external, none here, two addresses', port('a', [external, external], 2, 0), [0, 1]],
  ['both, none here', port('a', [internal, external], 2, 0), [1, 1]],
  ['both, one here', port('a', [internal, external], 2, 1), [0, 0]],
  ['none anywhere', port('a', [internal, external], 0, 0), [0, 0]],
];
for (const [what, one, counts] of cases) {
  test(`${what}: ${counts.join(' internal, ')} external`, () => {
    const gaps = new LocalPolicyGaps();
    gaps.update([one], []);
    assert.deepEqual([gaps.internal, gaps.external], counts);
  });
}

test('follows changes and removals, and forgets everything when all is compared', () => {
  const gaps = new LocalPolicyGaps();
  gaps.update([port('a', [internal], 1, 0), port('b', [internal], 1, 0), port('c', [external], 1, 0)], []);
  assert.deepEqual([gaps.internal, gaps.external], [2, 1]);
  gaps.update([port('a', [internal], 1, 1)], ['c']);
  assert.deepEqual([gaps.internal, gaps.external], [1, 0]);
  gaps.replace([port('d', [external], 1, 0)]);
  assert.deepEqual([gaps.internal, gaps.external], [0, 1]);
});
