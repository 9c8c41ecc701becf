import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ClusterEvent } from '../sources/kube/events.js';
import { unconfirmedLists } from './unconfirmed-lists.js';

test('a list that is held back is an event on the Node and counts', () => {
  const events: ClusterEvent[] = [];
  const counted: unknown[] = [];
  const report = unconfirmedLists({
    nodeName: 'alder',
    metrics: { unconfirmedListGauge: { inc: (labels: unknown) => counted.push(labels) } as never },
    record: (event) => events.push(event),
  });
  report('EndpointSlice', 90, 100);
  assert.deepEqual(counted, [{ resource: 'EndpointSlice' }]);
  assert.deepEqual(
    events.map(({ reason, regarding }) => [reason, regarding.kind, regarding.name]),
    [['ListHeldBack', 'Node', 'alder']],
  );
  assert.match(events[0]?.note ?? '', /lacks 90 of 100 EndpointSlice objects/);
});
