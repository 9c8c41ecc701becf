/** Metrics that every Kubernetes component has (k8s.io/component-base), and counts of the metrics themselves. */
import type { Catalogue } from './catalogue.js';

export interface BuildInfo {
  /** Of the Kubernetes release whose kube-proxy this one stands in for: '1' and '37'. */
  readonly major: string;
  readonly minor: string;
  /** Begins with the Kubernetes version ('v1.37.2+…'): alerts compare it between the components of a cluster. */
  readonly gitVersion: string;
  readonly gitCommit: string;
  /** 'clean' or 'dirty'. */
  readonly gitTreeState: string;
  /** RFC 3339. */
  readonly buildDate: string;
  /** This program's own version. */
  readonly version: string;
}

export interface FeatureGate {
  readonly name: string;
  /** 'ALPHA', 'BETA', 'DEPRECATED', or '' for what is generally available. */
  readonly stage: string;
  readonly enabled: boolean;
}

/** Node's names for processors that Go, and so Kubernetes, names differently. */
const goArchitectures: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', loong64: 'loong64' };

export function defineComponentMetrics(
  catalogue: Catalogue,
  build: BuildInfo | undefined,
  features: readonly FeatureGate[],
): void {
  const stability = 'BETA';
  if (build !== undefined) {
    catalogue
      .gauge({
        name: 'kubernetes_build_info',
        help: 'Always 1; the labels tell the version',
        stability,
        labels: [
          'major',
          'minor',
          'git_version',
          'git_commit',
          'git_tree_state',
          'build_date',
          'go_version',
          'compiler',
          'platform',
        ],
      })
      .set(
        {
          major: build.major,
          minor: build.minor,
          git_version: build.gitVersion,
          git_commit: build.gitCommit,
          git_tree_state: build.gitTreeState,
          build_date: build.buildDate,
          go_version: runtimeVersion,
          compiler: 'tsc',
          platform: `linux/${goArchitectures[process.arch] ?? process.arch}`,
        },
        1,
      );
    catalogue
      .gauge({
        name: 'kubeproxyts_build_info',
        help: 'Always 1; the labels tell the version of this program and of Node',
        stability: undefined,
        labels: ['version', 'node_version'],
      })
      .set({ version: build.version, node_version: process.version }, 1);
  }
  const enabled = catalogue.gauge({
    name: 'kubernetes_feature_enabled',
    help: 'Whether a feature gate is on, of the gates that act here',
    stability,
    labels: ['name', 'stage'],
  });
  for (const gate of features) enabled.set({ name: gate.name, stage: gate.stage }, Number(gate.enabled));
  catalogue.counter({
    name: 'disabled_metrics_total',
    help: 'Metrics that are switched off',
    stability,
  });
  catalogue.counter({
    name: 'hidden_metrics_total',
    help: 'Metrics that are deprecated and no longer shown',
    stability,
  });
  catalogue.counter({
    name: 'cardinality_enforcement_unexpected_categorizations_total',
    help: 'Label values that a limit of cardinality replaced by another',
  });
  const registered = catalogue.counter({
    name: 'registered_metrics_total',
    help: 'Metrics of Kubernetes that are shown, by stability',
    stability,
    labels: ['stability_level', 'deprecated_version'],
  });
  for (const [level, count] of catalogue.byStability())
    registered.inc({ stability_level: level, deprecated_version: '' }, count);
}

/** Stands where other components tell their version of Go. */
export const runtimeVersion = `node ${process.version}`;
