/**
 * A list in protobuf, item by item while its body arrives:
 *
 *     envelope (envelope.ts), raw object XxxList: 1 metadata   2 items*
 *
 * Only the item at hand is ever held in memory.
 */
import { maxObjectBytes, type ListDecoder, type ListHandler, type ListMeta } from '../decoded.js';
import { BrokenObjectError, GarbageError } from '../../errors.js';
import { Inbox } from '../inbox.js';
import type { StringTable } from '../../../strings.js';
import { envelopeMagic, readKind, readListMeta } from './envelope.js';
import { decodeObject, type ObjectReader } from './object.js';
import { Metadata } from './metadata.js';
import { ProtoReader } from './wire.js';

const empty = Buffer.alloc(0);

export class ProtobufListDecoder<T> implements ListDecoder {
  private readonly read: ObjectReader<T>;
  private readonly listKind: string;
  private readonly handler: ListHandler<T>;
  private readonly reader: ProtoReader;
  private readonly meta = new Metadata();
  private readonly inbox = new Inbox();
  /** Bytes of the body before what the inbox holds. */
  private offset = 0;
  private state: 'magic' | 'envelope' | 'list' = 'magic';
  /** Offset in the body where the raw object ends; -1 before it was seen. */
  private listEnd = -1;
  private kind = '';
  private result: ListMeta = { version: '', continueToken: '' };

  constructor(read: ObjectReader<T>, listKind: string, strings: StringTable, handler: ListHandler<T>) {
    this.read = read;
    this.listKind = listKind;
    this.handler = handler;
    this.reader = new ProtoReader(strings, empty);
  }

  push(chunk: Buffer): void {
    const buffer = this.inbox.add(chunk);
    if (buffer === undefined) return;
    let position = 0;
    let needed: number;
    for (;;) {
      if (this.state === 'magic') {
        const there = Math.min(4, buffer.length);
        if (buffer.compare(envelopeMagic, 0, there, 0, there) !== 0) {
          throw new GarbageError('the list does not start as Kubernetes protobuf does', 0);
        }
        if (there < 4) {
          needed = 4;
          break;
        }
        position = 4;
        this.state = 'envelope';
        continue;
      }
      if (this.state === 'list' && this.offset + position === this.listEnd) {
        this.state = 'envelope';
        continue;
      }
      const header = readHeader(buffer, position);
      if (header === undefined) {
        if (buffer.length - position > 20) this.garbage('a field header never ends', position);
        needed = buffer.length - position + 1;
        break;
      }
      const end = header.start + header.length;
      if (this.state === 'envelope' && header.field === 2 && this.listEnd < 0) {
        if (this.kind !== this.listKind) {
          this.garbage(`expected a ${this.listKind}, not ${JSON.stringify(this.kind)}`, position);
        }
        this.listEnd = this.offset + end;
        this.state = 'list';
        position = header.start;
        continue;
      }
      if (header.length > maxObjectBytes) this.garbage(`a field of ${header.length} bytes`, position);
      if (this.state === 'list' && this.offset + end > this.listEnd) {
        this.garbage('an item reaches beyond the list', position);
      }
      if (end > buffer.length) {
        needed = end - position;
        break;
      }
      this.field(buffer, header.field, position, header.start, end);
      position = end;
    }
    this.offset += position;
    this.inbox.keep(buffer.subarray(position), needed);
  }

  private field(buffer: Buffer, field: number, tag: number, start: number, end: number): void {
    if (this.state === 'list' && field === 2) {
      decodeObject(this.read, this.reader, this.meta, buffer, start, end, this.handler);
      return;
    }
    if (field !== 1) return;
    this.reader.reset(buffer, tag, end);
    try {
      this.reader.next();
      if (this.state === 'list') this.result = readListMeta(this.reader);
      else this.kind = readKind(this.reader);
    } catch (error) {
      if (!(error instanceof BrokenObjectError)) throw error;
      throw new GarbageError(error.message, this.offset + tag, { cause: error });
    }
  }

  private garbage(message: string, position: number): never {
    throw new GarbageError(message, this.offset + position);
  }

  end(): ListMeta {
    if (this.listEnd < 0 || this.state === 'list' || this.inbox.waiting > 0) {
      throw new GarbageError('the list ends in the middle', this.offset + this.inbox.waiting);
    }
    return this.result;
  }
}

interface Header {
  readonly field: number;
  /** Where the payload starts in the buffer. */
  readonly start: number;
  /** Of the payload; 0 for a plain number, which is part of the header then. */
  readonly length: number;
}

/** Tag and length of the field at `position`; undefined when the buffer ends before they do. */
function readHeader(buffer: Buffer, position: number): Header | undefined {
  const tag = readVarint(buffer, position);
  if (tag === undefined) return undefined;
  const length = readVarint(buffer, tag.next);
  if (length === undefined) return undefined;
  const field = Math.floor(tag.value / 8);
  // Wire type 2 has a length; of the others none is used at this level by any known version.
  return { field, start: length.next, length: tag.value % 8 === 2 ? length.value : Infinity };
}

function readVarint(buffer: Buffer, position: number): { value: number; next: number } | undefined {
  let value = 0;
  let scale = 1;
  for (let i = position; i < buffer.length && i < position + 10; i++) {
    const byte = buffer[i] ?? 0;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return { value, next: i + 1 };
    scale *= 128;
  }
  return undefined;
}
