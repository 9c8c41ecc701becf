import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changesOf, clusterIP, newModel, port } from '../model/fixtures.js';
import type { FamilyChanges, IPFamily } from '../model/types.js';
import { FamilyWarnings } from './family-warnings.js';

/** One new service port, told as one of the family. */
function added(family: IPFamily): FamilyChanges {
  const model = newModel();
  model.setService('ns/s', clusterIP('172.30.0.9', { ports: [port()] }));
  const changes = changesOf(model.takeChanges());
  assert.equal(changes.upserted.length, 1);
  return { ...changes, family };
}

const ipv4Only = { primaryFamily: 'IPv4', IPv4: '192.0.2.1', IPv6: '::1', warnings: [] } as const;
const warnings = new Map<IPFamily, readonly string[]>([
  ['IPv4', []],
  ['IPv6', ['no IPv6 CIDR']],
]);

test('a node without IPv6 hears nothing about IPv6, until a Service has it; then once', () => {
  const said: string[] = [];
  const found = new FamilyWarnings({ warnings, nodeIPs: ipv4Only, warn: (text) => said.push(text) });
  found.changed([added('IPv4')]);
  found.changed([{ family: 'IPv6', upserted: [], removed: ['x'] }]);
  assert.deepEqual(said, []);
  found.changed([added('IPv6')]);
  found.changed([added('IPv6')]);
  assert.deepEqual(said, ['no IPv6 CIDR']);
});

test('a node with both hears it at once', () => {
  const said: string[] = [];
  const nodeIPs = { ...ipv4Only, IPv6: '2001:db8::1' };
  new FamilyWarnings({ warnings, nodeIPs, warn: (text) => said.push(text) });
  assert.deepEqual(said, ['no IPv6 CIDR']);
});
