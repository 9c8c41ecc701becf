/**
 * All metrics of the program. Names, types, labels and buckets of those that upstream has are upstream's
 * (observability.md section 5), so that its dashboards and alerts work; ours begin with `kubeproxyts_`. What they count is
 * told by others (the sync loop, the HTTP servers, the API client), or asked for at each scrape (MetricsSources).
 *
 * docs/metrics.md is the reference; a test holds it against this folder.
 */
import type { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { Catalogue, exponentialBuckets, ipFamilies, linearBuckets } from './catalogue.js';
import { defineComponentMetrics, type BuildInfo, type FeatureGate } from './component.js';
import { defineConntrackMetrics, type ConntrackStats } from './conntrack.js';
import { defineOwnMetrics, type OwnMetrics, type OwnSources } from './own.js';
import { defineProcessMetrics } from './process.js';
import { defineRestClientMetrics, type RestClientMetrics } from './rest-client.js';

export type ProxyMode = 'iptables' | 'ipvs' | 'nftables';

/** Counted since the start of the process, and what waits at this moment. */
export interface ClusterCounts {
  readonly serviceEvents: number;
  readonly endpointSliceEvents: number;
  /** Services with changes that no sync has taken yet. */
  readonly pendingServices: number;
  /** EndpointSlice events that changed something and that no sync has taken yet. */
  readonly pendingEndpointSlices: number;
}

/** Counters of packets in the kernel (iptables mode), by the names of their nfacct objects. */
export type AccountingObject = 'ct_state_invalid_dropped_pkts' | 'localhost_nps_accepted_pkts';

/** Asked at every scrape. What can't be told is undefined, and missing from that scrape; they do not throw. */
export interface MetricsSources extends OwnSources {
  readonly cluster?: () => ClusterCounts;
  readonly conntrack?: () => ConntrackStats | undefined;
  /** Packets counted by the object; undefined: the kernel has no such object. */
  readonly accounting?: (object: AccountingObject) => number | undefined;
}

export interface MetricsOptions {
  /** Decides which of the metrics of single modes are shown; ['nftables'] when absent. */
  readonly modes?: readonly ProxyMode[];
  readonly sources?: MetricsSources;
  readonly build?: BuildInfo;
  readonly features?: readonly FeatureGate[];
}

type ByFamily = 'ip_family';

export interface Metrics extends OwnMetrics {
  readonly registry: Registry;

  /** Seconds of one sync of one family, whether it succeeded or not, up to the kernel's acknowledgement. */
  readonly syncDuration: Histogram<ByFamily>;
  /** The same, of syncs that compare everything. */
  readonly fullSyncDuration: Histogram<ByFamily>;
  /** The same, of syncs that write what changed. */
  readonly partialSyncDuration: Histogram<ByFamily>;
  /** Unix time. */
  readonly lastSync: Gauge<ByFamily>;
  /** Unix time. */
  readonly lastQueued: Gauge<ByFamily>;
  /** Seconds from the change of an endpoint, as its slice tells, to the kernel's acknowledgement. */
  readonly programmingDuration: Histogram<ByFamily>;
  /** Service ports with policy Local that have endpoints, but none on this node. */
  readonly noLocalEndpoints: Gauge<ByFamily | 'traffic_policy'>;
  /** Syncs that failed, in whole or in part, under the name that the first of the modes has for it. */
  readonly syncFailures: Counter<ByFamily>;
  /** nftables: housekeeping that the kernel refused. */
  readonly cleanupFailures: Counter<ByFamily>;
  readonly iptables: IptablesMetrics;
  readonly conntrackDuration: Histogram<ByFamily>;
  readonly conntrackDeleted: Counter<ByFamily>;
  readonly healthz: Counter<'code'>;
  readonly livez: Counter<'code'>;
  readonly restClient: RestClientMetrics;
}

/** Shown in iptables mode only (the first one in ipvs mode, too); counting into them does no harm in others. */
export interface IptablesMetrics {
  readonly restoreFailures: Counter<ByFamily>;
  readonly partialRestoreFailures: Counter<ByFamily>;
  /** Rules that are ours after the last sync. */
  readonly rules: Gauge<ByFamily | 'table'>;
  /** Rules written in the last sync. */
  readonly rulesWritten: Gauge<ByFamily | 'table'>;
}

/** From a millisecond to 16 s, doubling. */
const syncBuckets = exponentialBuckets(0.001, 2, 15);
const programmingBuckets = [
  0.25,
  0.5,
  ...linearBuckets(1, 59, 1),
  ...linearBuckets(60, 115, 5),
  ...linearBuckets(120, 300, 30),
];

const answerCodes = [{ code: '200' }, { code: '503' }] as const;

export function createMetrics(options: MetricsOptions = {}): Metrics {
  const modes = options.modes ?? ['nftables'];
  const sources = options.sources ?? {};
  const catalogue = new Catalogue();
  const labels = ['ip_family'] as const;
  const zero = ipFamilies;
  const isOneOf = (...which: ProxyMode[]): boolean => which.some((mode) => modes.includes(mode));

  const restoreFailures = catalogue.counter({
    name: 'kubeproxy_sync_proxy_rules_iptables_restore_failures_total',
    help: 'Number of syncs rejected by iptables-restore',
    labels,
    zero,
    shown: isOneOf('iptables', 'ipvs'),
  });
  const nftablesFailures = catalogue.counter({
    name: 'kubeproxy_sync_proxy_rules_nftables_sync_failures_total',
    help: 'Number of syncs rejected by the kernel, in whole or in part',
    labels,
    zero,
    shown: isOneOf('nftables'),
  });

  definePulledMetrics(catalogue, sources, isOneOf('iptables'));
  if (sources.conntrack !== undefined) defineConntrackMetrics(catalogue, sources.conntrack);
  defineProcessMetrics(catalogue);
  const metrics = {
    registry: catalogue.registry,
    syncDuration: catalogue.histogram({
      name: 'kubeproxy_sync_proxy_rules_duration_seconds',
      help: "Seconds of one sync, from taking the changes to the kernel's acknowledgement",
      labels,
      buckets: syncBuckets,
    }),
    fullSyncDuration: catalogue.histogram({
      name: 'kubeproxy_sync_full_proxy_rules_duration_seconds',
      help: 'Seconds of one full resync, which compares everything in the kernel',
      labels,
      buckets: syncBuckets,
      shown: isOneOf('iptables', 'nftables'),
    }),
    partialSyncDuration: catalogue.histogram({
      name: 'kubeproxy_sync_partial_proxy_rules_duration_seconds',
      help: 'Seconds of one partial sync, which writes what changed',
      labels,
      buckets: syncBuckets,
      shown: isOneOf('iptables', 'nftables'),
    }),
    lastSync: catalogue.gauge({
      name: 'kubeproxy_sync_proxy_rules_last_timestamp_seconds',
      help: 'Unix time of the last successful sync',
      labels,
    }),
    lastQueued: catalogue.gauge({
      name: 'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds',
      help: 'Unix time at which a sync was last queued',
      labels,
    }),
    programmingDuration: catalogue.histogram({
      name: 'kubeproxy_network_programming_duration_seconds',
      help: "Seconds from the change of an endpoint, per its EndpointSlice's trigger time, to the kernel's acknowledgement",
      labels,
      zero,
      buckets: programmingBuckets,
    }),
    noLocalEndpoints: catalogue.gauge({
      name: 'kubeproxy_sync_proxy_rules_no_local_endpoints_total',
      help: 'Service ports with traffic policy Local that have endpoints, but none on this node',
      labels: ['traffic_policy', 'ip_family'],
    }),
    syncFailures: modes[0] === 'nftables' ? nftablesFailures : restoreFailures,
    cleanupFailures: catalogue.counter({
      name: 'kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total',
      help: 'Number of cleanups of unused objects rejected by the kernel',
      labels,
      zero,
      shown: isOneOf('nftables'),
    }),
    iptables: {
      restoreFailures,
      partialRestoreFailures: catalogue.counter({
        name: 'kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total',
        help: 'Number of partial syncs rejected by iptables-restore',
        labels,
        zero,
        shown: isOneOf('iptables'),
      }),
      rules: catalogue.gauge({
        name: 'kubeproxy_sync_proxy_rules_iptables_total',
        help: 'Rules that belong to kube-proxy',
        labels: ['table', 'ip_family'],
        shown: isOneOf('iptables'),
      }),
      rulesWritten: catalogue.gauge({
        name: 'kubeproxy_sync_proxy_rules_iptables_last',
        help: 'Rules written in the last sync',
        labels: ['table', 'ip_family'],
        shown: isOneOf('iptables'),
      }),
    },
    conntrackDuration: catalogue.histogram({
      name: 'kubeproxy_conntrack_reconciler_sync_duration_seconds',
      help: 'Time of one search for stale connection tracking entries',
      labels,
      buckets: syncBuckets,
    }),
    conntrackDeleted: catalogue.counter({
      name: 'kubeproxy_conntrack_reconciler_deleted_entries_total',
      help: 'Stale connection tracking entries deleted',
      labels,
      zero,
    }),
    healthz: catalogue.counter({
      name: 'kubeproxy_proxy_healthz_total',
      help: 'Answers of /healthz by status code',
      labels: ['code'],
      zero: answerCodes,
    }),
    livez: catalogue.counter({
      name: 'kubeproxy_proxy_livez_total',
      help: 'Answers of /livez by status code',
      labels: ['code'],
      zero: answerCodes,
    }),
    restClient: defineRestClientMetrics(catalogue),
    ...defineOwnMetrics(catalogue, sources),
  };
  // Last: it counts the others.
  defineComponentMetrics(catalogue, options.build, options.features ?? []);
  return metrics;
}

/** What others count already. */
function definePulledMetrics(catalogue: Catalogue, sources: MetricsSources, iptables: boolean): void {
  const { cluster, accounting } = sources;
  const value = (read: (counts: ClusterCounts) => number): number =>
    cluster === undefined ? 0 : read(cluster());
  catalogue.counter({
    name: 'kubeproxy_sync_proxy_rules_service_changes_total',
    help: 'Changes of Services received',
    collect: (metric) => {
      metric.reset();
      metric.inc(value((counts) => counts.serviceEvents));
    },
  });
  catalogue.counter({
    name: 'kubeproxy_sync_proxy_rules_endpoint_changes_total',
    help: 'Changes of EndpointSlices received',
    collect: (metric) => {
      metric.reset();
      metric.inc(value((counts) => counts.endpointSliceEvents));
    },
  });
  catalogue.gauge({
    name: 'kubeproxy_sync_proxy_rules_service_changes_pending',
    help: 'Services with changes that no sync has taken yet',
    collect: (metric) => {
      metric.set(value((counts) => counts.pendingServices));
    },
  });
  catalogue.gauge({
    name: 'kubeproxy_sync_proxy_rules_endpoint_changes_pending',
    help: 'Changes of EndpointSlices that no sync has taken yet',
    collect: (metric) => {
      metric.set(value((counts) => counts.pendingEndpointSlices));
    },
  });
  const packets = (name: string, help: string, object: AccountingObject): void => {
    catalogue.counter({
      name,
      help,
      shown: iptables && accounting !== undefined,
      collect: (metric) => {
        metric.reset();
        metric.inc(accounting?.(object) ?? NaN);
      },
    });
  };
  packets(
    'kubeproxy_iptables_ct_state_invalid_dropped_packets_total',
    'Packets dropped because connection tracking found them invalid',
    'ct_state_invalid_dropped_pkts',
  );
  packets(
    'kubeproxy_iptables_localhost_nodeports_accepted_packets_total',
    'Packets to node ports on loopback addresses that were accepted',
    'localhost_nps_accepted_pkts',
  );
}
