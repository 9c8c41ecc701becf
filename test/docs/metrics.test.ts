/** Holds docs/metrics.md and docs/endpoints.md against the program. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { metricsRoutes } from '../../src/http/metrics-server.js';
import { createMetrics } from '../../src/metrics/metrics.js';
import { Slis } from '../../src/metrics/slis.js';
import { allMetrics, metricsPage, withTables } from './metrics-table.js';

const page = readFileSync(metricsPage, 'utf8');

test('docs/metrics.md has every metric as it is (node dist/test/docs/metrics-table.js writes it)', () => {
  assert.equal(withTables(page), page);
});

test('every metric is in one of its tables', () => {
  for (const { name } of allMetrics()) assert.ok(page.includes(`| \`${name}\` |`), name);
});

test('its alerts use metrics that exist', () => {
  const names = new Set(
    allMetrics().flatMap(({ name, type }) =>
      type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    ),
  );
  const [, alerts = ''] = /```yaml\n([^]*?)```/.exec(page) ?? [];
  const used = alerts.match(/\b(kubeproxy|kubeproxyts|rest_client)_\w+/g) ?? [];
  assert.ok(used.length > 8);
  for (const name of used) assert.ok(names.has(name), name);
});

test('docs/endpoints.md names every page of the metrics server', () => {
  const endpoints = readFileSync(join(dirname(metricsPage), 'endpoints.md'), 'utf8');
  const routes = metricsRoutes({
    metrics: createMetrics(),
    slis: new Slis(),
    mode: () => ({ mode: '', reason: '' }),
    configz: () => '',
    flagz: () => new Map(),
    statusz: { binary: '', emulation: '' },
    profiling: { setVerbosity: () => undefined },
  });
  for (const { path } of routes)
    assert.ok(endpoints.includes(`\`${path}`) || endpoints.includes(`\`${path.replace(/\/$/, '')}\``), path);
});
