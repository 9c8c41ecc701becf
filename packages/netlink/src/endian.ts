/**
 * Integers in the byte order of this machine, as netlink headers, register contents and most route attributes
 * have them. (nfnetlink attributes are in network order and don't come through here.)
 */
import { endianness } from 'node:os';

const LITTLE = endianness() === 'LE';

// The writers store bytes one by one: half the time of Buffer's methods, which check value and range each time.
// Values are cut to their width, and the caller has made room.

export function writeHostU16(buffer: Buffer, offset: number, value: number): void {
  if (LITTLE) {
    buffer[offset] = value;
    buffer[offset + 1] = value >>> 8;
  } else {
    buffer[offset] = value >>> 8;
    buffer[offset + 1] = value;
  }
}

export function writeHostU32(buffer: Buffer, offset: number, value: number): void {
  if (LITTLE) {
    buffer[offset] = value;
    buffer[offset + 1] = value >>> 8;
    buffer[offset + 2] = value >>> 16;
    buffer[offset + 3] = value >>> 24;
  } else {
    buffer[offset] = value >>> 24;
    buffer[offset + 1] = value >>> 16;
    buffer[offset + 2] = value >>> 8;
    buffer[offset + 3] = value;
  }
}

export function readHostU16(buffer: Buffer, offset: number): number {
  return LITTLE ? buffer.readUInt16LE(offset) : buffer.readUInt16BE(offset);
}

export function readHostU32(buffer: Buffer, offset: number): number {
  return LITTLE ? buffer.readUInt32LE(offset) : buffer.readUInt32BE(offset);
}

export function readHostI32(buffer: Buffer, offset: number): number {
  return LITTLE ? buffer.readInt32LE(offset) : buffer.readInt32BE(offset);
}

export function writeHostU64(buffer: Buffer, offset: number, value: bigint): void {
  if (LITTLE) buffer.writeBigUInt64LE(value, offset);
  else buffer.writeBigUInt64BE(value, offset);
}

export function readHostU64(buffer: Buffer, offset: number): bigint {
  return LITTLE ? buffer.readBigUInt64LE(offset) : buffer.readBigUInt64BE(offset);
}
