/**
 * Integers in the byte order of this machine, as netlink headers, register contents and most route attributes
 * have them. (nfnetlink attributes are in network order and don't come through here.)
 */
import { endianness } from 'node:os';

const LITTLE = endianness() === 'LE';

export function writeHostU16(buffer: Buffer, offset: number, value: number): void {
  if (LITTLE) buffer.writeUInt16LE(value, offset);
  else buffer.writeUInt16BE(value, offset);
}

export function writeHostU32(buffer: Buffer, offset: number, value: number): void {
  if (LITTLE) buffer.writeUInt32LE(value, offset);
  else buffer.writeUInt32BE(value, offset);
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
