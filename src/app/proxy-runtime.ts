/** Everything that exists once the cluster's state is known: the model, the dataplanes, and what follows them. */
import type { Config } from '../config/config.js';
import { ConntrackCleaner } from '../conntrack/cleaner.js';
import type { Dataplane } from '../backends/backend.js';
import { serviceInterface } from '../backends/ipvs/table/names.js';
import type { Health } from '../health/health.js';
import { NodePortHealth } from '../health/node-ports.js';
import type { ClusterEvent } from '../sources/kube/events.js';
import type { Node } from '../sources/objects.js';
import { guarded } from '../callbacks/guarded.js';
import { errorText, type Logger } from '../log/logger.js';
import { removeLeftovers } from '../leftovers/index.js';
import type { Metrics } from '../metrics/metrics.js';
import { resolveDetectors } from '../model/addresses/detector.js';
import type { ServiceModel } from '../model/model.js';
import { nodeStatusIPs, resolveNodeIPs, type NodeIPs } from '../model/addresses/node.js';
import type { HealthCheckPort, IPFamily, ModelChanges } from '../model/types.js';
import type { Backend, RuleStatistics } from '../backends/mode.js';
import type { ClusterModel } from './cluster-model.js';
import type { ClusterState } from './cluster-state.js';
import { FamilyWarnings } from '../reporting/family-warnings.js';
import { RulesContention } from '../reporting/rules-contention.js';
import { LeftoverRemoval } from '../sync/leftover-removal.js';
import { LocalAddresses } from '../node/local-addresses.js';
import { AddressConflicts } from '../reporting/address-conflicts.js';
import { keepHeapTight } from './memory.js';
import type { ChosenMode } from './choose-mode.js';
import {
  changedNodeIPs,
  NodePortAddressSelection,
  unsetNodePortAddresses,
} from '../node/node-port-addresses.js';
import { allowRouteLocalnet, routeLocalnetIsOn } from '../node/route-localnet.js';
import { RejectedServices } from '../reporting/rejected-services.js';
import { SyncOrder } from '../sync/sync-order.js';
import { SyncLoop } from '../sync/sync-loop.js';
import type { InvalidObjects } from '../reporting/invalid-objects.js';

const bindRetryMs = 5_000;
const maintenanceMs = 30_000;

export interface ProxyRuntimeOptions {
  readonly config: Config;
  readonly mode: ChosenMode;
  readonly log: Logger;
  readonly state: ClusterState;
  /** Has all objects. */
  readonly model: ClusterModel;
  readonly health: Health;
  readonly metrics: Metrics;
  /** Tells the cluster's users of something. */
  readonly record: (event: ClusterEvent) => void;
  readonly invalidObjects: InvalidObjects;
  /** Something that everything here was built upon has changed: start over, in place. */
  readonly startOver: (why: string) => void;
}

export class ProxyRuntime {
  readonly loop: SyncLoop;
  private readonly model: ServiceModel;
  private readonly backend: Backend;
  private readonly dataplanes: readonly Dataplane[];
  private readonly nodePortHealth = new Map<IPFamily, NodePortHealth>();
  private readonly conntrackCleaners = new Map<IPFamily, ConntrackCleaner>();
  private readonly localAddresses: LocalAddresses;
  private readonly nodePorts: NodePortAddressSelection;
  private readonly nodeIPs: NodeIPs;
  private readonly maintenance: NodeJS.Timeout;
  private readonly fullCheck: NodeJS.Timeout | undefined;
  private readonly podCIDRs: string;
  private readonly addressConflicts: AddressConflicts;
  private readonly contention: RulesContention;
  private readonly familyWarnings: FamilyWarnings;
  private readonly leftovers: LeftoverRemoval;
  /** Families whose rules are not in the kernel yet. */
  private readonly unserved: Set<IPFamily>;
  private stopping = false;

  constructor(private readonly options: ProxyRuntimeOptions) {
    const { config, log, state, health, metrics } = options;
    const { model, families, nodeIPs } = options.model;
    this.model = model;
    this.nodeIPs = nodeIPs;
    this.unserved = new Set(families);
    const node = state.ownNode;
    this.podCIDRs = (node?.podCIDRs ?? []).join();
    for (const warning of this.nodeIPs.warnings) log.warn(warning);
    const detectors = resolveDetectors({
      mode: config.detectLocalMode,
      clusterCIDRs: config.clusterCIDRs,
      podCIDRs: node?.podCIDRs ?? [],
      bridgeInterface: config.podBridgeInterface,
      interfaceNamePrefix: config.podInterfaceNamePrefix,
    });
    this.localAddresses = new LocalAddresses(serviceInterface, log.named('addresses'), () => {
      this.localAddressesChanged();
    });
    this.nodePorts = new NodePortAddressSelection({
      config,
      nodeIPs: this.nodeIPs,
      localAddresses: () => this.localAddresses.current(),
      allowRouteLocalnet,
      log,
    });
    this.familyWarnings = new FamilyWarnings({
      warnings: new Map(
        families.map((family) => [
          family,
          [detectors.warnings[family], this.nodePorts.warning(family)].filter((text) => text !== undefined),
        ]),
      ),
      nodeIPs: this.nodeIPs,
      warn: (text) => {
        log.warn(text);
      },
    });
    if (config.nodePortAddresses.length === 0) log.warn(unsetNodePortAddresses);
    this.contention = new RulesContention({
      nodeName: config.nodeName,
      nodeUid: node?.uid ?? '',
      metrics,
      log: log.named('watch'),
      record: options.record,
    });
    const { mode } = options.mode;
    this.backend = mode.open({
      config,
      families,
      localAddresses: (family) => this.localAddresses.of(family),
      dataplaneOptions: (family) => {
        // Before the question whether the guard is needed.
        const localhostNodePorts = mode.loopbackNodePorts ? this.nodePorts.localhost(family) : undefined;
        return {
          family,
          masqueradeMark: 1 << config.masqueradeBit,
          masqueradeAll: config.masqueradeAll,
          detector: detectors[family],
          nodePortAddresses: this.nodePorts.current(family),
          localhostNodePorts,
          guardLoopback: family === 'IPv4' && routeLocalnetIsOn(),
        };
      },
      onMissed: (family) => {
        this.loop.requestCheck(family);
      },
      onForeignChange: (family) => {
        this.loop.requestResync(family);
      },
      onRulesWritten: (family, statistics) => {
        this.countRules(family, statistics);
      },
      onPartialFailure: (family) => {
        metrics.iptables.partialRestoreFailures.inc({ ip_family: family });
      },
      onBackoff: (by, delayMs) => {
        this.contention.backOff(by, delayMs);
      },
      onRepaired: (family, report, seconds) => {
        if (report.transactions === 0) return;
        const labels = { ip_family: family };
        metrics.repairs.inc(labels);
        metrics.repairDuration.observe(labels, seconds);
        metrics.transactions.inc(labels, report.transactions);
        metrics.elementsWritten.inc(labels, report.elementsAdded + report.elementsDeleted);
        if (report.elementsAdded > 0) this.conntrackCleaners.get(family)?.checkAll();
      },
      log,
    });
    this.dataplanes = this.backend.dataplanes;
    for (const family of families) {
      this.nodePortHealth.set(
        family,
        new NodePortHealth({
          family,
          addresses: this.nodePorts.listening(family),
          proxyHealthy: () => health.healthy,
          retryMs: bindRetryMs,
          onFailure: (check, error) => {
            this.healthCheckFailed(check, error);
          },
          onRecovered: ({ service, port }) => {
            log.info('Started healthcheck after all', { service, port });
          },
        }),
      );
      this.conntrackCleaners.set(
        family,
        new ConntrackCleaner({
          family,
          nodePortAddresses: () => this.nodePorts.answering(family),
          log: log.named('conntrack'),
          onCleaned: ({ seconds, deleted }) => {
            metrics.conntrackDuration.observe({ ip_family: family }, seconds);
            metrics.conntrackDeleted.inc({ ip_family: family }, deleted);
          },
        }),
      );
    }
    this.leftovers = new LeftoverRemoval({
      remove: () => removeLeftovers(this.backend.keeps()),
      log: log.named('leftovers'),
    });
    this.addressConflicts = new AddressConflicts(options.invalidObjects);
    const rejectedServices = new RejectedServices(options.invalidObjects, (key) => this.model.uidOf(key));
    const order = new SyncOrder({ first: config.firstServices });
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
      arrange: (family, ports) => order.arrange(family, ports),
      onRejections: (family, refused) => {
        rejectedServices.update(family, refused);
      },
      onReleased: (family, released) => {
        this.conntrackCleaners.get(family)?.released(released);
      },
      afterSync: (family, ports, removed, repaired) => {
        const reconciler = this.conntrackCleaners.get(family);
        reconciler?.removed(removed);
        reconciler?.changed(ports);
        if (repaired) reconciler?.checkAll();
        const statistics = this.backend.ruleStatistics(family);
        if (statistics !== undefined) this.countRules(family, statistics);
        if (!this.unserved.delete(family)) return;
        // What is asked for later opens by itself.
        void this.nodePortHealth.get(family)?.openAll();
        if (this.unserved.size > 0) return;
        keepHeapTight();
        this.leftovers.start();
      },
    });
    this.maintenance = setInterval(
      guarded('housekeeping', async () => {
        this.program('housekeeping', (dataplane) => dataplane.maintain(), metrics.cleanupFailures);
        await this.leftovers.continueDraining();
      }),
      this.maintenancePeriod(),
    ).unref();
    if (config.fullCheckPeriodMs > 0) {
      this.fullCheck = setInterval(
        guarded('full check', () => {
          for (const { family } of this.dataplanes) this.loop.requestCheck(family);
        }),
        config.fullCheckPeriodMs,
      ).unref();
    }
    for (const family of families) health.begin(family);
  }

  start(): void {
    const { state } = this.options;
    for (const dataplane of this.dataplanes) dataplane.setServiceCIDRs(state.serviceCIDRs(dataplane.family));
    this.localAddresses.start();
    this.loop.request();
  }

  /**
   * Ends after what is under way. The rules stay. In this order: nothing new begins; syncs and checks, which use the watch and the
   * dataplanes, end; then what they use.
   */
  async stop(): Promise<void> {
    this.stopping = true;
    clearInterval(this.maintenance);
    clearInterval(this.fullCheck);
    this.leftovers.stop();
    await Promise.all([this.loop.stop(), this.localAddresses.stop()]);
    await this.backend.stopWatching();
    this.contention.close();
    for (const health of this.nodePortHealth.values()) health.close();
    await Promise.all([...this.conntrackCleaners.values()].map((reconciler) => reconciler.close()));
    for (const dataplane of this.dataplanes) dataplane.close();
  }

  private maintenancePeriod(): number {
    const { mode, config } = this.options;
    return Math.min(maintenanceMs, mode.mode.housekeepingPeriodMs?.(config) ?? maintenanceMs);
  }

  private countRules(family: IPFamily, statistics: RuleStatistics): void {
    const { rules, rulesWritten } = this.options.metrics.iptables;
    for (const table of ['filter', 'nat'] as const) {
      rules.set({ ip_family: family, table }, statistics.rules[table]);
      rulesWritten.set({ ip_family: family, table }, statistics.written[table]);
    }
  }

  /** Services whose health check node port is not open although it should be. */
  failedHealthCheckPorts(family: IPFamily): number {
    return this.nodePortHealth.get(family)?.failed ?? 0;
  }

  /** Compare all of the kernel's state, as after somebody changed it. */
  compareAll(): void {
    if (this.stopping) return;
    for (const { family } of this.dataplanes) this.loop.requestResync(family);
  }

  serviceCIDRsChanged(): void {
    const { state } = this.options;
    this.program('service CIDRs', (dataplane) =>
      dataplane.setServiceCIDRs(state.serviceCIDRs(dataplane.family)),
    );
  }

  nodeChanged(node: Node): void {
    const { config, log, startOver } = this.options;
    if (this.stopping) return;
    const podCIDRs = node.podCIDRs.join();
    if (config.detectLocalMode === 'NodeCIDR' && podCIDRs !== this.podCIDRs) {
      if (podCIDRs === '')
        log.warn('Node object lost its pod CIDRs, keeping the previous ones', { podCIDRs: this.podCIDRs });
      else startOver(`the node's pod CIDRs changed from ${this.podCIDRs} to ${podCIDRs}`);
      return;
    }
    const statusIPs = nodeStatusIPs(node.addresses);
    if (statusIPs.length === 0) return;
    const now = resolveNodeIPs(statusIPs, config.bindAddress);
    const changed = changedNodeIPs(this.nodeIPs, now);
    if (changed.length === 0) return;
    startOver(
      changed
        .map(
          (family) => `the node's ${family} address changed from ${this.nodeIPs[family]} to ${now[family]}`,
        )
        .join(', '),
    );
  }

  private localAddressesChanged(): void {
    this.program('node port addresses', (dataplane) => {
      const addresses = this.nodePorts.current(dataplane.family);
      this.nodePortHealth.get(dataplane.family)?.setAddresses(this.nodePorts.listening(dataplane.family));
      dataplane.setLocalAddresses?.(this.localAddresses.of(dataplane.family));
      if (addresses === 'all') return undefined;
      const report = dataplane.setNodePortAddresses(addresses);
      // An address has served node ports only from now on: it may have flows that were not translated.
      if (report.elementsAdded > 0) this.conntrackCleaners.get(dataplane.family)?.checkAll();
      return report;
    });
    // Of many node ports some follow later.
    this.loop.requestDeferred();
  }

  private healthCheckFailed({ service, namespace, name, port }: HealthCheckPort, error: unknown): void {
    const { config, log, record } = this.options;
    log.error(`Failed to start healthcheck, retrying every ${bindRetryMs / 1000} s`, error, {
      service,
      port,
    });
    record({
      type: 'Warning',
      reason: 'FailedToStartServiceHealthcheck',
      action: 'Listen',
      regarding: { apiVersion: 'v1', kind: 'Service', namespace, name, uid: '' },
      note: `node ${config.nodeName} failed to start healthcheck "${service}" on port ${port}: ${errorText(error)}`,
    });
  }

  /** A small change beside the service ports; should the kernel refuse it, the whole table is compared again. */
  private program(
    what: string,
    write: (dataplane: Dataplane) => unknown,
    failures = this.options.metrics.syncFailures,
  ): void {
    const { log } = this.options;
    if (this.stopping) return;
    for (const dataplane of this.dataplanes) {
      try {
        write(dataplane);
      } catch (error) {
        log.error(`Failed to program ${what}`, error, { family: dataplane.family });
        failures.inc({ ip_family: dataplane.family });
        this.loop.requestResync(dataplane.family);
      }
    }
  }

  private report(changes: ModelChanges): void {
    this.familyWarnings.changed(changes.families);
    const admit = (family: IPFamily, service: string, port: number | undefined): void => {
      this.dataplanes.find((dataplane) => dataplane.family === family)?.setHealthCheckPort?.(service, port);
    };
    for (const { family, check } of changes.healthChecks) {
      this.nodePortHealth.get(family)?.set(check);
      admit(family, check.service, check.port);
    }
    for (const { family, service } of changes.healthChecksRemoved) {
      this.nodePortHealth.get(family)?.remove(service);
      admit(family, service, undefined);
    }
    for (const { aspect, problems, more, ...object } of changes.problems) {
      const details = problems.map(({ field, message }) => `${field}: ${message}`);
      this.options.invalidObjects.set(
        aspect === 'size' ? 'cut_short' : 'fields_left_out',
        object,
        details,
        more,
      );
    }
    this.addressConflicts.update(changes.conflicts);
  }
}
