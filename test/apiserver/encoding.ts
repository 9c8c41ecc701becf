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

/**
 * The pieces of a list body, in order.
 * @param version '' leaves it out
 */
export function encodeList(
  encoding: Encoding,
  kind: ServedKind,
  objects: readonly StoredObject[],
  version: string,
  continueToken: string,
  listKind = `${kind.kind}List`,
): readonly Buffer[] {
  if (encoding === 'json') {
    const head = JSON.stringify({
      kind: listKind,
      apiVersion: apiVersionOf(kind),
      metadata: {
        ...(version === '' ? {} : { resourceVersion: version }),
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
  const items: Buffer[] = [listMetaField(version, continueToken)];
  for (const object of objects) {
    const raw = object.raw();
    items.push(itemHead(raw.length), raw);
  }
  const size = items.reduce((sum, piece) => sum + piece.length, 0);
  return [envelopeHead(apiVersionOf(kind), listKind, size), ...items];
}

export function encodeEvent(encoding: Encoding, type: string, object: StoredObject): Buffer {
  return encoding === 'json'
    ? Buffer.from(`{"type":"${type}","object":${object.alone()}}\n`)
    : watchFrame(type, encodeOne(encoding, object));
}

export function encodeBookmark(
  encoding: Encoding,
  kind: ServedKind,
  version: string,
  initialEventsEnd: boolean,
): Buffer {
  const object = {
    kind: kind.kind,
    apiVersion: apiVersionOf(kind),
    metadata: {
      ...(version === '' ? {} : { resourceVersion: version }),
      ...(initialEventsEnd ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {}),
    },
  };
  return encoding === 'json'
    ? Buffer.from(`${JSON.stringify({ type: 'BOOKMARK', object })}\n`)
    : watchFrame('BOOKMARK', envelope(object.apiVersion, kind.kind, encodeObject(kind.kind, object)));
}

/** Events that no server should send. */
export type OddEvent =
  | 'event-of-other-kind'
  | 'event-of-unknown-type'
  | 'event-without-name'
  | 'deletion-of-unknown'
  | 'bookmark-without-version';

/** @param phantom an object that does not exist */
export function encodeOddEvent(encoding: Encoding, what: OddEvent, phantom: StoredObject): Buffer {
  const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'phantom', namespace: 'nowhere' } };
  const nameless = { apiVersion: apiVersionOf(phantom.kind), kind: phantom.kind.kind, metadata: {} };
  const loose = (object: typeof pod | typeof nameless): Buffer =>
    encoding === 'json'
      ? Buffer.from(`${JSON.stringify({ type: 'ADDED', object })}\n`)
      : watchFrame(
          'ADDED',
          envelope(
            object.apiVersion,
            object.kind,
            encodeObject(phantom.kind.kind, { metadata: object.metadata }),
          ),
        );
  switch (what) {
    case 'event-of-other-kind':
      return loose(pod);
    case 'event-without-name':
      return loose(nameless);
    case 'event-of-unknown-type':
      return encodeEvent(encoding, 'RENAMED', phantom);
    case 'deletion-of-unknown':
      return encodeEvent(encoding, 'DELETED', phantom);
    case 'bookmark-without-version':
      return encodeBookmark(encoding, phantom.kind, '', false);
  }
}

export function encodeErrorEvent(encoding: Encoding, status: StatusBody): Buffer {
  return encoding === 'json'
    ? Buffer.from(`${JSON.stringify({ type: 'ERROR', object: statusObject(status) })}\n`)
    : watchFrame('ERROR', encodeStatus(encoding, status));
}
