/** Names, types, labels and buckets as observability.md section 5 has them, and a text that promtool accepts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Registry } from 'prom-client';
import { exposition } from './exposition.js';
import { createMetrics, type MetricsOptions } from './metrics.js';
import { Slis } from './slis.js';
import { lint, parseTextFormat, type Family } from './testing/text-format.js';

const conntrack = {
  entries: 1200,
  max: 262_144,
  drop: 4,
  earlyDrop: 3,
  insertFailed: 2,
  chainTooLong: 1,
  invalid: 9,
};
const everything: MetricsOptions = {
  modes: ['iptables', 'ipvs', 'nftables'],
  sources: {
    cluster: () => ({
      serviceEvents: 7,
      endpointSliceEvents: 9,
      pendingServices: 1,
      pendingEndpointSlices: 2,
    }),
    conntrack: () => conntrack,
    apiServer: () => ({
      fromStateFile: false,
      resources: [
        { kind: 'Service', synced: true, watching: false, objects: 3, currentAt: 1_767_323_045_500 },
        { kind: 'Node', synced: false, watching: false, objects: 0, currentAt: 0 },
      ],
    }),
    accounting: (object) => (object === 'ct_state_invalid_dropped_pkts' ? 4 : undefined),
  },
  build: {
    major: '1',
    minor: '37',
    gitVersion: 'v1.37.2+test',
    gitCommit: '',
    gitTreeState: 'clean',
    buildDate: '2026-01-02T03:04:05Z',
    version: '0.1.0',
  },
  features: [
    { name: 'AllAlpha', stage: 'ALPHA', enabled: false },
    { name: 'Old', stage: '', enabled: true },
  ],
};

async function read(registry: Registry): Promise<ReadonlyMap<string, Family>> {
  return parseTextFormat(await exposition(registry));
}

/** 'name{label=value} number' of every sample of the family. */
function samples(families: ReadonlyMap<string, Family>, name: string): string[] {
  return (families.get(name)?.samples ?? []).map((sample) => {
    const labels = Object.entries(sample.labels).map(([label, value]) => `${label}=${value}`);
    return `{${labels.join()}} ${sample.value}`;
  });
}

/** Every metric has been used once with all its labels. */
function fill(options: MetricsOptions) {
  const metrics = createMetrics(options);
  const family = { ip_family: 'IPv4' };
  for (const histogram of [
    metrics.syncDuration,
    metrics.fullSyncDuration,
    metrics.partialSyncDuration,
    metrics.programmingDuration,
    metrics.conntrackDuration,
  ])
    histogram.observe(family, 0.3);
  for (const counter of [
    metrics.syncFailures,
    metrics.cleanupFailures,
    metrics.conntrackDeleted,
    metrics.iptables.restoreFailures,
    metrics.iptables.partialRestoreFailures,
  ])
    counter.inc(family);
  metrics.lastSync.set(family, 1);
  metrics.lastQueued.set(family, 1);
  metrics.noLocalEndpoints.set({ ...family, traffic_policy: 'internal' }, 1);
  metrics.iptables.rules.set({ ...family, table: 'nat' }, 1);
  metrics.iptables.rulesWritten.set({ ...family, table: 'nat' }, 1);
  const request = { method: 'GET', host: '10.0.0.1:6443' };
  metrics.restClient.answered({ ...request, status: 200, seconds: 0.01, requestBytes: 100 });
  metrics.restClient.received({ ...request, bytes: 3000 });
  metrics.restClient.retried(request);
  metrics.restClient.waited({ ...request, seconds: 0.2 });
  metrics.restClient.pluginCalled('no_error');
  return metrics;
}

const perFamily = ['ip_family'];
const syncBuckets = [
  0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];
const restBuckets = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60];
const sizeBuckets = [64, 256, 512, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216];
const seconds = (from: number, to: number, step: number): number[] =>
  Array.from({ length: (to - from) / step + 1 }, (_, i) => from + i * step);
const programmingBuckets = [
  0.25,
  0.5,
  ...seconds(1, 59, 1),
  ...seconds(60, 115, 5),
  ...seconds(120, 300, 30),
];

type Row = [name: string, type: string, labels: string[], stability: string, buckets?: number[]];
const upstream: readonly Row[] = [
  ['kubeproxy_sync_proxy_rules_duration_seconds', 'histogram', perFamily, 'ALPHA', syncBuckets],
  ['kubeproxy_sync_full_proxy_rules_duration_seconds', 'histogram', perFamily, 'ALPHA', syncBuckets],
  ['kubeproxy_sync_partial_proxy_rules_duration_seconds', 'histogram', perFamily, 'ALPHA', syncBuckets],
  ['kubeproxy_sync_proxy_rules_last_timestamp_seconds', 'gauge', perFamily, 'ALPHA'],
  ['kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds', 'gauge', perFamily, 'ALPHA'],
  ['kubeproxy_network_programming_duration_seconds', 'histogram', perFamily, 'ALPHA', programmingBuckets],
  ['kubeproxy_sync_proxy_rules_endpoint_changes_pending', 'gauge', [], 'ALPHA'],
  ['kubeproxy_sync_proxy_rules_endpoint_changes_total', 'counter', [], 'ALPHA'],
  ['kubeproxy_sync_proxy_rules_service_changes_pending', 'gauge', [], 'ALPHA'],
  ['kubeproxy_sync_proxy_rules_service_changes_total', 'counter', [], 'ALPHA'],
  ['kubeproxy_sync_proxy_rules_no_local_endpoints_total', 'gauge', ['ip_family', 'traffic_policy'], 'ALPHA'],
  ['kubeproxy_proxy_healthz_total', 'counter', ['code'], 'ALPHA'],
  ['kubeproxy_proxy_livez_total', 'counter', ['code'], 'ALPHA'],
  ['kubeproxy_sync_proxy_rules_iptables_restore_failures_total', 'counter', perFamily, 'ALPHA'],
  ['kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total', 'counter', perFamily, 'ALPHA'],
  ['kubeproxy_sync_proxy_rules_iptables_total', 'gauge', ['ip_family', 'table'], 'ALPHA'],
  ['kubeproxy_sync_proxy_rules_iptables_last', 'gauge', ['ip_family', 'table'], 'ALPHA'],
  ['kubeproxy_sync_proxy_rules_nftables_sync_failures_total', 'counter', perFamily, 'ALPHA'],
  ['kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total', 'counter', perFamily, 'ALPHA'],
  ['kubeproxy_conntrack_reconciler_sync_duration_seconds', 'histogram', perFamily, 'ALPHA', syncBuckets],
  ['kubeproxy_conntrack_reconciler_deleted_entries_total', 'counter', perFamily, 'ALPHA'],
  ['kubeproxy_iptables_ct_state_invalid_dropped_packets_total', 'counter', [], 'ALPHA'],
  [
    'kubernetes_build_info',
    'gauge',
    [
      'build_date',
      'compiler',
      'git_commit',
      'git_tree_state',
      'git_version',
      'go_version',
      'major',
      'minor',
      'platform',
    ],
    'BETA',
  ],
  ['kubernetes_feature_enabled', 'gauge', ['name', 'stage'], 'BETA'],
  ['rest_client_request_duration_seconds', 'histogram', ['host', 'verb'], 'ALPHA', restBuckets],
  ['rest_client_rate_limiter_duration_seconds', 'histogram', ['host', 'verb'], 'ALPHA', restBuckets],
  ['rest_client_request_size_bytes', 'histogram', ['host', 'verb'], 'ALPHA', sizeBuckets],
  ['rest_client_response_size_bytes', 'histogram', ['host', 'verb'], 'ALPHA', sizeBuckets],
  ['rest_client_requests_total', 'counter', ['code', 'host', 'method'], 'ALPHA'],
  ['rest_client_request_retries_total', 'counter', ['code', 'host', 'verb'], 'ALPHA'],
  [
    'rest_client_exec_plugin_certificate_rotation_age',
    'histogram',
    [],
    'ALPHA',
    [600, 1800, 3600, 14400, 86400, 604800, 2592000, 7776000, 15552000, 31104000, 124416000],
  ],
  ['rest_client_exec_plugin_call_total', 'counter', ['call_status', 'code'], 'ALPHA'],
  ['rest_client_transport_cache_entries', 'gauge', [], 'ALPHA'],
  ['rest_client_transport_create_calls_total', 'counter', ['result'], 'ALPHA'],
  ['rest_client_transport_cert_rotation_gc_calls_total', 'counter', [], 'ALPHA'],
  ['rest_client_transport_cache_gc_calls_total', 'counter', ['result'], 'ALPHA'],
  ['registered_metrics_total', 'counter', ['deprecated_version', 'stability_level'], 'BETA'],
  ['disabled_metrics_total', 'counter', [], 'BETA'],
  ['hidden_metrics_total', 'counter', [], 'BETA'],
  ['cardinality_enforcement_unexpected_categorizations_total', 'counter', [], 'ALPHA'],
  ['process_cpu_seconds_total', 'counter', [], ''],
  ['process_open_fds', 'gauge', [], ''],
  ['process_max_fds', 'gauge', [], ''],
  ['process_resident_memory_bytes', 'gauge', [], ''],
  ['process_virtual_memory_bytes', 'gauge', [], ''],
  ['process_virtual_memory_max_bytes', 'gauge', [], ''],
  ['process_start_time_seconds', 'gauge', [], ''],
  ['process_network_receive_bytes_total', 'counter', [], ''],
  ['process_network_transmit_bytes_total', 'counter', [], ''],
];

const filled = read(fill(everything).registry);
for (const [name, type, labels, stability, buckets] of upstream) {
  test(`${name} is as upstream has it`, async () => {
    const family = (await filled).get(name);
    assert.ok(family, 'it is there');
    assert.equal(family.type, type);
    assert.match(family.help, stability === '' ? /^[^[]/ : new RegExp(`^\\[${stability}\\] \\S`));
    for (const sample of family.samples) {
      assert.deepEqual(
        Object.keys(sample.labels).filter((label) => label !== 'le'),
        labels,
      );
    }
    const bounds = family.samples.flatMap((sample) => sample.labels['le'] ?? []);
    if (buckets !== undefined) assert.deepEqual([...new Set(bounds)], [...buckets.map(String), '+Inf']);
  });
}

test('there are 80 buckets of programming latency', () => {
  assert.equal(programmingBuckets.length, 80);
});

test('no metric is there that is neither in the table above nor ours', async () => {
  const known = new Set(upstream.map(([name]) => name));
  const others = [...(await filled).keys()].filter((name) => !known.has(name));
  assert.deepEqual(
    others.filter((name) => !name.startsWith('kubeproxyts_')),
    [],
  );
  assert.ok(others.length > 5);
});

test("promtool's linter has nothing to say but about upstream's own two names", async () => {
  assert.deepEqual(lint((await filled).values()), [
    'kubeproxy_sync_proxy_rules_iptables_total: not a counter, but its name ends with _total',
    'kubeproxy_sync_proxy_rules_no_local_endpoints_total: not a counter, but its name ends with _total',
  ]);
});

test('metrics come in the order of their names', async () => {
  const names = [...(await filled).keys()];
  assert.deepEqual(names, names.toSorted());
});

const modes: [modes: MetricsOptions['modes'], has: string[], hasNot: string[]][] = [
  [['nftables'], ['nftables_sync_failures', 'sync_full', 'sync_partial'], ['iptables']],
  [['iptables'], ['iptables_restore_failures', 'iptables_partial', 'sync_full'], ['nftables']],
  [['ipvs'], ['iptables_restore_failures'], ['nftables', 'iptables_partial', 'sync_full', 'sync_partial']],
];
for (const [mode, has, hasNot] of modes) {
  test(`in mode ${mode?.join() ?? ''} only its metrics are shown`, async () => {
    const names = [...(await read(fill({ modes: mode ?? [] }).registry)).keys()].join('\n');
    for (const part of has) assert.ok(names.includes(part), part);
    for (const part of hasNot) assert.ok(!names.includes(part), part);
  });
}

test('a failed sync is counted under the name of its mode', async () => {
  for (const mode of ['nftables', 'iptables', 'ipvs'] as const) {
    const metrics = createMetrics({ modes: [mode] });
    metrics.syncFailures.inc({ ip_family: 'IPv6' });
    const name =
      mode === 'nftables'
        ? 'kubeproxy_sync_proxy_rules_nftables_sync_failures_total'
        : 'kubeproxy_sync_proxy_rules_iptables_restore_failures_total';
    assert.deepEqual(samples(await read(metrics.registry), name), [
      '{ip_family=IPv4} 0',
      '{ip_family=IPv6} 1',
    ]);
  }
});

test('failures can be alerted on before the first one: they begin at 0', async () => {
  const families = await read(createMetrics().registry);
  for (const name of [
    'kubeproxy_sync_proxy_rules_nftables_sync_failures_total',
    'kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total',
    'kubeproxyts_kernel_repairs_total',
    'kubeproxyts_service_ports_refused',
  ])
    assert.deepEqual(samples(families, name), ['{ip_family=IPv4} 0', '{ip_family=IPv6} 0'], name);
  assert.deepEqual(samples(families, 'kubeproxy_proxy_healthz_total'), ['{code=200} 0', '{code=503} 0']);
});

test('what others count is asked for at every scrape', async () => {
  const counts = { serviceEvents: 1, endpointSliceEvents: 2, pendingServices: 3, pendingEndpointSlices: 4 };
  let stats: typeof conntrack | undefined = conntrack;
  const { registry } = createMetrics({ sources: { cluster: () => counts, conntrack: () => stats } });
  const values = async (...names: string[]): Promise<string[]> => {
    const families = await read(registry);
    return names.flatMap((name) => samples(families, name));
  };
  const changes = [
    'kubeproxy_sync_proxy_rules_service_changes_total',
    'kubeproxy_sync_proxy_rules_endpoint_changes_total',
    'kubeproxy_sync_proxy_rules_service_changes_pending',
    'kubeproxy_sync_proxy_rules_endpoint_changes_pending',
  ];
  assert.deepEqual(await values(...changes), ['{} 1', '{} 2', '{} 3', '{} 4']);
  counts.serviceEvents = 10;
  assert.deepEqual(await values(...changes), ['{} 10', '{} 2', '{} 3', '{} 4']);
  const table = ['kubeproxyts_conntrack_entries', 'kubeproxyts_conntrack_entries_limit'];
  assert.deepEqual(await values(...table, 'kubeproxyts_conntrack_drops_total'), [
    '{} 1200',
    '{} 262144',
    '{reason=table_full} 4',
    '{reason=early_drop} 3',
    '{reason=insert_failed} 2',
    '{reason=chain_too_long} 1',
  ]);
  stats = undefined;
  assert.deepEqual(await values(...table, 'kubeproxyts_conntrack_drops_total'), [], 'missing, not 0');
});

test('what the API server has told, by kind of object', async () => {
  const families = await filled;
  assert.deepEqual(samples(families, 'kubeproxyts_resource_synced'), [
    '{resource=Service} 1',
    '{resource=Node} 0',
  ]);
  assert.deepEqual(samples(families, 'kubeproxyts_resource_current_timestamp_seconds'), [
    '{resource=Service} 1767323045.5',
  ]);
});

test('packets that the kernel counts are missing where it has no such counter', async () => {
  const families = await filled;
  assert.deepEqual(samples(families, 'kubeproxy_iptables_ct_state_invalid_dropped_packets_total'), ['{} 4']);
  assert.equal(families.has('kubeproxy_iptables_localhost_nodeports_accepted_packets_total'), false);
});

test('requests without an answer have a code of their own', async () => {
  const { restClient, registry } = createMetrics();
  restClient.answered({
    method: 'GET',
    host: '[::1]:6443',
    status: undefined,
    seconds: 10,
    requestBytes: 0,
  });
  const families = await read(registry);
  assert.deepEqual(samples(families, 'rest_client_requests_total'), [
    '{code=<error>,host=[::1]:6443,method=GET} 1',
  ]);
  assert.equal(families.has('rest_client_request_size_bytes'), false, 'nothing was sent');
});

test('without a credential plugin its credentials never expire', async () => {
  const metrics = createMetrics();
  const name = 'rest_client_exec_plugin_ttl_seconds';
  assert.deepEqual(samples(await read(metrics.registry), name), ['{} Infinity']);
  metrics.restClient.pluginCalled('plugin_not_found_error');
  assert.deepEqual(samples(await read(metrics.registry), name), []);
});

test('the process is this one', async () => {
  const families = await read(createMetrics().registry);
  const value = (name: string): number => families.get(name)?.samples[0]?.value ?? NaN;
  assert.ok(Math.abs(value('process_start_time_seconds') - (Date.now() / 1000 - process.uptime())) < 5);
  assert.ok(value('process_resident_memory_bytes') > 10e6);
  assert.ok(value('process_virtual_memory_bytes') > value('process_resident_memory_bytes'));
  assert.ok(value('process_open_fds') >= 3);
  assert.ok(value('process_max_fds') >= value('process_open_fds'));
  assert.ok(value('process_cpu_seconds_total') > 0);
  assert.ok(value('process_network_receive_bytes_total') >= 0);
});

test('build and feature gates', async () => {
  const families = await filled;
  const labels = families.get('kubernetes_build_info')?.samples[0]?.labels;
  assert.equal(labels?.['git_version'], 'v1.37.2+test');
  assert.match(labels['platform'] ?? '', /^linux\/(amd64|arm64|\w+)$/);
  assert.deepEqual(samples(families, 'kubernetes_feature_enabled'), [
    '{name=AllAlpha,stage=ALPHA} 0',
    '{name=Old,stage=} 1',
  ]);
  assert.deepEqual(samples(families, 'kubeproxyts_build_info'), [
    `{node_version=${process.version},version=0.1.0} 1`,
  ]);
});

test('registered metrics are counted by stability', async () => {
  const { registry } = createMetrics();
  const all = registry.getMetricsAsArray();
  const shown = all.filter(({ help }) => help.startsWith('[ALPHA]')).length;
  assert.ok(
    samples(await read(registry), 'registered_metrics_total').includes(
      `{deprecated_version=,stability_level=ALPHA} ${shown}`,
    ),
  );
});

test('label values and help texts are escaped', async () => {
  const metrics = createMetrics();
  metrics.restClient.retried({ method: 'GET', host: 'a"b\\c\nd' });
  const text = await exposition(metrics.registry);
  assert.ok(text.includes('host="a\\"b\\\\c\\nd"'));
  assert.equal(
    parseTextFormat(text).get('rest_client_request_retries_total')?.samples[0]?.labels['host'],
    'a"b\\c\nd',
  );
});

test('service level indicators count health checks, until they are reset', async () => {
  const slis = new Slis();
  assert.deepEqual([...(await read(slis.registry)).keys()], ['process_start_time_seconds']);
  slis.succeeded('ping', 'healthz');
  slis.succeeded('ping', 'healthz');
  const families = await read(slis.registry);
  assert.deepEqual(samples(families, 'kubernetes_healthcheck'), ['{name=ping,type=healthz} 1']);
  assert.deepEqual(samples(families, 'kubernetes_healthchecks_total'), [
    '{name=ping,status=success,type=healthz} 2',
  ]);
  assert.match(families.get('kubernetes_healthcheck')?.help ?? '', /^\[STABLE\] /);
  slis.reset();
  assert.deepEqual([...(await read(slis.registry)).keys()], ['process_start_time_seconds']);
});
