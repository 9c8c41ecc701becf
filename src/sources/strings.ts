/**
 * Sharing of equal strings. A cluster repeats the same few thousand strings (namespaces, node names, zones, port
 * names) in every object; without sharing they would be most of what this program keeps in memory.
 */

/** Longer strings are rarely repeated and not worth hashing. */
const maxSharedLength = 63;

/**
 * A direct-mapped table: a string whose slot is taken by another one simply replaces it. So the table has a fixed size,
 * never needs cleaning, and forgets what is no longer seen; the price is a duplicate now and then.
 */
export class StringTable {
  private readonly slots: string[];
  private readonly mask: number;

  /** @param size number of slots, a power of two */
  constructor(size = 16384) {
    this.slots = new Array<string>(size).fill('');
    this.mask = size - 1;
  }

  /** The string in bytes[start, end), taken from the table when it was seen lately. */
  fromBytes(bytes: Buffer, start: number, end: number): string {
    const length = end - start;
    if (length === 0) return '';
    if (length > maxSharedLength) return bytes.toString('utf8', start, end);
    let hash = length;
    let all = 0;
    for (let i = start; i < end; i++) {
      const byte = bytes[i] ?? 0;
      all |= byte;
      hash = Math.imul(hash ^ byte, 0x01000193);
    }
    if (all >= 0x80) return bytes.toString('utf8', start, end);
    const slot = (hash ^ (hash >>> 15)) & this.mask;
    const held = this.slots[slot] ?? '';
    if (held.length === length) {
      let i = 0;
      while (i < length && held.charCodeAt(i) === bytes[start + i]) i++;
      if (i === length) return held;
    }
    const text = bytes.toString('latin1', start, end);
    this.slots[slot] = text;
    return text;
  }

  /** The same for a string that already exists; the result is equal to `text`. */
  fromString(text: string): string {
    const length = text.length;
    if (length === 0) return '';
    if (length > maxSharedLength) return text;
    let hash = length;
    let all = 0;
    for (let i = 0; i < length; i++) {
      const unit = text.charCodeAt(i);
      all |= unit;
      hash = Math.imul(hash ^ unit, 0x01000193);
    }
    if (all >= 0x80) return text;
    const slot = (hash ^ (hash >>> 15)) & this.mask;
    if (this.slots[slot] === text) return this.slots[slot];
    this.slots[slot] = text;
    return text;
  }
}

/**
 * 'namespace/name' as one flat string. What `+` yields is a rope, and a rope that becomes a map key keeps both
 * halves and the flattened copy alive.
 */
export function joinKey(namespace: string, name: string): string {
  if ((namespace.length + name.length) * 3 + 1 > scratch.length) return `${namespace}/${name}`;
  const length = scratch.write(namespace, 0);
  scratch[length] = 0x2f;
  return scratch.toString('utf8', 0, length + 1 + scratch.write(name, length + 1));
}

/** A string put together by `+` or a template, in one piece: for those that are kept by the ten thousand. */
export function inOnePiece(text: string): string {
  if (text.length * 3 > scratch.length) return text;
  return scratch.toString('utf8', 0, scratch.write(text, 0));
}

const scratch = Buffer.alloc(2048);
