/**
 * What operators, load balancers and scrapers can ask: health and metrics with their two servers. They are up from the
 * start, before the API server has been reached, and stay up while the proxy starts over in place.
 */
import type { RequestListener } from 'node:http';
import { guarded } from '../callbacks/guarded.js';
import type { Config, HostPort } from '../config/config.js';
import { actingGates, featureGates, type ActingGate } from '../config/values/feature-gates.js';
import { ConntrackPressure } from '../conntrack/pressure.js';
import { Health } from '../health/health.js';
import { KeptServer } from '../health/listen.js';
import { healthServer } from '../http/health-server.js';
import type { ComponentVersion } from '../http/statusz.js';
import { metricsServer, type MetricsServerOptions } from '../http/metrics-server.js';
import type { ClusterEvent } from '../sources/kube/events.js';
import type { SourceHealth } from '../sources/source-health.js';
import { errorText, type Logger } from '../log/logger.js';
import type { BuildInfo } from '../metrics/component.js';
import { createMetrics, type ClusterCounts, type Metrics } from '../metrics/metrics.js';
import { addRuntimeMetrics } from '../metrics/runtime.js';
import { Slis } from '../metrics/slis.js';
import type { IPFamily } from '../model/types.js';
import { ConntrackStatsReader } from '../reporting/conntrack-stats.js';
import { exitCodes, FatalError } from '../exit/exit-codes.js';
import type { ChosenMode } from './choose-mode.js';
import { apiServerHealth, apiServerState } from '../reporting/source-health.js';
import { version } from '../version/version.js';

const bindRetryMs = 5_000;
const pressureCheckMs = 30_000;

/** What a running proxy tells when it is asked. */
export interface Observed {
  readonly counts: () => ClusterCounts;
  /** undefined: it has not been asked yet. */
  readonly source: () => SourceHealth | undefined;
  /** Health check node ports that are not open although they should be. */
  readonly failedHealthCheckPorts: (family: IPFamily) => number;
}

type Settings = Pick<
  Config,
  | 'healthzBindAddress'
  | 'metricsBindAddress'
  | 'bindAddressHardFail'
  | 'enableProfiling'
  | 'syncPeriodMs'
  | 'nodeName'
  | 'gates'
  | 'kubernetesVersion'
>;

/** What an Observability depends on: it has to be made anew when this changes. */
export function observabilitySettings(config: Settings): Settings {
  const { healthzBindAddress, metricsBindAddress, bindAddressHardFail } = config;
  const { enableProfiling, syncPeriodMs, nodeName, gates, kubernetesVersion } = config;
  return {
    healthzBindAddress,
    metricsBindAddress,
    bindAddressHardFail,
    enableProfiling,
    syncPeriodMs,
    nodeName,
    gates,
    kubernetesVersion,
  };
}

export interface ObservabilityOptions {
  readonly config: Settings;
  readonly mode: ChosenMode;
  readonly log: Logger;
  /** Of the log, for /debug/flags/v. */
  readonly setVerbosity: (verbosity: number) => void;
  /** The configuration in force, as compact JSON. */
  readonly configz?: () => string;
  /** Every flag with its value. */
  readonly flagz?: () => ReadonlyMap<string, string>;
}

/** A server could not be started, and the operator wants that to be the end. */
export class ServerStartError extends FatalError {
  constructor(
    message: string,
    /** Posted before the process ends. */
    readonly event: ClusterEvent,
    options: ErrorOptions,
  ) {
    super(exitCodes.addressInUse, message, options);
  }
}

interface ServerKind {
  readonly name: 'health' | 'metrics';
  /** Of the event, as upstream calls it. */
  readonly reason: string;
  readonly address: HostPort | undefined;
  readonly handler: RequestListener;
}

export class Observability {
  readonly health: Health;
  readonly metrics: Metrics;
  private readonly servers: KeptServer[] = [];
  private readonly conntrack: ConntrackStatsReader;
  private readonly pressure: NodeJS.Timeout;
  private observed: Observed | undefined;

  constructor(private readonly options: ObservabilityOptions) {
    const { config, mode, log } = options;
    this.conntrack = new ConntrackStatsReader(log.named('conntrack'));
    const pressure = new ConntrackPressure({
      read: () => this.conntrack.read(),
      log: log.named('conntrack'),
    });
    this.pressure = setInterval(
      guarded('check the connection tracking table', () => {
        pressure.check();
      }),
      pressureCheckMs,
    ).unref();
    this.health = new Health(2 * config.syncPeriodMs);
    this.metrics = createMetrics({
      modes: [mode.mode.metrics],
      build: buildInfo(config.kubernetesVersion),
      features: (Object.keys(actingGates) as ActingGate[]).map((name) => ({
        name,
        stage: stageOf(name),
        enabled: config.gates[name],
      })),
      sources: {
        cluster: () => this.observed?.counts() ?? nothing,
        apiServer: () => {
          const source = this.observed?.source();
          return source === undefined ? undefined : apiServerState(source);
        },
        conntrack: () => this.conntrack.read(),
        healthCheckPorts: (family) => this.observed?.failedHealthCheckPorts(family) ?? 0,
        ...(mode.mode.readCounter === undefined ? {} : { accounting: mode.mode.readCounter }),
      },
    });
    addRuntimeMetrics(this.metrics.registry);
    this.health.setApiServer(() => {
      const source = this.observed?.source();
      return source === undefined ? undefined : apiServerHealth(source);
    });
  }

  /** @throws ServerStartError when the operator wants a taken port to be the end */
  async start(): Promise<void> {
    const { config } = this.options;
    await this.serve({
      name: 'health',
      reason: 'FailedToStartProxierHealthcheck',
      address: config.healthzBindAddress,
      handler: healthServer(this.health, this.metrics),
    });
    await this.serve({
      name: 'metrics',
      reason: 'FailedToStartMetricServer',
      address: config.metricsBindAddress,
      handler: metricsServer(this.pages()),
    });
  }

  /** From now on this proxy is asked. */
  observe(observed: Observed): void {
    this.observed = observed;
  }

  close(): void {
    for (const server of this.servers) server.close();
    clearInterval(this.pressure);
    this.conntrack.close();
  }

  private pages(): MetricsServerOptions {
    const { mode, config, configz, flagz, setVerbosity } = this.options;
    return {
      metrics: this.metrics,
      slis: new Slis(),
      mode: () => ({ mode: mode.mode.name, reason: mode.reason }),
      ...(configz === undefined ? {} : { configz }),
      ...(flagz === undefined || !config.gates.ComponentFlagz ? {} : { flagz }),
      ...(config.gates.ComponentStatusz ? { statusz: componentVersion(config.kubernetesVersion) } : {}),
      ...(config.enableProfiling ? { profiling: { setVerbosity } } : {}),
    };
  }

  private async serve({ name, reason, address, handler }: ServerKind): Promise<void> {
    if (address === undefined) return;
    const { config, log } = this.options;
    const server = new KeptServer({
      address,
      handler,
      hardFail: config.bindAddressHardFail,
      retryMs: bindRetryMs,
      onRetry: (error, again) => {
        const message = `Failed to start ${name} server, retrying`;
        const retry = { retrySeconds: bindRetryMs / 1000 };
        if (again) log.debug(2, message, { ...retry, err: errorText(error) });
        else log.error(message, error, retry);
      },
      onRecovered: () => {
        log.info(`Started ${name} server after all`);
      },
    });
    this.servers.push(server);
    try {
      await server.start();
    } catch (error) {
      const message = `${name} server: ${errorText(error)}`;
      throw new ServerStartError(message, startFailure(reason, config.nodeName, message), { cause: error });
    }
  }
}

const nothing: ClusterCounts = {
  serviceEvents: 0,
  endpointSliceEvents: 0,
  pendingServices: 0,
  pendingEndpointSlices: 0,
};

/** As the metric names it: nothing for what is generally available. */
function stageOf(gate: string): string {
  const stage = featureGates.get(gate)?.stage;
  return stage === undefined || stage === 'GA' ? '' : stage.toUpperCase();
}

/** The kube-proxy that this one stands in for. @param version such as `v1.37.2` */
function componentVersion(version: string): ComponentVersion {
  const binary = version.slice(1);
  return { binary, emulation: binary.split('.', 2).join('.') };
}

function buildInfo(kubernetesVersion: string): BuildInfo {
  const [major = '', minor = ''] = componentVersion(kubernetesVersion).emulation.split('.');
  return {
    major,
    minor,
    gitVersion: `${kubernetesVersion}${kubernetesVersion.includes('+') ? '.' : '+'}kube-proxy-ts.${version}`,
    gitCommit: '',
    gitTreeState: '',
    buildDate: '',
    version,
  };
}

function startFailure(reason: string, nodeName: string, note: string): ClusterEvent {
  return {
    type: 'Warning',
    reason,
    action: 'StartKubeProxy',
    regarding: { apiVersion: 'v1', kind: 'Node', namespace: '', name: nodeName, uid: '' },
    note,
  };
}
