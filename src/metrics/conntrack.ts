/** The node's connection tracking table: when it is full, new connections fail, and kube-proxy gets the blame. */
import type { Catalogue } from './catalogue.js';

/** Of the network namespace of this process. Counts begin with the namespace; the kernel's have 32 bits and wrap around. */
export interface ConntrackStats {
  readonly entries: number;
  /** Sysctl net.netfilter.nf_conntrack_max; undefined: the kernel does not say. */
  readonly max: number | undefined;
  /** Packets dropped because the table was full. */
  readonly drop: number;
  /** Entries of unfinished connections evicted from a full table. */
  readonly earlyDrop: number;
  /** Entries that could not be inserted. */
  readonly insertFailed: number;
  /** Entries turned away because their hash chain was too long. */
  readonly chainTooLong: number;
  /** Packets that could not be tracked; they are not dropped by connection tracking itself. */
  readonly invalid: number;
}

const reasons: readonly (readonly [
  label: string,
  field: 'drop' | 'earlyDrop' | 'insertFailed' | 'chainTooLong',
])[] = [
  ['table_full', 'drop'],
  ['early_drop', 'earlyDrop'],
  ['insert_failed', 'insertFailed'],
  ['chain_too_long', 'chainTooLong'],
];

export function defineConntrackMetrics(catalogue: Catalogue, source: () => ConntrackStats | undefined): void {
  let stats: ConntrackStats | undefined;
  catalogue.gauge({
    name: 'kubeproxyts_conntrack_entries',
    help: 'Entries of the connection tracking table',
    stability: undefined,
    collect: (metric) => {
      // Metrics are collected in the order of their definition: the others show what this one has read.
      stats = source();
      metric.set(stats?.entries ?? NaN);
    },
  });
  catalogue.gauge({
    name: 'kubeproxyts_conntrack_entries_limit',
    help: 'Entries that the connection tracking table can hold (sysctl net.netfilter.nf_conntrack_max)',
    stability: undefined,
    collect: (metric) => {
      metric.set(stats?.max ?? NaN);
    },
  });
  catalogue.counter({
    name: 'kubeproxyts_conntrack_drops_total',
    help: 'Number of new connections rejected or dropped by connection tracking, by reason',
    labels: ['reason'],
    stability: undefined,
    collect: (metric) => {
      metric.reset();
      if (stats === undefined) return;
      for (const [reason, field] of reasons) metric.inc({ reason }, stats[field]);
    },
  });
  catalogue.counter({
    name: 'kubeproxyts_conntrack_invalid_packets_total',
    help: 'Number of packets invalid to connection tracking',
    stability: undefined,
    collect: (metric) => {
      metric.reset();
      metric.inc(stats?.invalid ?? NaN);
    },
  });
}
