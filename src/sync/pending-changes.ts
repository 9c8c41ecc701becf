/** Changes of one family that no sync has taken yet. A later change of a service port takes the place of an earlier one. */
import type { FamilyChanges, ServicePort } from '../model/types.js';

export class PendingChanges {
  /** In the order of the last change: what changed last is programmed last. */
  private upserted = new Map<string, ServicePort>();
  private removed = new Set<string>();

  add(changes: FamilyChanges): void {
    for (const key of changes.removed) {
      this.upserted.delete(key);
      this.removed.add(key);
    }
    for (const port of changes.upserted) {
      this.removed.delete(port.key);
      this.upserted.delete(port.key);
      this.upserted.set(port.key, port);
    }
  }

  /** All of them; none is left. */
  take(): { readonly upserted: readonly ServicePort[]; readonly removed: ReadonlySet<string> } {
    const { upserted, removed } = this;
    this.upserted = new Map();
    this.removed = new Set();
    return { upserted: [...upserted.values()], removed };
  }
}
