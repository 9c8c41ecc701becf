/** A dataplane under a watch for changes by others, which does not have to see the large ones of our own. */
import type { FamilyChanges, IPFamily, ServicePort } from '../model/types.js';
import type { ApplyReport, Dataplane } from './dataplane.js';

export interface Watch {
  /** Does the work without listening: the kernel writes a notification for every single thing that changes. */
  unwatched(family: IPFamily, work: () => Promise<ApplyReport>): Promise<ApplyReport>;
}

/** Changes of more service ports than this are made unwatched. */
const largeChange = 200;

export class WatchedDataplane implements Dataplane {
  readonly family: IPFamily;

  constructor(
    private readonly inner: Dataplane,
    private readonly watch: Watch,
  ) {
    this.family = inner.family;
  }

  adopt(wanted: Iterable<ServicePort>): Promise<ApplyReport> {
    return this.watch.unwatched(this.family, () => this.inner.adopt(wanted));
  }

  apply(changes: FamilyChanges): Promise<ApplyReport> {
    if (changes.upserted.length + changes.removed.length <= largeChange) return this.inner.apply(changes);
    return this.watch.unwatched(this.family, () => this.inner.apply(changes));
  }

  setServiceCIDRs(...args: Parameters<Dataplane['setServiceCIDRs']>): ApplyReport {
    return this.inner.setServiceCIDRs(...args);
  }

  setNodePortAddresses(...args: Parameters<Dataplane['setNodePortAddresses']>): ApplyReport {
    return this.inner.setNodePortAddresses(...args);
  }

  setHealthCheckPort(service: string, port: number | undefined): void {
    this.inner.setHealthCheckPort?.(service, port);
  }

  maintain(): ApplyReport {
    return this.inner.maintain();
  }

  close(): void {
    this.inner.close();
  }
}
