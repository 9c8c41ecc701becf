import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clusterIP, deliver, newModel, slice } from '../model/fixtures.js';
import type { ServicePort } from '../model/types.js';
import { ChangeList } from './change-list.js';

/** The service ports of Services web-00, web-01, … with these endpoints. */
function ports(count: number, pods: string): readonly ServicePort[] {
  const model = newModel();
  for (let i = 0; i < count; i++) {
    const name = `web-${String(i).padStart(2, '0')}`;
    deliver(model, clusterIP(`172.30.0.${i + 1}`, { name }), slice(pods, { name, serviceName: name }));
  }
  model.takeChanges();
  return [...model.servicePorts('IPv4')];
}

test('service port, address, endpoints, what was added and removed', () => {
  const list = new ChangeList();
  list.replace(ports(1, 'L1 R1'));
  const changed = ports(1, 'L1 R2 L2');
  assert.deepEqual(list.update(changed, []).list(), [
    'default/web-00 172.30.0.1:80/TCP endpoints=3 added=2 removed=1',
  ]);
  assert.deepEqual(list.update([], [changed[0]?.key ?? '']).list(), [
    'default/web-00 172.30.0.1:80/TCP deleted',
  ]);
  assert.deepEqual(list.update(changed, []).list(), [
    'default/web-00 172.30.0.1:80/TCP endpoints=3 added=3 removed=0',
  ]);
});

test('the first twenty by name', () => {
  const changes = new ChangeList().update([...ports(30, 'L1')].reverse(), []);
  assert.equal(changes.count, 30);
  assert.equal(changes.list(20).length, 20);
  assert.match(changes.list(20)[0] ?? '', /^default\/web-00 /);
  assert.equal(changes.list().length, 30);
});
