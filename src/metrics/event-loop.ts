/**
 * How late the event loop is, under the names of prom-client. Its own monitor wakes an idle process a hundred times a second; this
 * one looks once a second, and more often only while the process is at work anyway.
 */
import { createHistogram, performance, type RecordableHistogram } from 'node:perf_hooks';
import { Gauge } from 'prom-client';
import { guarded } from '../callbacks/guarded.js';

const idlePeriodMs = 1000;
const busyPeriodMs = 20;
/** Share of the time in which the loop was at work, from which on the process counts as busy. */
const busyAt = 0.25;

interface Statistic {
  readonly name: string;
  readonly help: string;
  /** Nanoseconds. */
  readonly of: (histogram: RecordableHistogram) => number;
}

const statistics: readonly Statistic[] = [
  { name: 'min', help: 'The minimum recorded event loop delay.', of: ({ min }) => min },
  { name: 'max', help: 'The maximum recorded event loop delay.', of: ({ max }) => max },
  { name: 'mean', help: 'The mean of the recorded event loop delays.', of: ({ mean }) => mean },
  {
    name: 'stddev',
    help: 'The standard deviation of the recorded event loop delays.',
    of: ({ stddev }) => stddev,
  },
  ...[50, 90, 99].map((percentile) => ({
    name: `p${percentile}`,
    help: `The ${percentile}th percentile of the recorded event loop delays.`,
    of: (histogram: RecordableHistogram) => histogram.percentile(percentile),
  })),
];

/** Starts looking, for the life of the process. @returns its metrics; each reading tells of the time since the last one */
export function eventLoopMetrics(): Gauge[] {
  const histogram = createHistogram();
  let used = performance.eventLoopUtilization();
  let judgedAt = performance.now();
  let periodMs = busyPeriodMs;
  const look = (): void => {
    const due = performance.now() + periodMs;
    setTimeout(
      guarded('look at the event loop', () => {
        const lateMs = performance.now() - due;
        histogram.record(Math.max(1, Math.round(lateMs * 1e6)));
        // Not over a shorter time, or the looks themselves would count for work.
        if (performance.now() - judgedAt >= idlePeriodMs) {
          const now = performance.eventLoopUtilization();
          const { utilization } = performance.eventLoopUtilization(now, used);
          periodMs = utilization > busyAt ? busyPeriodMs : idlePeriodMs;
          [used, judgedAt] = [now, performance.now()];
        }
        look();
      }),
      periodMs,
    ).unref();
  };
  look();
  const gauges = statistics.map(({ name, help }) => {
    return new Gauge({ name: `nodejs_eventloop_lag_${name}_seconds`, help, registers: [] });
  });
  const lag = new Gauge({
    name: 'nodejs_eventloop_lag_seconds',
    help: 'Lag of event loop in seconds.',
    registers: [],
    collect: async () => {
      // Without a look since the last reading, that one still holds.
      if (histogram.count > 0) {
        for (const [i, { of }] of statistics.entries()) gauges[i]?.set(of(histogram) / 1e9);
        histogram.reset();
      }
      const asked = performance.now();
      await new Promise<void>((resolve) => setImmediate(resolve));
      lag.set((performance.now() - asked) / 1000);
    },
  });
  return [lag, ...gauges];
}
