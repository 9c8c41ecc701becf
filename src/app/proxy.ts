/**
 * The composition root: the one place that knows all rooms. Wires source → model → dataplanes, and tells health and
 * metrics.
 */
import { guarded } from '../callbacks/guarded.js';
import type { Config } from '../config/config.js';
import { nodeStateOf } from '../health/health.js';
import type { ClusterEvent } from '../sources/kube/events.js';
import type { Node } from '../sources/objects.js';
import type { Logger } from '../log/logger.js';
import { nodeStatusIPs } from '../model/addresses/node.js';
import { clusterModel, type ClusterModel } from './cluster-model.js';
import { ClusterState } from './cluster-state.js';
import { exitCodes, FatalError } from '../exit/exit-codes.js';
import type { ChosenMode } from './choose-mode.js';
import type { Observability } from './observability.js';
import { ProxyRuntime } from './proxy-runtime.js';
import { unconfirmedLists } from '../reporting/unconfirmed-lists.js';
import { openSource, type Source } from './source.js';
import { InvalidObjects } from '../reporting/invalid-objects.js';

/** How long a Node object without addresses is waited for (process.md section 2). */
const nodeWaitMs = 30_000;
/** How long pod CIDRs are waited for in mode NodeCIDR. */
const podCIDRWaitMs = 5 * 60_000;

/** One start of the program's inside, from the API server to the kernel. */
export class Proxy {
  private readonly state: ClusterState;
  private readonly invalidObjects: InvalidObjects;
  private source: Source | undefined;
  private model: ClusterModel | undefined;
  private running: ProxyRuntime | undefined;
  /** What had arrived before there was a model is on its way into it. */
  private handedOver: Promise<void> | undefined;
  private starting = false;
  private stopping = false;
  private nodeTimer: NodeJS.Timeout | undefined;
  private finish: () => void = () => undefined;
  private fail: (error: unknown) => void = () => undefined;

  constructor(
    private readonly config: Config,
    private readonly mode: ChosenMode,
    private readonly log: Logger,
    private readonly observability: Observability,
    /** Changes settings of the machine; called when it is clear that there is something to serve. */
    private readonly prepareMachine: () => void,
  ) {
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
    this.invalidObjects = new InvalidObjects({
      nodeName: config.nodeName,
      metrics: observability.metrics,
      log: log.named('objects'),
      record: (event) => this.source?.record(event),
    });
    observability.observe({
      counts: () => this.state.counts(),
      source: () => this.source?.health(),
      failedHealthCheckPorts: (family) => this.running?.failedHealthCheckPorts(family) ?? 0,
    });
  }

  /** Until end(), or until it has to be started over. The rules stay. @throws FatalError */
  async run(): Promise<void> {
    const ended = new Promise<void>((resolve, reject) => {
      this.finish = resolve;
      this.fail = reject;
    });
    try {
      const fail = (error: unknown): void => {
        this.fail(error);
      };
      const { metrics } = this.observability;
      this.source = await openSource(this.config, this.state, this.log, fail, {
        client: metrics.restClient,
        unreadable: (object, why) => {
          this.invalidObjects.set('unreadable', object, why === undefined ? [] : [why]);
        },
        unconfirmed: unconfirmedLists({
          nodeName: this.config.nodeName,
          metrics,
          record: (event) => this.source?.record(event),
        }),
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
    this.log.info('Reloading in place, rules stay in place', { why });
    this.finish();
  }

  /** Compares the kernel with what it should hold. */
  compareAll(): void {
    this.running?.compareAll();
  }

  private async stop(): Promise<void> {
    this.stopping = true;
    clearTimeout(this.nodeTimer);
    await this.running?.stop();
    await this.source?.stop();
  }

  private onNode(node: Node | undefined): void {
    this.observability.health.setNode(nodeStateOf(node));
    if (node === undefined) {
      this.log.info('Node object deleted, /healthz reports it, rules stay in place', {
        node: this.config.nodeName,
      });
      return;
    }
    this.running?.nodeChanged(node);
    if (nodeStatusIPs(node.addresses).length > 0) this.modelOf(node);
    this.startWhenReady();
  }

  /** From the first call on, objects go into it. */
  private modelOf(node: Node | undefined): ClusterModel {
    if (this.model === undefined) {
      this.model = clusterModel(this.config, node);
      this.handedOver = this.state
        .attach(this.model.model)
        ?.then(() => {
          this.handedOver = undefined;
        })
        .catch((error: unknown) => {
          this.fail(error);
        });
    }
    return this.model;
  }

  /** The first sync needs all Services, all EndpointSlices, and the own Node's addresses as far as they can be had. */
  private startWhenReady(): void {
    const { state, config } = this;
    if (this.running !== undefined || this.starting || this.stopping) return;
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
    this.nodeTimer = setTimeout(
      guarded(
        'go on without the Node object',
        () => {
          if (wantsPodCIDRs && (state.ownNode?.podCIDRs.length ?? 0) === 0) {
            this.fail(
              new FatalError(
                exitCodes.failure,
                `node ${JSON.stringify(config.nodeName)} got no pod CIDRs within ${waitMs / 1000} s: let the cluster allocate them (kube-controller-manager --allocate-node-cidrs) or use another --detect-local-mode`,
              ),
            );
            return;
          }
          this.log.warn('Node object has no addresses, continuing without', { node: config.nodeName });
          this.begin();
        },
        this.fail,
      ),
      waitMs,
    );
  }

  private begin(): void {
    clearTimeout(this.nodeTimer);
    this.starting = true;
    // Manifests need not describe the node; then nothing speaks against it.
    if (this.config.manifests !== '' && this.state.ownNode === undefined)
      this.observability.health.setNode('unneeded');
    try {
      this.prepareMachine();
      const model = this.modelOf(this.state.ownNode);
      if (this.handedOver === undefined) {
        this.runWith(model);
        return;
      }
      this.handedOver
        .then(() => {
          if (!this.stopping) this.runWith(model);
        })
        .catch((error: unknown) => {
          this.fail(error);
        });
    } catch (error) {
      this.fail(error);
    }
  }

  /** @param model has all objects there are */
  private runWith(model: ClusterModel): void {
    const record = (event: ClusterEvent): void => this.source?.record(event);
    this.running = new ProxyRuntime({
      config: this.config,
      mode: this.mode,
      log: this.log,
      state: this.state,
      model,
      health: this.observability.health,
      metrics: this.observability.metrics,
      record,
      invalidObjects: this.invalidObjects,
      startOver: (why) => {
        this.startOver(why);
      },
    });
    this.running.start();
    // Its addresses may be others than when the model was made.
    if (this.state.ownNode !== undefined) this.running.nodeChanged(this.state.ownNode);
    this.recordStart(record);
  }

  private recordStart(record: (event: ClusterEvent) => void): void {
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
    const { mode, automatic, reason } = this.mode;
    if (mode.deprecation !== undefined) record({ ...event, type: 'Warning', ...mode.deprecation });
    if (automatic) record({ ...event, reason: 'ModeChosen', note: `mode ${mode.name}: ${reason}` });
  }
}
