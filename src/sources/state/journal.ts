/**
 * One state file being written. It appears under its name when its first group is complete and on the disk; until
 * then it is `PATH.tmp`, and whatever was there before stays.
 *
 * A write that failed (disk full) is simply made again: it goes to the same place in the file, and nothing counts before
 * the line that closes its group.
 */
import { constants } from 'node:fs';
import { mkdir, open, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { ResourceKind } from '../objects.js';
import { emptyIndex, setExtent, type Index } from './extents.js';
import { commitLine, GroupDigest, headerLine, type Header } from './format.js';

/** Bytes that may wait to be written before put() should be followed by flush(). */
export const flushBytes = 256 * 1024;

export class Journal {
  /** Everything that was put, be it written yet or not. */
  readonly index: Index = emptyIndex();
  /** Bytes of the records that the index names. */
  liveBytes = 0;
  private group = new GroupDigest(1);
  private waiting: Buffer[] = [];
  private waitingBytes = 0;
  /** Where the next write goes. */
  private position = 0;
  private named = false;

  private constructor(
    readonly file: FileHandle,
    private readonly path: string,
  ) {}

  static async create(path: string, header: Header): Promise<Journal> {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const temporary = `${path}.tmp`;
    // Left by a process that was killed. Making it anew never follows a link that somebody else put there.
    await unlink(temporary).catch(ignoreMissing);
    const { O_RDWR, O_CREAT, O_EXCL } = constants;
    const journal = new Journal(await open(temporary, O_RDWR | O_CREAT | O_EXCL, 0o600), path);
    journal.enqueue(Buffer.from(headerLine(header)));
    return journal;
  }

  /** Length of the file once everything is written. */
  get size(): number {
    return this.position + this.waitingBytes;
  }

  /** A complete group is on the disk under the file's name. */
  get isNamed(): boolean {
    return this.named;
  }

  get unwrittenBytes(): number {
    return this.waitingBytes;
  }

  /** @param line a record, its line feed included */
  put(kind: ResourceKind, key: string, line: Buffer, gone: boolean): void {
    const map = this.index[kind];
    const before = map.get(key);
    if (gone && before === undefined) return;
    this.liveBytes += (gone ? 0 : line.length) - (before?.length ?? 0);
    setExtent(map, key, gone ? undefined : { offset: this.size, length: line.length });
    this.group.update(line);
    this.enqueue(line);
  }

  private enqueue(bytes: Buffer): void {
    this.waiting.push(bytes);
    this.waitingBytes += bytes.length;
  }

  /** May be called again after it failed. */
  async flush(): Promise<void> {
    if (this.waiting.length === 0) return;
    const bytes = Buffer.concat(this.waiting, this.waitingBytes);
    // Should the rest fail, it waits as one piece.
    this.waiting = [bytes];
    for (let done = 0; done < bytes.length;) {
      const { bytesWritten } = await this.file.write(bytes, done, bytes.length - done, this.position + done);
      done += bytesWritten;
    }
    this.position += bytes.length;
    this.waiting = [];
    this.waitingBytes = 0;
  }

  /**
   * Closes the group; afterwards it is on the disk under the file's name. After a failure the journal is to be given
   * up: what the disk holds is not known any more.
   * @param at when the state was known to be the server's, milliseconds since the epoch
   */
  async commit(at: number): Promise<void> {
    await this.flush();
    const { number } = this.group;
    this.enqueue(Buffer.from(commitLine({ number, at, digest: this.group.digest(at) })));
    await this.flush();
    await this.file.datasync();
    if (!this.named) {
      await rename(`${this.path}.tmp`, this.path);
      await syncFolder(dirname(this.path));
      this.named = true;
    }
    this.group = new GroupDigest(number + 1);
  }

  /** Whether the name still leads to this file, once it has one: somebody may have removed or replaced it. */
  async isInPlace(): Promise<boolean> {
    if (!this.named) return true;
    const there = await stat(this.path).catch(ignoreMissing);
    if (there === undefined) return false;
    const ours = await this.file.stat();
    return there.ino === ours.ino && there.dev === ours.dev;
  }

  /** What was never complete leaves nothing behind. */
  async close(): Promise<void> {
    await this.file.close();
    if (!this.named) await unlink(`${this.path}.tmp`).catch(ignoreMissing);
  }
}

function ignoreMissing(error: unknown): undefined {
  if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
  throw error;
}

/** The new name is on the disk, too. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
