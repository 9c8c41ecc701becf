/**
 * A cursor over protobuf bytes. Grammar: protobuf.dev/programming-guides/encoding. No schema, no allocation: the caller
 * walks the fields it knows and skips the rest.
 *
 *     const outer = reader.open();          // the length of the message that starts here
 *     for (let field = reader.next(); field !== 0; field = reader.next()) {
 *       if (field === 1) name = reader.text();
 *       else reader.skip();
 *     }
 *     reader.close(outer);
 */
import { isUtf8 } from 'node:buffer';
import { BrokenObjectError } from '../../errors.js';
import type { StringTable } from '../../../strings.js';

const wireVarint = 0;
const wireFixed64 = 1;
const wireBytes = 2;
const wireFixed32 = 5;

export class ProtoReader {
  bytes: Buffer;
  position: number;
  end: number;
  private field = 0;
  private wire = 0;
  readonly strings: StringTable;

  constructor(strings: StringTable, bytes: Buffer, start = 0, end = bytes.length) {
    this.strings = strings;
    this.bytes = bytes;
    this.position = start;
    this.end = end;
  }

  /** Point the same reader at other bytes. */
  reset(bytes: Buffer, start: number, end: number): void {
    this.bytes = bytes;
    this.position = start;
    this.end = end;
  }

  fail(message: string): never {
    throw new BrokenObjectError(`byte ${this.position}`, message);
  }

  /** Move to the next field of the current message. Its number; 0 at the end of the message. */
  next(): number {
    if (this.position >= this.end) return 0;
    const tag = this.varint();
    this.field = Math.floor(tag / 8);
    this.wire = tag % 8;
    if (this.field === 0) this.fail('field number 0');
    return this.field;
  }

  /** Varints above 2^53 lose precision; negative int32/int64 come out as -1. No field we read has such values. */
  private varint(): number {
    const bytes = this.bytes;
    let position = this.position;
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 10; i++) {
      if (position >= this.end) break;
      const byte = bytes[position++] ?? 0;
      if (byte < 0x80) {
        this.position = position;
        if (i === 9) return -1;
        return value + byte * scale;
      }
      value += (byte & 0x7f) * scale;
      scale *= 128;
    }
    return this.fail('number is cut off or too long');
  }

  /** An int32, int64 or enum field. */
  integer(): number {
    if (this.wire !== wireVarint) this.fail(`field ${this.field} is not a number`);
    return this.varint();
  }

  boolean(): boolean {
    return this.integer() !== 0;
  }

  private length(): number {
    if (this.wire !== wireBytes) this.fail(`field ${this.field} has no length`);
    const length = this.varint();
    if (length < 0 || length > this.end - this.position) {
      this.fail(`field ${this.field} is longer than what holds it`);
    }
    return length;
  }

  /** A string that is probably unique (an address, a uid). */
  text(): string {
    const length = this.length();
    const start = this.position;
    this.position += length;
    return length === 0 ? '' : this.checked(this.bytes.toString('utf8', start, this.position), start);
  }

  /** A string that is probably repeated elsewhere (a namespace, a node name). */
  shared(): string {
    const length = this.length();
    const start = this.position;
    this.position += length;
    return this.checked(this.strings.fromBytes(this.bytes, start, this.position), start);
  }

  /** Damage inside a string would otherwise pass for a value. */
  private checked(text: string, start: number): string {
    if (text.includes('\ufffd') && !isUtf8(this.bytes.subarray(start, this.position))) {
      this.fail('text that is not UTF-8');
    }
    return text;
  }

  /** Enter a nested message. Give the result to close(). */
  open(): number {
    const length = this.length();
    const outer = this.end;
    this.end = this.position + length;
    return outer;
  }

  close(outer: number): void {
    this.position = this.end;
    this.end = outer;
  }

  /** Pass over the current field, whatever it is. */
  skip(): void {
    switch (this.wire) {
      case wireVarint:
        this.varint();
        return;
      case wireBytes:
        this.pass(this.length());
        return;
      case wireFixed64:
        this.pass(8);
        return;
      case wireFixed32:
        this.pass(4);
        return;
      default:
        this.fail(`field ${this.field} has unknown wire type ${this.wire}`);
    }
  }

  private pass(length: number): void {
    if (length > this.end - this.position) this.fail(`field ${this.field} is cut off`);
    this.position += length;
  }
}
