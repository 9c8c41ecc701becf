/** What is programmed first at a start: what the operator names, then what has connections, then the rest as it comes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clusterIP, newModel, port } from '../model/fixtures.js';
import type { IPFamily, ServicePort } from '../model/types.js';
import { SyncOrder, type OnDestination } from './sync-order.js';

const many = 3000;
const address = (i: number): string => `10.177.${i >> 8}.${i & 255}`;

/** Services default/s0, default/s1, …; s7 has a node port. */
function world(count = many): readonly ServicePort[] {
  const model = newModel();
  for (let i = 0; i < count; i++) {
    const ports = [port({ nodePort: i === 7 ? 31_007 : 0, protocol: i === 9 ? 'UDP' : 'TCP' })];
    model.setService(`default/s${i}`, clusterIP(address(i), { name: `s${i}`, ports }));
  }
  model.takeChanges();
  return [...model.servicePorts('IPv4')];
}

const names = (ports: readonly ServicePort[]): string[] => ports.map(({ serviceName }) => serviceName);

test('named Services, then used ones, then the others in their order', () => {
  const ports = world();
  const order = new SyncOrder({
    first: ['default/s2000', 'default/none', 'default/s5'],
    destinations: (family: IPFamily, onDestination: OnDestination) => {
      assert.equal(family, 'IPv4');
      onDestination('TCP', address(1234), 80);
      onDestination('TCP', address(1235), 81);
      onDestination('UDP', address(9), 80);
      onDestination('UDP', address(10), 80);
      onDestination('TCP', '100.64.10.11', 31_007);
      onDestination('TCP', address(5), 80);
    },
  });
  const arranged = order.arrange('IPv4', ports);
  assert.deepEqual(names(arranged.slice(0, 8)), ['s2000', 's5', 's7', 's9', 's1234', 's0', 's1', 's2']);
  assert.equal(new Set(arranged).size, many, 'all of them, each once');
  assert.equal(order.arrange('IPv4', ports), ports, 'only the first time');
});

test('few Services are left as they are, and nothing is read', () => {
  const ports = world(100);
  const order = new SyncOrder({
    first: ['default/s50'],
    destinations: () => {
      assert.fail('not asked for');
    },
  });
  assert.equal(order.arrange('IPv4', ports), ports);
});
