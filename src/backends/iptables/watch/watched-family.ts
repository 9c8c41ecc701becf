/** A dataplane whose large changes the watch does not have to see: the kernel writes a notification for every rule. */
import { performance } from 'node:perf_hooks';
import type { FamilyChanges, IPFamily, ServicePort } from '../../../model/types.js';
import type { ApplyReport, Dataplane } from '../../backend.js';
import type { IptablesFamily } from '../family.js';
import type { ForeignChanges } from './foreign-changes.js';
import type { RuleWatch } from './watch.js';

/** Changes of more service ports than this are made unwatched. */
const largeChange = 200;

export class WatchedFamily implements Dataplane {
  readonly family: IPFamily;

  /** @param watch undefined: the kernel tells nothing */
  constructor(
    private readonly inner: IptablesFamily,
    private readonly foreign: ForeignChanges,
    private readonly watch: RuleWatch | undefined,
  ) {
    this.family = inner.family;
  }

  async resync(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    const start = performance.now();
    this.watch?.checks.begin(this.family);
    try {
      return await this.unwatched(() => this.inner.resync(wanted));
    } finally {
      const milliseconds = performance.now() - start;
      this.foreign.compared(milliseconds);
      this.watch?.checks.end(this.family, milliseconds);
    }
  }

  apply(changes: FamilyChanges): Promise<ApplyReport> {
    if (changes.upserted.length + changes.removed.length <= largeChange) return this.inner.apply(changes);
    return this.unwatched(() => this.inner.apply(changes));
  }

  get deferredDueAt(): number | undefined {
    return this.inner.deferredDueAt;
  }

  deleteDeferred(now: number): Promise<ApplyReport> {
    return this.inner.deleteDeferred(now);
  }

  setServiceCIDRs(): ApplyReport {
    return this.inner.setServiceCIDRs();
  }

  setNodePortAddresses(...args: Parameters<Dataplane['setNodePortAddresses']>): ApplyReport {
    return this.inner.setNodePortAddresses(...args);
  }

  setHealthCheckPort(service: string, port: number | undefined): void {
    this.inner.setHealthCheckPort(service, port);
  }

  maintain(): ApplyReport {
    return this.inner.maintain();
  }

  close(): void {
    this.inner.close();
  }

  private unwatched(work: () => Promise<ApplyReport>): Promise<ApplyReport> {
    return this.watch === undefined ? work() : this.watch.unwatched(this.inner, work);
  }
}
