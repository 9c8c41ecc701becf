/** How the owners of objects hear that something is wrong with them: once, by name, in three places. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClusterEvent } from '../sources/kube/events.js';
import { createLogger } from '../log/logger.js';
import { createMetrics } from '../metrics/metrics.js';
import type { AddressConflict } from '../model/types.js';
import { AddressConflicts } from './address-conflicts.js';
import { RejectedServices } from './rejected-services.js';
import { InvalidObjects } from './invalid-objects.js';

const pear = { kind: 'Service', namespace: 'orchard', name: 'pear', uid: 'u-1' };

function begin() {
  const lines: string[] = [];
  const events: ClusterEvent[] = [];
  const metrics = createMetrics();
  const objects = new InvalidObjects({
    nodeName: 'alder',
    metrics,
    log: createLogger({ format: 'text', verbosity: 2, write: (line) => lines.push(line) }),
    record: (event) => events.push(event),
  });
  const samples = async (name: string): Promise<string[]> => {
    const text = await metrics.registry.getSingleMetricAsString(name);
    return text.split('\n').filter((line) => line.startsWith(name) && !line.endsWith(' 0'));
  };
  return { objects, lines, events, metrics, samples };
}

test('the same trouble is told once, another one again, and its end lowers the metrics', async () => {
  const { objects, lines, events, samples } = begin();
  for (let i = 0; i < 5; i++) objects.set('fields_left_out', pear, ['spec.ports[0].port: 70000 is none']);
  assert.equal(lines.length, 1);
  assert.match(
    lines[0] ?? '',
    /^W.*Fields of an object are left out.* object="Service orchard\/pear" problems=\["spec\.ports/,
  );
  assert.deepEqual(events, [
    {
      type: 'Warning',
      reason: 'FieldsLeftOut',
      action: 'ProgramRules',
      regarding: { apiVersion: 'v1', ...pear },
      note: 'Service has fields that are left out, the rest is served (node alder): spec.ports[0].port: 70000 is none',
    },
  ]);
  assert.deepEqual(await samples('kubeproxyts_troubled_objects'), [
    'kubeproxyts_troubled_objects{reason="fields_left_out"} 1',
  ]);
  assert.deepEqual(await samples('kubeproxyts_troubled_object_info'), [
    'kubeproxyts_troubled_object_info{kind="Service",namespace="orchard",name="pear",reason="fields_left_out"} 1',
  ]);

  objects.set('fields_left_out', pear, ['spec.ports[0].port: 0 is none'], 3);
  assert.equal(events.length, 2);
  assert.match(events[1]?.note ?? '', /0 is none; and 3 more$/);
  objects.set('fields_left_out', pear, []);
  objects.set('fields_left_out', pear, []);
  assert.deepEqual(await samples('kubeproxyts_troubled_objects'), []);
  assert.deepEqual(await samples('kubeproxyts_troubled_object_info'), []);
  assert.equal(lines.filter((line) => line.includes('Object is valid again')).length, 1);
  objects.set('fields_left_out', pear, ['spec.ports[0].port: 0 is none']);
  assert.equal(events.length, 3, 'it is back');
});

test('a hundred objects are shown by name, all are counted, whatever their names hold', async () => {
  const { objects, metrics, samples, lines } = begin();
  for (let i = 0; i < 1000; i++) {
    const name = `${i}"\n\u0000\u202e${'x'.repeat(10_000)}`;
    objects.set('kernel_refused', { ...pear, name }, ['no']);
  }
  assert.deepEqual(await samples('kubeproxyts_troubled_objects'), [
    'kubeproxyts_troubled_objects{reason="kernel_refused"} 1000',
  ]);
  const named = await samples('kubeproxyts_troubled_object_info');
  assert.equal(named.length, 100);
  assert.match(named[0] ?? '', /name="0\\"\\\\u000a\\\\u0000\\\\u202ex+… \(\d+ characters\)"/);
  assert.ok((await metrics.registry.metrics()).length < 200_000);
  assert.deepEqual(lines, [], 'who found out has logged it');
});

test('lost addresses: per Service, as long as another one has them', () => {
  const { objects, events } = begin();
  const lost = new AddressConflicts(objects);
  const loser = { namespace: 'orchard', name: 'plum', uid: 'u-2' };
  const contest = (port: number, owner: string, ...losers: AddressConflict['losers']): AddressConflict => ({
    family: 'IPv4',
    address: `203.0.113.9:${port}/TCP`,
    owner,
    others: losers.map(({ namespace, name }) => `${namespace}/${name}`),
    losers,
  });
  lost.update(Array.from({ length: 10_000 }, (_, i) => contest(i + 1, 'orchard/pear', loser)));
  assert.equal(events.length, 1, 'ten thousand ports, one event');
  assert.match(events[0]?.note ?? '', /203\.0\.113\.9:1\/TCP is served by orchard\/pear; .*; and 9992 more$/);
  lost.update([contest(1, 'orchard/pear', loser)]);
  assert.equal(events.length, 1);
  lost.update([contest(1, 'orchard/fig', { ...pear }, loser)]);
  assert.equal(events.length, 3, 'another owner, and the former owner lost it');
  lost.update(Array.from({ length: 10_000 }, (_, i) => contest(i + 1, 'orchard/pear')));
  assert.equal(events.length, 3, 'that all is well is no event');
});

test('refusals: one report for a Service, whatever the number of its ports, in both families', () => {
  const { objects, events } = begin();
  const refused = new RejectedServices(objects, () => 'u-1');
  const refusals = new Map(
    Array.from({ length: 5000 }, (_, i) => [
      `orchard/pear:p${i}/TCP`,
      { servicePort: `orchard/pear:p${i}`, message: 'ENOSPC' },
    ]),
  );
  refused.update('IPv4', refusals);
  refused.update('IPv4', refusals);
  assert.equal(events.length, 1);
  assert.deepEqual(events[0]?.regarding, { apiVersion: 'v1', ...pear });
  assert.match(events[0].note, /orchard\/pear:p0 \(IPv4\): ENOSPC; .*; and 4996 more$/);
  refused.update('IPv6', new Map());
  refused.update('IPv4', new Map());
  refused.update('IPv4', refusals);
  assert.equal(events.length, 2);
});
