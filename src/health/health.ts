/**
 * What /healthz and /livez tell (observability.md section 2): a family is unhealthy when a change has waited for
 * twice the sync period without reaching the kernel. No clock of its own: times are milliseconds since the epoch.
 */
import type { IPFamily } from '../model/types.js';

interface FamilyState {
  lastUpdated: number;
  /** When the oldest change that is not in the kernel yet was queued. */
  oldestPending: number | undefined;
}

export interface HealthReport {
  readonly status: 200 | 503;
  readonly body: string;
}

export class Health {
  private readonly families = new Map<IPFamily, FamilyState>();
  private nodeEligible = false;

  constructor(
    private readonly timeoutMs: number,
    private readonly now: () => number = Date.now,
  ) {}

  /** The sync loop of a family has started (until then it can't be late), or a sync has succeeded. */
  updated(family: IPFamily): void {
    this.families.set(family, { lastUpdated: this.now(), oldestPending: undefined });
  }

  queued(family: IPFamily): void {
    const state = this.families.get(family);
    if (state === undefined) this.families.set(family, { lastUpdated: 0, oldestPending: this.now() });
    else state.oldestPending ??= this.now();
  }

  /** The own Node exists, is not being deleted and is not about to be removed by the autoscaler. */
  setNodeEligible(eligible: boolean): void {
    this.nodeEligible = eligible;
  }

  get healthy(): boolean {
    return [...this.families.values()].every((state) => this.isHealthy(state));
  }

  /** /healthz: is this node fit to take traffic for load balancers? */
  healthz(): HealthReport {
    return this.report(this.healthy && this.nodeEligible, { nodeEligible: this.nodeEligible });
  }

  /** /livez: would a restart help? */
  livez(): HealthReport {
    return this.report(this.healthy, {});
  }

  private isHealthy(state: FamilyState): boolean {
    const { lastUpdated, oldestPending } = state;
    return lastUpdated === 0 || oldestPending === undefined || this.now() - oldestPending < this.timeoutMs;
  }

  private report(ok: boolean, extra: { nodeEligible?: boolean }): HealthReport {
    const now = this.now();
    const newest = Math.max(0, ...[...this.families.values()].map((state) => state.lastUpdated));
    const status: Record<string, { lastUpdated: string; healthy: boolean }> = {};
    for (const family of ['IPv4', 'IPv6'] as const) {
      const state = this.families.get(family);
      if (state !== undefined && state.lastUpdated > 0) {
        status[family] = { lastUpdated: timestamp(state.lastUpdated), healthy: this.isHealthy(state) };
      }
    }
    const body = {
      lastUpdated: timestamp(ok ? now : newest),
      currentTime: timestamp(now),
      ...extra,
      healthy: this.healthy,
      ...(Object.keys(status).length > 0 ? { status } : {}),
    };
    return { status: ok ? 200 : 503, body: JSON.stringify(body) };
  }
}

/** RFC 3339 as Go prints it: no trailing zeros in the fraction; the zero time for "never". */
function timestamp(ms: number): string {
  if (ms === 0) return '0001-01-01T00:00:00Z';
  return new Date(ms).toISOString().replace(/\.?0+Z$/, 'Z');
}
