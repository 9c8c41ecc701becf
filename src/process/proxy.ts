/**
 * The composition root: the one place that knows all rooms. Wires source → model → dataplanes, and health, metrics
 * and the operator's signals around them.
 */
import type { Server } from 'node:http';
import type { Config, HostPort } from '../config/config.js';
import { UdpReconciler } from '../conntrack/udp-reconciler.js';
import type { Dataplane } from '../dataplane/dataplane.js';
import { NftablesFamily } from '../dataplane/nftables/family.js';
import { TableWatch, WatchedDataplane } from '../dataplane/nftables/watch.js';
import { Health } from '../health/health.js';
import { listenWithRetry, listen } from '../health/listen.js';
import { NodePortHealth } from '../health/node-ports.js';
import type { ClusterEvent } from '../kube/events.js';
import type { Node } from '../kube/objects.js';
import { createLogger, errorText, type Logger } from '../log/logger.js';
import { createMetrics, type Metrics } from '../metrics/metrics.js';
import { BOTH_FAMILIES } from '../model/addresses.js';
import { resolveDetectors } from '../model/detector.js';
import { ServiceModel } from '../model/model.js';
import { nodeStatusIPs, resolveNodeIPs, type NodeIPs } from '../model/node.js';
import {
  resolveNodePortAddresses,
  selectNodePortIPs,
  type NodePortAddresses,
} from '../model/nodeport-addresses.js';
import type { HealthCheckPort, IPFamily, ModelChanges } from '../model/types.js';
import { ClusterState } from './cluster-state.js';
import { exitCodes, FatalError } from './exit-codes.js';
import { healthEndpoints, metricsEndpoints } from './http-endpoints.js';
import { LocalAddresses } from './local-addresses.js';
import { checkKernelVersion, openNftables, usableFamilies } from './preflight.js';
import { openSource, type Source } from './source.js';
import { SyncLoop } from './sync-loop.js';
import { version } from './version.js';

/** How long a Node object without addresses is waited for (process.md section 2). */
const nodeWaitMs = 30_000;
/** How long pod CIDRs are waited for in mode NodeCIDR. */
const podCIDRWaitMs = 5 * 60_000;
const bindRetryMs = 5_000;
const maintenanceMs = 30_000;

/** @returns the exit code, after a signal. @throws FatalError */
export async function runProxy(config: Config): Promise<number> {
  const log = createLogger({ format: config.logging.format, verbosity: config.logging.verbosity });
  for (const warning of config.warnings) log.warn(warning);
  log.info('Starting kube-proxy-ts', {
    version,
    node: config.nodeName,
    mode: 'nftables',
    why: config.mode === '' ? 'no mode was asked for' : 'as configured',
  });
  if (config.mode === 'iptables' || config.mode === 'ipvs') {
    throw new FatalError(exitCodes.configuration, `mode ${config.mode} is not built yet; use nftables`);
  }
  checkKernelVersion();
  openNftables().close();
  const proxy = new Proxy(config, log);
  return await proxy.run();
}

class Proxy {
  private readonly health: Health;
  private readonly metrics: Metrics = createMetrics();
  private readonly servers: Server[] = [];
  private readonly abort = new AbortController();
  private readonly state: ClusterState;
  private source: Source | undefined;
  private running: Running | undefined;
  private starting = false;
  private nodeTimer: NodeJS.Timeout | undefined;
  private finish: (code: number) => void = () => undefined;
  private fail: (error: unknown) => void = () => undefined;

  constructor(
    private readonly config: Config,
    private readonly log: Logger,
  ) {
    this.health = new Health(2 * config.syncPeriodMs);
    this.state = new ClusterState(config.nodeName, {
      changed: () => this.running?.loop.request(),
      nodeChanged: (node) => {
        this.onNode(node);
      },
      serviceCIDRsChanged: () => this.running?.setServiceCIDRs(this.state),
      synced: () => {
        this.startWhenReady();
      },
    });
  }

  async run(): Promise<number> {
    const ended = new Promise<number>((resolve, reject) => {
      this.finish = resolve;
      this.fail = reject;
    });
    const onSignal = (signal: NodeJS.Signals): void => {
      this.log.info('Ending; the rules stay in force', { signal });
      this.finish(exitCodes.ok);
    };
    process.once('SIGTERM', onSignal);
    process.once('SIGINT', onSignal);
    try {
      await Promise.race([this.serve(), ended]);
      this.source = await openSource(this.config, this.state, this.log, (error) => {
        this.fail(error);
      });
      this.source.start();
      return await ended;
    } finally {
      await this.stop();
    }
  }

  private async stop(): Promise<void> {
    this.abort.abort();
    clearTimeout(this.nodeTimer);
    await this.running?.stop();
    for (const server of this.servers) {
      server.close();
      server.closeAllConnections();
    }
    await this.source?.stop();
  }

  /** Health and metrics answer from the beginning, before the API server has been reached. */
  private async serve(): Promise<void> {
    await this.listenOn('health', this.config.healthzBindAddress, healthEndpoints(this.health, this.metrics));
    await this.listenOn(
      'metrics',
      this.config.metricsBindAddress,
      metricsEndpoints('nftables', this.metrics),
    );
  }

  private async listenOn(
    what: string,
    address: HostPort | undefined,
    handler: Parameters<typeof listen>[1],
  ): Promise<void> {
    if (address === undefined) return;
    if (this.config.bindAddressHardFail) {
      try {
        this.servers.push(await listen(address, handler));
      } catch (error) {
        throw new FatalError(exitCodes.addressInUse, `${what} server: ${errorText(error)}`, { cause: error });
      }
      return;
    }
    void listenWithRetry(address, handler, bindRetryMs, this.abort.signal, (error) => {
      this.log.error(`The ${what} server is not up; trying again every ${bindRetryMs / 1000} s`, error);
    }).then((server) => {
      if (server === undefined) return;
      if (this.abort.signal.aborted) server.close();
      else this.servers.push(server);
    });
  }

  private onNode(node: Node | undefined): void {
    if (node === undefined) {
      this.log.info('The Node object of this node was deleted; its last state stays in use', {
        node: this.config.nodeName,
      });
      return;
    }
    this.health.setNodeEligible(!node.deleting && !node.taintKeys.includes('ToBeDeletedByClusterAutoscaler'));
    this.running?.nodeChanged(node);
    this.startWhenReady();
  }

  /** The first sync needs all Services, all EndpointSlices, and the own Node's addresses as far as they can be had. */
  private startWhenReady(): void {
    const { state, config } = this;
    if (this.running !== undefined || this.starting) return;
    if (!state.hasSynced('Service') || !state.hasSynced('EndpointSlice') || !state.hasSynced('Node')) return;
    const node = state.ownNode;
    const hasIPs = node !== undefined && nodeStatusIPs(node.addresses).length > 0;
    const hasPodCIDRs = (node?.podCIDRs.length ?? 0) > 0;
    const wantsPodCIDRs = config.detectLocalMode === 'NodeCIDR';
    if ((hasIPs || config.manifests !== '') && (hasPodCIDRs || !wantsPodCIDRs)) {
      this.begin();
      return;
    }
    if (this.nodeTimer !== undefined) return;
    const waitMs = wantsPodCIDRs && !hasPodCIDRs ? podCIDRWaitMs : nodeWaitMs;
    this.log.info('Waiting for the Node object', {
      node: config.nodeName,
      needs: wantsPodCIDRs ? 'pod CIDRs' : 'addresses',
      seconds: waitMs / 1000,
    });
    this.nodeTimer = setTimeout(() => {
      if (wantsPodCIDRs && (state.ownNode?.podCIDRs.length ?? 0) === 0) {
        this.fail(
          new FatalError(
            exitCodes.failure,
            `node ${JSON.stringify(config.nodeName)} got no pod CIDRs within ${waitMs / 1000} s: let the cluster allocate them (kube-controller-manager --allocate-node-cidrs) or use another --detect-local-mode`,
          ),
        );
        return;
      }
      this.log.warn('The Node object has no addresses; going on without', { node: config.nodeName });
      this.begin();
    }, waitMs);
  }

  private begin(): void {
    clearTimeout(this.nodeTimer);
    this.starting = true;
    // Manifests need not describe the node; then nothing speaks against it.
    if (this.config.manifests !== '' && this.state.ownNode === undefined) this.health.setNodeEligible(true);
    try {
      const record = (event: ClusterEvent): void => this.source?.record(event);
      this.running = new Running(
        this.config,
        this.log,
        this.state,
        this.health,
        this.metrics,
        record,
        (error) => {
          this.fail(error);
        },
      );
      this.running.start();
      const { nodeName } = this.config;
      record({
        type: 'Normal',
        reason: 'Starting',
        action: 'StartKubeProxy',
        regarding: {
          apiVersion: 'v1',
          kind: 'Node',
          namespace: '',
          name: nodeName,
          uid: this.state.ownNode?.uid ?? '',
        },
        note: '',
      });
    } catch (error) {
      this.fail(error);
    }
  }
}

/** Everything that exists once the cluster's state is known. */
class Running {
  readonly loop: SyncLoop;
  private readonly model: ServiceModel;
  private readonly dataplanes: readonly Dataplane[];
  private readonly watch: TableWatch;
  private readonly nodePortHealth = new Map<IPFamily, NodePortHealth>();
  private readonly reconcilers = new Map<IPFamily, UdpReconciler>();
  private readonly localAddresses: LocalAddresses;
  private readonly nodePortSelection: Readonly<Record<IPFamily, NodePortAddresses>>;
  private readonly nodeIPs: NodeIPs;
  private readonly maintenance: NodeJS.Timeout;
  private readonly podCIDRs: string;

  constructor(
    private readonly config: Config,
    private readonly log: Logger,
    private readonly state: ClusterState,
    health: Health,
    private readonly metrics: Metrics,
    private readonly record: (event: ClusterEvent) => void,
    private readonly fail: (error: unknown) => void,
  ) {
    const families = usableFamilies();
    const node = state.ownNode;
    this.podCIDRs = (node?.podCIDRs ?? []).join();
    this.nodeIPs = resolveNodeIPs(nodeStatusIPs(node?.addresses ?? []), config.bindAddress);
    for (const warning of this.nodeIPs.warnings) log.warn(warning);
    const detectors = resolveDetectors({
      mode: config.detectLocalMode,
      clusterCIDRs: config.clusterCIDRs,
      podCIDRs: node?.podCIDRs ?? [],
      bridgeInterface: config.podBridgeInterface,
      interfaceNamePrefix: config.podInterfaceNamePrefix,
    });
    const addresses = config.nodePortAddresses.length === 0 ? ['primary'] : config.nodePortAddresses;
    this.nodePortSelection = resolveNodePortAddresses(addresses, this.nodeIPs);
    this.localAddresses = new LocalAddresses(log.named('addresses'), () => {
      this.nodeAddressesChanged();
    });

    for (const family of families) {
      const warning = detectors.warnings[family];
      if (warning !== undefined) log.warn(warning);
      const exposure = this.nodePortSelection[family].warning;
      if (exposure !== undefined) log.warn(exposure);
    }
    this.model = new ServiceModel({
      nodeName: config.nodeName,
      nodeIPs: { IPv4: this.nodeIPs.IPv4, IPv6: this.nodeIPs.IPv6 },
      families,
      externalIPs: config.gates.AllowServiceExternalIPs,
    });
    state.attach(this.model);
    const programs = families.map((family) => {
      const connection = openNftables();
      const dataplane = new NftablesFamily(connection, {
        family,
        masqueradeMark: 1 << config.masqueradeBit,
        masqueradeAll: config.masqueradeAll,
        detector: detectors[family],
        nodePortAddresses: this.nodePortAddresses(family),
      });
      return { connection, dataplane };
    });
    const observer = openNftables();
    this.watch = new TableWatch({
      families,
      ownPortIds: new Set(programs.map(({ connection }) => connection.portId)),
      generation: () => observer.getGeneration().id,
      onForeignChange: (family) => {
        this.loop.requestAdoption(family);
      },
      log: log.named('watch'),
    });
    const { watch } = this;
    this.dataplanes = programs.map(({ dataplane }) => new WatchedDataplane(dataplane, watch));
    for (const family of families) {
      this.nodePortHealth.set(
        family,
        new NodePortHealth({
          family,
          addresses: this.nodePortAddresses(family),
          proxyHealthy: () => health.healthy,
          retryMs: bindRetryMs,
          onFailure: (check, error) => {
            this.healthCheckFailed(check, error);
          },
        }),
      );
      this.reconcilers.set(
        family,
        new UdpReconciler(family, () => this.localAddresses.current(), log.named('conntrack')),
      );
    }
    this.loop = new SyncLoop({
      model: this.model,
      dataplanes: this.dataplanes,
      health,
      metrics,
      log: log.named('sync'),
      minSyncPeriodMs: config.minSyncPeriodMs,
      syncPeriodMs: config.syncPeriodMs,
      onChanges: (changes) => {
        this.report(changes);
      },
      afterSync: (family, ports, removed) => {
        this.reconcilers.get(family)?.forget(removed);
        const deleted = this.reconcilers.get(family)?.reconcile(ports) ?? 0;
        if (deleted > 0) metrics.conntrackDeleted.inc({ ip_family: family }, deleted);
        void this.nodePortHealth.get(family)?.openAll();
      },
    });
    this.maintenance = setInterval(() => {
      this.maintain();
    }, maintenanceMs).unref();
    for (const family of families) health.updated(family);
  }

  start(): void {
    for (const dataplane of this.dataplanes)
      dataplane.setServiceCIDRs(this.state.serviceCIDRs(dataplane.family));
    this.localAddresses.start();
    this.loop.request();
  }

  async stop(): Promise<void> {
    clearInterval(this.maintenance);
    await this.watch.close();
    await this.loop.stop();
    for (const health of this.nodePortHealth.values()) health.close();
    for (const reconciler of this.reconcilers.values()) reconciler.close();
    this.localAddresses.stop();
    for (const dataplane of this.dataplanes) dataplane.close();
  }

  setServiceCIDRs(state: ClusterState): void {
    this.program('service CIDRs', (dataplane) =>
      dataplane.setServiceCIDRs(state.serviceCIDRs(dataplane.family)),
    );
  }

  nodeChanged(node: Node): void {
    if (this.config.detectLocalMode === 'NodeCIDR' && node.podCIDRs.join() !== this.podCIDRs) {
      this.fail(
        new FatalError(
          exitCodes.failure,
          `the node's pod CIDRs changed from ${this.podCIDRs} to ${node.podCIDRs.join() || 'none'}: starting over to use them`,
        ),
      );
      return;
    }
    const now = resolveNodeIPs(nodeStatusIPs(node.addresses), this.config.bindAddress);
    for (const family of BOTH_FAMILIES) {
      if (now[family] !== this.nodeIPs[family]) {
        this.log.warn('The node IP changed; restart kube-proxy to use it', {
          family,
          before: this.nodeIPs[family],
          now: now[family],
        });
      }
    }
  }

  private nodePortAddresses(family: IPFamily): 'all' | readonly string[] {
    const selection = this.nodePortSelection[family];
    return selection.matchAll ? 'all' : selectNodePortIPs(selection, this.localAddresses.current());
  }

  private nodeAddressesChanged(): void {
    this.program('node port addresses', (dataplane) => {
      const addresses = this.nodePortAddresses(dataplane.family);
      return addresses === 'all' ? undefined : dataplane.setNodePortAddresses(addresses);
    });
  }

  private maintain(): void {
    this.program('housekeeping', (dataplane) => dataplane.maintain());
  }

  private healthCheckFailed({ service, namespace, name, port }: HealthCheckPort, error: unknown): void {
    this.log.error(`A health check node port is not up; trying again every ${bindRetryMs / 1000} s`, error, {
      service,
      port,
    });
    this.record({
      type: 'Warning',
      reason: 'FailedToStartServiceHealthcheck',
      action: 'Listen',
      regarding: { apiVersion: 'v1', kind: 'Service', namespace, name, uid: '' },
      note: `node ${this.config.nodeName} failed to start healthcheck "${service}" on port ${port}: ${errorText(error)}`,
    });
  }

  /** A small change beside the service ports; should the kernel refuse it, the whole table is compared again. */
  private program(what: string, write: (dataplane: Dataplane) => unknown): void {
    for (const dataplane of this.dataplanes) {
      try {
        write(dataplane);
      } catch (error) {
        this.log.error(`Failed to program ${what}`, error, { family: dataplane.family });
        this.metrics.syncFailures.inc({ ip_family: dataplane.family });
        this.loop.requestAdoption(dataplane.family);
      }
    }
  }

  private report(changes: ModelChanges): void {
    for (const { family, check } of changes.healthChecks) this.nodePortHealth.get(family)?.set(check);
    for (const { family, service } of changes.healthChecksRemoved)
      this.nodePortHealth.get(family)?.remove(service);
    for (const { object, field, message } of changes.problems) {
      this.log.warn('A field of an object is left out, the rest is served', {
        object,
        field,
        problem: message,
      });
    }
    for (const { address, owner, others } of changes.conflicts) {
      this.log.warn('An address is claimed by several service ports', {
        address,
        served: owner,
        notServed: others,
      });
    }
  }
}
