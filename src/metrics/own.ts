/** Metrics beyond upstream's, all under `kubeproxyts_`. */
import type { Counter, Gauge, Histogram } from 'prom-client';
import { exponentialBuckets, ipFamilies, type Catalogue } from './catalogue.js';

/** How one kind of object is followed. */
export interface ResourceState {
  /** 'Service', 'EndpointSlice', … */
  readonly kind: string;
  /** The first list is complete. */
  readonly synced: boolean;
  /** A watch is open now. */
  readonly watching: boolean;
  readonly objects: number;
  /** Milliseconds since the epoch: when the objects known were last known to be the API server's; 0: never. */
  readonly currentAt: number;
}

export interface ApiServerState {
  readonly resources: readonly ResourceState[];
  /** What is served comes from the state file of an earlier process. */
  readonly fromStateFile: boolean;
}

/** What is wrong with an object. */
export const invalidReasons = [
  'unreadable',
  'fields_left_out',
  'cut_short',
  'address_taken',
  'kernel_refused',
] as const;
export type InvalidReason = (typeof invalidReasons)[number];

export interface OwnMetrics {
  /** Objects with which something is wrong. */
  readonly invalidObjects: Gauge<'reason'>;
  /** 1 for each of them, for as many as are shown by name. */
  readonly invalidObject: Gauge<'kind' | 'namespace' | 'name' | 'reason'>;
  /** Number of service ports rejected by the kernel and waiting to be retried. */
  readonly servicePortsRejected: Gauge<'ip_family'>;
  readonly elementsWritten: Counter<'ip_family'>;
  readonly transactions: Counter<'ip_family'>;
  /** Times that the kernel no longer held what we had written, and got it back. */
  readonly repairs: Counter<'ip_family'>;
  /** Seconds from noticing such a thing to the kernel's acknowledgement of the repair. */
  readonly repairDuration: Histogram<'ip_family'>;
  /** 1: another program keeps changing what we wrote. */
  readonly rulesContested: Gauge;
  /** Seconds of a look at everything that the kernel holds. */
  readonly checkDuration: Histogram<'ip_family'>;
  /** Times that such a look found what no notification had told of. */
  readonly silentDifferences: Counter<'ip_family'>;
  /** After the API server's history changed, lists that took most of what was held away and were not believed for a while. */
  readonly unconfirmedListGauge: Counter<'resource'>;
}

const resources = ['Service', 'EndpointSlice', 'Node', 'ServiceCIDR'].map((resource) => ({ resource }));

export interface OwnSources {
  /** How far each kind of object is followed; undefined: there is no API server (manifests). */
  readonly apiServer?: () => ApiServerState | undefined;
  /** Health check node ports that are not open although they should be. */
  readonly healthCheckPorts?: (family: 'IPv4' | 'IPv6') => number;
}

export function defineOwnMetrics(
  catalogue: Catalogue,
  { apiServer, healthCheckPorts }: OwnSources,
): OwnMetrics {
  const labels = ['ip_family'] as const;
  const stability = undefined;
  const zero = ipFamilies;
  if (apiServer !== undefined) defineApiServerMetrics(catalogue, apiServer);
  catalogue.gauge({
    name: 'kubeproxyts_health_check_node_ports_failed',
    help: 'Number of health check node ports that could not be opened and are retried',
    labels,
    stability,
    collect: (metric) => {
      for (const { ip_family } of ipFamilies) metric.set({ ip_family }, healthCheckPorts?.(ip_family) ?? 0);
    },
  });
  return {
    invalidObjects: catalogue.gauge({
      name: 'kubeproxyts_troubled_objects',
      help: 'Number of invalid objects; everything else is served',
      labels: ['reason'],
      stability,
      zero: invalidReasons.map((reason) => ({ reason })),
    }),
    invalidObject: catalogue.gauge({
      name: 'kubeproxyts_troubled_object_info',
      help: 'Always 1, labeled by invalid object, for the first hundred',
      labels: ['kind', 'namespace', 'name', 'reason'],
      stability,
    }),
    servicePortsRejected: catalogue.gauge({
      name: 'kubeproxyts_service_ports_refused',
      help: 'Number of service ports rejected by the kernel and waiting to be retried',
      labels,
      stability,
      zero,
    }),
    elementsWritten: catalogue.counter({
      name: 'kubeproxyts_kernel_elements_written_total',
      help: 'Number of map and set elements added to or deleted from the kernel',
      labels,
      stability,
      zero,
    }),
    transactions: catalogue.counter({
      name: 'kubeproxyts_kernel_transactions_total',
      help: 'Number of kernel transactions that changed something',
      labels,
      stability,
      zero,
    }),
    repairs: catalogue.counter({
      name: 'kubeproxyts_kernel_repairs_total',
      help: 'Number of repairs of rules modified by another program',
      labels,
      stability,
      zero,
    }),
    repairDuration: catalogue.histogram({
      name: 'kubeproxyts_kernel_repair_duration_seconds',
      help: "Seconds from noticing a modification by another program to the kernel's acknowledgement of the repair",
      labels,
      stability,
      buckets: exponentialBuckets(0.001, 2, 15),
      zero,
    }),
    rulesContested: catalogue.gauge({
      name: 'kubeproxyts_rules_contested',
      help: 'Whether rules are contested by another program, so that repairs back off',
      stability,
    }),
    checkDuration: catalogue.histogram({
      name: 'kubeproxyts_kernel_check_duration_seconds',
      help: 'Seconds of one consistency check, most of it pauses',
      labels,
      stability,
      buckets: exponentialBuckets(0.001, 2, 15),
      zero,
    }),
    silentDifferences: catalogue.counter({
      name: 'kubeproxyts_kernel_check_differences_total',
      help: 'Number of consistency checks that repaired drift not reported by kernel notifications',
      labels,
      stability,
      zero,
    }),
    unconfirmedListGauge: catalogue.counter({
      name: 'kubeproxyts_lists_held_back_total',
      help: 'Number of lists held back because their history differed and most known objects were missing',
      labels: ['resource'],
      stability,
      zero: resources,
    }),
  };
}

function defineApiServerMetrics(catalogue: Catalogue, source: () => ApiServerState | undefined): void {
  catalogue.gauge({
    name: 'kubeproxyts_state_file_served',
    help: 'Whether what is served comes from the state file, because the API server has not been reached yet',
    stability: undefined,
    collect: (metric) => {
      const state = source();
      metric.set(state === undefined ? NaN : Number(state.fromStateFile));
    },
  });
  const labels = ['resource'] as const;
  const each = (name: string, help: string, read: (state: ResourceState) => number | undefined): void => {
    catalogue.gauge({
      name,
      help,
      labels,
      stability: undefined,
      collect: (metric) => {
        metric.reset();
        for (const state of source()?.resources ?? []) {
          const value = read(state);
          if (value !== undefined) metric.set({ resource: state.kind }, value);
        }
      },
    });
  };
  each('kubeproxyts_resource_synced', 'Whether the first list of these objects is complete', ({ synced }) =>
    Number(synced),
  );
  each('kubeproxyts_resource_watched', 'Whether a watch of these objects is open', ({ watching }) =>
    Number(watching),
  );
  each('kubeproxyts_resource_objects', 'Objects known', ({ objects }) => objects);
  each(
    'kubeproxyts_resource_current_timestamp_seconds',
    "Unix time at which the objects known were last known to be the API server's",
    ({ currentAt }) => (currentAt === 0 ? undefined : currentAt / 1000),
  );
}
