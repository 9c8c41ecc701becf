/**
 * A set of metrics in one registry. Those that Kubernetes defines carry their stability in front of the help text, as
 * every Kubernetes component prints it (KEP-1209), and are counted in registered_metrics_total.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** undefined: not a metric that Kubernetes defines. */
export type Stability = 'ALPHA' | 'BETA' | 'STABLE' | undefined;

export interface Definition<L extends string> {
  readonly name: string;
  /** A sentence without a full stop. */
  readonly help: string;
  readonly labels?: readonly L[];
  /** 'ALPHA' when absent, undefined for metrics of our own. */
  readonly stability?: Stability;
  /** false: it can be counted, but is not shown: it belongs to another proxy mode. */
  readonly shown?: boolean;
  /** Label values whose series begin at 0 rather than with the first event. */
  readonly zero?: readonly Readonly<Record<L, string>>[];
}

export interface PulledDefinition<L extends string, M> extends Definition<L> {
  /** Brings the metric up to date; called at every scrape. */
  readonly collect?: (metric: M) => void;
}

export interface HistogramDefinition<L extends string> extends Definition<L> {
  /** Upper bounds, ascending, without +Inf. */
  readonly buckets: readonly number[];
}

export class Catalogue {
  readonly registry = new Registry();
  private readonly stabilities = new Map<string, number>();

  counter<L extends string = never>(definition: PulledDefinition<L, Counter<L>>): Counter<L> {
    const { collect } = definition;
    const counter = new Counter<L>({
      ...this.common(definition),
      ...(collect === undefined
        ? {}
        : {
            collect(this: Counter<L>) {
              collect(this);
            },
          }),
    });
    for (const labels of definition.zero ?? []) counter.inc(labels, 0);
    return counter;
  }

  gauge<L extends string = never>(definition: PulledDefinition<L, Gauge<L>>): Gauge<L> {
    const { collect } = definition;
    const gauge = new Gauge<L>({
      ...this.common(definition),
      ...(collect === undefined
        ? {}
        : {
            collect(this: Gauge<L>) {
              collect(this);
            },
          }),
    });
    for (const labels of definition.zero ?? []) gauge.set(labels, 0);
    return gauge;
  }

  histogram<L extends string = never>(definition: HistogramDefinition<L>): Histogram<L> {
    const histogram = new Histogram<L>({
      ...this.common(definition),
      buckets: [...definition.buckets],
    });
    for (const labels of definition.zero ?? []) histogram.zero(labels);
    return histogram;
  }

  /** Metrics that Kubernetes defines, by stability. */
  byStability(): ReadonlyMap<string, number> {
    return this.stabilities;
  }

  private common<L extends string>(definition: Definition<L>) {
    const { name, help, labels = [], shown = true } = definition;
    const stability = 'stability' in definition ? definition.stability : 'ALPHA';
    if (shown && stability !== undefined)
      this.stabilities.set(stability, (this.stabilities.get(stability) ?? 0) + 1);
    return {
      name,
      help: stability === undefined ? help : `[${stability}] ${help}`,
      labelNames: [...labels],
      registers: shown ? [this.registry] : [],
    };
  }
}

/** `count` bounds, each `factor` times the one before. */
export function exponentialBuckets(start: number, factor: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => start * factor ** i);
}

/** From `from` to `to`, both included. */
export function linearBuckets(from: number, to: number, step: number): number[] {
  return Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => from + i * step);
}

export const ipFamilies = [{ ip_family: 'IPv4' }, { ip_family: 'IPv6' }] as const;
