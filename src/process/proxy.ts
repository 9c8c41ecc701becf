/**
 * The composition root: the one place that knows all rooms. Wires source → model → dataplanes, and health and metrics
 * around them.
 */
import type { Server } from 'node:http';
import type { Config, HostPort } from '../config/config.js';
import { Health } from '../health/health.js';
import { listenWithRetry, listen } from '../health/listen.js';
import type { ClusterEvent } from '../kube/events.js';
import type { Node } from '../kube/objects.js';
import { errorText, type Logger } from '../log/logger.js';
import { createMetrics, type Metrics } from '../metrics/metrics.js';
import { nodeStatusIPs } from '../model/node.js';
import { ClusterState } from './cluster-state.js';
import { exitCodes, FatalError } from './exit-codes.js';
import { healthEndpoints, metricsEndpoints } from './http-endpoints.js';
import type { ChosenMode } from './mode.js';
import { Running } from './running.js';
import { openSource, type Source } from './source.js';

/** How long a Node object without addresses is waited for (process.md section 2). */
const nodeWaitMs = 30_000;
/** How long pod CIDRs are waited for in mode NodeCIDR. */
const podCIDRWaitMs = 5 * 60_000;
const bindRetryMs = 5_000;

/** One start of the program's inside, from the API server to the kernel. */
export class Proxy {
  private readonly health: Health;
  private readonly metrics: Metrics;
  private readonly servers: Server[] = [];
  private readonly abort = new AbortController();
  private readonly state: ClusterState;
  private source: Source | undefined;
  private running: Running | undefined;
  private starting = false;
  private nodeTimer: NodeJS.Timeout | undefined;
  private finish: () => void = () => undefined;
  private fail: (error: unknown) => void = () => undefined;

  constructor(
    private readonly config: Config,
    private readonly mode: ChosenMode,
    private readonly log: Logger,
  ) {
    this.health = new Health(2 * config.syncPeriodMs);
    this.metrics = createMetrics({
      modes: [mode.mode],
      sources: { cluster: () => this.state.counts() },
    });
    this.state = new ClusterState(config.nodeName, {
      changed: () => this.running?.loop.request(),
      nodeChanged: (node) => {
        this.onNode(node);
      },
      serviceCIDRsChanged: () => this.running?.serviceCIDRsChanged(),
      synced: () => {
        this.startWhenReady();
      },
    });
  }

  /** Until end(), or until it has to be started over. The rules stay. @throws FatalError */
  async run(): Promise<void> {
    const ended = new Promise<void>((resolve, reject) => {
      this.finish = resolve;
      this.fail = reject;
    });
    try {
      await Promise.race([this.serve(), ended]);
      this.source = await openSource(this.config, this.state, this.log, (error) => {
        this.fail(error);
      });
      this.source.start();
      await ended;
    } finally {
      await this.stop();
    }
  }

  /** Ends run() after the transaction that is under way. */
  end(): void {
    this.finish();
  }

  /** Ends run(), for the sake of a new beginning. */
  startOver(why: string): void {
    this.log.info('Starting over in place; the rules stay in force', { why });
    this.finish();
  }

  /** Compares the kernel with what it should hold. */
  compareAll(): void {
    this.running?.compareAll();
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
      metricsEndpoints(this.mode.mode, this.metrics),
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
      this.running = new Running({
        config: this.config,
        mode: this.mode,
        log: this.log,
        state: this.state,
        health: this.health,
        metrics: this.metrics,
        record,
        startOver: (why) => {
          this.startOver(why);
        },
      });
      this.running.start();
      this.tellStart(record);
    } catch (error) {
      this.fail(error);
    }
  }

  private tellStart(record: (event: ClusterEvent) => void): void {
    const { nodeName } = this.config;
    const regarding = {
      apiVersion: 'v1',
      kind: 'Node',
      namespace: '',
      name: nodeName,
      uid: this.state.ownNode?.uid ?? '',
    };
    const event = { type: 'Normal', action: 'StartKubeProxy', regarding } as const;
    record({ ...event, reason: 'Starting', note: '' });
    if (this.mode.automatic)
      record({ ...event, reason: 'ModeChosen', note: `mode ${this.mode.mode}: ${this.mode.reason}` });
  }
}
