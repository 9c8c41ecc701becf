import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KubeError } from './kube/errors.js';
import { sourceHealth } from './source-health.js';
import type { ResourceKind } from './objects.js';
import type { ReflectorStatus } from './kube/reflector/reflector.js';

const now = 1_800_000_000_000;
const good: ReflectorStatus = {
  synced: true,
  watching: true,
  lastError: undefined,
  lastContact: now - 40_000,
  currentAt: now - 40_000,
  objects: 7,
};
const gone = new KubeError('KUBE_CONNECT_REFUSED', 'it refuses the connection');
const kinds: readonly ResourceKind[] = ['Service', 'EndpointSlice', 'Node', 'ServiceCIDR'];

function health(changes: Partial<Record<ResourceKind, Partial<ReflectorStatus>>>) {
  const status = Object.fromEntries(kinds.map((kind) => [kind, { ...good, ...changes[kind] }]));
  return sourceHealth(status, now);
}

test('open watches: current, however quiet they are', () => {
  const { state, reason, staleSince, lastContact, fromStateFile, kinds: of } = health({});
  assert.deepEqual(
    { state, reason, staleSince, lastContact, fromStateFile },
    {
      state: 'current',
      reason: '',
      staleSince: undefined,
      lastContact: now - 40_000,
      fromStateFile: false,
    },
  );
  assert.equal(of.Service?.currentAt, now);
});

test('a watch that brings nothing, not even a bookmark, is no proof', () => {
  const mute = { lastContact: now - 76_000, currentAt: now - 76_000 };
  const { state, staleSince, reason, kinds: of } = health({ EndpointSlice: mute });
  assert.deepEqual([state, staleSince], ['stale', now - 76_000]);
  assert.match(reason, /not even a bookmark, comes over the watch for EndpointSlice objects/);
  assert.equal(of.EndpointSlice?.currentAt, now - 76_000);
  assert.equal(of.Service?.currentAt, now);
});

test('a watch that is just open again is followed before its first event', () => {
  assert.equal(health({ Node: { lastContact: now - 1000, currentAt: now - 600_000 } }).state, 'current');
});

test('a short gap between two watches is no news', () => {
  assert.equal(health({ Node: { watching: false, currentAt: now - 9_000 } }).state, 'current');
});

test('the kind that was lost first says since when, and why', () => {
  const {
    state,
    staleSince,
    reason,
    kinds: of,
  } = health({
    Service: { watching: false, currentAt: now - 20_000, lastError: new KubeError('KUBE_DNS', 'no name') },
    Node: { watching: false, currentAt: now - 60_000, lastError: gone },
  });
  assert.deepEqual(
    { state, staleSince, reason },
    { state: 'stale', staleSince: now - 60_000, reason: 'it refuses the connection' },
  );
  assert.deepEqual(of.Node?.lastError, {
    code: 'KUBE_CONNECT_REFUSED',
    message: 'it refuses the connection',
  });
});

test('before the first lists: starting, with the reason where there is one', () => {
  const never = { synced: false, watching: false, currentAt: 0, lastContact: 0 };
  assert.equal(
    health({ EndpointSlice: never }).reason,
    'the first list of EndpointSlice objects is not complete',
  );
  const refused = health({
    EndpointSlice: { ...never, lastError: gone },
    Node: { watching: false, currentAt: 1 },
  });
  assert.deepEqual(
    [refused.state, refused.reason, refused.staleSince],
    ['starting', gone.message, undefined],
  );
});

test('service CIDRs that can not be had make nothing stale', () => {
  assert.equal(health({ ServiceCIDR: { synced: false, watching: false, currentAt: 0 } }).state, 'current');
});
