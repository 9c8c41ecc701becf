/**
 * Netlink attributes (linux/netlink.h, struct nlattr): length (u16, header included, padding not), type (u16,
 * its top two bits are flags), payload, padding to 4 bytes. Lists and trees are attributes inside attributes.
 */
import { readHostU16, readHostU32, readHostU64, writeHostU16, writeHostU32 } from './endian.js';
import { invalid, malformed, type NetlinkError } from './errors.js';

export const ATTRIBUTE_HEADER = 4;
/** The length field has 16 bits. */
export const ATTRIBUTE_MAX = 0xffff;
export const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

export function align4(length: number): number {
  return (length + 3) & ~3;
}

/**
 * Appends to one growing buffer. Nothing is allocated per attribute; every method returns the writer, so that
 * an encoder reads as the attribute tree it writes.
 */
export class AttributeWriter {
  /** The bytes so far are buffer[0, length). The buffer is replaced when it grows. */
  buffer: Buffer;
  length = 0;

  constructor(initialCapacity = 4096) {
    this.buffer = Buffer.allocUnsafe(initialCapacity);
  }

  /** A view of what was written; later writes may or may not show in it. */
  bytes(): Buffer {
    return this.buffer.subarray(0, this.length);
  }

  /** Makes room for `count` more bytes. */
  reserve(count: number): void {
    const needed = this.length + count;
    if (needed <= this.buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(needed, this.buffer.length * 2));
    this.buffer.copy(grown, 0, 0, this.length);
    this.buffer = grown;
  }

  private header(type: number, payload: number): void {
    if (payload + ATTRIBUTE_HEADER > ATTRIBUTE_MAX) {
      throw invalid('encode attribute', `attribute ${type & NLA_TYPE_MASK} has ${payload} bytes, 65531 fit`);
    }
    this.reserve(ATTRIBUTE_HEADER + align4(payload));
    writeHostU16(this.buffer, this.length, ATTRIBUTE_HEADER + payload);
    writeHostU16(this.buffer, this.length + 2, type);
    this.length += ATTRIBUTE_HEADER;
  }

  private pad(): void {
    while ((this.length & 3) !== 0) this.buffer[this.length++] = 0;
  }

  /** Bytes with no attribute header (fixed headers of a message), padded to 4. */
  raw(data: Uint8Array): this {
    this.reserve(align4(data.length));
    this.buffer.set(data, this.length);
    this.length += data.length;
    this.pad();
    return this;
  }

  /** An attribute without a payload: that it is there is what it says. */
  flag(type: number): this {
    this.header(type, 0);
    return this;
  }

  /** One byte. */
  u8(type: number, value: number): this {
    this.header(type, 1);
    this.buffer[this.length++] = value;
    this.pad();
    return this;
  }

  /** Network byte order. */
  u16(type: number, value: number): this {
    this.header(type, 2);
    this.length = this.buffer.writeUInt16BE(value, this.length);
    this.pad();
    return this;
  }

  /** Network byte order. */
  u32(type: number, value: number): this {
    this.header(type, 4);
    this.length = this.buffer.writeUInt32BE(value >>> 0, this.length);
    return this;
  }

  /** Byte order of the machine. */
  hostU16(type: number, value: number): this {
    this.header(type, 2);
    writeHostU16(this.buffer, this.length, value);
    this.length += 2;
    this.pad();
    return this;
  }

  /** Byte order of the machine. */
  hostU32(type: number, value: number): this {
    this.header(type, 4);
    writeHostU32(this.buffer, this.length, value >>> 0);
    this.length += 4;
    return this;
  }

  /** Network byte order. */
  u64(type: number, value: bigint): this {
    this.header(type, 8);
    this.length = this.buffer.writeBigUInt64BE(value, this.length);
    return this;
  }

  /** UTF-8, ended by a zero byte. */
  string(type: number, value: string): this {
    const size = Buffer.byteLength(value);
    this.header(type, size + 1);
    this.buffer.write(value, this.length, 'utf8');
    this.length += size;
    this.buffer[this.length++] = 0;
    this.pad();
    return this;
  }

  /** Bytes as they are. */
  data(type: number, value: Uint8Array): this {
    this.header(type, value.length);
    this.buffer.set(value, this.length);
    this.length += value.length;
    this.pad();
    return this;
  }

  /** An attribute that holds what `content` writes. */
  nest(type: number, content: (writer: this) => void): this {
    const start = this.openNest(type);
    content(this);
    this.closeNest(start);
    return this;
  }

  /** For loops that can't afford a closure: returns what closeNest() wants. */
  openNest(type: number): number {
    const start = this.length;
    this.header(type | NLA_F_NESTED, 0);
    return start;
  }

  /** Ends what openNest() began. @throws NetlinkError EINVAL when more than 65,535 bytes are inside */
  closeNest(start: number): void {
    const size = this.length - start;
    if (size > ATTRIBUTE_MAX) {
      throw invalid('encode attribute', `nested attribute has ${size} bytes, ${ATTRIBUTE_MAX} fit`);
    }
    writeHostU16(this.buffer, start, size);
  }
}

/** Shared by a decoder and everything nested in it, so that the first error ends all of them. */
interface DecodeState {
  readonly operation: string;
  error: NetlinkError | undefined;
}

/**
 * Iterates over the attributes of a region. The first malformed attribute is remembered and ends the iteration
 * here and in all parents; readers then return zero values. So a call site stays a flat
 * `while (d.next()) switch (d.type) {…}` and calls finish() once, at the outermost level.
 */
export class AttributeDecoder {
  /** Type of the current attribute, flags removed. */
  type = 0;
  /** The payload of the current attribute is buffer[start, end). */
  start = 0;
  end = 0;
  private position: number;
  private limit: number;
  private readonly state: DecodeState;

  constructor(
    readonly buffer: Buffer,
    from: number,
    to: number,
    context: string | AttributeDecoder,
  ) {
    this.position = from;
    this.limit = to;
    this.state = typeof context === 'string' ? { operation: context, error: undefined } : context.state;
  }

  get length(): number {
    return this.end - this.start;
  }

  /** Records the error; the iteration ends. For values that are well-formed but impossible. */
  fail(what: string): void {
    this.state.error ??= malformed(this.state.operation, this.start, what);
  }

  get failed(): boolean {
    return this.state.error !== undefined;
  }

  /** @returns false at the end, and once anything in the tree is malformed */
  next(): boolean {
    if (this.state.error !== undefined) return false;
    const left = this.limit - this.position;
    // Trailing bytes too few for a header are padding.
    if (left < ATTRIBUTE_HEADER) return false;
    const size = readHostU16(this.buffer, this.position);
    if (size < ATTRIBUTE_HEADER || size > left) {
      this.state.error = malformed(
        this.state.operation,
        this.position,
        `attribute says ${size} bytes, ${left} are left`,
      );
      return false;
    }
    this.type = readHostU16(this.buffer, this.position + 2) & NLA_TYPE_MASK;
    this.start = this.position + ATTRIBUTE_HEADER;
    this.end = this.position + size;
    this.position += align4(size);
    return true;
  }

  private has(size: number): boolean {
    if (this.length >= size) return true;
    this.fail(`attribute ${this.type} has ${this.length} bytes, ${size} wanted`);
    return false;
  }

  /** One byte; 0 when the attribute has none. */
  u8(): number {
    return this.has(1) ? this.buffer.readUInt8(this.start) : 0;
  }

  /** Network byte order. */
  u16(): number {
    return this.has(2) ? this.buffer.readUInt16BE(this.start) : 0;
  }

  /** Network byte order. */
  u32(): number {
    return this.has(4) ? this.buffer.readUInt32BE(this.start) : 0;
  }

  /** Network byte order, two's complement. */
  i32(): number {
    return this.has(4) ? this.buffer.readInt32BE(this.start) : 0;
  }

  /** Byte order of the machine. */
  hostU16(): number {
    return this.has(2) ? readHostU16(this.buffer, this.start) : 0;
  }

  /** Byte order of the machine. */
  hostU32(): number {
    return this.has(4) ? readHostU32(this.buffer, this.start) : 0;
  }

  /** Network byte order. */
  u64(): bigint {
    return this.has(8) ? this.buffer.readBigUInt64BE(this.start) : 0n;
  }

  /** Byte order of the machine. */
  hostU64(): bigint {
    return this.has(8) ? readHostU64(this.buffer, this.start) : 0n;
  }

  /** UTF-8 up to the first zero byte, or to the end. */
  string(): string {
    const zero = this.buffer.indexOf(0, this.start);
    return this.buffer.toString('utf8', this.start, zero < 0 ? this.end : Math.min(zero, this.end));
  }

  /** A view into the datagram: copy it to keep it. */
  view(): Buffer {
    return this.buffer.subarray(this.start, this.end);
  }

  /** The payload, in memory of its own. */
  copy(): Buffer {
    return Buffer.from(this.view());
  }

  /** Over the attributes inside the current one. */
  nested(): AttributeDecoder {
    return new AttributeDecoder(this.buffer, this.start, this.end, this);
  }

  /** Like nested(), but moves an existing decoder of the same tree, for lists of a million entries. */
  enter(child: AttributeDecoder): AttributeDecoder {
    child.position = this.start;
    child.limit = this.end;
    return child;
  }

  /** @throws NetlinkError EBADMSG when anything in the tree was malformed. */
  finish(): void {
    if (this.state.error !== undefined) throw this.state.error;
  }
}

/**
 * Names for the attributes of one level, to say where in a message the kernel found fault. An entry is a name,
 * or a name with the level below; `list` marks a level whose entries are numbered instead.
 */
export interface AttributeNames {
  readonly [type: number]: string | readonly [name: string, below: AttributeNames];
  readonly list?: AttributeNames;
}

export interface AttributeLocation {
  /** 'elements[3].key'. Numbers stand for attributes without a name. */
  readonly path: string;
  /** The innermost list index on the way, if any. */
  readonly listIndex: number | undefined;
}

/** Finds the attribute that starts at byte `offset` of the buffer, among the attributes of [from, to). */
export function locateAttribute(
  buffer: Buffer,
  from: number,
  to: number,
  offset: number,
  names: AttributeNames,
): AttributeLocation | undefined {
  const level = new AttributeDecoder(buffer, from, to, 'locate attribute');
  for (let index = 0; level.next(); index++) {
    const header = level.start - ATTRIBUTE_HEADER;
    if (offset < header || offset >= align4(level.end)) continue;
    const entry = names.list === undefined ? (names[level.type] ?? String(level.type)) : `[${index}]`;
    const name = typeof entry === 'string' ? entry : entry[0];
    const below = typeof entry === 'string' ? names.list : entry[1];
    const listIndex = names.list === undefined ? undefined : index;
    if (offset === header || below === undefined) return { path: name, listIndex };
    const inner = locateAttribute(buffer, level.start, level.end, offset, below);
    if (inner === undefined) return { path: name, listIndex };
    return {
      path: `${name}${inner.path.startsWith('[') ? '' : '.'}${inner.path}`,
      listIndex: inner.listIndex ?? listIndex,
    };
  }
  return undefined;
}
