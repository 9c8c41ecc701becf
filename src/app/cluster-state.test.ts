import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node } from '../sources/objects.js';
import { changesOf, clusterIP, newModel, slice } from '../model/fixtures.js';
import type { ServiceModel } from '../model/model.js';
import { ClusterState } from './cluster-state.js';

const node = (fields: Partial<Node> = {}): Node => ({
  name: 'alder',
  uid: '',
  addresses: [],
  podCIDRs: [],
  zone: 'mtl-1',
  deleting: false,
  taintKeys: [],
  ...fields,
});

function begin() {
  const events: string[] = [];
  const state = new ClusterState('alder', {
    changed: () => events.push('changed'),
    nodeChanged: (object) => events.push(`node ${object?.name ?? 'gone'}`),
    serviceCIDRsChanged: () => events.push('CIDRs'),
    synced: (kind) => events.push(`synced ${kind}`),
  });
  return { state, events };
}

/** Names of the service ports with their endpoints. */
function ports(model: ServiceModel): string[] {
  return changesOf(model.takeChanges()).upserted.map(
    ({ name, clusterEndpoints }) => `${name} ${clusterEndpoints.map(({ ip }) => ip).join()}`,
  );
}

test('what comes before there is a model is kept for it, also what was taken back', () => {
  const { state } = begin();
  state.service('default/pear', clusterIP('10.177.0.50'));
  state.endpointSlice('default/pear-1', slice('R1'));
  state.service('default/fig', clusterIP('10.177.0.51', { name: 'fig' }));
  state.service('default/fig', undefined);
  state.endpointSlice('default/fig-1', slice('R2', { name: 'fig-1' }));
  state.endpointSlice('default/fig-1', undefined);
  const model = newModel();
  state.attach(model);
  assert.deepEqual(ports(model), ['default/pear 10.61.2.41']);
});

test('once there is a model it gets everything at once', () => {
  const { state } = begin();
  const model = newModel();
  state.attach(model);
  state.service('default/pear', clusterIP('10.177.0.50'));
  state.endpointSlice('default/pear-1', slice('R2'));
  assert.deepEqual(ports(model), ['default/pear 10.61.3.42']);
  state.service('default/pear', undefined);
  assert.equal(changesOf(model.takeChanges()).removed.length, 1);
});

test('events and what waits are counted, before and after there is a model', () => {
  const { state } = begin();
  state.service('default/pear', clusterIP('10.177.0.50'));
  state.endpointSlice('default/pear-1', slice('R1'));
  state.endpointSlice('default/pear-2', slice('R2', { name: 'pear-2' }));
  const counts = (): number[] => {
    const { serviceEvents, endpointSliceEvents, pendingServices, pendingEndpointSlices } = state.counts();
    return [serviceEvents, endpointSliceEvents, pendingServices, pendingEndpointSlices];
  };
  assert.deepEqual(counts(), [1, 2, 1, 2]);
  const model = newModel();
  state.attach(model);
  assert.deepEqual(counts(), [1, 2, 1, 2]);
  model.takeChanges();
  assert.deepEqual(counts(), [1, 2, 0, 0]);
  state.service('default/pear', undefined);
  state.endpointSlice('default/pear-2', slice('R2', { name: 'pear-2' }));
  assert.deepEqual(counts(), [2, 3, 1, 0], 'the same slice again leaves nothing to do');
});

test('the zone of the own Node reaches the model, before and after it is made', () => {
  const { state } = begin();
  state.node('alder', node({ zone: 'mtl-2' }));
  const model = newModel();
  state.attach(model);
  state.service('default/pear', clusterIP('10.177.0.50'));
  state.endpointSlice('default/pear-1', slice('R1[mtl-1] R2[mtl-2]'));
  assert.deepEqual(ports(model), ['default/pear 10.61.3.42']);
  state.node('alder', node({ zone: 'mtl-1' }));
  assert.deepEqual(ports(model), ['default/pear 10.61.2.41']);
});

test('a group of changes is told once, an empty group not at all', () => {
  const { state, events } = begin();
  state.flush();
  state.service('default/pear', clusterIP('10.177.0.50'));
  state.endpointSlice('default/pear-1', slice('R1'));
  assert.deepEqual(events, []);
  state.flush();
  state.flush();
  assert.deepEqual(events, ['changed']);
});

test('only the own Node counts, and its last state outlives it', () => {
  const { state, events } = begin();
  state.node('birch', node({ name: 'birch' }));
  assert.deepEqual(events, []);
  state.node('alder', node());
  state.node('alder', undefined);
  assert.equal(state.ownNode?.name, 'alder');
  assert.deepEqual(events, ['node alder', 'node gone']);
});

test('service CIDRs are the union of all objects, by family, without what is not one', () => {
  const { state, events } = begin();
  state.serviceCIDR('a', { name: 'a', cidrs: ['10.96.0.0/12', 'fd00:96::/112'] });
  state.serviceCIDR('b', { name: 'b', cidrs: ['10.200.0.0/16', '10.96.0.0/12', 'nonsense'] });
  const text = (family: 'IPv4' | 'IPv6'): string[] =>
    state.serviceCIDRs(family).map(({ ip, prefixLength }) => `${ip}/${prefixLength}`);
  assert.deepEqual(text('IPv4'), ['10.96.0.0/12', '10.200.0.0/16']);
  assert.deepEqual(text('IPv6'), ['fd00:96::/112']);
  state.serviceCIDR('a', undefined);
  assert.deepEqual(text('IPv4'), ['10.200.0.0/16', '10.96.0.0/12']);
  assert.deepEqual(text('IPv6'), []);
  assert.deepEqual(events, ['CIDRs', 'CIDRs', 'CIDRs']);
});

test('kinds that have been listed once', () => {
  const { state, events } = begin();
  assert.equal(state.hasSynced('Service'), false);
  state.synced('Service');
  assert.equal(state.hasSynced('Service'), true);
  assert.equal(state.hasSynced('Node'), false);
  assert.deepEqual(events, ['synced Service']);
});

test('thousands of objects reach the model in several turns of the event loop, and what changes meanwhile is not undone', async () => {
  const { state } = begin();
  const names = Array.from({ length: 2500 }, (_, i) => `pear-${i}`);
  for (const [i, name] of names.entries())
    state.service(`default/${name}`, clusterIP(`10.177.${i >> 8}.${i & 255}`, { name }));
  const model = newModel();
  const handedOver = state.attach(model);
  assert.ok(handedOver !== undefined && model.pending.services < 2500);
  assert.equal(state.counts().pendingServices, 2500);
  state.service('default/pear-2400', undefined);
  state.service('default/pear-2401', clusterIP('10.177.200.1', { name: 'pear-2401' }));
  await handedOver;
  const { upserted } = changesOf(model.takeChanges());
  assert.equal(upserted.length, 2499);
  assert.equal(upserted.find(({ serviceName }) => serviceName === 'pear-2401')?.clusterIP, '10.177.200.1');
});
