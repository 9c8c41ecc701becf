/** A part of a change on its way into the kernel, and how to take back what it assumes in our own memory. */
import type { AddressPlan } from './desired-state.js';

/** Virtual servers in one transaction; between two, the event loop has its turn. Some 10 ms with the kernel's time. */
export const serversPerPart = 200;
const endpointsPerDraft = 1_000;

export class PartialChange {
  /** By virtual server that may change: what stood for its address before. */
  readonly before = new Map<string, AddressPlan | undefined>();
  /** Virtual servers by mark that may change. */
  readonly marks = new Set<string>();
  /** Addresses that may come or go. */
  readonly ips = new Set<string>();
  readonly hairpins = new Set<string>();
  /** Virtual servers by mark that were made before the rules that lead to them. */
  earlyMarks: readonly string[] = [];
  endpoints = 0;
  /** The rules are in the kernel. */
  isCommitted = false;
  private readonly undoSteps: (() => void)[] = [];
  private readonly doneSteps: (() => void)[] = [];

  get isFull(): boolean {
    return this.before.size >= serversPerPart || this.endpoints >= endpointsPerDraft;
  }

  /** Sets an entry of a map in our own memory, or deletes it, until the draft fails. */
  note<T>(map: Map<string, T>, key: string, value: T | undefined): void {
    const before = map.get(key);
    this.onFailure(() => {
      if (before === undefined) map.delete(key);
      else map.set(key, before);
    });
    if (value === undefined) map.delete(key);
    else map.set(key, value);
  }

  count(uses: Map<string, number>, key: string, by: 1 | -1): void {
    const after = (uses.get(key) ?? 0) + by;
    this.note(uses, key, after === 0 ? undefined : after);
  }

  /** Remembers how to take back another change of our own memory. */
  onFailure(undo: () => void): void {
    this.undoSteps.push(undo);
  }

  /** For when the rules are in the kernel. */
  onSuccess(work: () => void): void {
    this.doneSteps.push(work);
  }

  rollBack(): void {
    while (this.undoSteps.length > 0) this.undoSteps.pop()?.();
  }

  done(): void {
    this.isCommitted = true;
    for (const work of this.doneSteps) work();
  }
}
