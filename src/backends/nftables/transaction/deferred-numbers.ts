/**
 * Numbers of very many endpoints of one service port that went together, with what their elements lead to, until these may be deleted:
 * a list as it was, and which of it is still waiting. An entry for each (DeferredDeletions) would take too long.
 */
import { readHostUint32 } from '../../nft/keys.js';
import type { Endpoint } from '../../../model/types.js';
import { numberKey, type NumberedEndpoints } from '../state/elements.js';

const minors = 0x10000;

export class DeferredNumbers {
  /** By minor number: index in the list, plus one; 0: it does not wait, or not any more. */
  private readonly places = new Uint32Array(minors);
  /** Of the list's entries below this one some may still wait. */
  private end: number;

  constructor(
    private readonly list: NumberedEndpoints,
    /** performance.now() */
    readonly dueAt: number,
  ) {
    this.end = list.endpoints.length;
    for (let at = 0; at < this.end; at++) this.places[list.minors[at] ?? 0] = at + 1;
  }

  get set(): string {
    return this.list.set;
  }

  /** No fewer than are left. */
  get size(): number {
    return this.end;
  }

  /** What the element leads to; undefined: it does not wait here. */
  target(key: string): Endpoint | undefined {
    const place = this.places[this.minorOf(key)] ?? 0;
    return place === 0 ? undefined : this.list.endpoints[place - 1];
  }

  /** It waits no longer. @returns how to take that back */
  take(key: string): () => void {
    const minor = this.minorOf(key);
    const place = this.places[minor] ?? 0;
    this.places[minor] = 0;
    return () => {
      this.places[minor] = place;
    };
  }

  /** Takes some off. @param limit at most so many; @returns how to take that back */
  takeLast(limit: number, onKey: (key: string) => void): () => void {
    const { end } = this;
    const taken: number[] = [];
    while (this.end > 0 && taken.length < limit) {
      const minor = this.list.minors[--this.end] ?? 0;
      if (this.places[minor] === 0) continue;
      this.places[minor] = 0;
      taken.push(this.end);
      onKey(numberKey(this.list, this.end));
    }
    return () => {
      this.end = end;
      for (const at of taken) this.places[this.list.minors[at] ?? 0] = at + 1;
    };
  }

  *keys(): Generator<string, void, undefined> {
    for (let at = 0; at < this.end; at++) {
      if (this.places[this.list.minors[at] ?? 0] !== 0) yield numberKey(this.list, at);
    }
  }

  /** 0, which nobody has, for a number of another service port. */
  private minorOf(key: string): number {
    const number = readHostUint32(key);
    return number >>> 16 === this.list.service ? number & 0xffff : 0;
  }
}
