/** What decoders yield, in either encoding. */
import type { BrokenObjectError } from '../errors.js';

/** Which object, and which state of it. */
export interface Identified {
  /** 'namespace/name', or 'name' for kinds without a namespace. */
  readonly key: string;
  /** metadata.resourceVersion; opaque. */
  readonly version: string;
}

/** One object of a list or a watch event. */
export interface Decoded<T> extends Identified {
  readonly object: T;
}

/** An object that could not be decoded. */
export interface BrokenObject {
  /** undefined when even the name could not be read. */
  readonly key: string | undefined;
  /** undefined when unknown. */
  readonly version: string | undefined;
  /** metadata.uid; undefined or '' when unknown. */
  readonly uid?: string;
  readonly error: BrokenObjectError;
}

/** metadata of a list. */
export interface ListMeta {
  readonly version: string;
  /** '' on the last page. */
  readonly continueToken: string;
}

/** meta/v1 Status: how the API server says no. */
export interface ApiStatus {
  /** HTTP status code; 0 when the body did not say. */
  readonly code: number;
  readonly reason: string;
  readonly message: string;
  /** 0: not given. */
  readonly retryAfterSeconds: number;
  /** details.causes[].reason, e.g. 'ResourceVersionTooLarge'. */
  readonly causes: readonly string[];
}

export type WatchEvent<T> =
  | { readonly type: 'ADDED' | 'MODIFIED'; readonly item: Decoded<T> }
  /** What it looked like when it was deleted is of no account, and need not be readable. */
  | { readonly type: 'DELETED'; readonly item: Identified }
  | { readonly type: 'BOOKMARK'; readonly version: string; readonly initialEventsEnd: boolean }
  | { readonly type: 'ERROR'; readonly status: ApiStatus }
  | { readonly type: 'BROKEN'; readonly broken: BrokenObject };

/** Receives the items of a list while its body is still arriving. */
export interface ListHandler<T> {
  item(item: Decoded<T>): void;
  broken(broken: BrokenObject): void;
}

/** Feeds on a response body chunk by chunk. Both methods throw GarbageError. */
export interface ListDecoder {
  push(chunk: Buffer): void;
  /** The body is over. Throws when it ended in the middle. */
  end(): ListMeta;
}

export interface WatchDecoder<T> {
  /** An event has begun and is not complete. */
  readonly unfinished: boolean;
  /** Calls `deliver` for every event that is complete. */
  push(chunk: Buffer, deliver: (event: WatchEvent<T>) => void): void;
  /** The body is over. Throws GarbageError when it ended inside an event. */
  end(): void;
}

/** One content type, for one kind of object. */
export interface Codec<T> {
  list(handler: ListHandler<T>): ListDecoder;
  watch(): WatchDecoder<T>;
}

/** Items and events larger than this are taken for garbage; etcd itself refuses objects above 1.5 MiB. */
export const maxObjectBytes = 16 * 1024 * 1024;

/** Shared by all empty lists of all trimmed objects. */
export const emptyList: readonly never[] = Object.freeze([]);

/**
 * The list with one more item, in an array of exactly that size. An array that grows by push() reserves 17 places for
 * its first item; most lists of trimmed objects hold one item for as long as the program runs.
 */
export function appended<T>(list: readonly T[], item: T): readonly T[] {
  return list.length === 0 ? [item] : list.concat([item]);
}

/** What a watch event of a broken object says. */
export function brokenEvent<T>(type: 'ADDED' | 'MODIFIED' | 'DELETED', broken: BrokenObject): WatchEvent<T> {
  const { key, version = '' } = broken;
  return type === 'DELETED' && key !== undefined
    ? { type, item: { key, version } }
    : { type: 'BROKEN', broken };
}
