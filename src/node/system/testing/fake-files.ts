/** A tree of files in memory, whose writes can be made to fail the way the kernel makes them fail. */
import type { SystemFiles } from '../files.js';

function systemError(code: string, file: string): Error {
  return Object.assign(new Error(`${code}: ${file}`), { code });
}

export class FakeFiles implements SystemFiles {
  /** Every write that came through, 'path=value'. */
  readonly writes: string[] = [];
  /** Path → errno name that a write to it fails with. */
  readonly refused = new Map<string, string>();
  /** Paths whose mode has no write bit. */
  readonly readOnly = new Set<string>();
  private readonly contents: Map<string, string>;

  constructor(contents: Readonly<Record<string, string>> = {}) {
    this.contents = new Map(Object.entries(contents));
  }

  /** As if the kernel had made a file. */
  create(file: string, text: string): void {
    this.contents.set(file, text);
  }

  read(file: string): string {
    const text = this.contents.get(file);
    if (text === undefined) throw systemError('ENOENT', file);
    return text;
  }

  write(file: string, text: string): void {
    if (!this.contents.has(file)) throw systemError('ENOENT', file);
    const refusal = this.refused.get(file);
    if (refusal !== undefined) throw systemError(refusal, file);
    this.contents.set(file, text);
    this.writes.push(`${file}=${text}`);
  }

  exists(file: string): boolean {
    return [...this.contents.keys()].some((known) => known === file || known.startsWith(`${file}/`));
  }

  list(folder: string): string[] {
    if (!this.exists(folder)) throw systemError('ENOENT', folder);
    const inside = [...this.contents.keys()].filter((file) => file.startsWith(`${folder}/`));
    return [...new Set(inside.map((file) => file.slice(folder.length + 1).split('/')[0] ?? ''))];
  }

  hasWriteMode(file: string): boolean {
    return !this.readOnly.has(file);
  }
}
