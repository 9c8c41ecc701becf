/** Reading what an earlier process left: checked as a whole before anything of it is used. */
import { open, type FileHandle } from 'node:fs/promises';
import { BrokenObjectError } from '../kube/errors.js';
import type { ResourceKind } from '../objects.js';
import { StringTable } from '../strings.js';
import { StateFileError } from './errors.js';
import { emptyIndex, liveLines, setExtent, type Extent, type Index } from './extents.js';
import {
  formatVersion,
  GroupDigest,
  parseCommit,
  parseHeader,
  recordBody,
  recordHead,
  type Header,
  type RecordHead,
} from './format.js';
import { codecs, kinds, type ObjectOf } from './objects.js';

export interface Expected {
  readonly node: string;
  readonly server: string;
  /** Older state is not used. */
  readonly maxAgeMs: number;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** One object of the file. */
export type StoredObject = {
  readonly [K in ResourceKind]: { readonly kind: K; readonly key: string; readonly object: ObjectOf[K] };
}[ResourceKind];

const chunkBytes = 1024 * 1024;
/** As for the API server's answers. */
const maxLineBytes = 16 * 1024 * 1024;

export class StoredState {
  private constructor(
    private readonly file: FileHandle,
    private readonly index: Index,
    readonly header: Header,
    /** When its objects were last known to be the server's, milliseconds since the epoch. */
    readonly savedAt: number,
    /** Bytes at the end that belong to a group that was never completed; 0 after a clean end. */
    readonly tornBytes: number,
  ) {}

  /**
   * @returns undefined when there is no file
   * @throws StateFileError when there is one that can't be used
   */
  static async read(path: string, expected: Expected): Promise<StoredState | undefined> {
    let file: FileHandle;
    try {
      file = await open(path, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw new StateFileError('STATE_FILE_UNREADABLE', reason(error), { cause: error });
    }
    try {
      await checkSafety(file);
      const scan = new Scan();
      await scan.file(file);
      const { header, savedAt, index, end, size } = scan.finish();
      check(header, savedAt, expected);
      return new StoredState(file, index, header, savedAt, size - end);
    } catch (error) {
      await file.close();
      if (error instanceof StateFileError) throw error;
      throw new StateFileError('STATE_FILE_UNREADABLE', reason(error), { cause: error });
    }
  }

  count(kind: ResourceKind): number {
    return this.index[kind].size;
  }

  /**
   * Everything, in groups of a few hundred.
   * @param broken told of an object that can't be read; the others follow
   * @throws StateFileError when the file changed since it was checked
   */
  async *objects(broken: (object: string, error: Error) => void): AsyncGenerator<readonly StoredObject[]> {
    const strings = new StringTable();
    for (const kind of kinds) {
      for await (const lines of liveLines(this.file, kind, this.index[kind])) {
        const group: StoredObject[] = [];
        for (const { key, bytes } of lines) {
          try {
            const body = recordBody(bytes.toString());
            if (body === undefined) throw new BrokenObjectError('', 'no object');
            // The codec is that of the kind; the compiler can't follow that through the union.
            group.push({ kind, key, object: codecs[kind].read(body, strings) } as StoredObject);
          } catch (error) {
            if (!(error instanceof BrokenObjectError || error instanceof SyntaxError)) throw error;
            broken(`${kind} ${key}`, error);
          }
        }
        yield group;
      }
    }
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What it says is done as root: nobody else may have written it. */
async function checkSafety(file: FileHandle): Promise<void> {
  const { uid, mode } = await file.stat();
  const unsafe = (what: string): never => {
    throw new StateFileError('STATE_FILE_UNSAFE', `${what}: make it a file that only this user may write`);
  };
  if ((mode & 0o170000) !== 0o100000) unsafe('it is not a regular file');
  if (uid !== process.geteuid?.()) unsafe(`it belongs to user ${uid}`);
  if ((mode & 0o022) !== 0) unsafe(`others may write it (mode ${(mode & 0o777).toString(8)})`);
}

function check(header: Header, savedAt: number, expected: Expected): void {
  const foreign = (what: string, theirs: string, ours: string): never => {
    throw new StateFileError(
      'STATE_FILE_FOREIGN',
      `it was written for ${what} ${JSON.stringify(theirs)}, this is ${JSON.stringify(ours)}`,
    );
  };
  if (header.node !== expected.node) foreign('node', header.node, expected.node);
  if (header.server !== expected.server) foreign('API server', header.server, expected.server);
  const ageMs = expected.now - savedAt;
  if (ageMs > expected.maxAgeMs) {
    throw new StateFileError(
      'STATE_FILE_TOO_OLD',
      `its state is of ${new Date(savedAt).toISOString()}, more than ${Math.round(expected.maxAgeMs / 3_600_000)} hours old`,
    );
  }
}

interface StagedRecord extends RecordHead {
  readonly extent: Extent;
}

/** Reads a file from start to end, group by group. */
class Scan {
  private readonly index = emptyIndex();
  private header: (Header & { readonly version: number }) | undefined;
  private savedAt = 0;
  /** Of the group at hand. */
  private group = new GroupDigest(1);
  private staged: StagedRecord[] = [];
  /** Offset in the file of the line at hand. */
  private offset = 0;
  /** Where the last complete group ends. */
  private end = 0;
  /** From here on nothing is understood any more. */
  private brokenAt: number | undefined;

  async file(file: FileHandle): Promise<void> {
    let held: Buffer = Buffer.alloc(0);
    for (let position = 0; ;) {
      const chunk = Buffer.allocUnsafe(chunkBytes);
      const { bytesRead } = await file.read(chunk, 0, chunkBytes, position);
      if (bytesRead === 0) break;
      position += bytesRead;
      const bytes = Buffer.concat([held, chunk.subarray(0, bytesRead)]);
      let start = 0;
      for (let stop = bytes.indexOf(0x0a); stop >= 0; stop = bytes.indexOf(0x0a, start)) {
        this.line(bytes, start, stop);
        start = stop + 1;
      }
      held = bytes.subarray(start);
      if (held.length > maxLineBytes) {
        throw new StateFileError('STATE_FILE_CORRUPT', `a line at byte ${this.offset} never ends`);
      }
    }
    // A line without its end.
    if (held.length > 0) this.brokenAt ??= this.offset;
    this.offset += held.length;
  }

  finish(): { header: Header; savedAt: number; index: Index; end: number; size: number } {
    const { header, index, savedAt, end, offset: size } = this;
    if (header === undefined) {
      throw new StateFileError('STATE_FILE_UNKNOWN', 'it is not a state file of kube-proxy-ts');
    }
    if (end === 0) throw new StateFileError('STATE_FILE_CORRUPT', 'it holds no complete state');
    return { header, index, savedAt, end, size };
  }

  private line(bytes: Buffer, start: number, stop: number): void {
    const offset = this.offset;
    const length = stop + 1 - start;
    this.offset += length;
    if (this.header === undefined) {
      this.takeHeader(bytes.toString('utf8', start, stop));
      return;
    }
    if (bytes[start] === 0x7b) {
      this.takeCommit(bytes.toString('utf8', start, stop), offset);
      return;
    }
    if (this.brokenAt !== undefined) return;
    const head = recordHead(bytes, start, stop);
    if (head === undefined) {
      this.brokenAt = offset;
      return;
    }
    this.group.update(bytes.subarray(start, stop + 1));
    const record = { ...head, extent: { offset, length } };
    // Without the first group nothing counts, so nothing needs to be taken back.
    if (this.group.number === 1) this.apply(record);
    else this.staged.push(record);
  }

  private apply({ kind, key, gone, extent }: StagedRecord): void {
    setExtent(this.index[kind], key, gone ? undefined : extent);
  }

  private takeHeader(line: string): void {
    const header = parseHeader(line);
    if (header === undefined) {
      throw new StateFileError('STATE_FILE_UNKNOWN', 'it is not a state file of kube-proxy-ts');
    }
    if (header.version !== formatVersion) {
      throw new StateFileError(
        'STATE_FILE_VERSION',
        `its format is version ${header.version}, this program reads version ${formatVersion}`,
      );
    }
    this.header = header;
  }

  /** A group counts as a whole or not at all, and only the last one may be incomplete. */
  private takeCommit(line: string, offset: number): void {
    const commit = parseCommit(line);
    const { number } = this.group;
    if (commit === undefined) {
      this.brokenAt ??= offset;
      return;
    }
    if (commit.number > number) {
      throw new StateFileError(
        'STATE_FILE_CORRUPT',
        `it is damaged after byte ${this.brokenAt ?? this.end}: later parts are whole`,
      );
    }
    if (this.brokenAt !== undefined) return;
    if (commit.number !== number || this.group.digest(commit.at) !== commit.digest) {
      this.brokenAt = offset;
      return;
    }
    for (const record of this.staged) this.apply(record);
    this.staged = [];
    this.savedAt = commit.at;
    this.end = this.offset;
    this.group = new GroupDigest(number + 1);
  }
}
