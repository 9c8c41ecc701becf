/**
 * The text format of Prometheus (version 0.0.4, "Exposition formats" of its documentation), in the order in which other
 * Kubernetes components print it: metrics by name, labels by name, nothing of a metric that has no series yet. A value
 * that is not known (NaN) is left out.
 */
import type { Registry } from 'prom-client';

export const contentType = 'text/plain; version=0.0.4; charset=utf-8; escaping=underscores';

interface Sample {
  readonly labels: Readonly<Partial<Record<string, string | number>>>;
  readonly value: number;
  /** Set for the parts of a histogram. */
  readonly metricName?: string;
}

/** @throws what a metric's collector throws */
export async function exposition(registry: Registry): Promise<string> {
  const families = await registry.getMetricsAsJSON();
  families.sort((a, b) => (a.name < b.name ? -1 : 1));
  let text = '';
  for (const { name, help, type, values } of families) {
    // NaN: the collector could not tell. Their type says less than what is returned.
    const samples: readonly Sample[] = values.filter(({ value }) => !Number.isNaN(value));
    if (samples.length === 0) continue;
    text += `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${String(type)}\n`;
    for (const { labels, value, metricName } of samples) {
      text += `${metricName ?? name}${formatLabels(labels)} ${formatValue(value)}\n`;
    }
  }
  return text;
}

function formatLabels(labels: Sample['labels']): string {
  const parts = Object.entries(labels)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(
      ([name, value]) =>
        `${name}="${escapeLabel(typeof value === 'number' ? formatValue(value) : String(value))}"`,
    );
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}

function formatValue(value: number): string {
  if (value === Infinity) return '+Inf';
  if (value === -Infinity) return '-Inf';
  return String(value);
}

function escapeHelp(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}
