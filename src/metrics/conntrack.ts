/** The node's connection tracking table: when it is full, new connections fail, and kube-proxy gets the blame. */
import type { Catalogue } from './catalogue.js';

/** All namespaces count on their own; these are those of the network namespace of this process. */
export interface ConntrackStats {
  readonly entries: number;
  /** Sysctl net.netfilter.nf_conntrack_max; 0: no limit. */
  readonly max: number;
  /** Sums over all processors since boot, as ctnetlink's statistics have them (IPCTNL_MSG_CT_GET_STATS_CPU). */
  readonly drop: number;
  readonly earlyDrop: number;
  readonly insertFailed: number;
}

const reasons: readonly (readonly [label: string, field: keyof ConntrackStats])[] = [
  ['table_full', 'drop'],
  ['early_drop', 'earlyDrop'],
  ['insert_failed', 'insertFailed'],
];

export function defineConntrackMetrics(catalogue: Catalogue, source: () => ConntrackStats | undefined): void {
  catalogue.gauge({
    name: 'kubeproxyts_conntrack_entries',
    help: 'Entries of the connection tracking table',
    stability: undefined,
    collect: (metric) => {
      metric.set(source()?.entries ?? NaN);
    },
  });
  catalogue.gauge({
    name: 'kubeproxyts_conntrack_entries_limit',
    help: 'Entries that the connection tracking table can hold (sysctl net.netfilter.nf_conntrack_max)',
    stability: undefined,
    collect: (metric) => {
      metric.set(source()?.max ?? NaN);
    },
  });
  catalogue.counter({
    name: 'kubeproxyts_conntrack_drops_total',
    help: 'Packets or entries that connection tracking dropped since boot, by reason',
    labels: ['reason'],
    stability: undefined,
    collect: (metric) => {
      metric.reset();
      const stats = source();
      if (stats === undefined) return;
      for (const [reason, field] of reasons) metric.inc({ reason }, stats[field]);
    },
  });
}
