import assert from 'node:assert/strict';
import { test } from 'node:test';
import { featureGates, gateNeeds, goneGates, resolveGates } from './feature-gates.js';

test('every gate of v1.37 is known', () => {
  const stages = [...featureGates.values()].map(({ stage }) => stage);
  const count = (stage: string): number => stages.filter((other) => other === stage).length;
  assert.deepEqual(
    ['Alpha', 'Beta', 'GA', 'Deprecated'].map((stage) => [stage, count(stage)]),
    [
      ['Alpha', 57],
      ['Beta', 109],
      ['GA', 71],
      ['Deprecated', 17],
    ],
  );
});

test('gates of v1.36 that v1.37 no longer has: one warning for all of them, whatever they are set to', () => {
  assert.equal(goneGates.size, 25);
  for (const gate of goneGates) assert.equal(featureGates.has(gate), false, gate);
  const { problems, warnings } = resolveGates(Object.fromEntries([...goneGates].map((gate) => [gate, true])));
  assert.deepEqual(problems, []);
  assert.equal(warnings.length, 1);
  for (const gate of goneGates) assert.ok(warnings[0]?.includes(gate), gate);
});

test('a gate that v1.37 locks: another value of v1.36 is ignored with a warning', () => {
  const { gates, problems, warnings } = resolveGates({ NodeDeclaredFeatures: false });
  assert.deepEqual(problems, []);
  assert.equal(gates['NodeDeclaredFeatures'], true);
  assert.deepEqual(warnings, [
    'feature gate NodeDeclaredFeatures is locked to true since v1.37: NodeDeclaredFeatures=false is ignored',
  ]);
});

test('a list of v1.36 that switches off a gate, with all that needed it then, stays valid', () => {
  const old = {
    AtomicFIFO: false,
    StaleControllerConsistencyDaemonSet: false,
    StaleControllerConsistencyJob: false,
    StaleControllerConsistencyReplicaSet: false,
    StaleControllerConsistencyStatefulSet: false,
  };
  const { gates, problems } = resolveGates(old);
  assert.deepEqual(problems, []);
  assert.equal(gates['StaleControllerConsistencyHPA'], false);
  assert.equal(resolveGates({ ...old, StaleControllerConsistencyHPA: true }).problems.length, 1);
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
    NativeHistograms: true,
    WatchListClient: true,
  });
  assert.equal(gates['ClientsAllowCBOR'], true);
  assert.equal(gates['NativeHistograms'], true);
  assert.equal(gates.ComponentStatusz, false);
  assert.equal(gates.WatchListClient, true);
  assert.equal(gates.AllowServiceExternalIPs, true);
  assert.equal(gates['TopologyAwareWorkloadScheduling'], false);
  assert.equal(gates['CompositePodGroup'], false, 'what it needs went off with what that needs');
  assert.deepEqual(
    problems.map(({ gate }) => gate),
    [],
  );
});

test('each wrong gate is told once', () => {
  const { problems } = resolveGates({ Magic: true, WinDSR: false, ComponentFlagz: false });
  assert.deepEqual(problems, [
    { gate: 'Magic', message: 'is not a feature gate of Kubernetes v1.37' },
    { gate: 'WinDSR', message: 'is locked to true' },
  ]);
});
