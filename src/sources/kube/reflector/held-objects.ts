/** The objects of one kind that were delivered, by their versions, and those that could not be read. */
import type { Logger } from '../../../log/logger.js';
import type { BrokenObject, Decoded } from '../decode/decoded.js';
import { longestName, printable } from '../../printable.js';

export interface ObjectSink<T> {
  deliver(key: string, object: T | undefined): void;
  /** An object can't be read, and why; undefined: it can again, or is gone. */
  unreadable(key: string, uid: string, why: string | undefined): void;
}

/** What a list found: needed to tell at its end what is gone. */
export interface Sweep {
  readonly seen: Set<string>;
  /** So many of them were not held before. */
  added: number;
  /** An object without a readable name was there: nothing can be said about what is gone. */
  nameless: boolean;
  /** When to list again because of what could not be read, performance.now(); Infinity: no need. */
  doubtAt: number;
}

export function newSweep(): Sweep {
  return { seen: new Set(), added: 0, nameless: false, doubtAt: Infinity };
}

/** What is broken in the same state so often is broken in itself. */
const asOftenAsBroken = 3;

export class HeldObjects<T> {
  private readonly kind: string;
  private readonly sink: ObjectSink<T>;
  private readonly log: Logger;
  /** Key to resource version. */
  private readonly versions = new Map<string, string>();
  /** Objects that can't be read, by key, and how often this version was: what is broken in itself is not asked for for ever. */
  private readonly broken = new Map<string, { readonly version: string; readonly times: number }>();

  constructor(kind: string, sink: ObjectSink<T>, log: Logger) {
    this.kind = kind;
    this.sink = sink;
    this.log = log;
  }

  get size(): number {
    return this.versions.size;
  }

  version(key: string): string | undefined {
    return this.versions.get(key);
  }

  put(item: Decoded<T>, sweep?: Sweep): void {
    this.mended(item.key);
    sweep?.seen.add(item.key);
    const held = this.versions.get(item.key);
    if (item.version !== '' && held === item.version) return;
    if (held === undefined && sweep !== undefined) sweep.added++;
    this.versions.set(item.key, item.version);
    this.deliver(item.key, item.object);
  }

  remove(key: string): void {
    this.mended(key);
    if (this.versions.delete(key)) this.deliver(key, undefined);
  }

  removeAll(): void {
    for (const key of [...this.versions.keys()]) this.remove(key);
  }

  /**
   * A version number may come a second time and mean something else, when the server's counter went back: nothing counts
   * as known by its number.
   */
  forgetVersions(): void {
    for (const key of this.versions.keys()) this.versions.set(key, '');
  }

  /** How many a complete list does not show, of how many that were held before it. */
  missing({ seen, added }: Sweep): { readonly missing: number; readonly held: number } {
    let missing = 0;
    for (const key of this.versions.keys()) if (!seen.has(key)) missing++;
    return { missing, held: this.versions.size - added };
  }

  /** What a complete list did not show is gone. */
  removeUnseen({ seen }: Sweep): void {
    for (const key of [...this.versions.keys()]) if (!seen.has(key)) this.remove(key);
    for (const key of [...this.broken.keys()]) if (!seen.has(key)) this.mended(key);
  }

  /** The last good state of a broken object stays. @returns whether it is to be asked for again: it may have been broken on its way */
  skip({ key, version = '', uid, error }: BrokenObject): boolean {
    const before = key === undefined ? undefined : this.broken.get(key);
    const known = before !== undefined && version !== '' && before.version === version;
    const times = known ? before.times + 1 : 1;
    if (key !== undefined) this.broken.set(key, { version, times });
    if (!known) {
      this.log.error('An object from the API server can not be read and is skipped', error, {
        kind: this.kind,
        object: key === undefined ? '(name unreadable)' : printable(key, 2 * longestName),
      });
      if (key !== undefined) this.sink.unreadable(key, uid ?? '', error.message);
    }
    return times < asOftenAsBroken;
  }

  private mended(key: string): void {
    if (this.broken.delete(key)) this.sink.unreadable(key, '', undefined);
  }

  private deliver(key: string, object: T | undefined): void {
    try {
      this.sink.deliver(key, object);
    } catch (error) {
      this.log.error('Failed to apply object', error, {
        kind: this.kind,
        object: printable(key, 2 * longestName),
      });
    }
  }
}
