/**
 * What /healthz and /livez tell (observability.md section 2). The two questions are different:
 *
 * /healthz: may load balancers send traffic for Services to this node? Not before the first rules are in the kernel, not
 * while changes wait too long for it, not when the node is about to go or its Node object is gone.
 *
 * /livez: would a restart help? Only when changes wait too long for the kernel. Waiting for the API server is no
 * reason: a new process would wait as well, and the rules in force serve meanwhile.
 */
import { performance } from 'node:perf_hooks';
import type { IPFamily } from '../model/types.js';

/** How the Node object of this node stands. 'unneeded': there is no API server, so nothing speaks against the node. */
export type NodeState = 'unknown' | 'eligible' | 'deleting' | 'tainted' | 'deleted' | 'unneeded';

/** The taint by which the cluster autoscaler announces that it is going to remove a node. */
const removalTaint = 'ToBeDeletedByClusterAutoscaler';

/** @param node as the API server has it; undefined: it was deleted */
export function nodeStateOf(
  node: { readonly deleting: boolean; readonly taintKeys: readonly string[] } | undefined,
): NodeState {
  if (node === undefined) return 'deleted';
  if (node.deleting) return 'deleting';
  return node.taintKeys.includes(removalTaint) ? 'tainted' : 'eligible';
}

/** How the cluster's objects are followed. */
export interface ApiServerHealth {
  /**
   * starting: nothing complete has come from it yet. current: changes arrive as they happen. stale: what is known may be
   * out of date.
   */
  readonly state: 'starting' | 'current' | 'stale';
  /** Milliseconds since the epoch; undefined unless stale. */
  readonly staleSince: number | undefined;
  /** Milliseconds since the epoch of the last bytes from it; 0: never. */
  readonly lastContact: number;
  /** What is served comes from the state file of an earlier process. */
  readonly fromStateFile: boolean;
  /** Kinds whose first list is not complete: nothing is written before that. */
  readonly waitingFor: readonly string[];
  /** Code of what fails now (KubeError.code). No addresses, no names: anybody may ask. undefined: nothing. */
  readonly error: string | undefined;
}

export interface HealthReport {
  readonly status: 200 | 503;
  /** JSON without a line feed. */
  readonly body: string;
}

/** Two clocks, because only one of them never jumps. */
export interface HealthClock {
  /** Milliseconds since the epoch, for what is shown. */
  readonly wall: () => number;
  /** Milliseconds since some moment, for durations. */
  readonly steady: () => number;
}

const systemClock: HealthClock = { wall: Date.now, steady: () => performance.now() };

interface FamilyState {
  /** Wall clock; undefined: this process has written nothing yet. */
  lastUpdated: number | undefined;
  /** Steady clock: when the oldest change that is not in the kernel yet was queued. */
  oldestPending: number | undefined;
}

const families: readonly IPFamily[] = ['IPv4', 'IPv6'];

export class Health {
  private readonly states = new Map<IPFamily, FamilyState>();
  private node: NodeState = 'unknown';
  private apiServer: () => ApiServerHealth | undefined = () => undefined;

  /** @param timeoutMs a change that waits for so long makes its family unhealthy: twice the sync period */
  constructor(
    private readonly timeoutMs: number,
    private readonly clock: HealthClock = systemClock,
  ) {}

  /**
   * The family has something to write from now on: the first sync counts as pending. When this process has written the
   * family's rules before (it starts over in place), they are still in force, and only lateness counts.
   */
  begin(family: IPFamily): void {
    const state = this.states.get(family);
    if (state === undefined)
      this.states.set(family, { lastUpdated: undefined, oldestPending: this.clock.steady() });
    else state.oldestPending ??= this.clock.steady();
  }

  /** A sync of the family has succeeded. */
  updated(family: IPFamily): void {
    this.states.set(family, { lastUpdated: this.clock.wall(), oldestPending: undefined });
  }

  /** A change of the family waits for the kernel. Before begin() there is nothing to be late with. */
  queued(family: IPFamily): void {
    const state = this.states.get(family);
    if (state !== undefined) state.oldestPending ??= this.clock.steady();
  }

  setNode(state: NodeState): void {
    this.node = state;
  }

  /** @param apiServer asked at every request; it returns undefined where there is none */
  setApiServer(apiServer: () => ApiServerHealth | undefined): void {
    this.apiServer = apiServer;
  }

  /** No family is late. What health check node ports report, too. */
  get healthy(): boolean {
    return [...this.states.values()].every((state) => !this.isLate(state));
  }

  /** The rules of every family are in the kernel, written or found right by this process. */
  get programmed(): boolean {
    const states = [...this.states.values()];
    return states.length > 0 && states.every(({ lastUpdated }) => lastUpdated !== undefined);
  }

  healthz(): HealthReport {
    const nodeEligible = this.node === 'eligible' || this.node === 'unneeded';
    const healthy = this.healthy && this.programmed;
    const reasons = [...this.nodeReasons(), ...this.startReasons(), ...this.lateReasons()];
    return this.report(healthy && nodeEligible, { nodeEligible }, healthy, reasons);
  }

  livez(): HealthReport {
    return this.report(this.healthy, {}, this.healthy, this.lateReasons());
  }

  private isLate({ oldestPending }: FamilyState): boolean {
    return oldestPending !== undefined && this.clock.steady() - oldestPending >= this.timeoutMs;
  }

  private nodeReasons(): string[] {
    switch (this.node) {
      case 'eligible':
      case 'unneeded':
        return [];
      case 'unknown':
        return ['the Node object of this node is not known yet'];
      case 'deleted':
        return ['the Node object of this node was deleted'];
      case 'deleting':
        return ['the Node object of this node is being deleted'];
      case 'tainted':
        return ['the cluster autoscaler is going to remove this node'];
    }
  }

  /** Why nothing is in the kernel yet. */
  private startReasons(): string[] {
    if (this.programmed) return [];
    if (this.states.size > 0) {
      return families
        .filter((family) => {
          const state = this.states.get(family);
          return state !== undefined && state.lastUpdated === undefined;
        })
        .map((family) => `${family}: the first rules are not in the kernel yet`);
    }
    const waitingFor = this.apiServer()?.waitingFor ?? [];
    if (waitingFor.length === 0) return ['the first rules are not in the kernel yet'];
    return [`waiting for the first list of ${waitingFor.join(', ')}`];
  }

  private lateReasons(): string[] {
    return families.flatMap((family) => {
      const state = this.states.get(family);
      if (state === undefined || !this.isLate(state)) return [];
      return [`${family}: a change waits for the kernel for more than ${this.timeoutMs / 1000} s`];
    });
  }

  /** Upstream's members in upstream's order; after them ours. */
  private report(
    ok: boolean,
    eligibility: { nodeEligible?: boolean },
    healthy: boolean,
    reasons: readonly string[],
  ): HealthReport {
    const now = this.clock.wall();
    const status: Record<string, { lastUpdated: string; healthy: boolean }> = {};
    let newest: number | undefined;
    for (const family of families) {
      const state = this.states.get(family);
      if (state?.lastUpdated === undefined) continue;
      newest = Math.max(newest ?? -Infinity, state.lastUpdated);
      status[family] = { lastUpdated: timestamp(state.lastUpdated), healthy: !this.isLate(state) };
    }
    const apiServer = this.apiServer();
    const body = {
      lastUpdated: timestamp(ok ? now : newest),
      currentTime: timestamp(now),
      ...eligibility,
      healthy,
      ...(newest === undefined ? {} : { status }),
      ...(apiServer === undefined ? {} : { apiServer: describe(apiServer) }),
      ...(ok ? {} : { reasons }),
    };
    return { status: ok ? 200 : 503, body: JSON.stringify(body) };
  }
}

function describe(apiServer: ApiServerHealth): Record<string, unknown> {
  const { state, staleSince, lastContact, fromStateFile, error } = apiServer;
  return {
    state,
    ...(staleSince === undefined ? {} : { staleSince: timestamp(staleSince) }),
    lastContact: timestamp(lastContact === 0 ? undefined : lastContact),
    ...(fromStateFile ? { fromStateFile } : {}),
    ...(error === undefined ? {} : { error }),
  };
}

/** RFC 3339 as Go prints it: no trailing zeros in the fraction; the zero time for "never". */
function timestamp(ms: number | undefined): string {
  if (ms === undefined) return '0001-01-01T00:00:00Z';
  return new Date(ms).toISOString().replace(/\.?0+Z$/, 'Z');
}
