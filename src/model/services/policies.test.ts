/** The state tables of service-model.md 6.2 to 6.4, cell by cell. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { only, port, printEndpoints, service, slice, vip } from '../fixtures.js';
import type { ServicePort, VirtualAddress } from '../types.js';

const stateCases: Readonly<Record<string, string>> = {
  E0: 'L1! R1x',
  E1: 'R1',
  E2: 'L1 R1',
  E3: 'L1~ R1',
  E4: 'L1~ R1~',
  E5: 'R1~',
  E6: 'L1',
  E7: 'L1! R1',
};

type Source = 'pod' | 'host' | 'other';
const sourceCases: readonly Source[] = ['pod', 'host', 'other'];

/** What a dataplane does for a packet, read off the contract of VirtualAddress. */
function outcome(servicePort: ServicePort, address: VirtualAddress, source: Source): string {
  const { clusterEndpoints, localEndpoints } = servicePort;
  const shortCircuit = address.scope === 'external' && source !== 'other';
  const local = address.policy === 'Local' && !shortCircuit;
  const list = local ? localEndpoints : clusterEndpoints;
  if (list.length === 0) return address.fallback.toUpperCase();
  const masquerade = address.scope === 'external' && (address.policy === 'Cluster' || source === 'host');
  return `${printEndpoints(list)}${masquerade ? ' masq' : ''}`;
}

interface Row {
  readonly policy: 'Cluster' | 'Local';
  readonly sources: readonly Source[];
  readonly cells: readonly string[];
}

function check(title: string, rows: readonly Row[], run: (row: Row, eps: string) => readonly string[]): void {
  for (const row of rows) {
    for (const [index, [state, eps]] of Object.entries(stateCases).entries()) {
      test(`${title}, policy ${row.policy}, ${state} (${eps}), from ${row.sources.join('/')}`, () => {
        for (const result of run(row, eps)) assert.equal(result, row.cells[index]);
      });
    }
  }
}

// prettier-ignore
check('6.3 ClusterIP', [
  { policy: 'Cluster', sources: sourceCases, cells: ['REJECT', 'R1', 'L1 R1', 'R1', 'L1 R1', 'R1', 'L1', 'R1'] },
  { policy: 'Local', sources: sourceCases, cells: ['REJECT', 'DROP', 'L1', 'L1', 'L1', 'DROP', 'L1', 'DROP'] },
], (row, eps) => {
  const result = only([service({ internalTrafficPolicy: row.policy }), slice(eps)]);
  const address = result?.addresses[0];
  assert.ok(result && address);
  assert.equal(result.addresses.length, 1);
  assert.equal(address.scope, 'internal');
  return row.sources.map((source) => outcome(result, address, source));
});

for (const internal of ['Cluster', 'Local']) {
  // prettier-ignore
  check(`6.4 external destinations (iTP ${internal})`, [
    { policy: 'Cluster', sources: sourceCases,
      cells: ['REJECT', 'R1 masq', 'L1 R1 masq', 'R1 masq', 'L1 R1 masq', 'R1 masq', 'L1 masq', 'R1 masq'] },
    { policy: 'Local', sources: ['pod'], cells: ['REJECT', 'R1', 'L1 R1', 'R1', 'L1 R1', 'R1', 'L1', 'R1'] },
    { policy: 'Local', sources: ['host'],
      cells: ['REJECT', 'R1 masq', 'L1 R1 masq', 'R1 masq', 'L1 R1 masq', 'R1 masq', 'L1 masq', 'R1 masq'] },
    { policy: 'Local', sources: ['other'], cells: ['REJECT', 'DROP', 'L1', 'L1', 'L1', 'DROP', 'L1', 'DROP'] },
  ], (row, eps) => {
    const result = only([
      service({
        type: 'LoadBalancer',
        externalTrafficPolicy: row.policy,
        internalTrafficPolicy: internal,
        externalIPs: ['203.0.113.80'],
        loadBalancerIngress: [vip('192.0.2.90')],
        ports: [port({ nodePort: 31090 })],
        healthCheckNodePort: 32190,
      }),
      slice(eps),
    ]);
    assert.ok(result);
    const external = result.addresses.filter((address) => address.kind !== 'ClusterIP');
    assert.deepEqual(external.map((address) => address.kind), ['LoadBalancerIP', 'ExternalIP', 'NodePort']);
    return external.flatMap((address) => row.sources.map((source) => outcome(result, address, source)));
  });
}

test('a list is empty when no address uses it', () => {
  const cluster = only([service(), slice('L1 R1')]);
  const local = only([service({ internalTrafficPolicy: 'Local' }), slice('L1 R1')]);
  assert.ok(cluster && local);
  assert.equal(printEndpoints(cluster.clusterEndpoints), 'L1 R1');
  assert.deepEqual(cluster.localEndpoints, []);
  assert.deepEqual(local.clusterEndpoints, []);
  assert.equal(printEndpoints(local.localEndpoints), 'L1');
});
