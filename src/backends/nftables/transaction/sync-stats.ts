/** What one call of the dataplane wrote, as it adds up. */
import type { ReleasedAddress } from '../../../model/types.js';
import type { ApplyReport, ProgrammingFailure } from '../../backend.js';

export class SyncStats implements ApplyReport {
  transactions = 0;
  elementsAdded = 0;
  elementsDeleted = 0;
  kernelMs = 0;
  readonly failures: ProgrammingFailure[] = [];
  readonly released: ReleasedAddress[] = [];

  /** Failures excepted. */
  add(other: ApplyReport): void {
    this.transactions += other.transactions;
    this.elementsAdded += other.elementsAdded;
    this.elementsDeleted += other.elementsDeleted;
    this.kernelMs += other.kernelMs;
    this.released.push(...(other.released ?? []));
  }
}
