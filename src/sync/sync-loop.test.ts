/** Pacing, retry and isolation of the sync loop, with dataplanes that do as they are told. */
import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, test } from 'node:test';
import {
  TableDamagedError,
  type ApplyReport,
  type CheckReport,
  type Dataplane,
} from '../backends/backend.js';
import { Health } from '../health/health.js';
import type { ClusterEvent } from '../sources/kube/events.js';
import { createLogger } from '../log/logger.js';
import { createMetrics } from '../metrics/metrics.js';
import { clusterIP, deliver, endpoints, newModel, slice } from '../model/fixtures.js';
import type { FamilyChanges, IPFamily, ServicePort } from '../model/types.js';
import { RejectedServices } from '../reporting/rejected-services.js';
import { SyncLoop, type SyncLoopOptions } from './sync-loop.js';
import { InvalidObjects } from '../reporting/invalid-objects.js';

const nothing: ApplyReport = {
  transactions: 0,
  elementsAdded: 0,
  elementsDeleted: 0,
  kernelMs: 0,
  failures: [],
};

interface Call {
  readonly verb: 'adopt' | 'apply' | 'delete';
  /** performance.now() */
  readonly at: number;
  readonly upserted: string[];
  readonly removed: readonly string[];
}

class FakeDataplane implements Dataplane {
  readonly calls: Call[] = [];
  /** Milliseconds that each call takes. */
  takesMs = 0;
  /** What others need after each call. */
  restMs: number | undefined;
  /** Errors of the next calls, in order; undefined: none. */
  throws: (Error | undefined)[] = [];
  /** Names of service ports that are refused. */
  refuses = new Set<string>();
  whileBusy: () => void = () => undefined;
  verify?: () => Promise<CheckReport | undefined>;
  /** performance.now() when each deferred deletion is due, in order. */
  readonly deferred: number[] = [];

  get deferredDueAt(): number | undefined {
    return this.deferred[0];
  }

  deleteDeferred(now: number): Promise<ApplyReport> {
    const due = this.deferred.shift() ?? Infinity;
    assert.ok(due <= now, 'not before it is due');
    return this.take('delete', [], []);
  }

  constructor(readonly family: IPFamily) {}

  resync(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    return this.take('adopt', [...wanted], []);
  }

  apply({ upserted, removed }: FamilyChanges): Promise<ApplyReport> {
    return this.take('apply', upserted, removed);
  }

  /** 'adopt a b', 'apply a -b'. */
  get story(): string[] {
    return this.calls.map(({ verb, upserted, removed }) =>
      [verb, ...upserted, ...removed.map((name) => `-${name}`)].join(' '),
    );
  }

  private async take(
    verb: Call['verb'],
    upserted: readonly ServicePort[],
    removed: readonly string[],
  ): Promise<ApplyReport> {
    const short = (key: string): string => key.replace(/^default\//, '').replace(/:.*$/, '');
    const names = upserted.map(({ key }) => short(key));
    this.calls.push({
      verb,
      at: performance.now(),
      upserted: names.sort(),
      removed: removed.map(short).sort(),
    });
    this.whileBusy();
    if (this.takesMs > 0) await sleep(this.takesMs);
    const error = this.throws.shift();
    if (error !== undefined) throw error;
    const refused = [...upserted.map(({ key }) => key), ...removed].filter((key) =>
      this.refuses.has(short(key)),
    );
    return {
      ...nothing,
      transactions: 1,
      ...(this.restMs === undefined ? {} : { restMs: this.restMs }),
      failures: refused.map((key) => ({ key, servicePort: key, error: new Error('no such thing (ENOENT)') })),
    };
  }

  setServiceCIDRs(): ApplyReport {
    return nothing;
  }

  setNodePortAddresses(): ApplyReport {
    return nothing;
  }

  maintain(): ApplyReport {
    return nothing;
  }

  close(): void {
    // Nothing is open.
  }
}

const loops: SyncLoop[] = [];
afterEach(async () => {
  await Promise.all(loops.splice(0).map((loop) => loop.stop()));
});

function begin(options: Partial<SyncLoopOptions> = {}) {
  const v4 = new FakeDataplane('IPv4');
  const v6 = new FakeDataplane('IPv6');
  const model = newModel();
  const lines: string[] = [];
  const synced: string[] = [];
  const health = new Health(300);
  for (const family of ['IPv4', 'IPv6'] as const) health.updated(family);
  const loop = new SyncLoop({
    model,
    dataplanes: [v4, v6],
    health,
    metrics: createMetrics(),
    log: createLogger({ format: 'text', verbosity: 0, write: (line) => lines.push(line) }),
    minSyncPeriodMs: 0,
    syncPeriodMs: 1000,
    afterSync: (family, ports, removed) => {
      synced.push(`${family} ${[...ports].length} ${removed.length}`);
    },
    onChanges: () => undefined,
    ...options,
  });
  loops.push(loop);
  let host = 0;
  /** A Service of IPv4 with one endpoint, under this name. */
  const put = (name: string): void => {
    deliver(
      model,
      clusterIP(`10.177.1.${(name.charCodeAt(0) % 100) + 1}`, { name }),
      slice(endpoints(host++ % 2 === 0 ? 'R1' : 'R2'), { name: `${name}-1`, serviceName: name }),
    );
    loop.request();
  };
  const drop = (name: string): void => {
    model.setService(`default/${name}`, undefined);
    loop.request();
  };
  return { v4, v6, model, loop, lines, synced, health, put, drop };
}

/** Waits until it is so. */
async function until(condition: () => boolean, ms = 2000): Promise<void> {
  const end = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > end) assert.fail(`still not so after ${ms} ms: ${condition.toString()}`);
    await sleep(2);
  }
}

test('the first sync adopts both families, the next ones apply what changed', async () => {
  const { v4, v6, synced, put, drop } = begin();
  put('a');
  await until(() => v6.calls.length === 1);
  put('b');
  await until(() => v4.calls.length === 2);
  drop('a');
  await until(() => v4.calls.length === 3);
  assert.deepEqual(v4.story, ['adopt a', 'apply b', 'apply -a']);
  assert.deepEqual(v6.story, ['adopt'], 'nothing changed there');
  assert.deepEqual(synced, ['IPv4 1 0', 'IPv6 0 0', 'IPv4 1 0', 'IPv4 0 1']);
});

test('when everything is compared, it is in the order that the loop is told', async () => {
  const orders: string[] = [];
  const { v4, model, loop } = begin({
    arrange: (_, ports) => [...ports].sort((a, b) => (a.key < b.key ? 1 : -1)),
  });
  v4.resync = (wanted) => {
    orders.push(Array.from(wanted, ({ serviceName }) => serviceName).join(' '));
    return Promise.resolve(nothing);
  };
  for (const [i, name] of ['a', 'c', 'b'].entries())
    deliver(
      model,
      clusterIP(`10.177.1.${i + 1}`, { name }),
      slice('R1', { name: `${name}-1`, serviceName: name }),
    );
  loop.request();
  await until(() => orders.length === 1);
  assert.deepEqual(orders, ['c b a']);
});

test('in a quiet system a change is programmed at once', () => {
  const { v4, put } = begin();
  put('a');
  assert.equal(v4.calls.length, 1, 'before request() returns');
});

test('changes that come close together are taken together, after the period', async () => {
  const { v4, put } = begin({ minSyncPeriodMs: 60 });
  put('a');
  await until(() => v4.calls.length === 1);
  await sleep(5);
  for (const name of ['b', 'c', 'd']) put(name);
  await until(() => v4.calls.length === 2);
  const [first, second] = v4.calls;
  assert.deepEqual(v4.story, ['adopt a', 'apply b c d']);
  assert.ok((second?.at ?? 0) - (first?.at ?? 0) >= 59, 'not before the period is over');
});

test('after a sync that kept others out, the next one of that family leaves them what they need', async () => {
  const { v4, v6, put } = begin();
  v4.restMs = 60;
  v6.restMs = 200;
  put('a');
  await until(() => v4.calls.length === 1 && v6.calls.length === 1);
  v4.restMs = v6.restMs = undefined;
  await sleep(5);
  for (const name of ['b', 'c']) put(name);
  await until(() => v4.calls.length === 2);
  const waited = (v4.calls[1]?.at ?? 0) - (v4.calls[0]?.at ?? 0);
  assert.ok(waited >= 59 && waited < 190, `${String(waited)} ms`);
  put('d');
  await until(() => v4.calls.length === 3, 50);
  assert.deepEqual(v4.story, ['adopt a', 'apply b c', 'apply d']);
});

test('a family whose tool hangs does not hold up the other', async () => {
  const { v4, v6, put, loop, model } = begin();
  put('a');
  await until(() => v4.calls.length === 1 && v6.calls.length === 1);
  v6.takesMs = 400;
  deliver(
    model,
    clusterIP('fd00:177::9', { name: 'z', ipFamilies: ['IPv6'] }),
    slice('R1', { name: 'z-1', serviceName: 'z', addressType: 'IPv6' }),
  );
  loop.request();
  await until(() => v6.calls.length === 2);
  const hanging = performance.now();
  for (const name of ['b', 'c', 'd']) {
    put(name);
    await until(() => v4.story.at(-1) === `apply ${name}`, 200);
  }
  assert.ok(performance.now() - hanging < 390, 'while the other one hangs');
  assert.equal(v6.calls.length, 2);
});

test('what changes while a family is busy comes to it afterwards, once, as it is then', async () => {
  const { v4, v6, model, loop, drop } = begin();
  const put6 = (name: string, at: number): void => {
    deliver(
      model,
      clusterIP(`fd00:177::${String(at)}`, { name, ipFamilies: ['IPv6'] }),
      slice(endpoints('R1'), { name: `${name}-1`, serviceName: name, addressType: 'IPv6' }),
    );
    loop.request();
  };
  put6('a', 1);
  await until(() => v4.calls.length === 1 && v6.calls.length === 1);
  v6.takesMs = 100;
  put6('b', 2);
  await until(() => v6.calls.length === 2);
  put6('c', 3);
  put6('d', 4);
  await sleep(30);
  drop('c');
  await until(() => v6.calls.length === 3);
  assert.deepEqual(v6.story.slice(0, 2), ['adopt a', 'apply b']);
  assert.match(v6.story[2] ?? '', /^apply d( -c)?$/);
});

test('what comes during a sync is taken by the next one', async () => {
  const { v4, put } = begin();
  v4.takesMs = 30;
  put('a');
  await sleep(5);
  put('b');
  put('c');
  await until(() => v4.calls.length === 2);
  assert.deepEqual(v4.story, ['adopt a', 'apply b c']);
});

test('a failure is tried again with growing pauses, and everything is compared', async () => {
  const { v4, put, lines } = begin();
  put('a');
  await until(() => v4.calls.length === 1);
  v4.throws = [new Error('no'), new Error('no'), new Error('no')];
  put('b');
  await until(() => v4.calls.length === 5);
  assert.deepEqual(v4.story, ['adopt a', 'apply b', 'adopt a b', 'adopt a b', 'adopt a b']);
  const pauses = v4.calls.slice(2).map(({ at }, i) => at - (v4.calls[i + 1]?.at ?? 0));
  for (const [i, least] of [99, 199, 399].entries())
    assert.ok((pauses[i] ?? 0) >= least, `pause ${i}: ${pauses[i]} ms`);
  assert.equal(lines.filter((line) => line.includes('Failed to program the kernel')).length, 3);
  put('c');
  await until(() => v4.calls.length === 6);
  assert.equal(v4.story[5], 'apply c', 'back to differences');
});

test('the pause grows to the sync period at most', async () => {
  const { v4, put } = begin({ syncPeriodMs: 120 });
  v4.throws = Array.from({ length: 4 }, () => new Error('no'));
  put('a');
  await until(() => v4.calls.length === 5);
  const last = (v4.calls[4]?.at ?? 0) - (v4.calls[3]?.at ?? 0);
  assert.ok(last >= 119 && last < 700, `${last} ms, without a limit it would be 800`);
});

test('a damaged table is a warning, not an error', async () => {
  const { v4, put, lines } = begin();
  put('a');
  v4.throws = [new TableDamagedError('table ip kube-proxy was changed by another program')];
  put('b');
  await until(() => v4.calls.length === 3);
  assert.equal(v4.story[2], 'adopt a b');
  assert.match(lines.join(''), /^W.*was changed by another program/m);
  assert.doesNotMatch(lines.join(''), /^E/m);
});

test('trouble in one family does not hold up the other, nor do its changes hurry the trouble', async () => {
  const { v4, v6, model, loop } = begin({ syncPeriodMs: 10_000 });
  v4.throws = Array.from({ length: 100 }, () => new Error('no'));
  loop.request();
  for (let i = 0; i < 10; i++) {
    const name = `s${i}`;
    deliver(
      model,
      clusterIP(`fd00:177::${i + 1}`, { name, ipFamilies: ['IPv6'] }),
      slice(endpoints('R1'), { name: `${name}-1`, serviceName: name, addressType: 'IPv6' }),
    );
    loop.request();
    await sleep(15);
  }
  assert.equal(v6.calls.length, 11, 'all changes of IPv6 were programmed');
  assert.ok(v4.calls.length <= 5, `IPv4 was tried ${v4.calls.length} times in 150 ms`);
});

test('a refused service port is reported once, left alone for a while, and tried again', async () => {
  const { v4, put, lines } = begin();
  put('a');
  v4.refuses.add('b');
  put('b');
  await until(() => v4.calls.length === 2);
  put('c');
  await until(() => v4.calls.length === 3);
  assert.equal(v4.story[2], 'apply c', 'b waits');
  await until(() => v4.calls.length === 4);
  assert.equal(v4.story[3], 'apply b', 'b alone, without a request');
  const refusals = (): number =>
    lines.filter((line) => line.includes('Service port rejected by the kernel')).length;
  assert.equal(refusals(), 1);
  v4.refuses.clear();
  await until(() => v4.calls.length === 5);
  await until(() => lines.some((line) => line.includes('Service port accepted by the kernel again')));
  await sleep(450);
  assert.equal(v4.calls.length, 5, 'and that is all');
});

test('a refused service port is told of once in each place, however often it is tried', async () => {
  const events: ClusterEvent[] = [];
  const metrics = createMetrics();
  const troubled = new InvalidObjects({
    nodeName: 'alder',
    metrics,
    log: createLogger({ format: 'text', verbosity: 0, write: () => undefined }),
    record: (event) => events.push(event),
  });
  const services = new RejectedServices(troubled, () => 'u-1');
  const { v4, put, lines } = begin({
    metrics,
    onRejections: (family, refused) => {
      services.update(family, refused);
    },
  });
  const value = async (name: string): Promise<number> =>
    Number(
      new RegExp(`^${name}.*(?:IPv4|kernel_refused)"\\} (.*)$`, 'm').exec(
        await metrics.registry.metrics(),
      )?.[1],
    );
  v4.refuses.add('b');
  put('a');
  put('b');
  await until(() => v4.calls.length >= 3);
  loops[0]?.requestResync('IPv4');
  await until(() => v4.story.filter((call) => call.startsWith('adopt')).length === 2);
  await until(() => v4.calls.length >= 5);
  assert.deepEqual(
    events.map(({ reason, regarding, note }) => ({ reason, name: regarding.name, uid: regarding.uid, note })),
    [
      {
        reason: 'KernelRefused',
        name: 'b',
        uid: 'u-1',
        note: 'Service has ports that the kernel refuses; they are tried again (node alder): default/b:/TCP (IPv4): no such thing (ENOENT)',
      },
    ],
  );
  assert.equal(lines.filter((line) => line.includes('Service port rejected by the kernel')).length, 1);
  assert.equal(await value('kubeproxyts_troubled_objects'), 1);
  assert.equal(await value('kubeproxyts_service_ports_refused'), 1);
  v4.refuses.clear();
  await until(() => lines.some((line) => line.includes('Service port accepted by the kernel again')));
  assert.equal(await value('kubeproxyts_troubled_objects'), 0);
  assert.equal(await value('kubeproxyts_service_ports_refused'), 0);
  assert.equal(events.length, 1);
});

test('a new version of a refused service port is tried at once', async () => {
  const { v4, put } = begin();
  put('a');
  v4.refuses.add('b');
  put('b');
  await until(() => v4.calls.length === 2);
  v4.refuses.clear();
  put('b');
  assert.deepEqual(v4.story, ['adopt a', 'apply b', 'apply b']);
});

test('a refused removal is tried again, and forgotten when the service port comes back', async () => {
  const { v4, put, drop, synced } = begin();
  put('a');
  v4.refuses.add('a');
  drop('a');
  await until(() => v4.calls.length === 3);
  assert.deepEqual(v4.story, ['adopt a', 'apply -a', 'apply -a']);
  v4.refuses.clear();
  put('a');
  await until(() => v4.calls.length === 4);
  await sleep(300);
  assert.deepEqual(v4.story.slice(3), ['apply a']);
  assert.ok(!synced.some((line) => line.endsWith(' 1')), 'the kernel had it all the time');
});

test('a refused service port that goes away is not tried again', async () => {
  const { v4, put, drop } = begin();
  put('a');
  v4.refuses.add('b');
  put('b');
  await until(() => v4.calls.length === 2);
  v4.refuses.clear();
  drop('b');
  assert.equal(v4.story[2], 'apply -b', 'at once: an older version may be in the kernel');
  await sleep(250);
  assert.equal(v4.calls.length, 3);
});

test('removals of a sync that failed reach the listeners with the sync that succeeds', async () => {
  const { v4, put, drop, synced } = begin();
  put('a');
  put('b');
  await until(() => v4.calls.length === 2);
  v4.throws = [new Error('no')];
  drop('a');
  await until(() => v4.calls.length === 4);
  await until(() => synced.includes('IPv4 1 1'));
});

test('adoption that is asked for during a sync is not lost', async () => {
  const { v4, put, loop } = begin();
  put('a');
  await until(() => v4.calls.length === 1);
  v4.takesMs = 10;
  v4.whileBusy = () => {
    v4.whileBusy = () => undefined;
    loop.requestResync('IPv4');
  };
  put('b');
  await until(() => v4.calls.length === 3);
  assert.equal(v4.story[2], 'adopt a b');
});

test('adoption that is asked for does not wait for the pause after a failure', async () => {
  const { v4, loop } = begin({ syncPeriodMs: 10_000 });
  v4.throws = [new Error('no'), new Error('no'), new Error('no')];
  loop.request();
  await until(() => v4.calls.length === 2);
  const before = v4.calls.length;
  loop.requestResync('IPv4');
  await sleep(20);
  assert.equal(v4.calls.length, before + 1);
});

test('health: a change that never reaches the kernel shows, also when it came during a sync', async () => {
  const { v4, put, health } = begin({ syncPeriodMs: 10_000 });
  put('a');
  await until(() => v4.calls.length === 1);
  assert.equal(health.healthy, true);
  v4.takesMs = 20;
  put('b');
  await sleep(5);
  v4.throws = [undefined, ...Array.from({ length: 50 }, () => new Error('no'))];
  put('c');
  await until(() => v4.calls.length >= 3);
  assert.equal(health.healthy, true, 'not yet');
  await until(() => !health.healthy);
  v4.throws = [];
  await until(() => health.healthy);
});

/** A dataplane that can look at what the kernel holds, and says what it is told to. */
function withVerify(
  v4: FakeDataplane,
  outcomes: (ApplyReport | Error | undefined)[],
  takesMs = 0,
  reported = false,
): { looks: number } {
  const seen = { looks: 0 };
  v4.verify = async () => {
    seen.looks++;
    if (takesMs > 0) await sleep(takesMs);
    const outcome = outcomes.shift();
    if (outcome instanceof Error) throw outcome;
    return outcome === undefined ? undefined : { ...outcome, reported };
  };
  return seen;
}

const silently = 'Consistency check repaired drift';

test('a check that finds nothing holds up no change, and writes nothing', async () => {
  const metrics = createMetrics();
  const { v4, put, loop, lines } = begin({ metrics });
  const seen = withVerify(v4, [nothing], 150);
  put('a');
  await until(() => v4.calls.length === 1);
  loop.requestCheck('IPv4');
  loop.requestCheck('IPv4');
  const asked = performance.now();
  put('b');
  await until(() => v4.calls.length === 2);
  assert.ok(performance.now() - asked < 140, 'while the check went on');
  const checks = async (): Promise<string> =>
    /^kubeproxyts_kernel_check_duration_seconds_count\{ip_family="IPv4"\} (\d+)$/m.exec(
      await metrics.registry.metrics(),
    )?.[1] ?? '';
  while ((await checks()) === '0') await sleep(5);
  assert.equal(seen.looks, 1, 'one at a time');
  assert.deepEqual(v4.story, ['adopt a', 'apply b']);
  assert.ok(!lines.some((line) => line.includes(silently)));
});

test('a difference that nobody had told of is put right, told, counted, and followed by conntrack', async () => {
  const metrics = createMetrics();
  const repaired: boolean[] = [];
  const { v4, put, loop, lines } = begin({
    metrics,
    afterSync: (family, _ports, _removed, wasRepaired) => {
      if (family === 'IPv4') repaired.push(wasRepaired);
    },
  });
  withVerify(v4, [{ ...nothing, transactions: 1, elementsAdded: 3, elementsDeleted: 2 }]);
  put('a');
  await until(() => v4.calls.length === 1);
  loop.requestCheck('IPv4');
  await until(() => lines.some((line) => line.includes(silently)));
  assert.match(lines.find((line) => line.includes(silently)) ?? '', /^W.* family="IPv4" added=3 deleted=2/);
  const text = await metrics.registry.metrics();
  for (const name of ['kernel_check_differences_total', 'kernel_repairs_total'])
    assert.match(text, new RegExp(`^kubeproxyts_${name}\\{ip_family="IPv4"\\} 1$`, 'm'));
  assert.deepEqual(repaired, [false, true]);
  assert.deepEqual(v4.story, ['adopt a'], 'nothing else was needed');
});

test('a difference that the kernel had told of, too, is a repair like any other', async () => {
  const metrics = createMetrics();
  const { v4, put, loop, lines } = begin({ metrics });
  withVerify(v4, [{ ...nothing, transactions: 1, elementsAdded: 3 }], 0, true);
  put('a');
  await until(() => v4.calls.length === 1);
  loop.requestCheck('IPv4');
  const repairs = /^kubeproxyts_kernel_repairs_total\{ip_family="IPv4"\} 1$/m;
  while (!repairs.test(await metrics.registry.metrics())) await sleep(5);
  assert.ok(!lines.some((line) => line.includes(silently)));
});

for (const [what, outcome] of [
  ['that takes a comparison', undefined],
  ['that fails', new Error('ENOBUFS')],
] as const) {
  test(`a check ${what}: everything is compared, once, and a difference is told`, async () => {
    const metrics = createMetrics();
    const { v4, put, loop, lines } = begin({ metrics });
    withVerify(v4, [outcome]);
    put('a');
    await until(() => v4.calls.length === 1);
    loop.requestCheck('IPv4');
    await until(() => lines.some((line) => line.includes(silently)));
    assert.deepEqual(v4.story, ['adopt a', 'adopt a']);
    assert.match(
      await metrics.registry.metrics(),
      /^kubeproxyts_kernel_check_differences_total\{ip_family="IPv4"\} 1$/m,
    );
    put('b');
    await until(() => v4.calls.length === 3);
    assert.equal(v4.story[2], 'apply b');
  });
}

test('a dataplane that can not look is asked to compare everything', async () => {
  const { v4, put, loop, lines } = begin();
  put('a');
  await until(() => v4.calls.length === 1);
  loop.requestCheck('IPv4');
  await until(() => v4.calls.length === 2);
  assert.deepEqual(v4.story, ['adopt a', 'adopt a']);
  await until(() => lines.some((line) => line.includes(silently)));
});

test('deferred deletions are made when they are due, in turns, and hold up no change', async () => {
  const { v4, put, loop } = begin({ minSyncPeriodMs: 100 });
  put('a');
  await until(() => v4.calls.length === 1);
  const due = performance.now() + 250;
  v4.deferred.push(due, due, due);
  loop.request();
  await until(() => v4.calls.length === 4);
  await sleep(5);
  put('b');
  assert.equal(v4.calls.length, 5, 'at once: the pause between syncs is not counted from a deletion');
  assert.deepEqual(v4.story, ['adopt a', 'delete', 'delete', 'delete', 'apply b']);
});

test('deferred deletions are made beside changes that never end', async () => {
  const { v4, put } = begin();
  put('a');
  await until(() => v4.calls.length === 1);
  v4.deferred.push(performance.now() + 20);
  let more = 0;
  v4.whileBusy = () => {
    if (more++ < 200) setImmediate(put, `b${more}`);
  };
  put('b');
  await until(() => v4.story.includes('delete'));
  assert.ok(more < 200, 'before there was a pause');
});

test('a deferred deletion that fails has the kernel compared', async () => {
  const { v4, put, loop } = begin();
  put('a');
  await until(() => v4.calls.length === 1);
  v4.throws = [new TableDamagedError('changed by another program')];
  v4.deferred.push(performance.now(), performance.now());
  loop.request();
  await until(() => v4.calls.length >= 3);
  assert.deepEqual(v4.story.slice(0, 3), ['adopt a', 'delete', 'adopt a']);
});

test('stop does not wait for deferred deletions', async () => {
  const { v4, put, loop } = begin();
  put('a');
  await until(() => v4.calls.length === 1);
  v4.deferred.push(performance.now() + 30);
  loop.request();
  await sleep(5);
  await loop.stop();
  await sleep(60);
  assert.deepEqual(v4.story, ['adopt a']);
});

test('stop waits for the sync that runs, and nothing runs afterwards', async () => {
  const { v4, put, loop, synced } = begin();
  v4.takesMs = 40;
  put('a');
  put('b');
  const stopped = loop.stop();
  assert.equal(synced.length, 0);
  await stopped;
  assert.ok(synced.includes('IPv4 1 0'), 'the running one has ended');
  put('c');
  await sleep(60);
  assert.equal(v4.calls.length, 1);
});
