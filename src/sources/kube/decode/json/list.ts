/**
 * A list in JSON, item by item while its body arrives:
 *
 *     {"kind": "XxxList", "apiVersion": …, "metadata": {…}, "items": [{…}, …]}     members in any order
 *
 * A scanner that knows no more than strings and brackets finds where an item ends; JSON.parse then reads that item.
 * So the tree of the whole list never exists.
 */
import { isUtf8 } from 'node:buffer';
import { maxObjectBytes, type ListDecoder, type ListHandler, type ListMeta } from '../decoded.js';
import { BrokenObjectError, GarbageError } from '../../errors.js';
import type { StringTable } from '../../../strings.js';
import { isObject, textAt } from './fields.js';
import { decodeJsonObject } from './object.js';
import type { JsonReader } from './objects.js';

const quote = 0x22;
const comma = 0x2c;
const bracketOpen = 0x5b;
const backslash = 0x5c;
const bracketClose = 0x5d;
const braceOpen = 0x7b;
const braceClose = 0x7d;

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

/** What the bytes being collected will be. */
type Capture = 'none' | 'key' | 'kind' | 'metadata' | 'item';

const empty = Buffer.alloc(0);

export class JsonListDecoder<T> implements ListDecoder {
  private readonly read: JsonReader<T>;
  private readonly listKind: string;
  private readonly strings: StringTable;
  private readonly handler: ListHandler<T>;
  /** Bytes of an unfinished capture; scanned already, except for none. */
  private rest: Buffer = empty;
  /** Bytes of the body before #rest. */
  private offset = 0;
  private depth = 0;
  private done = false;
  private inString = false;
  private escaped = false;
  /** The next string of the outermost object is a member's name. */
  private expectKey = true;
  private key = '';
  private inItems = false;
  private capture: Capture = 'none';
  private captureStart = 0;
  private sawItems = false;
  private kind = '';
  private meta: ListMeta = { version: '', continueToken: '' };

  constructor(read: JsonReader<T>, listKind: string, strings: StringTable, handler: ListHandler<T>) {
    this.read = read;
    this.listKind = listKind;
    this.strings = strings;
    this.handler = handler;
  }

  push(chunk: Buffer): void {
    let i = this.rest.length;
    const buffer = i === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    const length = buffer.length;
    while (i < length) {
      const byte = buffer[i] ?? 0;
      if (this.inString) {
        i = this.string(buffer, i);
        continue;
      }
      switch (byte) {
        case quote:
          this.inString = true;
          if (this.depth === 1) this.startText(i);
          else if (this.depth === 0 || (this.inItems && this.depth === 2)) this.unexpected(byte, i);
          break;
        case braceOpen:
        case bracketOpen:
          this.open(byte, i);
          break;
        case braceClose:
        case bracketClose:
          this.close(buffer, i);
          break;
        case comma:
          if (this.depth === 1) this.expectKey = true;
          break;
        default:
          // `"items": null` is how some programs write an empty list.
          if (this.depth === 1 && this.key === 'items' && byte === 0x6e) this.sawItems = true;
          if ((this.depth === 0 || (this.inItems && this.depth === 2)) && !isSpace(byte)) {
            this.unexpected(byte, i);
          }
      }
      i++;
    }
    const keepFrom = this.capture === 'none' ? length : this.captureStart;
    if (length - keepFrom > maxObjectBytes) {
      throw new GarbageError(`an item of more than ${maxObjectBytes} bytes`, this.offset + keepFrom);
    }
    this.rest = buffer.subarray(keepFrom);
    this.offset += keepFrom;
    this.captureStart = 0;
  }

  /** Inside a string: go to its end, or to the end of the buffer. */
  private string(buffer: Buffer, from: number): number {
    let i = from;
    if (this.escaped) {
      this.escaped = false;
      i++;
    }
    for (; i < buffer.length; i++) {
      const byte = buffer[i];
      if (byte === backslash) {
        i++;
        if (i >= buffer.length) this.escaped = true;
      } else if (byte === quote) {
        this.inString = false;
        if (this.depth === 1) this.endText(buffer, i);
        return i + 1;
      }
    }
    return buffer.length;
  }

  private startText(position: number): void {
    if (this.expectKey) this.begin('key', position);
    else if (this.key === 'kind') this.begin('kind', position);
  }

  private endText(buffer: Buffer, position: number): void {
    if (this.capture === 'key') {
      this.key = String(this.parse(buffer, position));
      this.expectKey = false;
    } else if (this.capture === 'kind') {
      this.kind = String(this.parse(buffer, position));
      this.checkKind();
    }
  }

  private checkKind(): void {
    if (this.kind !== this.listKind) {
      throw new GarbageError(
        `expected a ${this.listKind}, not ${JSON.stringify(this.kind)}`,
        this.offset + this.captureStart,
      );
    }
  }

  private open(byte: number, position: number): void {
    if (this.depth === 0) {
      if (byte !== braceOpen || this.done) this.unexpected(byte, position);
    } else if (this.depth === 1) {
      if (this.expectKey) this.unexpected(byte, position);
      if (this.key === 'items' && byte === bracketOpen) {
        this.inItems = true;
        this.sawItems = true;
      } else if (this.key === 'metadata' && byte === braceOpen) {
        this.begin('metadata', position);
      }
    } else if (this.depth === 2 && this.inItems) {
      if (byte !== braceOpen) this.unexpected(byte, position);
      this.begin('item', position);
    }
    this.depth++;
  }

  private close(buffer: Buffer, position: number): void {
    if (this.depth === 0) this.unexpected(buffer[position] ?? 0, position);
    this.depth--;
    if (this.depth === 0) this.done = true;
    if (this.inItems) {
      if (this.depth === 1) {
        if (buffer[position] !== bracketClose) this.unexpected(buffer[position] ?? 0, position);
        this.inItems = false;
      } else if (this.depth === 2 && this.capture === 'item') {
        this.item(buffer, position);
      }
    } else if (this.depth === 1 && this.capture === 'metadata') {
      this.metadata(buffer, position);
    }
  }

  private begin(capture: Capture, position: number): void {
    this.capture = capture;
    this.captureStart = position;
  }

  /** The captured bytes up to and including `last`. */
  private parse(buffer: Buffer, last: number): unknown {
    this.capture = 'none';
    const bytes = buffer.subarray(this.captureStart, last + 1);
    // Damage inside a string would otherwise pass for a value.
    if (!isUtf8(bytes)) {
      throw new GarbageError('a part of the list is not UTF-8', this.offset + this.captureStart);
    }
    try {
      return JSON.parse(bytes.toString());
    } catch (error) {
      throw new GarbageError('a part of the list is not JSON', this.offset + this.captureStart, {
        cause: error,
      });
    }
  }

  private item(buffer: Buffer, last: number): void {
    const value = this.parse(buffer, last);
    if (!isObject(value)) throw new GarbageError('an item that is not an object', this.offset + last);
    decodeJsonObject(this.read, value, this.strings, this.handler);
  }

  private metadata(buffer: Buffer, last: number): void {
    const value = this.parse(buffer, last);
    try {
      if (!isObject(value)) throw new BrokenObjectError('metadata', 'must be an object');
      this.meta = {
        version: textAt(value, 'resourceVersion', 'metadata.'),
        continueToken: textAt(value, 'continue', 'metadata.'),
      };
    } catch (error) {
      if (!(error instanceof BrokenObjectError)) throw error;
      throw new GarbageError(error.message, this.offset + this.captureStart, { cause: error });
    }
  }

  private unexpected(byte: number, position: number): never {
    throw new GarbageError(
      `unexpected ${JSON.stringify(String.fromCharCode(byte))} in a list`,
      this.offset + position,
    );
  }

  end(): ListMeta {
    if (!this.done) throw new GarbageError('the list ends in the middle', this.offset + this.rest.length);
    if (this.kind === '' || !this.sawItems) {
      throw new GarbageError(`the answer is not a ${this.listKind}`, this.offset);
    }
    return this.meta;
  }
}
