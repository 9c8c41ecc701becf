/** Lists, watch events and errors in the two encodings. */
import { envelope, envelopeHead, encodeObject, itemHead, listMetaField, watchFrame } from './protobuf.js';
import { apiVersionOf, type ServedKind } from './resources.js';
import type { StoredObject } from './store.js';

export type Encoding = 'json' | 'protobuf';

export interface StatusBody {
  readonly code: number;
  readonly reason: string;
  readonly message: string;
  readonly retryAfterSeconds?: number;
  readonly cause?: string;
  readonly continueToken?: string;
}

export function contentType(encoding: Encoding, watch: boolean): string {
  if (encoding === 'json') return 'application/json';
  return `application/vnd.kubernetes.protobuf${watch ? ';stream=watch' : ''}`;
}

function statusObject(status: StatusBody): Readonly<Record<string, unknown>> {
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: status.continueToken === undefined ? {} : { continue: status.continueToken },
    status: 'Failure',
    message: status.message,
    reason: status.reason,
    details: {
      ...(status.cause === undefined ? {} : { causes: [{ reason: status.cause, message: status.message }] }),
      ...(status.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: status.retryAfterSeconds }),
    },
    code: status.code,
  };
}

export function encodeStatus(encoding: Encoding, status: StatusBody): Buffer {
  const object = statusObject(status);
  return encoding === 'json'
    ? Buffer.from(JSON.stringify(object))
    : envelope('v1', 'Status', encodeObject('Status', object));
}

export function encodeOne(encoding: Encoding, object: StoredObject): Buffer {
  return encoding === 'json'
    ? Buffer.from(object.alone())
    : envelope(apiVersionOf(object.kind), object.kind.kind, object.raw());
}

/** The pieces of a list body, in order. */
export function encodeList(
  encoding: Encoding,
  kind: ServedKind,
  objects: readonly StoredObject[],
  version: number,
  continueToken: string,
): readonly Buffer[] {
  if (encoding === 'json') {
    const head = JSON.stringify({
      kind: `${kind.kind}List`,
      apiVersion: apiVersionOf(kind),
      metadata: {
        resourceVersion: String(version),
        ...(continueToken === '' ? {} : { continue: continueToken }),
      },
    });
    const pieces: Buffer[] = [Buffer.from(`${head.slice(0, -1)},"items":[`)];
    const comma = Buffer.from(',');
    objects.forEach((object, i) => {
      if (i > 0) pieces.push(comma);
      pieces.push(object.json);
    });
    pieces.push(Buffer.from(']}'));
    return pieces;
  }
  const items: Buffer[] = [listMetaField(String(version), continueToken)];
  for (const object of objects) {
    const raw = object.raw();
    items.push(itemHead(raw.length), raw);
  }
  const size = items.reduce((sum, piece) => sum + piece.length, 0);
  return [envelopeHead(apiVersionOf(kind), `${kind.kind}List`, size), ...items];
}

export function encodeEvent(encoding: Encoding, type: string, object: StoredObject): Buffer {
  return encoding === 'json'
    ? Buffer.from(`{"type":"${type}","object":${object.alone()}}\n`)
    : watchFrame(type, encodeOne(encoding, object));
}

export function encodeBookmark(
  encoding: Encoding,
  kind: ServedKind,
  version: number,
  initialEventsEnd: boolean,
): Buffer {
  const object = {
    kind: kind.kind,
    apiVersion: apiVersionOf(kind),
    metadata: {
      resourceVersion: String(version),
      ...(initialEventsEnd ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {}),
    },
  };
  return encoding === 'json'
    ? Buffer.from(`${JSON.stringify({ type: 'BOOKMARK', object })}\n`)
    : watchFrame('BOOKMARK', envelope(object.apiVersion, kind.kind, encodeObject(kind.kind, object)));
}

export function encodeErrorEvent(encoding: Encoding, status: StatusBody): Buffer {
  return encoding === 'json'
    ? Buffer.from(`${JSON.stringify({ type: 'ERROR', object: statusObject(status) })}\n`)
    : watchFrame('ERROR', encodeStatus(encoding, status));
}
