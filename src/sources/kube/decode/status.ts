/** The body of an answer that is not 2xx. */
import type { ApiStatus } from './decoded.js';
import { BrokenObjectError } from '../errors.js';
import { isObject } from './json/fields.js';
import { statusFromJson } from './json/status.js';
import { readEnvelope, readStatus } from './protobuf/envelope.js';
import { ProtoReader } from './protobuf/wire.js';
import { StringTable } from '../../strings.js';

/** Never throws: what can't be read as a Status becomes the start of its own text. */
export function decodeStatus(body: Buffer, contentType: string): ApiStatus {
  if (contentType.includes('protobuf')) {
    try {
      const reader = new ProtoReader(new StringTable(1), body);
      const { start, end } = readEnvelope(reader);
      reader.reset(body, start, end);
      return readStatus(reader);
    } catch (error) {
      if (!(error instanceof BrokenObjectError)) throw error;
    }
  }
  const text = body.toString('utf8', 0, 64 * 1024);
  try {
    const parsed: unknown = JSON.parse(text);
    if (isObject(parsed)) return statusFromJson(parsed);
  } catch {
    // Not JSON: a proxy's error page, or plain text.
  }
  const plain = text
    .replaceAll(/<[^>]*>/g, ' ')
    .replaceAll(/[^\x20-\x7e]+/g, ' ')
    .replaceAll(/ +/g, ' ')
    .trim();
  return { code: 0, reason: '', message: plain.slice(0, 200), retryAfterSeconds: 0, causes: [] };
}
