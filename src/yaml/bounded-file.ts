/** Reads text files that somebody else writes: whatever they became, memory is not filled with it. */
import { closeSync, openSync, readSync } from 'node:fs';

const chunkBytes = 64 * 1024;

/** @throws Error of the system, or one that says that the file is larger than `maxBytes` */
export function readTextWithin(file: string, maxBytes: number): string {
  const fd = openSync(file, 'r');
  try {
    const chunks: Buffer[] = [];
    // What its size says may not be true the next moment, and is 0 of what is no regular file.
    for (let size = 0; ;) {
      const chunk = Buffer.allocUnsafe(chunkBytes);
      const read = readSync(fd, chunk);
      if (read === 0) return Buffer.concat(chunks).toString('utf8');
      chunks.push(chunk.subarray(0, read));
      size += read;
      if (size > maxBytes) throw new Error(`it is larger than ${maxBytes / 1024 / 1024} MiB`);
    }
  } finally {
    closeSync(fd);
  }
}
