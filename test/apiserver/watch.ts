/** One open watch of one client. */
import { encodeBookmark, encodeErrorEvent, encodeEvent, type Encoding } from './encoding.js';
import type { ServedKind } from './resources.js';
import type { Selector } from './selectors.js';
import type { Change, Store, StoredObject } from './store.js';

export interface WatchRequest {
  readonly kind: ServedKind;
  readonly namespace: string;
  readonly select: Selector;
  readonly encoding: Encoding;
  readonly bookmarks: boolean;
  /** Start with ADDED events for everything that exists … */
  readonly initialEvents: boolean;
  /** … and say when that is done. */
  readonly markEnd: boolean;
  /** Start after this version. */
  readonly version: number;
}

/** Where the bytes go; a thin view of a response. */
export interface WatchOutput {
  write(bytes: Buffer): void;
  end(): void;
  /** Break the connection. */
  destroy(): void;
}

const batchBytes = 64 * 1024;

export class Watch {
  readonly request: WatchRequest;
  readonly #store: Store;
  readonly #output: WatchOutput;
  readonly #unsubscribe: () => void;
  #held: Buffer[] | undefined;
  #closed = false;

  constructor(store: Store, request: WatchRequest, output: WatchOutput) {
    this.#store = store;
    this.request = request;
    this.#output = output;
    if (request.initialEvents) this.#sendExisting();
    else for (const change of store.changesAfter(request.kind, request.version)) this.#change(change);
    this.#unsubscribe = store.onChange((change) => {
      if (change.after.kind === request.kind) this.#change(change);
    });
  }

  #sendExisting(): void {
    let batch: Buffer[] = [];
    let size = 0;
    const send = (): void => {
      if (batch.length > 0) this.#write(Buffer.concat(batch, size));
      batch = [];
      size = 0;
    };
    for (const object of this.#store.list(this.request.kind)) {
      if (!this.#matches(object)) continue;
      const event = encodeEvent(this.request.encoding, 'ADDED', object);
      batch.push(event);
      size += event.length;
      if (size > batchBytes) send();
    }
    if (this.request.markEnd) {
      const mark = encodeBookmark(this.request.encoding, this.request.kind, this.#store.version, true);
      batch.push(mark);
      size += mark.length;
    }
    send();
  }

  #matches(object: StoredObject): boolean {
    return (
      (this.request.namespace === '' || this.request.namespace === object.namespace) &&
      this.request.select(object)
    );
  }

  /** An object that enters or leaves the selection is added or deleted, as clients see it. */
  #change(change: Change): void {
    const was = change.before !== undefined && this.#matches(change.before);
    const is = !change.deleted && this.#matches(change.after);
    const type = is ? (was ? 'MODIFIED' : 'ADDED') : was ? 'DELETED' : undefined;
    if (type !== undefined) this.#write(encodeEvent(this.request.encoding, type, change.after));
  }

  #write(bytes: Buffer): void {
    if (this.#closed) return;
    if (this.#held === undefined) this.#output.write(bytes);
    else this.#held.push(bytes);
  }

  bookmark(): void {
    if (this.request.bookmarks) {
      this.#write(encodeBookmark(this.request.encoding, this.request.kind, this.#store.version, false));
    }
  }

  expire(): void {
    this.#write(
      encodeErrorEvent(this.request.encoding, {
        code: 410,
        reason: 'Expired',
        message: `too old resource version: ${this.request.version} (${this.#store.version})`,
      }),
    );
    this.end();
  }

  /** Bytes that are no event. */
  garbage(bytes: Buffer): void {
    this.#write(bytes);
  }

  /** Keep everything back, or let it go. */
  stall(on: boolean): void {
    if (on) {
      this.#held ??= [];
      return;
    }
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const bytes of held) this.#write(bytes);
  }

  /** End in good order. */
  end(): void {
    if (this.#closed) return;
    this.close();
    this.#output.end();
  }

  /** End in the middle of things. */
  cut(): void {
    if (this.#closed) return;
    this.close();
    this.#output.destroy();
  }

  /** The client is gone. */
  close(): void {
    this.#closed = true;
    this.#unsubscribe();
  }
}
