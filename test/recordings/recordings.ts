/** Loads the recorded answers of this folder (see README.md). */
import { readFileSync } from 'node:fs';
import path from 'node:path';

/** Compiled code runs from dist/test/recordings; the files stay in the source tree. */
const folder = path.resolve(import.meta.dirname, '../../../test/recordings');

export interface Recording {
  readonly name: string;
  readonly status: number;
  readonly contentType: string;
  readonly retryAfter: string;
  /** Path and query of the request. */
  readonly target: string;
  readonly body: Buffer;
}

const index = JSON.parse(readFileSync(path.join(folder, 'index.json'), 'utf8')) as readonly {
  readonly name: string;
  readonly request: string;
  readonly status: string;
}[];

/** All names, e.g. 'services-list.pb'. */
export const recordingNames: readonly string[] = index.map((entry) => entry.name);

export function recording(name: string): Recording {
  const entry = index.find((candidate) => candidate.name === name);
  if (entry === undefined) throw new Error(`no recording ${name}`);
  const head = readFileSync(path.join(folder, `${name}.head`), 'utf8');
  const header = (key: string): string => new RegExp(`^${key}: (.*)$`, 'im').exec(head)?.[1]?.trim() ?? '';
  return {
    name,
    status: Number(entry.status),
    contentType: header('content-type'),
    retryAfter: header('retry-after'),
    target: entry.request.replace(/^GET /, ''),
    body: readFileSync(path.join(folder, `${name}.body`)),
  };
}
