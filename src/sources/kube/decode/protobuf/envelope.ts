/**
 * What surrounds objects (k8s.io/apimachinery/pkg/runtime and meta/v1, generated.proto):
 *
 *     envelope:    6b 38 73 00 ("k8s", zero), then an Unknown message
 *     Unknown:     1 typeMeta: 1 apiVersion, 2 kind   2 raw   3 contentEncoding   4 contentType
 *     Status:      2 status   3 message   4 reason   5 details   6 code
 *     details:     4 causes*: 1 reason   5 retryAfterSeconds
 *     ListMeta:    2 resourceVersion   3 continue
 */
import type { ApiStatus, ListMeta } from '../decoded.js';
import type { ProtoReader } from './wire.js';

export const envelopeMagic = Buffer.from([0x6b, 0x38, 0x73, 0x00]);

/** Start of a raw object, and what it is. */
export interface Envelope {
  readonly kind: string;
  /** The raw object is bytes[start, end) of the buffer the reader points at. */
  readonly start: number;
  readonly end: number;
}

/** The reader spans a whole envelope. */
export function readEnvelope(reader: ProtoReader): Envelope {
  for (const byte of envelopeMagic) {
    if (reader.position >= reader.end || reader.bytes[reader.position] !== byte) {
      reader.fail('does not start with the Kubernetes protobuf magic');
    }
    reader.position++;
  }
  let kind = '';
  let start = reader.position;
  let end = start;
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) {
      kind = readKind(reader);
    } else if (field === 2) {
      const outer = reader.open();
      start = reader.position;
      end = reader.end;
      reader.close(outer);
    } else {
      reader.skip();
    }
  }
  return { kind, start, end };
}

export function readKind(reader: ProtoReader): string {
  let kind = '';
  const outer = reader.open();
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 2) kind = reader.shared();
    else reader.skip();
  }
  reader.close(outer);
  return kind;
}

/** The reader spans one Status message. */
export function readStatus(reader: ProtoReader): ApiStatus {
  let code = 0;
  let reason = '';
  let message = '';
  let retryAfterSeconds = 0;
  const causes: string[] = [];
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    switch (field) {
      case 3:
        message = reader.text();
        break;
      case 4:
        reason = reader.text();
        break;
      case 5: {
        const outer = reader.open();
        for (let field = reader.next(); field !== 0; field = reader.next()) {
          if (field === 5) retryAfterSeconds = reader.integer();
          else if (field === 4) causes.push(readCause(reader));
          else reader.skip();
        }
        reader.close(outer);
        break;
      }
      case 6:
        code = reader.integer();
        break;
      default:
        reader.skip();
    }
  }
  return { code, reason, message, retryAfterSeconds, causes };
}

function readCause(reader: ProtoReader): string {
  let reason = '';
  const outer = reader.open();
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) reason = reader.text();
    else reader.skip();
  }
  reader.close(outer);
  return reason;
}

/** The reader stands on a ListMeta field. */
export function readListMeta(reader: ProtoReader): ListMeta {
  let version = '';
  let continueToken = '';
  const outer = reader.open();
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 2) version = reader.text();
    else if (field === 3) continueToken = reader.text();
    else reader.skip();
  }
  reader.close(outer);
  return { version, continueToken };
}
