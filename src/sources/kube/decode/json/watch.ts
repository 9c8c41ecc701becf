/** A watch stream in JSON: one event per line, {"type": …, "object": …}. */
import { isUtf8 } from 'node:buffer';
import { brokenEvent, maxObjectBytes, type WatchDecoder, type WatchEvent } from '../decoded.js';
import { BrokenObjectError, GarbageError } from '../../errors.js';
import { Inbox } from '../inbox.js';
import type { StringTable } from '../../../strings.js';
import { isObject, objectAt, textAt, type JsonObject } from './fields.js';
import { decodeJsonObject, versionOf } from './object.js';
import type { JsonReader } from './objects.js';
import { statusFromJson } from './status.js';

const lineFeed = 0x0a;

export class JsonWatchDecoder<T> implements WatchDecoder<T> {
  private readonly read: JsonReader<T>;
  private readonly kind: string;
  private readonly strings: StringTable;
  private readonly inbox = new Inbox();
  private offset = 0;

  constructor(read: JsonReader<T>, kind: string, strings: StringTable) {
    this.read = read;
    this.kind = kind;
    this.strings = strings;
  }

  get unfinished(): boolean {
    return this.inbox.waiting > 0;
  }

  push(chunk: Buffer, deliver: (event: WatchEvent<T>) => void): void {
    if (!chunk.includes(lineFeed)) {
      // Joined only when the line is complete, however many chunks that takes.
      if (this.inbox.waiting + chunk.length > maxObjectBytes) this.garbage('a line that never ends', 0);
      this.inbox.hold(chunk);
      return;
    }
    const waiting = this.inbox.take();
    const buffer = waiting.length === 0 ? chunk : Buffer.concat([...waiting, chunk]);
    let position = 0;
    for (;;) {
      const end = buffer.indexOf(lineFeed, position);
      if (end < 0) break;
      const bytes = buffer.subarray(position, end);
      // Damage inside a string would otherwise pass for a value.
      if (!isUtf8(bytes)) this.garbage('a watch event that is not UTF-8', position);
      const line = bytes.toString();
      if (line.trim() !== '') deliver(this.event(line, position));
      position = end + 1;
    }
    this.offset += position;
    this.inbox.keep(buffer.subarray(position), 1);
  }

  private event(line: string, position: number): WatchEvent<T> {
    let event: unknown;
    try {
      event = JSON.parse(line);
    } catch (error) {
      return this.garbage('a watch event that is not JSON', position, error);
    }
    if (!isObject(event) || !isObject(event['object'])) {
      return this.garbage('a watch event without an object', position);
    }
    const object = event['object'];
    const type = event['type'];
    if (type === 'ERROR' || object['kind'] === 'Status') {
      return { type: 'ERROR', status: statusFromJson(object) };
    }
    if (object['kind'] !== this.kind) {
      return this.garbage(`expected a ${this.kind}, not ${JSON.stringify(object['kind'])}`, position);
    }
    if (type === 'BOOKMARK') return this.bookmark(object, position);
    if (type !== 'ADDED' && type !== 'MODIFIED' && type !== 'DELETED') {
      return this.garbage(`unknown watch event type ${JSON.stringify(type)}`, position);
    }
    let result: WatchEvent<T> | undefined;
    decodeJsonObject(this.read, object, this.strings, {
      item: (item) => {
        result = { type, item };
      },
      broken: (broken) => {
        result = brokenEvent(type, broken);
      },
    });
    return result ?? this.garbage('the event holds no object', position);
  }

  private bookmark(object: JsonObject, position: number): WatchEvent<T> {
    try {
      const annotations = objectAt(objectAt(object, 'metadata', ''), 'annotations', 'metadata.');
      return {
        type: 'BOOKMARK',
        version: versionOf(object),
        initialEventsEnd:
          textAt(annotations, 'k8s.io/initial-events-end', 'metadata.annotations.') === 'true',
      };
    } catch (error) {
      if (!(error instanceof BrokenObjectError)) throw error;
      return this.garbage(error.message, position, error);
    }
  }

  private garbage(message: string, position: number, cause?: unknown): never {
    throw new GarbageError(message, this.offset + position, { cause });
  }

  end(): void {
    if (this.inbox.waiting > 0) {
      throw new GarbageError('the watch ends in the middle of an event', this.offset + this.inbox.waiting);
    }
  }
}
