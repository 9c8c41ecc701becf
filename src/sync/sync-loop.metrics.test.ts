/** What the sync loop tells the metrics, with a dataplane that does as it is told. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, test } from 'node:test';
import { TableDamagedError, type ApplyReport, type Dataplane } from '../backends/backend.js';
import { Health } from '../health/health.js';
import { silentLogger } from '../log/logger.js';
import { createMetrics } from '../metrics/metrics.js';
import { clusterIP, deliver, newModel, slice } from '../model/fixtures.js';
import { SyncLoop } from './sync-loop.js';

const report: ApplyReport = {
  transactions: 1,
  elementsAdded: 3,
  elementsDeleted: 1,
  kernelMs: 0,
  failures: [],
};
const nothing: ApplyReport = { ...report, transactions: 0, elementsAdded: 0, elementsDeleted: 0 };

const loops: SyncLoop[] = [];
afterEach(async () => {
  await Promise.all(loops.splice(0).map((loop) => loop.stop()));
});

function begin() {
  /** Of the next calls; then every call succeeds. */
  const outcomes: (Error | ApplyReport)[] = [];
  const next = (): Promise<ApplyReport> => {
    const outcome = outcomes.shift() ?? report;
    return outcome instanceof Error ? Promise.reject(outcome) : Promise.resolve(outcome);
  };
  const dataplane: Dataplane = {
    family: 'IPv4',
    resync: next,
    apply: next,
    setServiceCIDRs: () => nothing,
    setNodePortAddresses: () => nothing,
    deferredDueAt: undefined,
    deleteDeferred: () => Promise.resolve(nothing),
    maintain: () => nothing,
    close: () => undefined,
  };
  const model = newModel({ families: ['IPv4'] });
  const metrics = createMetrics({ modes: ['nftables'] });
  const health = new Health(60_000);
  health.begin('IPv4');
  let syncs = 0;
  const loop = new SyncLoop({
    model,
    dataplanes: [dataplane],
    health,
    metrics,
    log: silentLogger,
    minSyncPeriodMs: 0,
    syncPeriodMs: 50,
    afterSync: () => {
      syncs++;
    },
    onChanges: () => undefined,
  });
  loops.push(loop);
  /** Number of the metric's only series with samples, of a histogram its count. */
  const value = async (name: string): Promise<number> => {
    const metric = metrics.registry.getSingleMetric(name.replace(/_count$|_sum$/, ''));
    const found = (await metric?.get())?.values.find(
      (sample) =>
        sample.labels['ip_family'] === 'IPv4' && (!('metricName' in sample) || sample.metricName === name),
    );
    return found?.value ?? 0;
  };
  const synced = async (count: number): Promise<void> => {
    const deadline = Date.now() + 5000;
    while (syncs < count) {
      if (Date.now() > deadline) assert.fail(`${syncs} syncs instead of ${count}`);
      await sleep(2);
    }
  };
  let pods = 0;
  /** A Service and its slice, which changed so many milliseconds ago. */
  const change = (msAgo: number): void => {
    const triggerTime = new Date(Date.now() - msAgo).toISOString();
    deliver(model, clusterIP('10.177.1.1'), slice(pods++ % 2 === 0 ? 'R1' : 'R2', { triggerTime }));
    loop.request();
  };
  return { outcomes, loop, value, synced, change };
}

const prefix = 'kubeproxy_sync_proxy_rules';
const full = 'kubeproxy_sync_full_proxy_rules_duration_seconds_count';
const partial = 'kubeproxy_sync_partial_proxy_rules_duration_seconds_count';
const programming = 'kubeproxy_network_programming_duration_seconds';
const failures = `${prefix}_nftables_sync_failures_total`;
const repairs = 'kubeproxyts_kernel_repairs_total';

test('full and partial syncs are measured, and what they wrote', async () => {
  const { value, synced, change } = begin();
  change(0);
  await synced(1);
  assert.deepEqual([await value(full), await value(partial)], [1, 0]);
  change(0);
  await synced(2);
  assert.deepEqual([await value(full), await value(partial)], [1, 1]);
  assert.equal(await value(`${prefix}_duration_seconds_count`), 2);
  assert.equal(await value('kubeproxyts_kernel_transactions_total'), 2);
  assert.equal(await value('kubeproxyts_kernel_elements_written_total'), 8);
  assert.equal(await value(failures), 0);
});

test('the time of a failed sync counts on until one succeeds, for every slice event', async () => {
  const { outcomes, value, synced, change } = begin();
  outcomes.push(new Error('no'), new Error('no'));
  change(10_000);
  change(20_000);
  await synced(1);
  assert.equal(await value(`${programming}_count`), 2);
  assert.ok((await value(`${programming}_sum`)) >= 30);
  assert.ok((await value(failures)) >= 2);
  assert.ok((await value(`${prefix}_duration_seconds_count`)) >= 3, 'failed syncs take their time, too');
});

test('a request that finds nothing to write moves the time of the last sync all the same', async () => {
  const { loop, value, synced, change } = begin();
  change(0);
  await synced(1);
  const before = await value(`${prefix}_last_timestamp_seconds`);
  await sleep(20);
  loop.request();
  const queued = await value(`${prefix}_last_queued_timestamp_seconds`);
  assert.ok(queued > before);
  while ((await value(`${prefix}_last_timestamp_seconds`)) < queued) await sleep(2);
  assert.equal(await value(`${prefix}_duration_seconds_count`), 1, 'but it is no sync');
});

test('a refused service port is a failure, and is counted until it is accepted', async () => {
  const { outcomes, value, synced, change } = begin();
  const key = 'default/pear:web/TCP';
  outcomes.push({ ...report, failures: [{ key, servicePort: key, error: new Error('EINVAL') }] });
  change(0);
  await synced(1);
  assert.equal(await value('kubeproxyts_service_ports_refused'), 1);
  assert.equal(await value(failures), 1);
});

test('repairs are those of what somebody else did, once each, and only when something was missing', async () => {
  const { outcomes, loop, value, synced, change } = begin();
  change(0);
  await synced(1);
  assert.equal(await value(repairs), 0, 'the first comparison is none');
  loop.requestResync('IPv4');
  await synced(2);
  assert.equal(await value(repairs), 1);
  outcomes.push(nothing);
  loop.requestResync('IPv4');
  await synced(3);
  assert.equal(await value(repairs), 1, 'nothing was missing');
  outcomes.push(new TableDamagedError('gone'), new Error('not yet'));
  change(0);
  await synced(4);
  assert.equal(await value(repairs), 2, 'also when the repair failed at first');
});
