/** One object: decoded whole, or reported as broken by name. */
import type { BrokenObject, ListHandler } from '../decoded.js';
import { BrokenObjectError } from '../../errors.js';
import { readMetadata, type Metadata } from './metadata.js';
import type { ProtoReader } from './wire.js';

/** Reads the message that the reader spans; fills `meta` on the way. */
export type ObjectReader<T> = (reader: ProtoReader, meta: Metadata) => T;

/** Decode bytes[start, end) and give the result to one of the two methods of `handler`. */
export function decodeObject<T>(
  read: ObjectReader<T>,
  reader: ProtoReader,
  meta: Metadata,
  bytes: Buffer,
  start: number,
  end: number,
  handler: ListHandler<T>,
): void {
  let object: T;
  let key: string;
  try {
    reader.reset(bytes, start, end);
    object = read(reader, meta);
    key = meta.key();
  } catch (error) {
    if (!(error instanceof BrokenObjectError)) throw error;
    handler.broken(identify(reader, meta, bytes, start, end, error));
    return;
  }
  handler.item({ key, version: meta.version, object });
}

/** Find out the name of an object that is broken elsewhere. */
function identify(
  reader: ProtoReader,
  meta: Metadata,
  bytes: Buffer,
  start: number,
  end: number,
  error: BrokenObjectError,
): BrokenObject {
  try {
    reader.reset(bytes, start, end);
    meta.clear();
    for (let field = reader.next(); field !== 0; field = reader.next()) {
      if (field === 1) {
        readMetadata(reader, meta);
        return { key: meta.key(), version: meta.version, uid: meta.uid, error };
      }
      reader.skip();
    }
  } catch (second) {
    if (!(second instanceof BrokenObjectError)) throw second;
  }
  return { key: undefined, version: undefined, error };
}
