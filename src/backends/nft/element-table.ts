/**
 * The elements of one set or map as read from the kernel: half a million of them when a large cluster's proxy starts
 * again. So they are kept as bytes in one buffer with a hash index beside it, not as objects.
 *
 * Keys and values are register bytes; all keys of a set have the same length, and so have all values.
 */

const initialRecords = 64;

export class ElementTable {
  private keyLength = 0;
  private valueLength = 0;
  private bytes = Buffer.alloc(0);
  /** By record: a checksum of its comment, 0 without. */
  private comments = new Uint32Array(0);
  /** By record: 1 when it was taken. */
  private taken = new Uint8Array(0);
  /** Open addressing, a power of two; record number + 1, 0: free. */
  private index = new Uint32Array(0);
  private records = 0;

  /** Distinct keys, taken or not. */
  get size(): number {
    return this.records;
  }

  /** A key that is there already gets the new value. @param value empty in sets */
  set(key: Uint8Array, value: Uint8Array, comment?: string): void {
    if (this.records === 0) {
      this.keyLength = key.length;
      this.valueLength = value.length;
    } else if (key.length !== this.keyLength || value.length !== this.valueLength) {
      throw new RangeError(`element of ${key.length} and ${value.length} bytes among others of another size`);
    }
    if (this.records === this.taken.length) this.grow();
    const slot = this.slotOf(key);
    const found = this.index[slot] ?? 0;
    const record = found === 0 ? this.records++ : found - 1;
    const at = record * (this.keyLength + this.valueLength);
    if (found === 0) {
      this.index[slot] = record + 1;
      copy(key, this.bytes, at);
    }
    copy(value, this.bytes, at + this.keyLength);
    this.comments[record] = checksum(comment);
  }

  /** Number of the record with this key, unless it was taken; -1: none. */
  find(key: Uint8Array): number {
    const record = this.recordOf(key);
    return record >= 0 && this.taken[record] === 0 ? record : -1;
  }

  /** Number of the record with this key, taken or not; -1: none. */
  recordOf(key: Uint8Array): number {
    if (this.records === 0 || key.length !== this.keyLength) return -1;
    return (this.index[this.slotOf(key)] ?? 0) - 1;
  }

  /** A view. */
  key(record: number): Buffer {
    const at = record * (this.keyLength + this.valueLength);
    return this.bytes.subarray(at, at + this.keyLength);
  }

  /** A view. */
  value(record: number): Buffer {
    const at = record * (this.keyLength + this.valueLength) + this.keyLength;
    return this.bytes.subarray(at, at + this.valueLength);
  }

  hasValue(record: number, value: Uint8Array): boolean {
    if (value.length !== this.valueLength) return false;
    return equal(this.bytes, record * (this.keyLength + this.valueLength) + this.keyLength, value);
  }

  hasComment(record: number, comment: string | undefined): boolean {
    return this.comments[record] === checksum(comment);
  }

  isTaken(record: number): boolean {
    return this.taken[record] === 1;
  }

  take(record: number): void {
    this.taken[record] = 1;
  }

  giveBack(record: number): void {
    this.taken[record] = 0;
  }

  /** Numbers of the records that nobody took. */
  *rest(): Generator<number, void, undefined> {
    for (let record = 0; record < this.records; record++) if (this.taken[record] === 0) yield record;
  }

  /** Where in the index the key stands, or would stand. */
  private slotOf(key: Uint8Array): number {
    const mask = this.index.length - 1;
    const stride = this.keyLength + this.valueLength;
    let slot = hash(key, 0, key.length) & mask;
    for (;;) {
      const entry = this.index[slot] ?? 0;
      if (entry === 0 || equal(this.bytes, (entry - 1) * stride, key)) return slot;
      slot = (slot + 1) & mask;
    }
  }

  /** Doubles everything; the index stays at most half full. */
  private grow(): void {
    const capacity = Math.max(initialRecords, this.taken.length * 2);
    const stride = this.keyLength + this.valueLength;
    const bytes = Buffer.allocUnsafe(capacity * stride);
    this.bytes.copy(bytes, 0, 0, this.records * stride);
    this.bytes = bytes;
    const taken = new Uint8Array(capacity);
    taken.set(this.taken);
    this.taken = taken;
    const comments = new Uint32Array(capacity);
    comments.set(this.comments);
    this.comments = comments;
    const mask = capacity * 2 - 1;
    const index = new Uint32Array(capacity * 2);
    for (let record = 0; record < this.records; record++) {
      let slot = hash(bytes, record * stride, record * stride + this.keyLength) & mask;
      while (index[slot] !== 0) slot = (slot + 1) & mask;
      index[slot] = record + 1;
    }
    this.index = index;
  }
}

/** FNV-1a, mixed once more: addresses differ in few bits, and the low bits choose the place. */
function hash(bytes: Uint8Array, start: number, end: number): number {
  let value = 0x811c9dc5;
  for (let i = start; i < end; i++) value = Math.imul(value ^ (bytes[i] as number), 0x01000193);
  value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  return (value ^ (value >>> 13)) >>> 0;
}

/** FNV-1a over the characters; comments are for people, so a clash in 2^32 does no harm. */
function checksum(comment: string | undefined): number {
  if (comment === undefined) return 0;
  let value = 0x811c9dc5;
  for (let i = 0; i < comment.length; i++) value = Math.imul(value ^ comment.charCodeAt(i), 0x01000193);
  return value >>> 0;
}

function equal(bytes: Uint8Array, at: number, other: Uint8Array): boolean {
  for (let i = 0; i < other.length; i++) if (bytes[at + i] !== other[i]) return false;
  return true;
}

function copy(from: Uint8Array, to: Uint8Array, at: number): void {
  for (let i = 0; i < from.length; i++) to[at + i] = from[i] as number;
}
