/** What goes on inside Node: event loop, heap, garbage collection. Under the names that dashboards for Node expect. */
import { collectDefaultMetrics, type Metric, Registry } from 'prom-client';
import { eventLoopMetrics } from './event-loop.js';

/** It would tick for ever, at this period in milliseconds: event-loop.ts stands in its place. */
const neverMs = 2 ** 31 - 1;

/** They start observers, of which a process needs one each, however often its registry is made anew. */
let metrics: readonly Metric[] | undefined;

/**
 * The counts of handles and requests are left out (gauges with names of counters), and so is process_*, which is ours
 * (process.ts).
 */
export function addRuntimeMetrics(registry: Registry): void {
  metrics ??= runtimeMetrics();
  for (const metric of metrics) registry.registerMetric(metric);
}

function runtimeMetrics(): readonly Metric[] {
  const all = new Registry();
  collectDefaultMetrics({ register: all, eventLoopMonitoringPrecision: neverMs });
  const others = all
    .getMetricsAsArray()
    .filter(({ name }) => /^nodejs_(heap|external|version|gc)_/.test(name))
    .map(({ name }) => all.getSingleMetric(name))
    .filter((metric) => metric !== undefined);
  return [...eventLoopMetrics(), ...others];
}
