import assert from 'node:assert/strict';
import { PerformanceObserver } from 'node:perf_hooks';
import { mock, test } from 'node:test';
import { Registry } from 'prom-client';
import { addRuntimeMetrics } from './runtime.js';

test('a registry that is made anew gets the same metrics, and no further observers', async () => {
  const observe = mock.method(PerformanceObserver.prototype, 'observe');
  const texts: string[] = [];
  for (let i = 0; i < 3; i++) {
    const registry = new Registry();
    addRuntimeMetrics(registry);
    texts.push(await registry.metrics());
  }
  assert.equal(observe.mock.callCount(), 1);
  for (const text of texts) {
    assert.match(text, /^nodejs_eventloop_lag_p99_seconds \d/m);
    assert.match(text, /nodejs_gc_duration_seconds/);
  }
});

test('a loop that is held shows in the event loop lag', async () => {
  const registry = new Registry();
  addRuntimeMetrics(registry);
  // A look is due at least every second.
  await new Promise((resolve) => setTimeout(resolve, 20));
  const end = performance.now() + 1300;
  while (performance.now() < end);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const max = /^nodejs_eventloop_lag_max_seconds (\S+)$/m.exec(await registry.metrics())?.[1];
  assert.ok(Number(max) > 0.15, `${max ?? ''} s`);
});
