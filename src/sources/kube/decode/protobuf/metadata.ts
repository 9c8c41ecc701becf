/**
 * ObjectMeta (k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto):
 *
 *     1 name   3 namespace   5 uid   6 resourceVersion   8 creationTimestamp   9 deletionTimestamp
 *     11 labels: map (1 key, 2 value)   12 annotations: map
 *     Time: 1 seconds   2 nanos
 */
import { BrokenObjectError } from '../../errors.js';
import { joinKey, type StringTable } from '../../../strings.js';
import type { ProtoReader } from './wire.js';

/** The parts of ObjectMeta that any kind needs. One record is used for all objects of a decoder. */
export class Metadata {
  name = '';
  namespace = '';
  uid = '';
  version = '';
  /** creationTimestamp, seconds since the epoch; 0 when unset. */
  createdSeconds = 0;
  deleting = false;
  serviceProxyName: string | undefined;
  serviceName = '';
  headless = false;
  zone: string | undefined;
  triggerTime = '';
  initialEventsEnd = false;

  clear(): void {
    this.name = '';
    this.namespace = '';
    this.uid = '';
    this.version = '';
    this.createdSeconds = 0;
    this.deleting = false;
    this.serviceProxyName = undefined;
    this.serviceName = '';
    this.headless = false;
    this.zone = undefined;
    this.triggerTime = '';
    this.initialEventsEnd = false;
  }

  /** @throws BrokenObjectError when the object has no name. */
  key(): string {
    if (this.name === '') throw new BrokenObjectError('metadata.name', 'is missing');
    return this.namespace === '' ? this.name : joinKey(this.namespace, this.name);
  }

  set(key: WantedKey, value: string): void {
    switch (key) {
      case 'service.kubernetes.io/service-proxy-name':
        this.serviceProxyName = value;
        return;
      case 'kubernetes.io/service-name':
        this.serviceName = value;
        return;
      case 'service.kubernetes.io/headless':
        this.headless = true;
        return;
      case 'topology.kubernetes.io/zone':
        this.zone = value;
        return;
      case 'endpoints.kubernetes.io/last-change-trigger-time':
        this.triggerTime = value;
        return;
      case 'k8s.io/initial-events-end':
        this.initialEventsEnd = value === 'true';
        return;
    }
  }
}

export const wantedLabels = [
  'service.kubernetes.io/service-proxy-name',
  'kubernetes.io/service-name',
  'service.kubernetes.io/headless',
  'topology.kubernetes.io/zone',
] as const;
export const wantedAnnotations = [
  'endpoints.kubernetes.io/last-change-trigger-time',
  'k8s.io/initial-events-end',
] as const;
export type WantedKey = (typeof wantedLabels)[number] | (typeof wantedAnnotations)[number];

const timeText = Buffer.alloc(32);

/** Which of `keys` the bytes spell; their lengths differ, so that one comparison settles it. */
class KeyMatcher {
  private readonly byLength: ({ readonly key: WantedKey; readonly bytes: Buffer } | undefined)[] = [];

  constructor(keys: readonly WantedKey[]) {
    for (const key of keys) this.byLength[key.length] = { key, bytes: Buffer.from(key, 'latin1') };
  }

  match(bytes: Buffer, start: number, end: number): WantedKey | undefined {
    const candidate = this.byLength[end - start];
    if (candidate === undefined) return undefined;
    for (let i = 0; i < candidate.bytes.length; i++) {
      if (bytes[start + i] !== candidate.bytes[i]) return undefined;
    }
    return candidate.key;
  }
}

const labelKeys = new KeyMatcher(wantedLabels);
const annotationKeys = new KeyMatcher(wantedAnnotations);

/** Read the ObjectMeta field that the reader stands on into `meta`. */
export function readMetadata(reader: ProtoReader, meta: Metadata): void {
  meta.clear();
  const outer = reader.open();
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    switch (field) {
      case 1:
        meta.name = reader.shared();
        break;
      case 3:
        meta.namespace = reader.shared();
        break;
      case 5:
        meta.uid = reader.text();
        break;
      case 6:
        meta.version = reader.text();
        break;
      case 8:
        meta.createdSeconds = readSeconds(reader);
        break;
      case 9:
        meta.deleting = true;
        reader.skip();
        break;
      case 11:
        readEntry(reader, meta, labelKeys);
        break;
      case 12:
        readEntry(reader, meta, annotationKeys);
        break;
      default:
        reader.skip();
    }
  }
  reader.close(outer);
}

/** One entry of a map<string, string>; key and value may come in either order. */
function readEntry(reader: ProtoReader, meta: Metadata, keys: KeyMatcher): void {
  const outer = reader.open();
  let key: WantedKey | undefined;
  let value = '';
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) {
      const inner = reader.open();
      key = keys.match(reader.bytes, reader.position, reader.end);
      reader.close(inner);
      if (key === undefined) reader.position = reader.end;
    } else if (field === 2) {
      value = reader.shared();
    } else {
      reader.skip();
    }
  }
  reader.close(outer);
  if (key !== undefined) meta.set(key, value);
}

/** meta/v1 Time; it has whole seconds only. */
function readSeconds(reader: ProtoReader): number {
  const outer = reader.open();
  let seconds = 0;
  for (let field = reader.next(); field !== 0; field = reader.next()) {
    if (field === 1) seconds = reader.integer();
    else reader.skip();
  }
  reader.close(outer);
  return seconds;
}

/** A time as JSON has it: RFC 3339 in UTC. '' for what is not between the years 1970 and 9999. */
export function timeToText(seconds: number, strings: StringTable): string {
  if (seconds <= 0 || seconds > 253402300799) return '';
  const length = timeText.write(new Date(seconds * 1000).toISOString(), 0, 'latin1');
  timeText[length - 5] = 0x5a;
  return strings.fromBytes(timeText, 0, length - 4);
}
