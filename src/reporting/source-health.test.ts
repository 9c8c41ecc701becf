import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KindHealth, SourceHealth } from '../sources/source-health.js';
import { apiServerHealth, apiServerState } from './source-health.js';

const well: KindHealth = {
  synced: true,
  watching: true,
  objects: 3,
  currentAt: 1000,
  lastContact: 900,
  lastError: undefined,
};
const refused = { code: 'KUBE_CONNECT_REFUSED', message: 'https://10.0.0.1 refuses' };
const failing: KindHealth = { ...well, watching: false, currentAt: 400, lastError: refused };
const unlisted: KindHealth = { ...failing, synced: false, objects: 0, currentAt: 0 };

const source = (fields: Partial<SourceHealth>, kind: KindHealth = well): SourceHealth => ({
  state: 'current',
  staleSince: undefined,
  reason: '',
  lastContact: 900,
  fromStateFile: false,
  kinds: { Service: kind, EndpointSlice: kind, Node: kind, ServiceCIDR: well },
  ...fields,
});

test('everything is followed', () => {
  assert.deepEqual(apiServerHealth(source({})), {
    state: 'current',
    staleSince: undefined,
    lastContact: 900,
    fromStateFile: false,
    waitingFor: [],
    error: undefined,
  });
});

test('a failure that is too young to matter is not told', () => {
  assert.equal(apiServerHealth(source({}, failing))?.error, undefined);
});

test('out of reach: since when, and the code of what fails, no address', () => {
  const health = apiServerHealth(source({ state: 'stale', staleSince: 400 }, failing));
  assert.equal(health?.state, 'stale');
  assert.equal(health.staleSince, 400);
  assert.equal(health.error, 'KUBE_CONNECT_REFUSED');
  assert.ok(!JSON.stringify(health).includes('10.0.0.1'));
});

test('starting: what it waits for; service CIDRs may be missing, old API servers do not have them', () => {
  const kinds = { ...source({}).kinds, Service: unlisted, ServiceCIDR: unlisted };
  const health = apiServerHealth(source({ state: 'starting', kinds }));
  assert.deepEqual(health?.waitingFor, ['Service']);
  assert.equal(health.error, 'KUBE_CONNECT_REFUSED');
});

test('manifests: there is no API server to tell about', () => {
  assert.equal(apiServerHealth(source({ kinds: {} })), undefined);
  assert.equal(apiServerState(source({ kinds: {} })), undefined);
});

test('for metrics, kind by kind', () => {
  assert.deepEqual(apiServerState(source({ fromStateFile: true, kinds: { Node: failing } })), {
    fromStateFile: true,
    resources: [{ kind: 'Node', synced: true, watching: false, objects: 3, currentAt: 400 }],
  });
});
