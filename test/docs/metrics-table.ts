/**
 * The tables of docs/metrics.md, from the metrics themselves. `node dist/test/docs/metrics-table.js` writes them into the
 * file; a test holds the file against them.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Registry } from 'prom-client';
import { createMetrics, type MetricsOptions, type ProxyMode } from '../../src/metrics/metrics.js';
import { addRuntimeMetrics } from '../../src/metrics/runtime.js';

export const metricsPage = join(
  dirname(fileURLToPath(import.meta.url)),
  '..',
  '..',
  '..',
  'docs',
  'metrics.md',
);

const allModes: readonly ProxyMode[] = ['iptables', 'ipvs', 'nftables'];

/** Everything that can be shown is. */
function registryOf(modes: readonly ProxyMode[]): Registry {
  const options: MetricsOptions = {
    modes,
    sources: { conntrack: () => undefined, apiServer: () => undefined, accounting: () => undefined },
    build: {
      major: '',
      minor: '',
      gitVersion: '',
      gitCommit: '',
      gitTreeState: '',
      buildDate: '',
      version: '',
    },
  };
  return createMetrics(options).registry;
}

export interface DocumentedMetric {
  readonly name: string;
  readonly type: string;
  readonly labels: readonly string[];
  /** Empty: all. */
  readonly modes: readonly ProxyMode[];
  readonly help: string;
  /** Upper bounds of a histogram. */
  readonly buckets: readonly number[];
}

/** By name. */
export function allMetrics(): DocumentedMetric[] {
  const everything = registryOf(allModes);
  addRuntimeMetrics(everything);
  const shown = allModes.map((mode) => ({
    mode,
    names: new Set(
      registryOf([mode])
        .getMetricsAsArray()
        .map(({ name }) => name),
    ),
  }));
  return everything
    .getMetricsAsArray()
    .map((metric) => {
      const { name, type, help } = metric;
      const modes = shown.filter(({ names }) => names.has(name)).map(({ mode }) => mode);
      return {
        name,
        type: String(type),
        labels: strings('labelNames' in metric ? metric.labelNames : []),
        modes: modes.length === allModes.length ? [] : modes,
        help,
        buckets: numbers('upperBounds' in metric ? metric.upperBounds : []),
      };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

function strings(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

function numbers(value: unknown): number[] {
  return Array.isArray(value) ? value.map(Number) : [];
}

const sections: readonly (readonly [section: string, pattern: RegExp])[] = [
  ['kubeproxy', /^kubeproxy_/],
  ['kubeproxyts', /^kubeproxyts_/],
  ['rest_client', /^rest_client_/],
  ['others', /^(kubernetes|registered|disabled|hidden|cardinality|process|nodejs)_/],
];

/** Markdown by section. */
export function metricsTables(): ReadonlyMap<string, string> {
  const all = allMetrics();
  return new Map(
    sections.map(([section, pattern]) => {
      const rows = all.filter(({ name }) => pattern.test(name)).map(row);
      return [
        section,
        ['| metric | type | labels | meaning |', '| --- | --- | --- | --- |', ...rows].join('\n'),
      ];
    }),
  );
}

function row({ name, type, labels, modes, help, buckets }: DocumentedMetric): string {
  const notes = [
    help.replaceAll('|', '\\|'),
    ...(modes.length === 0 ? [] : [`only in mode ${modes.join(', ')}`]),
    ...(buckets.length === 0
      ? []
      : [`${buckets.length} buckets, ${buckets[0] ?? ''} to ${buckets.at(-1) ?? ''}`]),
  ];
  return `| \`${name}\` | ${type} | ${labels.join(', ')} | ${notes.join('; ')} |`;
}

/** The page with the tables as they should be. @throws Error when a place for a table is missing */
export function withTables(page: string): string {
  let text = page;
  for (const [section, table] of metricsTables()) {
    const place = new RegExp(`(<!-- ${section} -->\n)[^]*?(<!-- end -->)`);
    if (!place.test(text)) throw new Error(`docs/metrics.md has no place for the table of ${section}`);
    text = text.replace(place, (_, begin: string, end: string) => `${begin}\n${table}\n\n${end}`);
  }
  return text;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  writeFileSync(metricsPage, withTables(readFileSync(metricsPage, 'utf8')));
