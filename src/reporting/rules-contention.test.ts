/** Two programs that undo each other's work are reported once, and so is peace. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterEvent } from '../sources/kube/events.js';
import { createLogger } from '../log/logger.js';
import { createMetrics } from '../metrics/metrics.js';
import { RulesContention } from './rules-contention.js';

function begin(quietMs: number) {
  const lines: string[] = [];
  const events: ClusterEvent[] = [];
  const metrics = createMetrics();
  const contention = new RulesContention({
    nodeName: 'alder',
    nodeUid: 'u-9',
    metrics,
    log: createLogger({ format: 'text', verbosity: 0, write: (line) => lines.push(line) }),
    record: (event) => events.push(event),
    quietMs,
  });
  const contested = async (): Promise<string> =>
    /^kubeproxyts_rules_contested (\d)$/m.exec(await metrics.registry.metrics())?.[1] ?? '';
  return { contention, lines, events, contested };
}

test('single changes are none', async () => {
  const { contention, lines, events, contested } = begin(20);
  for (const pause of [5, 10, 20, 40, 5, 10]) contention.backOff('nft', pause);
  assert.deepEqual([lines, events, await contested()], [[], [], '0']);
});

test('one that lasts is told once, while it lasts; its end, too; and the next one', async () => {
  const { contention, lines, events, contested } = begin(20);
  for (const pause of [320, 640, 1280, 60_000, 60_000]) contention.backOff('firewalld', pause);
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /^E.*Rules contested by another program.* by="firewalld"/);
  assert.equal(events.length, 1);
  assert.deepEqual(events[0]?.regarding, {
    apiVersion: 'v1',
    kind: 'Node',
    namespace: '',
    name: 'alder',
    uid: 'u-9',
  });
  assert.match(events[0].note, /^firewalld keeps changing the rules of kube-proxy on node alder/);
  assert.equal(await contested(), '1');
  // The last pause was short: then it is soon over.
  contention.backOff('firewalld', 5);
  for (let i = 0; i < 200 && (await contested()) === '1'; i++) await sleep(5);
  assert.equal(await contested(), '0');
  assert.match(lines[1] ?? '', /^I.*no longer contested/);
  contention.backOff('firewalld', 640);
  assert.equal(events.length, 2);
  contention.close();
});
