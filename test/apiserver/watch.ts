/** One open watch of one client. */
import type { Output } from './body.js';
import {
  encodeBookmark,
  encodeErrorEvent,
  encodeEvent,
  encodeOddEvent,
  type Encoding,
  type OddEvent,
} from './encoding.js';
import { apiVersionOf, type ServedKind } from './resources.js';
import type { Selector } from './selectors.js';
import { StoredObject, type Change, type Store } from './store.js';

export interface WatchRequest {
  readonly kind: ServedKind;
  readonly namespace: string;
  readonly select: Selector;
  readonly encoding: Encoding;
  readonly bookmarks: boolean;
  /** Start with ADDED events for everything that exists … */
  readonly initialEvents: boolean;
  /** … and say when that is done: with the bookmark that means it, with one that does not, or not at all. */
  readonly end: 'marked' | 'unmarked' | 'silent';
  /** Start after this version. */
  readonly version: number;
}

const batchBytes = 64 * 1024;

export class Watch {
  readonly request: WatchRequest;
  private readonly store: Store;
  private readonly output: Output;
  private readonly unsubscribe: () => void;
  private held: Buffer[] | undefined;
  /** What was written last, oldest first. */
  private last: Buffer[] = [];
  private closed = false;

  constructor(store: Store, request: WatchRequest, output: Output) {
    this.store = store;
    this.request = request;
    this.output = output;
    if (request.initialEvents) this.sendExisting();
    else for (const change of store.changesAfter(request.kind, request.version)) this.change(change);
    this.unsubscribe = store.onChange((change) => {
      if (change.after.kind === request.kind) this.change(change);
    });
  }

  private sendExisting(): void {
    let batch: Buffer[] = [];
    let size = 0;
    const send = (): void => {
      if (batch.length > 0) this.write(Buffer.concat(batch, size));
      batch = [];
      size = 0;
    };
    for (const object of this.store.list(this.request.kind)) {
      if (!this.matches(object)) continue;
      const event = encodeEvent(this.request.encoding, 'ADDED', object);
      batch.push(event);
      size += event.length;
      if (size > batchBytes) send();
    }
    const { end, encoding, kind } = this.request;
    if (end !== 'silent') {
      const mark = encodeBookmark(encoding, kind, String(this.store.version), end === 'marked');
      batch.push(mark);
      size += mark.length;
    }
    send();
  }

  private matches(object: StoredObject): boolean {
    return (
      (this.request.namespace === '' || this.request.namespace === object.namespace) &&
      this.request.select(object)
    );
  }

  /** An object that enters or leaves the selection is added or deleted, as clients see it. */
  private change(change: Change): void {
    // A client that knows a later version than there is (the database was set back) hears nothing until then.
    if (change.version <= this.request.version) return;
    const was = change.before !== undefined && this.matches(change.before);
    const is = !change.deleted && this.matches(change.after);
    const type = is ? (was ? 'MODIFIED' : 'ADDED') : was ? 'DELETED' : undefined;
    if (type !== undefined) this.write(encodeEvent(this.request.encoding, type, change.after));
  }

  private write(bytes: Buffer): void {
    if (this.closed) return;
    if (this.held === undefined) this.output.write(bytes);
    else this.held.push(bytes);
    this.last = [...this.last.slice(-3), bytes];
  }

  bookmark(): void {
    const { bookmarks, encoding, kind, version } = this.request;
    if (!bookmarks || this.store.version < version) return;
    this.write(encodeBookmark(encoding, kind, String(this.store.version), false));
  }

  expire(): void {
    this.fail(410);
  }

  /** Ends with an ERROR event. */
  fail(status: number): void {
    this.write(
      encodeErrorEvent(this.request.encoding, {
        code: status,
        reason: status === 410 ? 'Expired' : 'InternalError',
        message:
          status === 410
            ? `too old resource version: ${this.request.version} (${this.store.version})`
            : 'the watch failed on command',
      }),
    );
    this.end();
  }

  /** Bytes that may or may not be an event. */
  raw(bytes: Buffer): void {
    if (!this.closed) this.output.write(bytes);
  }

  /** The first half of an event that is none, and the end of the connection. */
  half(): void {
    const whole = encodeOddEvent(this.request.encoding, 'deletion-of-unknown', this.phantom());
    this.raw(whole.subarray(0, whole.length >> 1));
    setTimeout(() => {
      this.cut();
    }, 5);
  }

  repeat(): void {
    for (const bytes of this.last) this.raw(bytes);
  }

  odd(what: OddEvent): void {
    this.raw(encodeOddEvent(this.request.encoding, what, this.phantom()));
  }

  /** An object that nobody has ever seen. */
  private phantom(): StoredObject {
    const { kind } = this.request;
    const metadata = { name: 'phantom', ...(kind.namespaced ? { namespace: 'nowhere' } : {}) };
    const version = this.store.version;
    return new StoredObject(
      kind,
      { apiVersion: apiVersionOf(kind), metadata: { ...metadata, resourceVersion: String(version) } },
      version,
    );
  }

  /** Keep everything back, or let it go. */
  stall(on: boolean): void {
    if (on) {
      this.held ??= [];
      return;
    }
    const held = this.held ?? [];
    this.held = undefined;
    for (const bytes of held) this.write(bytes);
  }

  /** End in good order. */
  end(): void {
    if (this.closed) return;
    this.close();
    this.output.end();
  }

  /** End in the middle of things. */
  cut(): void {
    if (this.closed) return;
    this.close();
    this.output.destroy();
  }

  /** The client is gone. */
  close(): void {
    this.closed = true;
    this.unsubscribe();
  }
}
