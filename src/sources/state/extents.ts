/** Where in a state file the newest record of each object lies. */
import type { FileHandle } from 'node:fs/promises';
import type { ResourceKind } from '../objects.js';
import { StateFileError } from './errors.js';
import { recordHead } from './format.js';

/** Bytes of one line, its line feed included. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** By kind and key. Each map is in the order of the file: reading it in its order never goes back. */
export type Index = Readonly<Record<ResourceKind, Map<string, Extent>>>;

export function emptyIndex(): Index {
  return { Service: new Map(), EndpointSlice: new Map(), Node: new Map(), ServiceCIDR: new Map() };
}

/** A later record of the same object moves it to the end. */
export function setExtent(map: Map<string, Extent>, key: string, extent: Extent | undefined): void {
  map.delete(key);
  if (extent !== undefined) map.set(key, extent);
}

export interface LiveLine {
  readonly key: string;
  /** With its line feed; valid until the next group is asked for. */
  readonly bytes: Buffer;
}

/** Read at once; a few hundred records, a millisecond or two for whoever decodes them. */
const windowBytes = 256 * 1024;

/**
 * The newest records of one kind, in groups that lie together.
 * @throws StateFileError when the file no longer holds what the index says
 */
export async function* liveLines(
  file: FileHandle,
  kind: ResourceKind,
  map: ReadonlyMap<string, Extent>,
): AsyncGenerator<readonly LiveLine[]> {
  let buffer = Buffer.allocUnsafe(windowBytes);
  let group: (Extent & { readonly key: string })[] = [];
  const read = async (): Promise<readonly LiveLine[]> => {
    const start = group[0]?.offset ?? 0;
    const last = group.at(-1);
    const size = last === undefined ? 0 : last.offset + last.length - start;
    if (size > buffer.length) buffer = Buffer.allocUnsafe(size);
    await readFully(file, buffer.subarray(0, size), start);
    const lines = group.map(({ key, offset, length }) => {
      const from = offset - start;
      const head = recordHead(buffer, from, from + length - 1);
      if (head?.kind !== kind || head.key !== key) {
        throw new StateFileError('STATE_FILE_CORRUPT', `no record of ${kind} ${key} at byte ${offset}`);
      }
      return { key, bytes: buffer.subarray(from, from + length) };
    });
    group = [];
    return lines;
  };
  for (const [key, { offset, length }] of map) {
    const start = group[0]?.offset ?? offset;
    if (offset + length - start > windowBytes && group.length > 0) yield await read();
    group.push({ key, offset, length });
  }
  if (group.length > 0) yield await read();
}

/** @throws StateFileError when the file is shorter */
export async function readFully(file: FileHandle, into: Buffer, offset: number): Promise<void> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await file.read(into, done, into.length - done, offset + done);
    if (bytesRead === 0) {
      throw new StateFileError('STATE_FILE_CORRUPT', `it ends at byte ${offset + done}`);
    }
    done += bytesRead;
  }
}
