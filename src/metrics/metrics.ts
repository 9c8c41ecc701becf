/** The metrics of observability.md that this version can tell honestly, under upstream's names. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/** 15 buckets, doubling from one millisecond. */
const syncBuckets = Array.from({ length: 15 }, (_, i) => 0.001 * 2 ** i);

export function createMetrics() {
  const registry = new Registry();
  const registers = [registry];
  const labelNames = ['ip_family'] as const;
  return {
    registry,
    syncDuration: new Histogram({
      name: 'kubeproxy_sync_proxy_rules_duration_seconds',
      help: 'Time of one sync, from taking the changes to the acknowledgement of the kernel',
      labelNames,
      buckets: syncBuckets,
      registers,
    }),
    lastSync: new Gauge({
      name: 'kubeproxy_sync_proxy_rules_last_timestamp_seconds',
      help: 'When the last sync succeeded',
      labelNames,
      registers,
    }),
    lastQueued: new Gauge({
      name: 'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds',
      help: 'When the last change was queued',
      labelNames,
      registers,
    }),
    programmingDuration: new Histogram({
      name: 'kubeproxy_network_programming_duration_seconds',
      help: 'From the change of an endpoint, as its slice tells, to the acknowledgement of the kernel',
      labelNames,
      buckets: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 240, 300],
      registers,
    }),
    syncFailures: new Counter({
      name: 'kubeproxy_sync_proxy_rules_nftables_sync_failures_total',
      help: 'Syncs that the kernel refused, whole or in part',
      labelNames,
      registers,
    }),
    endpointChanges: new Counter({
      name: 'kubeproxy_sync_proxy_rules_endpoint_changes_total',
      help: 'Changes of EndpointSlices received',
      registers,
    }),
    serviceChanges: new Counter({
      name: 'kubeproxy_sync_proxy_rules_service_changes_total',
      help: 'Changes of Services received',
      registers,
    }),
    conntrackDeleted: new Counter({
      name: 'kubeproxy_conntrack_reconciler_deleted_entries_total',
      help: 'Stale connection tracking entries deleted',
      labelNames,
      registers,
    }),
    healthz: new Counter({
      name: 'kubeproxy_proxy_healthz_total',
      help: 'Answers of /healthz by status code',
      labelNames: ['code'],
      registers,
    }),
    livez: new Counter({
      name: 'kubeproxy_proxy_livez_total',
      help: 'Answers of /livez by status code',
      labelNames: ['code'],
      registers,
    }),
    servicePortsFailed: new Gauge({
      name: 'kubeproxyts_service_ports_failed',
      help: 'Service ports that the kernel refused and that wait to be tried again',
      labelNames,
      registers,
    }),
    elementsWritten: new Counter({
      name: 'kubeproxyts_kernel_elements_written_total',
      help: 'Map and set elements added to or deleted from the kernel',
      labelNames,
      registers,
    }),
  };
}

export type Metrics = ReturnType<typeof createMetrics>;
