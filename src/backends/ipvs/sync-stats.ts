/** What one call of the dataplane wrote, as it adds up. */
import { performance } from 'node:perf_hooks';
import type { ReleasedAddress } from '../../model/types.js';
import type { ApplyReport, ProgrammingFailure } from '../backend.js';

export class SyncStats implements ApplyReport {
  transactions = 0;
  elementsAdded = 0;
  elementsDeleted = 0;
  kernelMs = 0;
  readonly failures: ProgrammingFailure[] = [];
  readonly released: ReleasedAddress[] = [];

  /** Runs what waits for the kernel. */
  timed<T>(work: () => T): T {
    const start = performance.now();
    try {
      return work();
    } finally {
      this.kernelMs += performance.now() - start;
    }
  }

  fail({ key, name }: { readonly key: string; readonly name: string }, error: unknown): void {
    this.failures.push({
      servicePort: name,
      key,
      error: error instanceof Error ? error : new Error(String(error)),
    });
  }
}
