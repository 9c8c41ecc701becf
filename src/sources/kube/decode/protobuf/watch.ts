/**
 * A watch stream in protobuf: frames of 4 bytes of length (big endian) and a WatchEvent
 * (k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto):
 *
 *     WatchEvent:  1 type   2 object: 1 raw (an envelope, envelope.ts)
 */
import { brokenEvent, maxObjectBytes, type Decoded, type WatchDecoder, type WatchEvent } from '../decoded.js';
import { BrokenObjectError, GarbageError } from '../../errors.js';
import { Inbox } from '../inbox.js';
import type { StringTable } from '../../../strings.js';
import { readEnvelope, readStatus } from './envelope.js';
import { Metadata, readMetadata } from './metadata.js';
import { decodeObject, type ObjectReader } from './object.js';
import { ProtoReader } from './wire.js';

/** Of fields that a WatchEvent may get one day. */
const moreFields = 64;

/**
 * Whether the beginning of a frame goes with its length: the object's own says the same. Where it does not, all events that follow
 * would be swallowed until there are as many bytes.
 */
function mayHaveLength(buffer: Buffer, start: number, end: number): boolean {
  const typeField = 0x0a;
  const objectField = 0x12;
  if (buffer[start] !== typeField) return true;
  let at = start + 2 + (buffer[start + 1] ?? 0);
  // Enough for the longest length that is allowed, in groups of seven bits.
  if (at + 6 > buffer.length || buffer[at] !== objectField) return true;
  let length = 0;
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = buffer[++at] ?? 0;
    length += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) break;
  }
  const objectEnd = at + 1 + length;
  return objectEnd <= end && end - objectEnd < moreFields;
}

export class ProtobufWatchDecoder<T> implements WatchDecoder<T> {
  private readonly read: ObjectReader<T>;
  private readonly kind: string;
  private readonly reader: ProtoReader;
  private readonly meta = new Metadata();
  private readonly inbox = new Inbox();
  private offset = 0;

  constructor(read: ObjectReader<T>, kind: string, strings: StringTable) {
    this.read = read;
    this.kind = kind;
    this.reader = new ProtoReader(strings, Buffer.alloc(0));
  }

  get unfinished(): boolean {
    return this.inbox.waiting > 0;
  }

  push(chunk: Buffer, deliver: (event: WatchEvent<T>) => void): void {
    const buffer = this.inbox.add(chunk);
    if (buffer === undefined) return;
    let position = 0;
    let needed = 4;
    while (buffer.length - position >= 4) {
      const length = buffer.readUInt32BE(position);
      if (length > maxObjectBytes) {
        throw new GarbageError(`a watch frame of ${length} bytes`, this.offset + position);
      }
      const end = position + 4 + length;
      if (end > buffer.length) {
        if (!mayHaveLength(buffer, position + 4, end)) {
          throw new GarbageError(
            `a watch frame of ${length} bytes with another length inside`,
            this.offset + position,
          );
        }
        needed = 4 + length;
        break;
      }
      deliver(this.event(buffer, position + 4, end));
      position = end;
    }
    this.offset += position;
    this.inbox.keep(buffer.subarray(position), needed);
  }

  private event(buffer: Buffer, start: number, end: number): WatchEvent<T> {
    const reader = this.reader;
    try {
      reader.reset(buffer, start, end);
      let type = '';
      let objectStart = start;
      let objectEnd = start;
      for (let field = reader.next(); field !== 0; field = reader.next()) {
        if (field === 1) {
          type = reader.shared();
        } else if (field === 2) {
          const outer = reader.open();
          for (let field = reader.next(); field !== 0; field = reader.next()) {
            if (field === 1) {
              const inner = reader.open();
              objectStart = reader.position;
              objectEnd = reader.end;
              reader.close(inner);
            } else {
              reader.skip();
            }
          }
          reader.close(outer);
        } else {
          reader.skip();
        }
      }
      reader.reset(buffer, objectStart, objectEnd);
      const envelope = readEnvelope(reader);
      if (type === 'ERROR' || envelope.kind === 'Status') {
        reader.reset(buffer, envelope.start, envelope.end);
        return { type: 'ERROR', status: readStatus(reader) };
      }
      if (envelope.kind !== this.kind) {
        reader.fail(`expected a ${this.kind}, not ${JSON.stringify(envelope.kind)}`);
      }
      if (type === 'BOOKMARK') {
        this.meta.clear();
        reader.reset(buffer, envelope.start, envelope.end);
        for (let field = reader.next(); field !== 0; field = reader.next()) {
          if (field === 1) readMetadata(reader, this.meta);
          else reader.skip();
        }
        return {
          type,
          version: this.meta.version,
          initialEventsEnd: this.meta.initialEventsEnd,
        };
      }
      if (type !== 'ADDED' && type !== 'MODIFIED' && type !== 'DELETED') {
        return reader.fail(`unknown watch event type ${JSON.stringify(type)}`);
      }
      let event: WatchEvent<T> | undefined;
      decodeObject(this.read, reader, this.meta, buffer, envelope.start, envelope.end, {
        item: (item: Decoded<T>) => {
          event = { type, item };
        },
        broken: (broken) => {
          event = brokenEvent(type, broken);
        },
      });
      if (event === undefined) return reader.fail('the event holds no object');
      return event;
    } catch (error) {
      if (!(error instanceof BrokenObjectError)) throw error;
      throw new GarbageError(error.message, this.offset + start, { cause: error });
    }
  }

  end(): void {
    if (this.inbox.waiting > 0) {
      throw new GarbageError('the watch ends in the middle of an event', this.offset + this.inbox.waiting);
    }
  }
}
