/** What the operator should know about a family's settings at a start: said only where that family is in use. */
import { isLoopback } from '../model/addresses/addresses.js';
import type { NodeIPs } from '../model/addresses/node.js';
import type { FamilyChanges, IPFamily } from '../model/types.js';

export interface FamilyWarningsOptions {
  readonly warnings: ReadonlyMap<IPFamily, readonly string[]>;
  readonly nodeIPs: NodeIPs;
  readonly warn: (text: string) => void;
}

/**
 * A cluster of one family, which most are, hears nothing about the other. A family is in use when the node has an address of it
 * or a Service has: the latter shows with the first service port.
 */
export class FamilyWarnings {
  private readonly pending: Map<IPFamily, readonly string[]>;
  private readonly warn: (text: string) => void;

  constructor({ warnings, nodeIPs, warn }: FamilyWarningsOptions) {
    this.warn = warn;
    this.pending = new Map([...warnings].filter(([, texts]) => texts.length > 0));
    for (const family of this.pending.keys()) if (!isLoopback(nodeIPs[family])) this.say(family);
  }

  /** Called with each change of the service ports. */
  changed(families: readonly FamilyChanges[]): void {
    if (this.pending.size === 0) return;
    for (const { family, upserted } of families) if (upserted.length > 0) this.say(family);
  }

  private say(family: IPFamily): void {
    for (const text of this.pending.get(family) ?? []) this.warn(text);
    this.pending.delete(family);
  }
}
