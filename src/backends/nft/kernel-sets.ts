/**
 * The sets and maps of a table of ours as read from the kernel: what is wanted is taken off, and what remains at the end is
 * nobody's and has to go.
 */
import type { ElementTable } from './element-table.js';
import { sourceRangePrefix } from './source-range-rules.js';

/** Of the elements of a set. */
export const noValue = Buffer.alloc(0);

export class KernelSets {
  /** By set. */
  protected readonly elements = new Map<string, ElementTable>();
  /** What was taken since checkpoint(): tables, and records in them. */
  private readonly takenFrom: ElementTable[] = [];
  private readonly takenRecords: number[] = [];

  hasSet(name: string): boolean {
    return this.elements.has(name);
  }

  /** Prefix lengths for which there is a set of source ranges. */
  sourceRangeLengths(): number[] {
    return [...this.elements.keys()].map(sourceRangePrefix).filter((length) => length !== undefined);
  }

  /** Takes an element off. 'different': the key is there with another value or comment. */
  take(
    set: string,
    key: Buffer,
    value: Buffer | undefined,
    comment?: string,
  ): 'same' | 'absent' | 'different' {
    const elements = this.elements.get(set);
    const record = elements?.find(key) ?? -1;
    if (elements === undefined || record < 0) return 'absent';
    elements.take(record);
    this.takenFrom.push(elements);
    this.takenRecords.push(record);
    return elements.hasValue(record, value ?? noValue) && elements.hasComment(record, comment)
      ? 'same'
      : 'different';
  }

  /** What has been taken so far stays so. */
  checkpoint(): void {
    this.takenFrom.length = 0;
    this.takenRecords.length = 0;
  }

  /** Undoes every take() since checkpoint(), for a transaction that failed. */
  rollBack(): void {
    this.takenFrom.forEach((elements, i) => {
      elements.giveBack(this.takenRecords[i] ?? 0);
    });
    this.checkpoint();
  }
}
