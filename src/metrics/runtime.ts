/** What goes on inside Node: event loop, heap, garbage collection. Under the names that dashboards for Node expect. */
import { collectDefaultMetrics, Registry } from 'prom-client';

/** Milliseconds between two looks at the event loop's delay. */
const loopPrecisionMs = 20;

/**
 * Once per process: it starts observers. The counts of handles and requests are left out (gauges with names of
 * counters), and so is process_*, which is ours (process.ts).
 */
export function addRuntimeMetrics(registry: Registry): void {
  const all = new Registry();
  collectDefaultMetrics({ register: all, eventLoopMonitoringPrecision: loopPrecisionMs });
  for (const { name } of all.getMetricsAsArray()) {
    if (!/^nodejs_(eventloop|heap|external|version|gc)_/.test(name)) continue;
    const metric = all.getSingleMetric(name);
    if (metric !== undefined) registry.registerMetric(metric);
  }
}
