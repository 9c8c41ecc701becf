/** One object: decoded whole, or reported as broken by name. */
import type { BrokenObject, Decoded, ListHandler } from '../decoded.js';
import { BrokenObjectError } from '../../errors.js';
import type { StringTable } from '../../../strings.js';
import { objectAt, optionalText, textAt, type JsonObject } from './fields.js';
import { keyOf, type JsonReader } from './objects.js';

/** Give the result to one of the two methods of `handler`. */
export function decodeJsonObject<T>(
  read: JsonReader<T>,
  object: JsonObject,
  strings: StringTable,
  handler: ListHandler<T>,
): void {
  let item: Decoded<T>;
  try {
    item = { key: keyOf(object, strings), version: versionOf(object), object: read(object, strings) };
  } catch (error) {
    if (!(error instanceof BrokenObjectError)) throw error;
    handler.broken(identify(object, strings, error));
    return;
  }
  handler.item(item);
}

export function versionOf(object: JsonObject): string {
  return optionalText(objectAt(object, 'metadata', ''), 'resourceVersion', 'metadata.') ?? '';
}

function identify(object: JsonObject, strings: StringTable, error: BrokenObjectError): BrokenObject {
  try {
    return {
      key: keyOf(object, strings),
      version: versionOf(object),
      uid: textAt(objectAt(object, 'metadata', ''), 'uid', 'metadata.'),
      error,
    };
  } catch (second) {
    if (!(second instanceof BrokenObjectError)) throw second;
    return { key: undefined, version: undefined, error };
  }
}
