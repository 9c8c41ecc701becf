import assert from 'node:assert/strict';
import { test } from 'node:test';
import { featureGates, gateNeeds, resolveGates } from './feature-gates.js';

test('every gate of v1.36 is known', () => {
  const stages = [...featureGates.values()].map(({ stage }) => stage);
  const count = (stage: string): number => stages.filter((other) => other === stage).length;
  assert.deepEqual(
    ['Alpha', 'Beta', 'GA', 'Deprecated'].map((stage) => [stage, count(stage)]),
    [
      ['Alpha', 50],
      ['Beta', 100],
      ['GA', 76],
      ['Deprecated', 16],
    ],
  );
});

test('gates that others need are known, and on by default where those are', () => {
  for (const [gate, needs] of gateNeeds) {
    assert.ok(featureGates.has(gate), gate);
    for (const need of needs) {
      assert.ok(featureGates.has(need), need);
      if (featureGates.get(gate)?.default === true) assert.equal(featureGates.get(need)?.default, true, need);
    }
  }
});

test('nothing asked for: the defaults, and nothing wrong', () => {
  const { gates, problems, warnings } = resolveGates({});
  assert.deepEqual(problems, []);
  assert.deepEqual(warnings, []);
  for (const [name, { default: initial }] of featureGates) assert.equal(gates[name], initial, name);
});

test('a locked gate can be set to what it is', () => {
  const { problems, warnings } = resolveGates({ NFTablesProxyMode: true });
  assert.deepEqual(problems, []);
  assert.deepEqual(warnings, [
    'feature gate NFTablesProxyMode is generally available: a later version will refuse its name',
  ]);
});

test('AllAlpha and AllBeta set what is not set otherwise', () => {
  const { gates, problems } = resolveGates({
    AllAlpha: true,
    AllBeta: false,
    NativeHistograms: false,
    WatchListClient: true,
  });
  assert.equal(gates['ClientsAllowCBOR'], true);
  assert.equal(gates['NativeHistograms'], false);
  assert.equal(gates.ComponentStatusz, false);
  assert.equal(gates.WatchListClient, true);
  assert.equal(gates.AllowServiceExternalIPs, true);
  assert.ok(problems.every(({ message }) => message.startsWith('is on, but needs')));
});

test('each wrong gate is told once', () => {
  const { problems } = resolveGates({ Magic: true, WinDSR: false, ComponentFlagz: false });
  assert.deepEqual(problems, [
    { gate: 'Magic', message: 'is not a feature gate of Kubernetes v1.36' },
    { gate: 'WinDSR', message: 'is locked to true' },
  ]);
});
