import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deliver, newModel, port as portSpec, service, slice } from '../model/fixtures.js';
import type { Service } from '../sources/objects.js';
import type { ServicePort } from '../model/types.js';
import { LocalPolicyGaps } from './local-policy.js';

/** The service port that a Service and endpoints come to: L is on this node, R is not. */
function port(name: string, fields: Partial<Service>, endpoints: string): ServicePort {
  const model = newModel();
  deliver(model, service({ name, ...fields }), slice(endpoints, { serviceName: name }));
  model.takeChanges();
  const [only] = model.servicePorts('IPv4');
  assert.ok(only);
  return only;
}

const internal: Partial<Service> = { internalTrafficPolicy: 'Local' };
const external: Partial<Service> = {
  type: 'NodePort',
  externalTrafficPolicy: 'Local',
  externalIPs: ['203.0.113.80'],
  ports: [portSpec({ nodePort: 31090 })],
};
const cases: [what: string, port: ServicePort, counts: [internal: number, external: number]][] = [
  ['policy Cluster', port('a', {}, 'R1 R2'), [0, 0]],
  ['internal, none here', port('a', internal, 'R1 R2'), [1, 0]],
  ['internal, a terminating one elsewhere', port('a', internal, 'R1~'), [1, 0]],
  ['internal, one that can not be used', port('a', internal, 'R1!'), [0, 0]],
  ['external, none here, two addresses', port('a', external, 'R1 R2'), [0, 1]],
  ['both, none here', port('a', { ...internal, ...external }, 'R1 R2'), [1, 1]],
  ['both, one here', port('a', { ...internal, ...external }, 'L1 R1'), [0, 0]],
  ['none anywhere', port('a', { ...internal, ...external }, ''), [0, 0]],
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
  gaps.update([port('a', internal, 'R1'), port('b', internal, 'R1'), port('c', external, 'R1')], []);
  assert.deepEqual([gaps.internal, gaps.external], [2, 1]);
  gaps.update([port('a', internal, 'L1')], ['default/c:/TCP']);
  assert.deepEqual([gaps.internal, gaps.external], [1, 0]);
  gaps.replace([port('d', external, 'R1')]);
  assert.deepEqual([gaps.internal, gaps.external], [0, 1]);
});
