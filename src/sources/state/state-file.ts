/**
 * The last known state on disk (`--state-file`): written behind what the API server delivers, and served when a node
 * starts while the API server is away.
 *
 * It stands between a source and its sink. What the source delivers passes at once and is recorded. When serve() is
 * called, the sink receives what was stored, as far as the source has not delivered anything newer; objects that the source's
 * lists then do not show are removed when, and only when, such a list is complete.
 */
import type { ClusterSink, EndpointSlice, Node, ResourceKind, Service, ServiceCIDR } from '../objects.js';
import type { Logger } from '../../log/logger.js';
import { StateFileError } from './errors.js';
import { kinds, type ObjectOf } from './objects.js';
import { Recorder } from './recorder.js';
import { StoredState } from './stored.js';

export interface StateFileOptions {
  readonly path: string;
  /** Name of this node. */
  readonly node: string;
  /** Origin of the API server's URL. State of another one is not served. */
  readonly server: string;
  /** Version of this program; it is written into the file, for people. */
  readonly program: string;
  readonly log: Logger;
  /** A change is on the disk after this time, milliseconds; 5000 when absent. */
  readonly intervalMs?: number;
  /** After a failed write, milliseconds; 30000 when absent. */
  readonly retryMs?: number;
  /** State older than this is not served, milliseconds; a week when absent. */
  readonly maxAgeMs?: number;
}

/** What a start can't do without. Where ServiceCIDRs can't be had, there are none. */
const essential: readonly ResourceKind[] = ['Service', 'EndpointSlice', 'Node'];

const week = 7 * 24 * 3_600_000;

type KeySets = Readonly<Record<ResourceKind, Set<string>>>;

function emptySets(): KeySets {
  return { Service: new Set(), EndpointSlice: new Set(), Node: new Set(), ServiceCIDR: new Set() };
}

type Deliveries = {
  readonly [K in ResourceKind]: (key: string, object: ObjectOf[K] | undefined) => void;
};

export class StateFile implements ClusterSink {
  private readonly recorder: Recorder;
  private inner: ClusterSink | undefined;
  private readonly deliveries: Deliveries = {
    Service: (key, object) => this.inner?.service(key, object),
    EndpointSlice: (key, object) => this.inner?.endpointSlice(key, object),
    Node: (key, object) => this.inner?.node(key, object),
    ServiceCIDR: (key, object) => this.inner?.serviceCIDR(key, object),
  };
  /** Milliseconds since the epoch until which the source's state is proven; see proveWith(). */
  private currentAt: () => number = Date.now;
  /** Kinds of which the source has delivered a complete list. */
  private readonly listed = new Set<ResourceKind>();
  /** Kinds that the inner sink was told to be complete. */
  private readonly told = new Set<ResourceKind>();
  /** Keys that the source has delivered since the start: what is stored about them is older. */
  private readonly fresh: KeySets = emptySets();
  /** Keys that only the stored state vouches for. */
  private readonly doubtful: KeySets = emptySets();
  private serving: Promise<boolean> | undefined;
  private served = false;
  private closed = false;

  /** Never fails: a file that can't be used is a warning, and is replaced in time. */
  static async load(options: StateFileOptions): Promise<StateFile> {
    const { path, node, server, log, maxAgeMs = week } = options;
    let stored: StoredState | undefined;
    try {
      stored = await StoredState.read(path, { node, server, maxAgeMs, now: Date.now() });
    } catch (error) {
      if (!(error instanceof StateFileError)) throw error;
      log.warn('State file ignored', { path, code: error.code, error: error.message });
    }
    if (stored !== undefined) {
      const counts = Object.fromEntries(kinds.map((kind) => [kind, stored.count(kind)]));
      log.info('State file loaded as fallback', {
        path,
        of: new Date(stored.savedAt).toISOString(),
        ...counts,
        ...(stored.tornBytes > 0 ? { unfinishedBytes: stored.tornBytes } : {}),
      });
    }
    return new StateFile(options, stored);
  }

  private constructor(
    private readonly options: StateFileOptions,
    private stored: StoredState | undefined,
  ) {
    const { path, node, server, program, log } = options;
    this.recorder = new Recorder({
      path,
      header: { node, server, program },
      log,
      intervalMs: options.intervalMs ?? 5000,
      retryMs: options.retryMs ?? 30_000,
      currentAt: () => this.currentAt(),
    });
  }

  /** Sets where deliveries go; before the source starts. @returns what the source delivers to */
  sink(inner: ClusterSink): ClusterSink {
    this.inner = inner;
    return this;
  }

  /** @param currentAt tells when the source's state was last known to be the server's, milliseconds since the epoch */
  proveWith(currentAt: () => number): void {
    this.currentAt = currentAt;
  }

  /** When the stored state was last known to be the server's, milliseconds since the epoch; undefined: there is none. */
  get storedAt(): number | undefined {
    return this.stored?.savedAt;
  }

  /**
   * Since when what the sink holds may be out of date, milliseconds since the epoch; undefined when none of it comes
   * from the file alone.
   */
  get staleSince(): number | undefined {
    return this.served && !this.isListed() ? this.stored?.savedAt : undefined;
  }

  /**
   * Delivers what is stored, where the source has not delivered yet; the sink is then told that every kind is complete.
   * @returns false when there is nothing to serve
   */
  serve(): Promise<boolean> {
    this.serving ??= this.deliverStored();
    return this.serving;
  }

  /** Writes what is not on the disk yet. The source must have been stopped. */
  async close(): Promise<void> {
    this.closed = true;
    await this.release();
    await this.recorder.close();
  }

  // ---------------------------------------------------------------- from the source

  service(key: string, object: Service | undefined): void {
    this.note('Service', key, object);
    this.inner?.service(key, object);
  }

  endpointSlice(key: string, object: EndpointSlice | undefined): void {
    this.note('EndpointSlice', key, object);
    this.inner?.endpointSlice(key, object);
  }

  node(key: string, object: Node | undefined): void {
    this.note('Node', key, object);
    this.inner?.node(key, object);
  }

  serviceCIDR(key: string, object: ServiceCIDR | undefined): void {
    this.note('ServiceCIDR', key, object);
    this.inner?.serviceCIDR(key, object);
  }

  synced(kind: ResourceKind): void {
    this.listed.add(kind);
    const gone = this.doubtful[kind];
    if (this.served) {
      this.options.log.info(
        'The API server has told what there is; what only the state file knew is removed',
        {
          kind,
          removed: gone.size,
        },
      );
    }
    for (const key of gone) this.deliver(kind, key, undefined);
    gone.clear();
    this.fresh[kind].clear();
    this.reportSynced(kind);
    if (!this.isListed()) return;
    this.recorder.completed();
    void this.release();
  }

  flush(): void {
    this.inner?.flush();
  }

  // ---------------------------------------------------------------- from the file

  private note<K extends ResourceKind>(kind: K, key: string, object: ObjectOf[K] | undefined): void {
    this.recorder.put(kind, key, object);
    if (this.stored === undefined || this.listed.has(kind)) return;
    this.fresh[kind].add(key);
    this.doubtful[kind].delete(key);
  }

  private isListed(): boolean {
    return essential.every((kind) => this.listed.has(kind));
  }

  private reportSynced(kind: ResourceKind): void {
    if (this.told.has(kind)) return;
    this.told.add(kind);
    this.inner?.synced(kind);
  }

  private async deliverStored(): Promise<boolean> {
    const { stored } = this;
    const { log, path } = this.options;
    if (stored === undefined || this.isListed()) return false;
    log.warn('Serving the last known state from the state file until the API server can be reached', {
      path,
      of: new Date(stored.savedAt).toISOString(),
    });
    this.served = true;
    try {
      const broken = (object: string, error: Error): void => {
        log.error('An object of the state file can not be read and is skipped', error, { path, object });
      };
      for await (const group of stored.objects(broken)) {
        if (this.closed) return true;
        for (const { kind, key, object } of group) {
          if (this.listed.has(kind) || this.fresh[kind].has(key)) continue;
          this.doubtful[kind].add(key);
          this.deliver(kind, key, object);
        }
      }
    } catch (error) {
      // It was whole a moment ago. Half of a state is none: what was delivered waits for the lists.
      log.error('State file corrupt', error, { path });
      this.served = false;
      return false;
    }
    for (const kind of kinds) this.reportSynced(kind);
    this.inner?.flush();
    return true;
  }

  private deliver<K extends ResourceKind>(kind: K, key: string, object: ObjectOf[K] | undefined): void {
    this.deliveries[kind](key, object);
  }

  /** The source has delivered everything: what was stored is not needed any more. */
  private async release(): Promise<void> {
    await this.serving;
    const { stored } = this;
    this.stored = undefined;
    await stored?.close();
  }
}
